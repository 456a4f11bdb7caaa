"""AWS signature version 4 as the upload gateways check it: over the headers listed in SignedHeaders."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

ALGORITHM = "AWS4-HMAC-SHA256"
_HEADER = re.compile(
    rf"{ALGORITHM} Credential=(?P<key>[^/,\s]+)/(?P<day>\d{{8}})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_"
    r"request,\s*SignedHeaders=(?P<names>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Authorization:
    """The parsed `Authorization` header."""

    key: str
    day: str
    region: str
    service: str
    names: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def read_authorization(header: str) -> Authorization | None:
    match = _HEADER.fullmatch(header.strip())
    if match is None:
        return None
    names = tuple(match["names"].split(";"))
    return Authorization(match["key"], match["day"], match["region"], match["service"], names, match["signature"])


def canonical_query(raw: str) -> str:
    """Return the query sorted by encoded name and value, percent-encoded by RFC 3986."""
    pairs = parse_qsl(raw, keep_blank_values=True)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def canonical_request(method: str, query: str, headers: Mapping[str, str], names: tuple[str, ...], body: bytes) -> str:
    """Return the canonical request. `headers` have lower-case names; the path is always `/` on these hosts."""
    lines = "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names)
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join((method, "/", canonical_query(query), lines, ";".join(names), digest))


def signature(canonical: str, *, secret: str, stamp: str, claim: Authorization) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (claim.day, claim.region, claim.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"{ALGORITHM}\n{stamp}\n{claim.scope}\n{digest}"
    return hmac.digest(key, text.encode(), "sha256").hex()
