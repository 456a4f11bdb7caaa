"""Uploading in four steps: token, apply, bytes, commit. Pictures by protocol sections 5.1 to 5.5, media by 5.7.

Nothing here costs credits, so every failure to reach a host is NotSentError: the caller may repeat the whole upload.
"""

import hashlib
import re
import secrets
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import orjson

from worker.core.errors import DreameryError
from worker.providers.base import Account, Material, NotSentError, Reference
from worker.providers.dreamina.error_codes import clean
from worker.providers.dreamina.http import Wire
from worker.providers.dreamina.regions import Site, authority
from worker.providers.dreamina.signing import Keys, aws_headers, canonical_query

# The gateway rule of section 5.3.
MAX_BYTES = 100 * 1024 * 1024
_VERSION = "2018-08-01"
_MEDIA_VERSION = "2020-11-19"
_STORED = 2000
_PIECE = 262_144
_CREDENTIALS_KEPT = 1024
# Credentials live about an hour, which is not documented; half of what the answer says, and never more, is safe.
_LIFETIME = 3600.0
_URI = re.compile(r"[A-Za-z0-9._~:@+=-]+(/[A-Za-z0-9._~:@+=-]+)*")
_HEADER = re.compile(r"[!-~]([ -~]{0,4094}[!-~])?")
_FORMAT = re.compile(r"[a-z0-9]{1,16}")

