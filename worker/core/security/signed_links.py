"""Links to stored files. Ids are unguessable; with LINK_TTL_SECONDS links also have a signature that expires.

Links are signed with a key derived from the newest master key and accepted with any master key. Removing a key
invalidates its links, and each read of a job returns fresh ones.
"""

import hashlib
import time
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from itsdangerous import Signer

from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.security.encryption import derived_keys
from worker.core.settings import get_settings

# Expiry times are rounded to this share of the lifetime, so consecutive reads return the same link and browsers can
# cache the image.
_STEP_SHARE = 10


def create_file_link(base: str, file_id: UUID) -> str:
    """Return the link of a stored file, valid for at least LINK_TTL_SECONDS, or permanently if that is 0."""
    name, ttl = public_id("file", file_id), get_settings().link_ttl_seconds
    link = f"{base}/v1/files/{name}/content"
    if not ttl:
        return link
    step = max(ttl // _STEP_SHARE, 1)
    expires = (int(time.time()) // step + 1) * step + ttl
    signature = _signer().get_signature(f"{name}.{expires}").decode()
    return f"{link}?expires={expires}&signature={signature}"


# Upstream reads an input when it gets the order, at the latest when it begins the job.
_INPUT_SECONDS = 2 * 86_400


def create_input_link(base: str, job_id: UUID, n: int) -> str:
    """Return the link of a stored input of a job, for its upstream. It is always signed, and valid for two days."""
    name, expires = f"{job_id.hex}-{n}", int(time.time()) + _INPUT_SECONDS
    signature = _signer().get_signature(_input_text(name, expires)).decode()
    return f"{base}/v1/inputs/{name}?expires={expires}&signature={signature}"


def read_input_link(name: str, expires: str, signature: str) -> tuple[UUID, int]:
    """Return the job and the number of the input of such a link. Raises link_not_signed, link_expired."""
    if not (expires.isascii() and expires.isdigit() and len(expires) < 20):
        raise DreameryError("link_not_signed")
    if not _signer().verify_signature(_input_text(name, int(expires)), signature):
        raise DreameryError("link_not_signed")
    if int(expires) <= time.time():
        raise DreameryError("link_expired")
    job_id, _, n = name.partition("-")
    return UUID(job_id), int(n)


def _input_text(name: str, expires: int) -> str:
    return f"input {name}.{expires}"


def seconds_until_expiry(name: str, expires: str | None, signature: str | None) -> int | None:
    """Return the remaining validity of a link to the file `name` (`file_...`) in seconds; None = permanent.

    Raises link_expired or link_not_signed (403).
    """
    if not get_settings().link_ttl_seconds:
        return None
    if not expires or not signature:
        raise DreameryError("link_not_signed")
    # Check the signature first: an unsigned expiry time cannot be trusted.
    if not (expires.isascii() and expires.isdigit() and _signer().verify_signature(f"{name}.{expires}", signature)):
        raise DreameryError("link_not_signed")
    left = int(expires) - int(time.time())
    if left <= 0:
        raise DreameryError("link_expired")
    return left


def check_link(link: str, name: str) -> None:
    """Check a complete link to the file `name`, such as an input of a job. Raises like `seconds_until_expiry`."""
    query = parse_qs(urlsplit(link).query)
    seconds_until_expiry(name, *(query.get(field, [None])[0] for field in ("expires", "signature")))


def sign_text(value: str) -> str:
    """Return the signature of a text that other kinds of links begin differently."""
    return _signer().get_signature(value).decode()


def verify_text(value: str, signature: str) -> bool:
    """Whether the signature is that of `sign_text`, with any master key."""
    return _signer().verify_signature(value, signature)


def _signer() -> Signer:
    # The library expects the keys oldest first.
    keys = derived_keys("file links")[::-1]
    return Signer(keys, salt="dreamery.file-link", key_derivation="hmac", digest_method=hashlib.sha256)
