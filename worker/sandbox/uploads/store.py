"""Uploads: short-lived credentials, upload addresses, and the files an account can use in its drafts."""

import base64
import calendar
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from worker.sandbox.kept.state_file import StateFile
from worker.sandbox.models.hosts import STORE_HOST, UPLOAD_HOSTS, VOD_HOST
from worker.sandbox.uploads.file_inspection import FileInfo, Thumbnail
from worker.sandbox.uploads.sigv4 import canonical_request, read_authorization, signature

MAX_BYTES = 100 * 1024 * 1024
CREDENTIAL_SECONDS = 3600
_CLOCK_TOLERANCE = 900
_KEEP = 20_000
_KEEP_THUMBS = 2_000
_SPACES = {"cn": "tb4s082cfz", "us": "wopfjsm1ax", "asia": "wopfjsm1ax"}
_STORES = {"cn": "tos-cn-i", "us": "tos-useast5-i", "asia": "tos-alisg-i"}
_REGIONS = {"cn": "cn", "us": "us", "asia": "sg"}


class UploadError(Exception):
    """An error of the upload gateways, returned as `ResponseMetadata.Error`."""

    def __init__(self, status: int, number: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.number = number
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Credential:
    account: str
    key: str
    secret: str
    token: str
    service: str
    space: str
    domain: str
    store: str
    # Host that receives the bytes: the sandbox itself, or upstream's host name.
    store_host: str
    expires: float
    # Whether its addresses name their host only as `UploadHost`.
    singular: bool = False


@dataclass
class Upload:
    """One upload address: applied for, then filled, then committed."""

    credential: Credential
    uri: str
    vid: str
    auth: str
    session_key: str
    size: int
    file_info: FileInfo | None = None
    filled: bool = False
    committed: bool = False


class UploadStore:
    """All uploads of this process. Keeps facts and thumbnails instead of the bytes."""

    def __init__(self, kept: StateFile | None = None) -> None:
        self._kept = kept
        self._credentials: OrderedDict[str, Credential] = OrderedDict()
        self._by_uri: OrderedDict[str, Upload] = OrderedDict()
        self._by_key: OrderedDict[str, Upload] = OrderedDict()
        self._by_vid: OrderedDict[str, Upload] = OrderedDict()
        self._thumbnails: OrderedDict[str, Thumbnail] = OrderedDict()

    def issue_credential(
        self, account: str, *, video: bool, site: str, own_host: str | None, now: float, singular: bool = False
    ) -> dict[str, Any]:
        """Create the credential of `get_upload_token`.

        `own_host` = the sandbox's host and port, for clients that do not know upstream's hosts.
        """
        space = "dreamina" if video else _SPACES[site]
        domain = own_host or (VOD_HOST if video else UPLOAD_HOSTS[site])
        credential = Credential(
            account=account,
            key=f"AKTP{secrets.token_hex(12).upper()}",
            secret=secrets.token_urlsafe(24),
            token=f"STS2{secrets.token_urlsafe(32)}",
            service="vod" if video else "imagex",
            space=space,
            domain=domain,
            store="tos-cn-v" if video else _STORES[site],
            store_host=own_host or STORE_HOST,
            expires=now + CREDENTIAL_SECONDS,
            singular=singular,
        )
        _store(self._credentials, credential.key, credential)
        data = {
            "access_key_id": credential.key,
            "secret_access_key": credential.secret,
            "session_token": credential.token,
            "space_name": space,
            "upload_domain": domain,
            "region": "cn" if video else _REGIONS[site],
            "current_time": str(int(now)),
            "expired_time": str(int(credential.expires)),
        }
        return {**data, "service_id": space} if site == "cn" and not video else data

    def authorize(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes, *, service: str, now: float
    ) -> Credential:
        """Validate the signature of a call and return its credential. Raises UploadError."""
        claim = read_authorization(headers.get("authorization", ""))
        if claim is None:
            raise _denied("MissingAuthenticationToken", "Authorization is missing or malformed")
        credential = self._credentials.get(claim.key)
        if credential is None or credential.expires <= now or credential.service != service:
            raise _denied("InvalidAccessKeyId", "the access key is unknown, expired or for another service")
        if headers.get("x-amz-security-token") != credential.token:
            raise _denied("InvalidSecurityToken", "x-amz-security-token does not belong to the access key")
        stamp = headers.get("x-amz-date", "")
        if (
            claim.service != service
            or not stamp.startswith(f"{claim.day}T")
            or abs(_parse_stamp(stamp) - now) > (_CLOCK_TOLERANCE)
        ):
            raise _denied(
                "RequestExpired", "x-amz-date or the credential scope does not match the time or this service"
            )
        required = {"x-amz-date", "x-amz-security-token"}
        if not required <= set(claim.names) or list(claim.names) != sorted(claim.names):
            raise _denied("IncompleteSignature", "SignedHeaders lacks x-amz-date or the token, or is not sorted")
        text = canonical_request(method, query, headers, claim.names, body)
        expected = signature(text, secret=credential.secret, stamp=stamp, claim=claim)
        # The hash of the body is part of the signed text, so the header must contain the same hash.
        body_hash = headers.get("x-amz-content-sha256", text[-64:])
        if expected != claim.signature or body_hash != text[-64:]:
            raise _denied(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided",
            )
        return credential

    def apply(self, credential: Credential, query: str) -> Upload:
        """Create an upload address. Each call creates a new one, also for equal bytes."""
        parameters = {name: values[0] for name, values in parse_qs(query).items()}
        space = parameters.get("SpaceName" if credential.service == "vod" else "ServiceId")
        if space != credential.space:
            raise UploadError(400, 100004, "InvalidParameter", f"the token is not for space {str(space)[:40]!r}")
        size = parameters.get("FileSize", "")
        if not size.isascii() or not size.isdigit() or not 0 < int(size[:12]) <= MAX_BYTES:
            raise UploadError(400, 100004, "InvalidParameter", "FileSize is not in 1..104857600")
        name = secrets.token_hex(16)
        upload = Upload(
            credential=credential,
            uri=f"{credential.store}-{credential.space}/{name}",
            vid=f"v0sandbox{name[:16]}" if credential.service == "vod" else "",
            auth=f"SpaceKey/{credential.space}/1/:version:v2:{secrets.token_urlsafe(24)}",
            session_key=base64.b64encode(secrets.token_bytes(24)).decode(),
            size=int(size),
        )
        _store(self._by_uri, upload.uri, upload)
        _store(self._by_key, upload.session_key, upload)
        if upload.vid:
            _store(self._by_vid, upload.vid, upload)
        return upload

    def find_upload(self, uri: str) -> Upload | None:
        return self._by_uri.get(uri)

    def add_file_info(self, upload: Upload, file_info: FileInfo | None) -> None:
        """Store the facts of received bytes; equal thumbnails are kept once."""
        upload.filled = True
        if file_info and file_info.thumbnail:
            thumbnail = self._thumbnails.setdefault(file_info.thumbnail.digest, file_info.thumbnail)
            file_info = replace(file_info, thumbnail=thumbnail)
            if len(self._thumbnails) > _KEEP_THUMBS:
                self._thumbnails.popitem(last=False)
        upload.file_info = file_info

    def commit(self, credential: Credential, session_key: object) -> Upload:
        upload = self._by_key.get(session_key) if isinstance(session_key, str) else None
        if upload is None or upload.credential.account != credential.account:
            raise UploadError(
                400, 100004, "InvalidSessionKey", "SessionKey does not belong to an upload of this account"
            )
        if upload.credential.service != credential.service or not upload.filled:
            raise UploadError(400, 100005, "ObjectNotFound", "nothing was uploaded to this address")
        if upload.file_info is None:
            raise UploadError(400, 100006, "InvalidFormat", "the uploaded bytes cannot be read")
        upload.committed = True
        if self._kept is not None:
            self._kept.save_upload(upload.uri, upload.vid, credential.account, upload.file_info)
        return upload

    def load(self, rows: list[tuple[str, str, str, FileInfo]]) -> None:
        """Add committed uploads of an earlier process: uri, vid, account and facts. Their credentials are gone."""
        for uri, vid, account, file_info in rows:
            service = "vod" if vid else "imagex"
            gone = Credential(
                account, key="", secret="", token="", service=service, space="", domain="", store="", store_host="",
                expires=0.0,
            )  # fmt: skip
            upload = Upload(gone, uri, vid, auth=secrets.token_hex(16), session_key="", size=file_info.size)
            self.add_file_info(upload, file_info)
            upload.committed = True
            _store(self._by_uri, uri, upload)
            if vid:
                _store(self._by_vid, vid, upload)

    def image(self, account: str, uri: str) -> FileInfo | None:
        """Return a committed image of this account, or None."""
        return self._owned(self._by_uri.get(uri), account, "imagex")

    def media(self, account: str, vid: str) -> FileInfo | None:
        """Return a committed video or audio file of this account, or None."""
        return self._owned(self._by_vid.get(vid), account, "vod")

    @staticmethod
    def _owned(upload: Upload | None, account: str, service: str) -> FileInfo | None:
        if upload is None or not upload.committed or upload.credential.account != account:
            return None
        return upload.file_info if upload.credential.service == service else None


def crc32_hex(raw: bytes) -> str:
    return f"{zlib.crc32(raw):08x}"


def _denied(code: str, message: str) -> UploadError:
    return UploadError(403, 100010, code, message)


def _parse_stamp(stamp: str) -> float:
    """Parse `YYYYMMDDTHHMMSSZ` to seconds; 0 when it is not a date."""
    try:
        parsed = time.strptime(stamp, "%Y%m%dT%H%M%SZ")
    except ValueError:
        return 0.0
    return float(calendar.timegm(parsed))


def _store(table: OrderedDict[str, Any], key: str, value: Any) -> None:
    table[key] = value
    if len(table) > _KEEP:
        table.popitem(last=False)
