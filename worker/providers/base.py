"""The Protocol every upstream speaks towards the engine: submit, ask, converse, check. No wire format here.

Failures are raised as `DreameryError`; its row in the error table says what the engine does. A failure to reach
upstream *after* a submit may have left us is `upstream_unreachable` (reaction `unclear`).
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol

from worker.core.errors import DreameryError


@dataclass(frozen=True, slots=True)
class Account:
    """What a call needs to know of an account. `session` is opened just before the call and never kept."""

    id: str
    region: str  # auto, cn, us, sg, hk, jp, sandbox
    session: str = field(repr=False)
    cluster: "dict[str, str] | None" = None  # looked-up hosts of an `auto` account, from the accounts table
    proxy: str | None = field(default=None, repr=False)  # as `worker.core.security.session_tokens` writes it


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that was uploaded to upstream with the account that will use it. Sizes 0 = upstream did not say."""

    uri: str
    width: int = 0
    height: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """One thing an omni video is made from: a picture (`image`), or a video or sound by its upstream id (`vid`)."""

    kind: str  # image, video, audio
    image: Reference | None = None
    vid: str = ""
    width: int = 0
    height: int = 0
    milliseconds: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A piece of an omni prompt in reading order: text, or a mark that stands for the material of that index."""

    text: str = ""
    material: int | None = None


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """A picture job as the engine hands it over; sizes are final. With `references` it is made from these pictures."""

    model: str  # public id
    prompt: str
    width: int
    height: int
    ratio: str
    resolution: str
    count: int | None  # exact number, None = the model's default
    seed: int
    negative_prompt: str = ""
    sample_strength: float = 0.5
    references: tuple[Reference, ...] = ()
    key: str = ""  # upstream's own key of a model that only its list knows; `model` says the same then


@dataclass(frozen=True, slots=True)
class VideoOrder:
    """A video job as the engine hands it over. `materials` make it an omni job, whose prompt is `parts`."""

    model: str  # public id
    prompt: str
    ratio: str
    resolution: str
    seconds: int
    seed: int
    fps: int = 24
    first_frame: Reference | None = None
    end_frame: Reference | None = None
    materials: tuple[Material, ...] = ()
    parts: tuple[PromptPart, ...] = ()
    benefit: str = ""  # from the live model list when known; it wins over the catalog


class RecordState(StrEnum):
    """Where upstream says a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ResultRef:
    """A finished item still at upstream: where to fetch it. A video also has a length, a poster and an item id."""

    url: str
    width: int | None
    height: int | None
    format: str | None
    seconds: float | None = None
    poster_url: str | None = None
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Upstream's answer about one job, normalised."""

    submit_key: str
    upstream_id: str
    state: RecordState
    wanted: int  # total_image_count, 0 = not told
    results: tuple[ResultRef, ...] = ()
    settled: bool = True  # False: items are there but more may come (status 45); the engine waits for stability
    queue_position: int | None = None
    forecast_seconds: int | None = None
    error_code: str | None = None  # row of the error table, when FAILED
    error_message: str | None = None
    detail: str | None = None  # upstream's own code, key, log id; for the job's events


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submit that upstream accepted."""

    upstream_id: str
    queue_position: int | None = None
    forecast_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Credits:
    """Credits left on an account."""

    gift: int
    purchase: int
    vip: int

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.gift + self.purchase + self.vip


@dataclass(frozen=True, slots=True)
class CreditRecord:
    """One line of an account's history: credits that went, or came back (then with the other sign), for a submit."""

    submit_key: str  # "" = for none
    amount: int
    at: float  # unix seconds


@dataclass(frozen=True, slots=True)
class CreditHistory:
    """A page of an account's history, newest first. It runs behind what was submitted."""

    total: int | None  # credits left; None = not told
    records: tuple[CreditRecord, ...]
    cursor: str  # of the next page
    more: bool
    complete: bool  # False: some lines could not be read


