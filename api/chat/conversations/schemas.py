"""Bodies of `/v1/conversations`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.http.fields import Text, example
from api.jobs.schemas import Job, JobError

MAX_TITLE = 200


class ConversationChange(BaseModel):
    """What can be changed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Boats"}]})

    title: Text = Field(min_length=1, max_length=MAX_TITLE)


class Conversation(BaseModel):
    """A conversation of the list. Times are unix seconds."""

    model_config = example(
        id="conv_0197f0c2a3b47c1d8e9f0a1b2c3d4e5f",
        object="conversation",
        title="Draw two boats",
        created_at=1763000000,
        updated_at=1763000042,
    )

    id: str
    object: Literal["conversation"]
    title: str = Field(description="the first words, until it is renamed")
    created_at: int
    updated_at: int = Field(description="its newest turn")


class ConversationList(BaseModel):
    """One page of conversations."""

    object: Literal["list"]
    data: list[Conversation]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedConversation(BaseModel):
    """Response to a deletion."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class TurnMessage(BaseModel):
    """A message as it was sent, without its pictures: those are the inputs of the job."""

    role: str
    content: str


class Turn(BaseModel):
    """A request of a conversation and its answer. Nullable keys are always present."""

    id: str = Field(description="its first job")
    object: Literal["conversation.turn"]
    kind: Literal["image", "video", "chat"]
    model: str = Field(description="as it was requested")
    created_at: int
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    answering: bool = Field(description="the answer is not complete; another message has to wait")
    messages: list[TurnMessage]
    inputs: int = Field(ge=0, description="pictures, clips and sounds sent with it, see `GET /v1/jobs/{id}/inputs`")
    content: str = Field(description="what the agent wrote, without results; empty for other models")
    note: str = Field(description="what the agent announced and upstream never started")
    finish_reason: Literal["stop", "length", "content_filter"] | None = Field(description="null = not complete")
    cut_off: bool = Field(description="the answer began and did not end: send `conversation.continues` to continue it")
    continues: bool = Field(description="it continues the answer of the turn before it")
    error: JobError | None
    results: list[Job] = Field(description="the jobs with the results: of the agent, or of the request")


class TurnList(BaseModel):
    """One page of turns, oldest first, without those that others replaced."""

    object: Literal["list"]
    data: list[Turn]
    first_id: str | None
    last_id: str | None
    has_more: bool
