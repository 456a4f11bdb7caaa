"""Uploads: short-lived credentials, places asked for, and the files an account may use in its drafts."""

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

from worker.sandbox.models.hosts import STORE_HOST, UPLOAD_HOSTS, VOD_HOST
from worker.sandbox.uploads.file_inspection import Contents, Thumb
from worker.sandbox.uploads.sigv4 import canonical_request, read_authorization, signature

MOST_BYTES = 100 * 1024 * 1024
CREDENTIAL_SECONDS = 3600
_CLOCK_TOLERANCE = 900
_KEEP = 20_000
_KEEP_THUMBS = 2_000
_SPACES = {"cn": "tb4s082cfz", "us": "wopfjsm1ax", "asia": "wopfjsm1ax"}
_STORES = {"cn": "tos-cn-i", "us": "tos-useast5-i", "asia": "tos-alisg-i"}
_REGIONS = {"cn": "cn", "us": "us", "asia": "sg"}


class UploadError(Exception):
    """A refusal of the upload gateways, as their `ResponseMetadata.Error` tells it."""

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
    # Where the bytes go: the sandbox itself, or the name upstream would give.
    store_host: str
    expires: float


@dataclass
class Slot:
    """One place asked for: first only promised, then filled, then committed."""

    credential: Credential
    uri: str
    vid: str
    auth: str
    session_key: str
    size: int
    singular: bool
    contents: Contents | None = None
    filled: bool = False
    committed: bool = False


