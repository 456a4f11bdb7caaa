"""Links to stored files. The id cannot be guessed; with LINK_TTL_SECONDS a link also carries a signature that expires.

Signed with a key derived from the newest master key, accepted under every key of the list: a link dies with its key,
and each reading of a job gives a fresh one.
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

# The end of a link moves in steps of this share of its life, so that readings soon after each other give one link
# and browsers need not load the picture again.
_STEP_SHARE = 10


def create_file_link(base: str, file_id: UUID) -> str:
    """The link of a stored file, good for LINK_TTL_SECONDS at least, or for ever when that is 0."""
    name, ttl = public_id("file", file_id), get_settings().link_ttl_seconds
    link = f"{base}/v1/files/{name}/content"
    if not ttl:
        return link
    step = max(ttl // _STEP_SHARE, 1)
    expires = (int(time.time()) // step + 1) * step + ttl
    signature = _signer().get_signature(f"{name}.{expires}").decode()
    return f"{link}?expires={expires}&signature={signature}"


def seconds_until_expiry(name: str, expires: str | None, signature: str | None) -> int | None:
    """How long a link to the file called `name` (`file_...`) goes on; None = for ever.

    Raises link_expired or link_not_signed (403).
    """
    if not get_settings().link_ttl_seconds:
        return None
    if not expires or not signature:
        raise DreameryError("link_not_signed")
    # The signature first: what it does not cover says nothing.
    if not (expires.isascii() and expires.isdigit() and _signer().verify_signature(f"{name}.{expires}", signature)):
        raise DreameryError("link_not_signed")
    left = int(expires) - int(time.time())
    if left <= 0:
        raise DreameryError("link_expired")
    return left


def check_link(link: str, name: str) -> None:
    """The same for a whole link to the file called `name`, such as one that comes as an input."""
    query = parse_qs(urlsplit(link).query)
    seconds_until_expiry(name, *(query.get(field, [None])[0] for field in ("expires", "signature")))


def _signer() -> Signer:
    # The library wants its keys oldest first.
    keys = derived_keys("file links")[::-1]
    return Signer(keys, salt="dreamery.file-link", key_derivation="hmac", digest_method=hashlib.sha256)