# Asks `get_upload_token` within so many seconds; the answer's data.
TokenCall = Callable[[float], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Access:
    """Where and with what an account may upload for a while."""

    keys: Keys = field(repr=False)
    host: str
    service: str
    until: float


@dataclass(frozen=True, slots=True)
class _Slot:
    """One place for one file."""

    host: str
    uri: str
    auth: str = field(repr=False)
    session_key: str = field(repr=False)


class Uploads:
    """Uploads over the wire, with the credentials of each account cached. Safe between threads."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Access] = OrderedDict()

    def image(
        self, account: Account, site: Site, data: bytes | BinaryIO, ask_token: TokenCall, *, seconds: float | None
    ) -> Reference:
        """The uploaded picture. `seconds` is the deadline of all four steps together."""
        upload = _Upload(self._wire, account, site, time.monotonic() + (seconds or self._wire.seconds))
        return upload.commit(*self._stored(upload, data, ask_token, _cache_key(account, site, "imagex")))

    def media(
        self,
        account: Account,
        site: Site,
        data: bytes | BinaryIO,
        ask_token: TokenCall,
        *,
        kind: str,
        seconds: float | None,
    ) -> Material:
        """The uploaded video or sound, within `seconds` for all four steps together."""
        upload = _MediaUpload(self._wire, account, site, time.monotonic() + (seconds or self._wire.seconds))
        upload.kind = kind
        return upload.finish(*self._stored(upload, data, ask_token, _cache_key(account, site, "vod")))

    def _stored(
        self, upload: "_Upload", data: bytes | BinaryIO, ask_token: TokenCall, key: str
    ) -> tuple["_Access", "_Slot"]:
        """The first three steps, with new credentials only when there are none that work."""
        size, crc = _measure(data)
        access = self._remembered(key)
        if access:
            try:
                slot = upload.apply(access, size)
            except DreameryError as failure:
                if failure.code not in {"upstream_error", "upstream_sign_error"}:
                    raise
                # The credentials may have died early: once more with new ones.
                access = None
        if access is None:
            access = self._remember(key, upload.access(ask_token(upload.left())))
            slot = upload.apply(access, size)
        upload.put(slot, data, size, crc)
        return access, slot

    def _remembered(self, key: str) -> _Access | None:
        with self._lock:
            access = self._known.get(key)
            if access is None or access.until <= time.monotonic():
                return None
            self._known.move_to_end(key)
            return access

    def _remember(self, key: str, access: _Access) -> _Access:
        with self._lock:
            self._known[key] = access
            self._known.move_to_end(key)
            if len(self._known) > _CREDENTIALS_KEPT:
                self._known.popitem(last=False)
        return access


class _Upload:
    """The calls of one upload of a picture."""

    service = "imagex"
    # The name of the caller's file is nobody's business; other clients send this word as well.
    extra_headers: ClassVar[dict[str, str]] = {"Content-Disposition": 'attachment; filename="undefined"'}

    def __init__(self, wire: Wire, account: Account, site: Site, until: float) -> None:
        self._wire = wire
        self._account = account
        self._site = site
        self._until = until

    def left(self) -> float:
        """Seconds left of the whole upload."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise NotSentError("upload: total deadline")
        return left

    def apply(self, access: _Access, size: int) -> _Slot:
        """Section 5.2: a place for a file of this size."""
        query = {
            "Action": "ApplyImageUpload",
            "FileSize": str(size),
            "ServiceId": access.service,
            "Version": _VERSION,
            "s": secrets.token_hex(5),
        }
        if not self._site.cn:
            query["device_platform"] = "web"
        address = _dict(self._signed(access, "GET", query, b"").get("UploadAddress"))
        store = _first(address.get("StoreInfos"))
        hosts = address.get("UploadHosts")
        host = (hosts[0] if isinstance(hosts, list) and hosts else None) or address.get("UploadHost")
        return _slot(host, store, address.get("SessionKey"))

    def access(self, data: dict[str, Any]) -> _Access:
        """What `get_upload_token` gave (section 5.1)."""
        return _access(data, self._site.upload_host, self._site.upload_service)

    def put(self, slot: _Slot, data: bytes | BinaryIO, size: int, crc: str) -> None:
        """Section 5.3: the bytes."""
        headers = {
            "Authorization": slot.auth,
            "Content-CRC32": crc,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            **self.extra_headers,
        }
        url = f"{self._site.upload_origin(slot.host)}/upload/v1/{slot.uri}"
        body = data if isinstance(data, bytes) else _pieces(data)
        answer = self._answer("upload", self._send("POST", url, headers, body, self.left()))
        if answer.get("code") != _STORED:
            raise _strange(f"upload: code={answer.get('code')} {answer.get('message')}")

    def commit(self, access: _Access, slot: _Slot) -> Reference:
        """Section 5.4. A failed commit fails: an uncommitted picture may not be readable (section 11, row 12)."""
        query = {"Action": "CommitImageUpload", "ServiceId": access.service, "Version": _VERSION}
        result = self._signed(access, "POST", query, orjson.dumps({"SessionKey": slot.session_key}))
        stored = _first(result.get("Results"))
        if stored.get("UriStatus") != _STORED:
            raise _strange(f"CommitImageUpload: UriStatus={stored.get('UriStatus')}")
        uri = stored.get("Uri")
        told = _first(result.get("PluginResult"))
        kind = str(told.get("ImageFormat") or "").lower()
        return Reference(
            uri=uri if isinstance(uri, str) and _matches(_URI, uri) else slot.uri,
            width=_pixels(told.get("ImageWidth")),
            height=_pixels(told.get("ImageHeight")),
            format=kind if _FORMAT.fullmatch(kind) else "",
        )

    def _signed(self, access: _Access, method: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = aws_headers(
            access.keys, method, query, body, moment=moment, region=self._site.aws_region, service=self.service
        )
        if body:
            headers["Content-Type"] = "application/json"
        url = f"{self._site.upload_origin(access.host)}/?{canonical_query(query)}"
        action = query["Action"]
        # Only the bytes of a file may take longer than a call.
        seconds = min(self.left(), self._wire.seconds)
        answer = self._answer(action, self._send(method, url, headers, body, seconds))
        about = _dict(answer.get("ResponseMetadata"))
        error = about.get("Error")
        if error or about.get("Action") != action:
            told = _dict(error)
            code = "upstream_sign_error" if "Signature" in str(told.get("Code")) else "upstream_error"
            raise DreameryError(code, detail=clean(f"{action}: {told.get('Code')} {told.get('Message')}"))
        return _dict(answer.get("Result"))

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Iterator[bytes], seconds: float
    ) -> tuple[int, bytes]:
        return self._wire.send(
            self._account, self._site, method=method, url=url, headers=headers, body=body, seconds=seconds
        )

    def _answer(self, what: str, answer: tuple[int, bytes]) -> dict[str, Any]:
        """The JSON of an answer; a refusal of an upload host is JSON too, with any HTTP status."""
        status, content = answer
        try:
            value = orjson.loads(content) if status < 500 else None
        except orjson.JSONDecodeError:
            value = None
        if status == 429:
            raise DreameryError("rate_limit_exceeded", detail=f"{what}: HTTP 429")
        if not isinstance(value, dict):
            raise NotSentError(f"{what}: HTTP {status}, {len(content)} bytes, no JSON object")
        if status >= 400 and not _dict(value.get("ResponseMetadata")).get("Error"):
            raise _strange(f"{what}: HTTP {status} code={value.get('code')} {value.get('message')}")
        return value


class _MediaUpload(_Upload):
    """The calls of one upload of a video or sound (section 5.7)."""

    service = "vod"
    kind = "video"
    extra_headers: ClassVar[dict[str, str]] = {}

    def access(self, data: dict[str, Any]) -> _Access:
        """What `get_upload_token` gave for scene 1."""
        return _access(data, self._site.vod_host, self._site.vod_service)

    def apply(self, access: _Access, size: int) -> _Slot:
        """A place for a file of this size."""
        query = {
            "Action": "ApplyUploadInner",
            "FileSize": str(size),
            "FileType": self.kind,
            "IsInner": "1",
            "SpaceName": access.service,
            "Version": _MEDIA_VERSION,
            "s": secrets.token_hex(5),
        }
        nodes = _dict(self._signed(access, "GET", query, b"").get("InnerUploadAddress")).get("UploadNodes")
        node = _first(nodes)
        return _slot(node.get("UploadHost"), _first(node.get("StoreInfos")), node.get("SessionKey"))

    def finish(self, access: _Access, slot: _Slot) -> Material:
        """The commit, which names the file and measures it."""
        query = {"Action": "CommitUploadInner", "SpaceName": access.service, "Version": _MEDIA_VERSION}
        body = orjson.dumps({"SessionKey": slot.session_key, "Functions": []})
        stored = _first(self._signed(access, "POST", query, body).get("Results"))
        vid, told = stored.get("Vid"), _dict(stored.get("VideoMeta"))
        if not (isinstance(vid, str) and _matches(_URI, vid)):
            raise _strange("CommitUploadInner: an answer without Vid")
        length = told.get("Duration")
        known = isinstance(length, int | float) and not isinstance(length, bool) and 0 < length < 86_400
        return Material(
            kind=self.kind,
            vid=vid,
            width=_pixels(told.get("Width")),
            height=_pixels(told.get("Height")),
            milliseconds=round(float(length) * 1000) if known and length else 0,
        )


def _slot(host: Any, store: dict[str, Any], session_key: Any) -> _Slot:
    place, uri, auth = authority(host), store.get("StoreUri"), store.get("Auth")
    if not (place and _matches(_URI, uri) and _matches(_HEADER, auth) and isinstance(session_key, str)):
        raise _strange("apply: an answer without a usable upload address")
    return _Slot(place, str(uri), str(auth), session_key)


def _access(data: dict[str, Any], default_host: str, default_service: str) -> _Access:
    values = [data.get(name) for name in ("access_key_id", "secret_access_key", "session_token")]
    if not all(_matches(_HEADER, value) for value in values):
        raise _strange("get_upload_token: an answer without credentials")
    keys = Keys(*(str(value) for value in values))
    service = next(
        (str(v) for v in (data.get("space_name"), data.get("service_id")) if isinstance(v, str) and v.strip()),
        default_service,
    )
    lifetime = min(_seconds(data.get("expired_time")) - _seconds(data.get("current_time")), _LIFETIME)
    if lifetime <= 0:
        lifetime = _LIFETIME
    host = authority(data.get("upload_domain")) or default_host
    return _Access(keys, host, service, time.monotonic() + lifetime / 2)


def _measure(data: bytes | BinaryIO) -> tuple[int, str]:
    """Size and CRC-32 as eight lower hex digits; a file is read from its start and put back there."""
    size = crc = 0
    if isinstance(data, bytes):
        size, crc = len(data), zlib.crc32(data)
    else:
        data.seek(0)
        for piece in _pieces(data):
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            if size > MAX_BYTES:
                break
        data.seek(0)
    if not 0 < size <= MAX_BYTES:
        raise DreameryError("invalid_value", f"A file must have between 1 byte and {MAX_BYTES // 2**20} MiB.")
    return size, f"{crc:08x}"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _cache_key(account: Account, site: Site, service: str) -> str:
    """Per account, session and site: credentials of an old session are not used for a new one."""
    return hashlib.sha256(f"{account.id}\0{account.session}\0{site.mweb}\0{service}".encode()).hexdigest()


def _strange(detail: str) -> DreameryError:
    return DreameryError("upstream_error", detail=clean(detail))


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None and "/../" not in f"/{value}/"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> dict[str, Any]:
    return _dict(value[0]) if isinstance(value, list) and value else {}


def _pixels(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100_000 else 0


def _seconds(value: Any) -> float:
    text = str(value)
    return float(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0.0
