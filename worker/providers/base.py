"""The Provider protocol between the job engine and an upstream. It knows no wire format.

Failures are raised as `DreameryError`; the error table decides the reaction. If upstream becomes unreachable *after* a
submit may have been sent, the error is `upstream_unreachable` (reaction `unclear`).
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol

from worker.core.errors import DreameryError


@dataclass(frozen=True, slots=True)
class Account:
    """What a call needs to know about an account. `session` is decrypted just before the call and never kept."""

    id: str
    region: str  # one of the provider's
    session: str = field(repr=False)
    cluster: "dict[str, str] | None" = None  # looked-up hosts of an `auto` account, from the accounts table
    proxy: str | None = field(default=None, repr=False)  # as `worker.core.security.session_tokens` writes it
    provider: str = "dreamina"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image uploaded to upstream with the account that will use it. Size 0 = not reported by upstream."""

    uri: str
    width: int = 0
    height: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """One input of an omni video: an image (`image`), or a video or audio file by its upstream id (`vid`)."""

    kind: str  # image, video, audio
    image: Reference | None = None
    vid: str = ""
    width: int = 0
    height: int = 0
    milliseconds: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of an omni prompt in reading order: text, or a placeholder for the material of that index."""

    text: str = ""
    material: int | None = None


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """An image job from the engine; sizes are final. With `references` it is based on these images."""

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
    key: str = ""  # upstream's key of a model that is only in its list; `model` is then the same


@dataclass(frozen=True, slots=True)
class VideoOrder:
    """A video job from the engine. With `materials` it is an omni job, whose prompt is `parts`."""

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
    benefit: str = ""  # from the live model list if known; overrides the catalog


class RecordState(StrEnum):
    """The state of a job upstream."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ResultRef:
    """A finished item that is still upstream: its URL. A video also has a length, a poster and an item id."""

    url: str
    width: int | None
    height: int | None
    format: str | None
    seconds: float | None = None
    poster_url: str | None = None
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The normalised upstream record of one job."""

    submit_key: str
    upstream_id: str
    state: RecordState
    expected: int  # total_image_count, 0 = not reported
    results: tuple[ResultRef, ...] = ()
    settled: bool = True  # False: more items may follow (status 45); the engine waits until they are stable
    queue_position: int | None = None
    forecast_seconds: int | None = None
    error_code: str | None = None  # code of the error table, if FAILED
    error_message: str | None = None
    detail: str | None = None  # upstream's code, key and log id, for the job's timeline


@dataclass(frozen=True, slots=True)
class Submitted:
    """An accepted submit."""

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
        """The sum of all kinds."""
        return self.gift + self.purchase + self.vip


@dataclass(frozen=True, slots=True)
class CreditRecord:
    """One line of an account's history: credits charged for a submit, or refunded (with the opposite sign)."""

    submit_key: str  # "" = not for a submit
    amount: int
    at: float  # unix seconds


@dataclass(frozen=True, slots=True)
class CreditHistory:
    """A page of an account's history, newest first. It lags behind the submits."""

    total: int | None  # credits left; None = not reported
    records: tuple[CreditRecord, ...]
    cursor: str  # of the next page
    more: bool
    complete: bool  # False: some lines could not be read


@dataclass(frozen=True, slots=True)
class LiveImageModel:
    """An image model in upstream's list for an account. A listed model is not always usable by the account."""

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
    """A video model in upstream's list for an account. Empty or None = not reported."""

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
    """The models that upstream currently lists for an account."""

    images: tuple[LiveImageModel, ...] = ()
    videos: tuple[LiveVideoModel, ...] = ()


@dataclass(frozen=True, slots=True)
class ConversationMessage:
    """One message of a conversation."""

    role: str  # user, assistant
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages that the agent answers, in order, the newest last."""

    messages: tuple[ConversationMessage, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the agent's answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The agent requested a generation. Its job may follow as `JobStarted` with the same id."""

    id: str
    kind: str  # image or video, guessed from the call
    prompt: str = ""
    ratio: str = ""