@dataclass(frozen=True, slots=True)
class LiveImageModel:
    """A picture model as upstream lists it for an account. Being listed does not mean the account may use it."""

    key: str
    name: str
    tip: str = ""
    resolutions: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    references: int = 0
    # (resolution, upstream's ratio number, width, height)
    sizes: tuple[tuple[str, int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LiveVideoModel:
    """A video model as upstream lists it for an account. Empty or None = upstream did not say."""

    key: str
    name: str
    tip: str = ""
    durations: tuple[int, ...] = ()
    ratios: tuple[str, ...] = ()
    fps: int | None = None
    first_frame: bool | None = None
    end_frame: bool | None = None
    benefit: str = ""


@dataclass(frozen=True, slots=True)
class LiveModels:
    """What upstream offers an account now."""

    images: tuple[LiveImageModel, ...] = ()
    videos: tuple[LiveVideoModel, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation so far."""

    role: str  # user, assistant
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the agent is to answer: the messages in order, the newest last."""

    messages: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """The agent has said this piece of its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The agent wants something made; the job follows as `JobStarted` with the same id, or never."""

    id: str
    kind: str  # image, video: as far as the call tells
    prompt: str = ""
    ratio: str = ""


@dataclass(frozen=True, slots=True)
class JobStarted:
    """Upstream works on something the agent asked for: polls find it by `submit_key`, a UUID."""

    tool_call_id: str
    submit_key: str
    upstream_id: str
    kind: str  # image, video


@dataclass(frozen=True, slots=True)
class Listening:
    """Bytes came, but nothing to tell: the stream lives."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is over. Not `complete`: the stream was closed without the mark of an end."""

    complete: bool


AgentEvent = Said | ToolCalled | JobStarted | Listening | Ended


class Provider(Protocol):
    """An upstream. Implementations are safe to share between threads."""

    def locate(self, account: Account) -> dict[str, str]:
        """Look up the hosts of an account whose region is `auto` (four probes). Raises upstream_session_expired."""

    def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Order pictures, once, with no retry of any kind."""

    def submit_video(self, account: Account, order: VideoOrder, *, submit_key: str) -> Submitted:
        """Order a video, once, with no retry of any kind."""

    def upload_image(
        self, account: Account, data: bytes | BinaryIO, *, name: str, seconds: float | None = None
    ) -> Reference:
        """Upload a picture for later orders of the same account, within `seconds` (default: one call's deadline).

        Nothing is paid by it: unreachable is always NotSentError, and the caller may simply try again.
        """

    def upload_media(
        self, account: Account, data: bytes | BinaryIO, *, kind: str, name: str, seconds: float | None = None
    ) -> Material:
        """Upload a `video` or `audio` for omni orders of the same account; like `upload_image`."""

    def check_image(self, account: Account, reference: Reference) -> None:
        """Ask whether a picture just uploaded may be used, where upstream has such a check; elsewhere does nothing.

        Raises `content_policy_violation` when it may not. Any other failure says nothing about the picture.
        """

    def better_video(self, account: Account, result: ResultRef) -> ResultRef:
        """The same video at a better bit rate when upstream has one, else `result`; never fails for upstream."""

    def converse(self, account: Account, order: Conversation, *, conversation_id: str) -> Generator[AgentEvent]:
        """Send a conversation, once, and yield what comes of it until `Ended`, in this thread; close it when done.

        Raises before or between events; being unreachable once it may have left us says nothing about what it caused.
        """

    def list_models(self, account: Account) -> LiveModels:
        """What upstream offers this account now."""

    def ask(self, account: Account, submit_keys: list[str]) -> dict[str, Record]:
        """State of many jobs in one call, keyed by submit key; unknown keys are absent."""

    def credits(self, account: Account) -> Credits:
        """Credits left."""

    def credit_history(self, account: Account, *, cursor: str = "0") -> CreditHistory:
        """One page of what the account's credits were spent on."""

    def receive_credits(self, account: Account) -> int:
        """Take the daily free credits; the number gained, 0 when there was none."""


class NotSentError(DreameryError):
    """Upstream was not reached and the request surely never left: unlike other `upstream_unreachable`, not unclear."""

    def __init__(self, detail: str | None = None, *, code: str = "upstream_unreachable") -> None:
        super().__init__(code, detail=detail)
