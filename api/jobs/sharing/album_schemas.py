"""Bodies of the album routes, and album rows as JSON. The response models document the API."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.http.fields import NonEmptyText, Text, example
from api.http.responses import unix_seconds
from worker.core.ids import public_id
from worker.core.security.share_links import album_file_link
from worker.db.engine import Row

MOST_IDS = 500
AlbumName = Annotated[NonEmptyText, Field(max_length=120)]
MemberRole = Literal["viewer", "contributor"]
Ids = Annotated[list[Annotated[Text, Field(max_length=60)]], Field(min_length=1, max_length=MOST_IDS)]

_ALBUM_ID = "album_0192a1b2c3d47e8f9a0b1c2d3e4f5a6b"
_ITEM_ID = "item_0192a1b2c3d47e8f9a0b1c2d3e4f5a6b"


class AlbumCreate(BaseModel):
    """A new album."""

    model_config = example(name="Storyboard")

    name: AlbumName
    show_prompts: bool = Field(False, description="whether members see the prompts of all files")


class AlbumChange(BaseModel):
    """Changes of an album; omitted fields keep their value."""

    model_config = example(name="Storyboard, final", cover=_ITEM_ID)

    name: AlbumName | None = None
    show_prompts: bool | None = None
    cover: Text | None = Field(None, max_length=60, description="`item_...` of the album; null = its first file")


class AlbumFilesAdd(BaseModel):
    """Files to add."""

    model_config = example(files=["file_5d1e0c7ab1f94c0e9a52f0b4a1c2d3e4"])

    files: Ids = Field(description="`file_...`, the ids in the links of your results")


class AlbumFilesRemove(BaseModel):
    """Files to take out."""

    model_config = example(files=[_ITEM_ID])

    files: Ids = Field(description="`item_...` of the album")


class AlbumOrder(BaseModel):
    """A new place for some files."""

    model_config = example(files=[_ITEM_ID], before=None)

    files: Ids = Field(description="`item_...` of the album, in their new order")
    before: Text | None = Field(None, max_length=60, description="`item_...` that follows them; null = at the end")


class AlbumMemberAdd(BaseModel):
    """A user who sees the album."""

    model_config = example(user="alice", role="viewer")

    user: NonEmptyText = Field(max_length=120, description="name of the user")
    role: MemberRole = Field("viewer", description="a contributor also adds own files")


class AlbumCover(BaseModel):
    """The file that stands for an album."""

    id: str
    thumbnail_url: str


class Album(BaseModel):
    """An album. Times are unix seconds."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": _ALBUM_ID, "object": "album", "name": "Storyboard"}]}
    )

    id: str
    object: Literal["album"]
    name: str
    role: Literal["owner", "contributor", "viewer"] = Field(description="what you are in it")
    owner: str = Field(description="name of its user")
    show_prompts: bool
    files: int
    members: int
    cover: AlbumCover | None
    created_at: int
    updated_at: int


class AlbumList(BaseModel):
    """A page of albums."""

    object: Literal["list"]
    data: list[Album]
    has_more: bool


class AlbumFile(BaseModel):
    """A file of an album. Its links work for you, as long as you see the album."""

    id: str = Field(examples=[_ITEM_ID])
    object: Literal["album.file"]
    url: str = Field(description="valid for one to two days; each read of the album returns fresh links")
    thumbnail_url: str | None = Field(description="null for a video without a first frame")
    mime: str
    width: int | None
    height: int | None
    seconds: float | None
    bytes: int
    added_by: str = Field(description="name of the user who added it")
    added_at: int
    prompt: str | None = Field(description="null for files of others, unless the album shows prompts")
    model: str | None = Field(description="null like `prompt`")
    file: str | None = Field(description="id of your own file; null for files of others")
    job: str | None = Field(description="your job that made it; null for files of others")


class AlbumFileList(BaseModel):
    """A page of the files of an album, in its order."""

    object: Literal["list"]
    data: list[AlbumFile]
    has_more: bool


class AlbumFilesAdded(BaseModel):
    """How many files are new in the album."""

    object: Literal["album.files_added"]
    added: int
    album: Album


class AlbumMember(BaseModel):
    """A user who sees the album."""

    id: str
    object: Literal["album.member"]
    name: str
    role: MemberRole
    added_at: int


class AlbumMemberList(BaseModel):
    """The members of an album; its owner is not one of them."""

    object: Literal["list"]
    data: list[AlbumMember]
    has_more: bool


class DeletedAlbum(BaseModel):
    """Confirmation that an album was deleted."""

    id: str
    object: Literal["album"]
    deleted: Literal[True]


def album_object(row: "Row[Any]", viewer: UUID, base: str) -> dict[str, Any]:
    """An album as one of its users sees it."""
    cover = None
    if row.cover is not None:
        thumbnail = album_file_link(base, row.cover, viewer, thumbnail=True)
        cover = {"id": public_id("item", row.cover), "thumbnail_url": thumbnail}
    return {
        "id": public_id("album", row.id),
        "object": "album",
        "name": row.name,
        "role": row.role,
        "owner": row.owner_name,
        "show_prompts": row.show_prompts,
        "files": row.files,
        "members": row.members,
        "cover": cover,
        "created_at": unix_seconds(row.created_at),
        "updated_at": unix_seconds(row.updated_at),
    }


def file_object(row: "Row[Any]", viewer: UUID, base: str, *, show_prompts: bool) -> dict[str, Any]:
    """A file of an album as one of its users sees it."""
    is_own = row.user_id == viewer
    has_thumbnail = row.mime.startswith("image/") or row.poster_key is not None
    shows = is_own or show_prompts
    return {
        "id": public_id("item", row.id),
        "object": "album.file",
        "url": album_file_link(base, row.id, viewer),
        "thumbnail_url": album_file_link(base, row.id, viewer, thumbnail=True) if has_thumbnail else None,
        **{name: getattr(row, name) for name in ("mime", "width", "height", "seconds", "bytes")},
        "added_by": row.added_by_name,
        "added_at": unix_seconds(row.added_at),
        "prompt": row.prompt if shows else None,
        "model": row.model if shows else None,
        "file": public_id("file", row.file_id) if is_own else None,
        "job": public_id("job", row.job_id) if is_own else None,
    }


def member_object(row: "Row[Any]") -> dict[str, Any]:
    """A member of an album."""
    return {
        "id": public_id("user", row.user_id),
        "object": "album.member",
        "name": row.name,
        "role": row.role,
        "added_at": unix_seconds(row.added_at),
    }
