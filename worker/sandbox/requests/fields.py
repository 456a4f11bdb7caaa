"""Helpers that validate request bodies field by field. Each error is a `ret` code (mostly 1000) with a reason."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from worker.sandbox.uploads.file_inspection import FileInfo
from worker.sandbox.uploads.store import UploadStore

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class RefusedError(Exception):
    """A refused request: the `ret` code and the reason for the ledger."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def require(condition: object, detail: str) -> None:
    if not condition:
        raise RefusedError("1000", detail)


def get_object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise RefusedError("1000", f"{name} is missing or not an object")
    return value


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_uuid(value: object) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def is_version(value: object) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def parse_object(raw: bytes | str, name: str) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("1000", f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise RefusedError("1000", f"{name} is not a JSON object")
    return value


def parse_list(raw: str, name: str) -> list[Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("1000", f"{name} is not JSON") from None
    if not isinstance(value, list):
        raise RefusedError("1000", f"{name} is not a JSON array")
    return value


def single_object(value: object, name: str) -> dict[str, Any]:
    """Return the only object of a list with exactly one object."""
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise RefusedError("1000", f"{name} does not contain exactly one object")
    only: dict[str, Any] = value[0]
    return only


def as_objects(value: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RefusedError("1000", f"{name} is not an array of objects")
    return value


@dataclass(frozen=True)
class AccountUploads:
    """The uploads of the account of a submit. Its drafts may contain only these."""

    store: UploadStore
    account: str

    def image(self, image: dict[str, Any], name: str) -> FileInfo:
        """Return the upload that an IMAGE object refers to."""
        require(image.get("type") == "image" and is_uuid(image.get("id")), f"{name} is not an image object")
        require(image.get("source_from") == "upload", f"{name}.source_from is not upload")
        uri = image.get("image_uri")
        require(isinstance(uri, str) and uri and image.get("uri") == uri, f"{name} has different image_uri and uri")
        file_info = self.store.image(self.account, str(uri))
        if file_info is None:
            raise RefusedError("1000", f"{name}: uri {str(uri)[:80]!r} is not a committed upload of this account")
        size = [image.get("width"), image.get("height")]
        # Most clients send zeros; any other size must be correct.
        require(
            size in ([0, 0], [file_info.width, file_info.height]),
            f"{name}: width and height are not those of the upload",
        )
        return file_info

    def media(self, info: dict[str, Any], name: str) -> FileInfo:
        """Return the upload that the info of a video or audio file refers to."""
        require(info.get("source_from") == "upload", f"{name}.source_from is not upload")
        file_info = self.store.media(self.account, str(info.get("vid")))
        if file_info is None:
            raise RefusedError("1000", f"{name}: vid {str(info.get('vid'))[:80]!r} is not an upload of this account")
        return file_info