@dataclass(frozen=True, slots=True)
class JobStarted:
    """Upstream started a job for the agent. Polls find it by `submit_key`, a UUID."""

    tool_call_id: str
    submit_key: str
    upstream_id: str
    kind: str  # image, video


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The stream is alive, but the received bytes completed no event."""


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The answer is over. Not `complete` = the stream was closed without an end marker."""

    complete: bool


AgentEvent = TextDelta | ToolCalled | JobStarted | KeepAlive | StreamEnded


class HostLookup(Protocol):
    """An upstream whose accounts live on different hosts, which must be found first."""

    async def look_up_hosts(self, account: Account) -> dict[str, str]:
        """Look up the hosts of an account with region `auto` (four probes). Raises upstream_session_expired."""


class Uploads(Protocol):
    """An upstream that takes references as uploads before the order."""

    async def upload_image(
        self, account: Account, data: bytes | BinaryIO, *, name: str, seconds: float | None = None
    ) -> Reference:
        """Upload an image for later orders of the same account, within `seconds` (default: the deadline of one call).

        An upload costs nothing: an unreachable upstream is always NotSentError, and the caller may retry.
        """

    async def upload_media(
        self, account: Account, data: bytes | BinaryIO, *, kind: str, name: str, seconds: float | None = None
    ) -> Material:
        """Upload a `video` or `audio` file for omni orders of the same account; like `upload_image`."""

    async def check_image(self, account: Account, reference: Reference) -> None:
        """Check the content of an uploaded image, on sites that have such a check.

        Raises `content_policy_violation` if the image is refused. Any other failure does not concern the image.
        """


class BetterVideos(Protocol):
    """An upstream that has the same video at several bit rates."""

    async def find_better_video(self, account: Account, result: ResultRef) -> ResultRef:
        """Return the same video at a higher bit rate if there is one, else `result`. Upstream errors are ignored."""


class Agent(Protocol):
    """An upstream with an assistant that answers and starts generations itself."""

    def converse(self, account: Account, order: Conversation, *, conversation_id: str) -> AsyncGenerator[AgentEvent]:
        """Send a conversation, once, and yield its events up to `StreamEnded`. Close it when done.

        Raises before or between events. If it may have been sent, `upstream_unreachable` leaves its effect unclear.
        """


class CreditBalance(Protocol):
    """An upstream that tells what an account has left."""

    async def fetch_credits(self, account: Account) -> Credits:
        """Return the credits left."""


class CreditLedger(Protocol):
    """An upstream that lists what it charged for which order."""

    async def fetch_credit_history(self, account: Account, *, cursor: str = "0") -> CreditHistory:
        """Return one page of the account's credit history."""


class DailyCredits(Protocol):
    """An upstream that gives free credits every day."""

    async def receive_credits(self, account: Account) -> int:
        """Claim the daily free credits. Return the number gained; 0 = nothing left to claim today."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an upstream offers beyond the core; None = it does not."""

    hosts: HostLookup | None = None
    uploads: Uploads | None = None
    better_videos: BetterVideos | None = None
    agent: Agent | None = None
    balance: CreditBalance | None = None
    ledger: CreditLedger | None = None
    daily_credits: DailyCredits | None = None


class Provider(Protocol):
    """An upstream. Implementations are thread-safe. The calls are coroutines for the event loop of the process
    (`core.concurrency.event_loop`).
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this upstream offers beyond the core."""

    async def check_account(self, account: Account) -> int | None:
        """Make a free call that only a valid credential passes. Return the credits left, or None if it tells none."""

    async def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Order images, once, without any retry."""

    async def submit_video(self, account: Account, order: VideoOrder, *, submit_key: str) -> Submitted:
        """Order a video, once, without any retry."""

    async def fetch_records(self, account: Account, submit_keys: list[str]) -> dict[str, Record]:
        """Return the records of many jobs in one call, by submit key. Unknown keys are absent."""

    async def list_models(self, account: Account) -> LiveModels:
        """Return the models that upstream lists for this account."""


class NotSentError(DreameryError):
    """The request was certainly not sent. Unlike other `upstream_unreachable` errors, this is never unclear."""

    def __init__(self, detail: str | None = None, *, code: str = "upstream_unreachable") -> None:
        super().__init__(code, detail=detail)
