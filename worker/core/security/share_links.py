"""Links that open a share page, and links to the files of an album for one of its members.

A share link consists of the id of the share and a signature with the root key, so it survives a change of the master
key. It is not stored: its user gets it again from the id, and a copy of the database opens no page. A link to a file of
an album names the user for whom it was made; the rights of this user are checked at each request.
"""

import base64
import hmac
import time
from uuid import UUID

from worker.core.errors import DreameryError
from worker.core.security.encryption import root_signature
from worker.core.security.signed_links import sign_text, verify_text

_SIGNATURE_BYTES = 16
_TOKEN_CHARS = 43  # base64 of id and signature

# Longer than a page stays open; links are renewed with each read of the album.
_ALBUM_LINK_SECONDS = 86_400


def share_token(share_id: UUID) -> str:
    """Return the part of a share's link that grants access: 43 characters."""
    return base64.urlsafe_b64encode(share_id.bytes + _signature(share_id)).rstrip(b"=").decode()


def read_share_token(token: str) -> UUID | None:
    """Return the id of the share of a link; None if the link was not made here."""
    if len(token) != _TOKEN_CHARS or not token.isascii():
        return None
    try:
        raw = base64.b64decode(token + "=", altchars=b"-_", validate=True)
    except ValueError:
        return None
    share_id = UUID(bytes=raw[:16])
    # The whole text is compared: base64 has several spellings of its last character.
    return share_id if hmac.compare_digest(share_token(share_id), token) else None


def _signature(share_id: UUID) -> bytes:
    return root_signature("share", share_id.bytes)[:_SIGNATURE_BYTES]


def album_file_link(base: str, item_id: UUID, user_id: UUID, *, thumbnail: bool = False) -> str:
    """Return the link to a file of an album for this user, valid for one to two days while the user sees the album.

    Links made on one day are equal, so that browsers can keep the image.
    """
    name = f"{item_id.hex}-{user_id.hex}"
    expires = (int(time.time()) // _ALBUM_LINK_SECONDS + 2) * _ALBUM_LINK_SECONDS
    signature = sign_text(_album_text(name, expires))
    path = f"{name}/thumbnail" if thumbnail else name
    return f"{base}/v1/album-files/{path}?expires={expires}&signature={signature}"


def read_album_file_link(name: str, expires: str, signature: str) -> tuple[UUID, UUID]:
    """Return the file and the user of such a link. Raises link_not_signed, link_expired."""
    if not (expires.isascii() and expires.isdigit() and len(expires) < 20):
        raise DreameryError("link_not_signed")
    if not verify_text(_album_text(name, int(expires)), signature):
        raise DreameryError("link_not_signed")
    if int(expires) <= time.time():
        raise DreameryError("link_expired", "This link has expired. Open the album again for a new one.")
    item_id, _, user_id = name.partition("-")
    return UUID(item_id), UUID(user_id)


def _album_text(name: str, expires: int) -> str:
    return f"album file {name}.{expires}"