class Vault:
    """Everything uploaded in this process. Bytes are not kept: facts and a small copy are enough."""

    def __init__(self) -> None:
        self._credentials: OrderedDict[str, Credential] = OrderedDict()
        self._by_uri: OrderedDict[str, Slot] = OrderedDict()
        self._by_key: OrderedDict[str, Slot] = OrderedDict()
        self._by_vid: OrderedDict[str, Slot] = OrderedDict()
        self._thumbs: OrderedDict[str, Thumb] = OrderedDict()
        self._applies = 0

    def grant(self, account: str, *, video: bool, place: str, own: str | None, now: float) -> dict[str, Any]:
        """`get_upload_token`. `own` = the sandbox's own host and port for a caller that knows no other."""
        space = "dreamina" if video else _SPACES[place]
        domain = own or (VOD_HOST if video else UPLOAD_HOSTS[place])
        credential = Credential(
            account=account,
            key=f"AKTP{secrets.token_hex(12).upper()}",
            secret=secrets.token_urlsafe(24),
            token=f"STS2{secrets.token_urlsafe(32)}",
            service="vod" if video else "imagex",
            space=space,
            domain=domain,
            store="tos-cn-v" if video else _STORES[place],
            store_host=own or STORE_HOST,
            expires=now + CREDENTIAL_SECONDS,
        )
        _put(self._credentials, credential.key, credential)
        data = {
            "access_key_id": credential.key,
            "secret_access_key": credential.secret,
            "session_token": credential.token,
            "space_name": space,
            "upload_domain": domain,
            "region": "cn" if video else _REGIONS[place],
            "current_time": str(int(now)),
            "expired_time": str(int(credential.expires)),
        }
        return {**data, "service_id": space} if place == "cn" and not video else data

    def authorize(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes, *, service: str, now: float
    ) -> Credential:
        """The credential a call is signed with, after every rule of the signature held."""
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
            or abs(_second(stamp) - now) > (_CLOCK_TOLERANCE)
        ):
            raise _denied("RequestExpired", "x-amz-date or the credential scope does not fit now and this service")
        needed = {"x-amz-date", "x-amz-security-token"}
        if not needed <= set(claim.names) or list(claim.names) != sorted(claim.names):
            raise _denied("IncompleteSignature", "SignedHeaders lacks x-amz-date or the token, or is not sorted")
        text = canonical_request(method, query, headers, claim.names, body)
        wanted = signature(text, secret=credential.secret, stamp=stamp, claim=claim)
        # The hash of the body is part of the text, so a header that lies about it cannot be signed right either.
        told = headers.get("x-amz-content-sha256", text[-64:])
        if wanted != claim.signature or told != text[-64:]:
            raise _denied(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided",
            )
        return credential

    def apply(self, credential: Credential, query: str) -> Slot:
        """Promise a place; the same bytes twice get two addresses."""
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        space = asked.get("SpaceName" if credential.service == "vod" else "ServiceId")
        if space != credential.space:
            raise UploadError(400, 100004, "InvalidParameter", f"the token is not for space {str(space)[:40]!r}")
        size = asked.get("FileSize", "")
        if not size.isascii() or not size.isdigit() or not 0 < int(size[:12]) <= MOST_BYTES:
            raise UploadError(400, 100004, "InvalidParameter", "FileSize is not in 1..104857600")
        self._applies += 1
        name = secrets.token_hex(16)
        slot = Slot(
            credential=credential,
            uri=f"{credential.store}-{credential.space}/{name}",
            vid=f"v0sandbox{name[:16]}" if credential.service == "vod" else "",
            auth=f"SpaceKey/{credential.space}/1/:version:v2:{secrets.token_urlsafe(24)}",
            session_key=base64.b64encode(secrets.token_bytes(24)).decode(),
            size=int(size),
            # Some deployments answer `UploadHost` where others answer a list.
            singular=self._applies % 3 == 0,
        )
        _put(self._by_uri, slot.uri, slot)
        _put(self._by_key, slot.session_key, slot)
        if slot.vid:
            _put(self._by_vid, slot.vid, slot)
        return slot

    def promised(self, uri: str) -> Slot | None:
        return self._by_uri.get(uri)

    def fill(self, slot: Slot, contents: Contents | None) -> None:
        """The bytes arrived; equal small copies are kept once."""
        slot.filled = True
        if contents and contents.thumb:
            thumb = self._thumbs.setdefault(contents.thumb.digest, contents.thumb)
            contents = replace(contents, thumb=thumb)
            if len(self._thumbs) > _KEEP_THUMBS:
                self._thumbs.popitem(last=False)
        slot.contents = contents

    def commit(self, credential: Credential, session_key: object) -> Slot:
        slot = self._by_key.get(session_key) if isinstance(session_key, str) else None
        if slot is None or slot.credential.account != credential.account:
            raise UploadError(400, 100004, "InvalidSessionKey", "SessionKey is not of an upload of this account")
        if slot.credential.service != credential.service or not slot.filled:
            raise UploadError(400, 100005, "ObjectNotFound", "nothing was uploaded to this address")
        if slot.contents is None:
            raise UploadError(400, 100006, "InvalidFormat", "the uploaded bytes cannot be read")
        slot.committed = True
        return slot

    def picture(self, account: str, uri: str) -> Contents | None:
        """A committed picture of this account."""
        return self._owned(self._by_uri.get(uri), account, "imagex")

    def media(self, account: str, vid: str) -> Contents | None:
        """A committed video or sound of this account."""
        return self._owned(self._by_vid.get(vid), account, "vod")

    @staticmethod
    def _owned(slot: Slot | None, account: str, service: str) -> Contents | None:
        if slot is None or not slot.committed or slot.credential.account != account:
            return None
        return slot.contents if slot.credential.service == service else None


def crc_of(raw: bytes) -> str:
    return f"{zlib.crc32(raw):08x}"


def _denied(code: str, message: str) -> UploadError:
    return UploadError(403, 100010, code, message)


def _second(stamp: str) -> float:
    """Seconds of `YYYYMMDDTHHMMSSZ`; far in the past when it is no date."""
    try:
        parsed = time.strptime(stamp, "%Y%m%dT%H%M%SZ")
    except ValueError:
        return 0.0
    return float(calendar.timegm(parsed))


def _put(table: OrderedDict[str, Any], key: str, value: Any) -> None:
    table[key] = value
    if len(table) > _KEEP:
        table.popitem(last=False)
