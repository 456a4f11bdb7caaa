"""Reading the body of a submit field by field: every mistake ends as `ret` 1000 (or another code) with its reason."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from worker.sandbox.uploads.file_inspection import Contents
from worker.sandbox.uploads.store import Vault

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class RefusedError(Exception):
    """Carries the `ret` code and, for the ledger, what was wrong."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def need(condition: object, detail: str) -> None:
    if not condition:
        raise RefusedError("1000", detail)


def child(parent: dict[str, Any], name: str) -> dict[str, Any]:
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


def as_object(raw: bytes | str, name: str) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("1000", f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise RefusedError("1000", f"{name} is not a JSON object")
    return value


def as_list(raw: str, name: str) -> list[Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("1000", f"{name} is not JSON") from None
    if not isinstance(value, list):
        raise RefusedError("1000", f"{name} is not a JSON array")
    return value


def only_one(value: object, name: str) -> dict[str, Any]:
    """The single object of a list that must hold exactly one."""
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise RefusedError("1000", f"{name} does not hold exactly one object")
    found: dict[str, Any] = value[0]
    return found


def objects(value: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RefusedError("1000", f"{name} is not an array of objects")
    return value


@dataclass(frozen=True)
class Belongings:
    """What the account of a submit has uploaded: nothing else may appear in its drafts."""

    vault: Vault
    account: str

    def image(self, image: dict[str, Any], name: str) -> Contents:
        """The upload behind an IMAGE object."""
        need(image.get("type") == "image" and is_uuid(image.get("id")), f"{name} is no image object")
        need(image.get("source_from") == "upload", f"{name}.source_from is not upload")
        uri = image.get("image_uri")
        need(isinstance(uri, str) and uri and image.get("uri") == uri, f"{name} has not the same image_uri and uri")
        found = self.vault.picture(self.account, str(uri))
        if found is None:
            raise RefusedError("1000", f"{name}: uri {str(uri)[:80]!r} is no committed upload of this account")
        told = [image.get("width"), image.get("height")]
        # Zeros are what most clients send; a size that is told must be true.
        need(told in ([0, 0], [found.width, found.height]), f"{name}: width and height are not those of the upload")
        return found

    def media(self, info: dict[str, Any], name: str) -> Contents:
        """The upload behind the info of a video or sound."""
        need(info.get("source_from") == "upload", f"{name}.source_from is not upload")
        found = self.vault.media(self.account, str(info.get("vid")))
        if found is None:
            raise RefusedError("1000", f"{name}: vid {str(info.get('vid'))[:80]!r} is no upload of this account")
        return found
