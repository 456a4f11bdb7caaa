"""Request and response schemas of single results."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.fields import Text
from api.jobs.schemas import Job

MAX_FILES = 500
MARKS = Literal["favourite", "unfavourite", "pin", "unpin", "delete"]


class Result(BaseModel):
    """One picture or video of a job."""

    id: str
    object: Literal["result"]
    job: str
    n: int = Field(description="its number in the job, from 0")
    kind: Literal["image", "video"]
    model: str
    prompt: str = Field(description="the first 500 characters")
    created_at: int = Field(description="when its job was accepted; lists are in this order")
    completed_at: int
    url: str
    thumbnail_url: str | None = Field(description="a small picture; null if there is none")
    mime: str
    width: int | None
    height: int | None
    bytes: int
    seconds: float | None
    favourite: bool
    pinned: bool
    expires_at: int | None = Field(description="when it is removed; null = never")
    sandbox: bool = Field(description="a test picture or video")


class ResultList(BaseModel):
    """One page of results."""

    object: Literal["list"]
    data: list[Result]
    first_id: str | None
    last_id: str | None
    has_more: bool
    next: str | None = Field(
        description="send it as `after`; null = this is the last page. A page can be empty and still have one: a rare "
        "filter looks at 10,000 jobs at a time"
    )
    jobs: list[Job] | None = Field(None, description="(`include=jobs`) the jobs of these results")


class ResultMarks(BaseModel):
    """A result after an action."""

    id: str
    object: Literal["file"]
    job: str
    favourite: bool
    pinned: bool
    expires_at: int | None = Field(description="when it is removed; null = never")
    deleted: bool


class ResultMarksList(BaseModel):
    """The results after an action, in the order of the request."""

    object: Literal["list"]
    data: list[ResultMarks]


class FileActionRequest(BaseModel):
    """Body of `POST /v1/files/actions`."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"action": "pin", "files": ["file_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f"]}]},
    )

    action: MARKS = Field(description="what is done with all of them")
    files: list[Annotated[Text, Field(max_length=60)]] = Field(
        min_length=1, max_length=MAX_FILES, description="ids of results"
    )
