"""Uploads files in four steps: token, apply, bytes, commit. Images: protocol sections 5.1 to 5.5, video and audio: 5.7.

Uploads cost no credits, so every failure to reach a host is NotSentError: the caller may repeat the whole upload.
"""

import hashlib
import re
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import orjson

from worker.core.concurrency.event_loop import in_files_thread
from worker.core.concurrency.transfer_rate import TransferRate
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.providers.base import Account, Material, NotSentError, Reference
from worker.providers.dreamina.error_codes import clean
from worker.providers.dreamina.http import UpstreamHttp
from worker.providers.dreamina.regions import Site, authority
from worker.providers.dreamina.signing import AwsCredentials, canonical_query, sign_aws_request

# The gateway rule of section 5.3.
MAX_BYTES = 100 * 1024 * 1024
_VERSION = "2018-08-01"
_MEDIA_VERSION = "2020-11-19"
_STORED = 2000
_CHUNK_BYTES = 1_048_576
# A piece is written within the write timeout, so its size decides which rate is too slow for it.
_PIECE_BYTES = 65_536
_MAX_CACHED_CREDENTIALS = 1024
# Credentials are valid for about an hour (undocumented); at most half of the stated lifetime is used.
_MAX_LIFETIME = 3600.0
_URI = re.compile(r"[A-Za-z0-9._~:@+=-]+(/[A-Za-z0-9._~:@+=-]+)*")
_HEADER = re.compile(r"[!-~]([ -~]{0,4094}[!-~])?")
_FORMAT = re.compile(r"[a-z0-9]{1,16}")

