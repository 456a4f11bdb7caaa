"""Bodies of the share routes, and share rows as JSON. The response models document the API."""

import math
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.http.fields import Text, example
from api.http.responses import unix_seconds
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.security.share_links import share_token
from worker.core.settings import get_settings
from worker.db.albums.shares import MOST_SHARED_FILES
from worker.db.engine import Row

_DAY = 86_400
DEFAULT_DAYS = 7
_SHORTEST_SECONDS = 60


class ShareCreate(BaseModel):
    """What to share, and how long. Give `files` or `album`."""

    model_config = example(
        files=["file_5d1e0c7ab1f94c0e9a52f0b4a1c2d3e4"], title="Boats", expires_in=604800, show_prompts=False
    )

    files: Annotated[
        list[Annotated[Text, Field(max_length=60)]] | None,
        Field(
            min_length=1, max_length=MOST_SHARED_FILES, description="`file_...`, the ids in the links of your results"
        ),
    ] = None
    album: Text | None = Field(None, max_length=60, description="your own album; the page follows its changes")
    title: Text = Field("", max_length=200, description="heading of the page; empty = the name of the album")
    expires_in: int | None = Field(None, ge=1, description=f"seconds; default: {DEFAULT_DAYS} days")
    expires_at: int | None = Field(None, ge=1, description="unix seconds, instead of `expires_in`")
    show_prompts: bool = Field(False, description="whether the page shows the prompts of your files")
    allow_download: bool = Field(True, description="whether the page offers to save the files")

    def end(self) -> datetime:
        """Return when the link expires. Raises `invalid_value` for a time that is too short or too long."""
        longest = get_settings().share_max_days * _DAY
        if self.expires_in is not None and self.expires_at is not None:
            message = "`expires_in` and `expires_at` exclude each other. Send one of them."
            raise DreameryError("invalid_value", message, param="expires_at")
        param = "expires_in" if self.expires_at is None else "expires_at"
        now = time.time()
        seconds = min(DEFAULT_DAYS * _DAY, longest) if self.expires_in is None else self.expires_in
        if self.expires_at is not None:
            seconds = math.ceil(self.expires_at - now)
        if not _SHORTEST_SECONDS <= seconds <= longest:
            message = f"A share link lives for {_SHORTEST_SECONDS} seconds to {get_settings().share_max_days} days."
            raise DreameryError("invalid_value", message, param=param)
        return datetime.fromtimestamp(now + seconds if self.expires_at is None else self.expires_at, UTC)


class Share(BaseModel):
    """A public page. Times are unix seconds."""

    id: str = Field(examples=["share_0192a1b2c3d47e8f9a0b1c2d3e4f5a6b"])
    object: Literal["share"]
    url: str = Field(description="opens the page without a key; everybody who has it sees the files")
    title: str
    album: str | None = Field(description="the album that the page shows; null = single files")
    album_name: str | None
    files: int | None = Field(description="number of shared files; null for an album")
    show_prompts: bool
    allow_download: bool
    created_at: int
    expires_at: int
    expired: bool


class ShareList(BaseModel):
    """A page of share links."""

    object: Literal["list"]
    data: list[Share]
    has_more: bool


class RevokedShare(BaseModel):
    """Confirmation that a share link was revoked."""

    id: str
    object: Literal["share"]
    deleted: Literal[True]


def share_url(base: str, row: "Row[Any]") -> str:
    """Return the link of a share."""
    return f"{base}/s/{share_token(row.id)}"


def share_object(row: "Row[Any]", base: str) -> dict[str, Any]:
    """A share as its user sees it."""
    return {
        "id": public_id("share", row.id),
        "object": "share",
        "url": share_url(base, row),
        "title": row.title,
        "album": public_id("album", row.album_id) if row.album_id is not None else None,
        "album_name": row.album_name,
        "files": row.files,
        "show_prompts": row.show_prompts,
        "allow_download": row.allow_download,
        "created_at": unix_seconds(row.created_at),
        "expires_at": unix_seconds(row.expires_at),
        "expired": row.expired,
    }
