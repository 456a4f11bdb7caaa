"""Signs calls (protocol section 2.3) and uploads (AWS, 5.5), and derives stable browser ids from a session."""

import hashlib
import hmac
from dataclasses import dataclass, field
from urllib.parse import quote

PF = "7"


def sign(path: str, appvr: str, unix_seconds: int) -> str:
    """Return the `Sign` header: MD5 of the end of the path, the version and the time in `Device-Time`."""
    text = f"9e2c|{path[-7:]}|{PF}|{appvr}|{unix_seconds}||11ac"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def web_id(session: str) -> str:
    """Return a 19-digit id. It is the same in every worker, so that an account looks like one browser."""
    digest = hashlib.sha256(b"web-id:" + session.encode()).digest()
    return f"7{int.from_bytes(digest[:8], 'big') % 10**18:018d}"


def uid_token(session: str) -> str:
    """Return the 32-digit value of the `uid_tt` cookie, stable per session like `web_id`."""
    return hashlib.sha256(b"uid-tt:" + session.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """Short-lived credentials of an upload service."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)


def canonical_query(query: dict[str, str]) -> str:
    """Return the parameters sorted and percent-encoded. Exactly this string is signed and must be sent."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))


def sign_aws_request(
    keys: AwsCredentials, method: str, query: dict[str, str], body: bytes, *, moment: str, region: str, service: str
) -> dict[str, str]:
    """Return the headers of an AWS signature version 4, without `host`, as the web client signs (5.5).

    `moment` is UTC as `YYYYMMDDTHHMMSSZ`; only POST signs the body.
    """
    digest = hashlib.sha256(body).hexdigest()
    headers = {"x-amz-date": moment, "x-amz-security-token": keys.session_token}
    if method == "POST":
        headers["x-amz-content-sha256"] = digest
    names = sorted(headers)
    signed = ";".join(names)
    block = "".join(f"{name}:{headers[name]}\n" for name in names)
    request = "\n".join([method, "/", canonical_query(query), block, signed, digest])
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = b"AWS4" + keys.secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={keys.access_key}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={signed}, Signature={signature}"
    return headers