# Calls `get_upload_token` within the given seconds and returns the data of the response.
FetchUploadToken = Callable[[float], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _UploadAccess:
    """The host and the temporary credentials with which an account may upload."""

    keys: AwsCredentials = field(repr=False)
    host: str
    service: str
    until: float


@dataclass(frozen=True, slots=True)
class _UploadTarget:
    """The upload target of one file."""

    host: str
    uri: str
    auth: str = field(repr=False)
    session_key: str = field(repr=False)


class Uploader:
    """Uploads files and caches the upload credentials of each account. Use it on one event loop."""

    def __init__(self, http: UpstreamHttp) -> None:
        self._http = http
        self._cache: OrderedDict[str, _UploadAccess] = OrderedDict()

    async def upload_image(
        self,
        account: Account,
        site: Site,
        data: bytes | BinaryIO,
        fetch_token: FetchUploadToken,
        *,
        seconds: float | None,
    ) -> Reference:
        """Upload an image and return it. `seconds` is the total deadline of all four steps."""
        upload = _Upload(self._http, account, site, time.monotonic() + (seconds or self._http.seconds))
        return await upload.commit(*await self._store(upload, data, fetch_token, _cache_key(account, site, "imagex")))

    async def upload_media(
        self,
        account: Account,
        site: Site,
        data: bytes | BinaryIO,
        fetch_token: FetchUploadToken,
        *,
        kind: str,
        seconds: float | None,
    ) -> Material:
        """Upload a video or audio file and return it. `seconds` is the total deadline of all four steps."""
        upload = _MediaUpload(self._http, account, site, time.monotonic() + (seconds or self._http.seconds))
        upload.kind = kind
        return await upload.finish(*await self._store(upload, data, fetch_token, _cache_key(account, site, "vod")))

    async def _store(
        self, upload: "_Upload", data: bytes | BinaryIO, fetch_token: FetchUploadToken, key: str
    ) -> tuple["_UploadAccess", "_UploadTarget"]:
        """Run the first three steps. New credentials are fetched only if no cached ones work."""
        size, crc = await in_files_thread(_measure, data)
        access = self._cached(key)
        if access:
            try:
                target = await upload.apply(access, size)
            except DreameryError as failure:
                if failure.code not in {"upstream_error", "upstream_sign_error"}:
                    raise
                # The credentials may have expired early: try once more with new ones.
                access = None
        if access is None:
            access = self._put_in_cache(key, upload.access(await fetch_token(upload.remaining())))
            target = await upload.apply(access, size)
        await upload.put(target, data, size, crc)
        return access, target

    def _cached(self, key: str) -> _UploadAccess | None:
        access = self._cache.get(key)
        if access is None or access.until <= time.monotonic():
            return None
        self._cache.move_to_end(key)
        return access

    def _put_in_cache(self, key: str, access: _UploadAccess) -> _UploadAccess:
        self._cache[key] = access
        self._cache.move_to_end(key)
        if len(self._cache) > _MAX_CACHED_CREDENTIALS:
            self._cache.popitem(last=False)
        return access


class _Upload:
    """The calls of one image upload."""

    service = "imagex"
    # Hides the name of the caller's file; other clients send this value too.
    extra_headers: ClassVar[dict[str, str]] = {"Content-Disposition": 'attachment; filename="undefined"'}

    def __init__(self, http: UpstreamHttp, account: Account, site: Site, until: float) -> None:
        self._http = http
        self._account = account
        self._site = site
        self._until = until

    def remaining(self) -> float:
        """Return the seconds left for the whole upload."""
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise NotSentError("upload: total deadline")
        return remaining

    async def apply(self, access: _UploadAccess, size: int) -> _UploadTarget:
        """Section 5.2: request an upload target for a file of this size."""
        query = {
            "Action": "ApplyImageUpload",
            "FileSize": str(size),
            "ServiceId": access.service,
            "Version": _VERSION,
            "s": secrets.token_hex(5),
        }
        if not self._site.cn:
            query["device_platform"] = "web"
        address = _dict((await self._signed(access, "GET", query, b"")).get("UploadAddress"))
        store = _first(address.get("StoreInfos"))
        hosts = address.get("UploadHosts")
        host = (hosts[0] if isinstance(hosts, list) and hosts else None) or address.get("UploadHost")
        return _target(host, store, address.get("SessionKey"))

    def access(self, data: dict[str, Any]) -> _UploadAccess:
        """Read the response of `get_upload_token` (section 5.1)."""
        return _access(data, self._site.upload_host, self._site.upload_service)

    async def put(self, target: _UploadTarget, data: bytes | BinaryIO, size: int, crc: str) -> None:
        """Section 5.3: send the bytes."""
        headers = {
            "Authorization": target.auth,
            "Content-CRC32": crc,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            **self.extra_headers,
        }
        url = f"{self._site.upload_origin(target.host)}/upload/v1/{target.uri}"
        body = _iter_pieces(data)
        answer = self._parse_response("upload", await self._send("POST", url, headers, body, self.remaining()))
        if answer.get("code") != _STORED:
            raise _bad_response(f"upload: code={answer.get('code')} {answer.get('message')}")

    async def commit(self, access: _UploadAccess, target: _UploadTarget) -> Reference:
        """Section 5.4: commit. A failure is final: an uncommitted image may be unreadable (section 11, row 12)."""
        query = {"Action": "CommitImageUpload", "ServiceId": access.service, "Version": _VERSION}
        result = await self._signed(access, "POST", query, orjson.dumps({"SessionKey": target.session_key}))
        stored = _first(result.get("Results"))
        if stored.get("UriStatus") != _STORED:
            raise _bad_response(f"CommitImageUpload: UriStatus={stored.get('UriStatus')}")
        uri = stored.get("Uri")
        info = _first(result.get("PluginResult"))
        kind = str(info.get("ImageFormat") or "").lower()
        return Reference(
            uri=uri if isinstance(uri, str) and _matches(_URI, uri) else target.uri,
            width=_pixels(info.get("ImageWidth")),
            height=_pixels(info.get("ImageHeight")),
            format=kind if _FORMAT.fullmatch(kind) else "",
        )

    async def _signed(self, access: _UploadAccess, method: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = sign_aws_request(
            access.keys, method, query, body, moment=moment, region=self._site.aws_region, service=self.service
        )
        if body:
            headers["Content-Type"] = "application/json"
        url = f"{self._site.upload_origin(access.host)}/?{canonical_query(query)}"
        action = query["Action"]
        # Only sending the bytes may take longer than a call.
        seconds = min(self.remaining(), self._http.seconds)
        answer = self._parse_response(action, await self._send(method, url, headers, body, seconds))
        response_metadata = _dict(answer.get("ResponseMetadata"))
        error = response_metadata.get("Error")
        if error or response_metadata.get("Action") != action:
            fault = _dict(error)
            code = "upstream_sign_error" if "Signature" in str(fault.get("Code")) else "upstream_error"
            raise DreameryError(code, detail=clean(f"{action}: {fault.get('Code')} {fault.get('Message')}"))
        return _dict(answer.get("Result"))

    async def _send(
        self, method: str, url: str, headers: dict[str, str], body: bytes | AsyncIterator[bytes], seconds: float
    ) -> tuple[int, bytes]:
        return await self._http.send(
            self._account, self._site, method=method, url=url, headers=headers, body=body, seconds=seconds
        )

    def _parse_response(self, step: str, response: tuple[int, bytes]) -> dict[str, Any]:
        """Return the JSON of a response. An upload host also refuses with JSON, under any HTTP status."""
        status, content = response
        try:
            value = orjson.loads(content) if status < 500 else None
        except orjson.JSONDecodeError:
            value = None
        if status == 429:
            raise DreameryError("rate_limit_exceeded", detail=f"{step}: HTTP 429")
        if not isinstance(value, dict):
            raise NotSentError(f"{step}: HTTP {status}, {len(content)} bytes, not a JSON object")
        if status >= 400 and not _dict(value.get("ResponseMetadata")).get("Error"):
            raise _bad_response(f"{step}: HTTP {status} code={value.get('code')} {value.get('message')}")
        return value


class _MediaUpload(_Upload):
    """The calls of one video or audio upload (section 5.7)."""

    service = "vod"
    kind = "video"
    extra_headers: ClassVar[dict[str, str]] = {}

    def access(self, data: dict[str, Any]) -> _UploadAccess:
        """Read the response of `get_upload_token` for scene 1."""
        return _access(data, self._site.vod_host, self._site.vod_service)

    async def apply(self, access: _UploadAccess, size: int) -> _UploadTarget:
        """Request an upload target for a file of this size."""
        query = {
            "Action": "ApplyUploadInner",
            "FileSize": str(size),
            "FileType": self.kind,
            "IsInner": "1",
            "SpaceName": access.service,
            "Version": _MEDIA_VERSION,
            "s": secrets.token_hex(5),
        }
        address = _dict((await self._signed(access, "GET", query, b"")).get("InnerUploadAddress"))
        node = _first(address.get("UploadNodes"))
        return _target(node.get("UploadHost"), _first(node.get("StoreInfos")), node.get("SessionKey"))

    async def finish(self, access: _UploadAccess, target: _UploadTarget) -> Material:
        """Commit; the response has the id and the properties of the file."""
        query = {"Action": "CommitUploadInner", "SpaceName": access.service, "Version": _MEDIA_VERSION}
        body = orjson.dumps({"SessionKey": target.session_key, "Functions": []})
        stored = _first((await self._signed(access, "POST", query, body)).get("Results"))
        vid, info = stored.get("Vid"), _dict(stored.get("VideoMeta"))
        if not (isinstance(vid, str) and _matches(_URI, vid)):
            raise _bad_response("CommitUploadInner: a response without Vid")
        length = info.get("Duration")
        known = isinstance(length, int | float) and not isinstance(length, bool) and 0 < length < 86_400
        return Material(
            kind=self.kind,
            upload_id=vid,
            width=_pixels(info.get("Width")),
            height=_pixels(info.get("Height")),
            milliseconds=round(float(length) * 1000) if known and length else 0,
        )


def _target(host: Any, store: dict[str, Any], session_key: Any) -> _UploadTarget:
    authority_name, uri, auth = authority(host), store.get("StoreUri"), store.get("Auth")
    if not (authority_name and _matches(_URI, uri) and _matches(_HEADER, auth) and isinstance(session_key, str)):
        raise _bad_response("apply: a response without a usable upload address")
    return _UploadTarget(authority_name, str(uri), str(auth), session_key)


def _access(data: dict[str, Any], default_host: str, default_service: str) -> _UploadAccess:
    values = [data.get(name) for name in ("access_key_id", "secret_access_key", "session_token")]
    if not all(_matches(_HEADER, value) for value in values):
        raise _bad_response("get_upload_token: a response without credentials")
    keys = AwsCredentials(*(str(value) for value in values))
    service = next(
        (str(v) for v in (data.get("space_name"), data.get("service_id")) if isinstance(v, str) and v.strip()),
        default_service,
    )
    lifetime = min(_seconds(data.get("expired_time")) - _seconds(data.get("current_time")), _MAX_LIFETIME)
    if lifetime <= 0:
        lifetime = _MAX_LIFETIME
    host = authority(data.get("upload_domain")) or default_host
    return _UploadAccess(keys, host, service, time.monotonic() + lifetime / 2)


def _measure(data: bytes | BinaryIO) -> tuple[int, str]:
    """Return size and CRC-32 (eight lower-case hex digits). A file is read from its start and rewound."""
    size = crc = 0
    if isinstance(data, bytes):
        size, crc = len(data), zlib.crc32(data)
    else:
        data.seek(0)
        for chunk in _iter_chunks(data):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
            if size > MAX_BYTES:
                break
        data.seek(0)
    if not 0 < size <= MAX_BYTES:
        raise DreameryError("invalid_value", f"The file size must be between 1 byte and {MAX_BYTES // 2**20} MiB.")
    return size, f"{crc:08x}"


def _iter_chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


async def _iter_pieces(data: bytes | BinaryIO) -> AsyncIterator[bytes]:
    """Yield the body piece by piece. Raises SlowTransferError when they are taken too slowly."""
    rate = TransferRate(get_settings().min_transfer_bytes_per_second)
    if isinstance(data, bytes):
        for start in range(0, len(data), _PIECE_BYTES):
            rate.add(_PIECE_BYTES)
            yield data[start : start + _PIECE_BYTES]
        return
    while chunk := await in_files_thread(data.read, _CHUNK_BYTES):
        for start in range(0, len(chunk), _PIECE_BYTES):
            rate.add(_PIECE_BYTES)
            yield chunk[start : start + _PIECE_BYTES]


def _cache_key(account: Account, site: Site, service: str) -> str:
    """Return a key per account, session and site: a new session never uses the credentials of an old one."""
    return hashlib.sha256(f"{account.id}\0{account.session}\0{site.mweb}\0{service}".encode()).hexdigest()


def _bad_response(detail: str) -> DreameryError:
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
