"""The Provider protocol between the job engine and an upstream. It knows no wire format.

Failures are raised as `DreameryError`; the error table decides the reaction. If upstream becomes unreachable *after* a
submit may have been sent, the error is `upstream_unreachable` (reaction `unclear`).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, BinaryIO, Protocol

from worker.core.catalog.provider_data import first_provider
from worker.core.errors import DreameryError
from worker.providers.conversation import AgentEvent, Conversation
from worker.providers.credits import CreditHistory, Credits
from worker.providers.live_models import LiveModels
from worker.providers.poll_rules import PollRules
from worker.providers.proofs import CredentialFacts, Proof


@dataclass(frozen=True, slots=True)
class Account:
    """What a call needs to know about an account. `session` is decrypted just before the call and never kept."""

    id: str
    region: str  # one of the provider's
    session: str = field(repr=False)
    cluster: "dict[str, str] | None" = None  # looked-up hosts of an `auto` account, from the accounts table
    proxy: str | None = field(default=None, repr=False)  # as `worker.core.security.session_tokens` writes it
    provider: str = field(default_factory=first_provider)
    model_ids: Mapping[str, str] = field(default_factory=dict)  # our name of a model -> upstream's, where it differs
    currency: str | None = None  # None = credits of the upstream
    limit_group: str | None = None  # accounts of one customer share limits; None = alone
    facts: Mapping[str, Any] = field(default_factory=dict)  # what was learned about it (`accounts.provider_facts`)
    # Waits until its customer may read a list; None = there is no such limit.
    list_turn: "Callable[[], Awaitable[None]] | None" = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Reference:
    """An image uploaded to upstream with the account that will use it. Size 0 = not reported by upstream."""

    uri: str
    width: int = 0
    height: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """One input of an omni video: an image (`image`), or a video or audio file by the id of its upload."""

    kind: str  # image, video, audio
    image: Reference | None = None
    upload_id: str = ""
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
class InputFile:
    """An input as we store it, for an upstream that takes inputs within the order. `role` as in `job_inputs`."""

    kind: str  # image, video, audio
    role: str  # first_frame, end_frame, reference
    name: str
    media_type: str
    size: int  # bytes
    open: Callable[[], IO[bytes]] = field(repr=False)  # blocks; the caller closes it
    link: str | None = field(default=None, repr=False)  # signed public link; None = there is no public address


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
    options: Mapping[str, Any] = field(default_factory=dict)  # fields that only some upstreams have
    inputs: "tuple[InputFile, ...]" = ()  # for upstreams without uploads, instead of `references`
    user: str = ""  # a stable hash of the end user


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
    listed: Mapping[str, Any] = field(
        default_factory=dict
    )  # the model in upstream's list for the account; {} = not listed
    options: Mapping[str, Any] = field(default_factory=dict)  # fields that only some upstreams have
    inputs: tuple[InputFile, ...] = ()  # for upstreams without uploads, instead of frames and materials
    user: str = ""  # a stable hash of the end user


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that upstream has or may have. `upstream_id` None = the answer to its submit was lost."""

    submit_key: str
    upstream_id: str | None
    kind: str  # image, video
    model: str  # public id
    claimed_at: float = 0.0  # unix seconds
    order: Mapping[str, Any] = field(default_factory=dict)  # as in `jobs.params`
    hint: str | None = None  # what a callback calls it; unproved


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
    role: str = ""  # "" = a result of its own; last_frame = the last frame of the video
    layer: Mapping[str, Any] | None = None  # of a layer of a picture: name, description, box in pixels


@dataclass(frozen=True, slots=True)
class Record:
    """The normalised upstream record of one job."""

    submit_key: str
    upstream_id: str
    state: RecordState
    expected: int  # number of results, 0 = not reported
    results: tuple[ResultRef, ...] = ()
    settled: bool = True  # False: more items may follow; the engine waits until they are stable
    queue_position: int | None = None
    forecast_seconds: int | None = None
    error_code: str | None = None  # code of the error table, if FAILED
    error_message: str | None = None
    detail: str | None = None  # upstream's code, key and log id, for the job's timeline
    charged: int | None = None  # credits that upstream reported for it; None = not reported
    usage: Mapping[str, Any] = field(default_factory=dict)  # what upstream measured (tokens, images), for the books
    echoes: bool | None = None  # whether a list of upstream shows the keys that we sent; None = not known
    may_repeat: bool = False  # FAILED, not charged, and the same order may succeed


@dataclass(frozen=True, slots=True)
class Submitted:
    """An accepted submit."""

    upstream_id: str
    queue_position: int | None = None
    forecast_seconds: int | None = None
    record: Record | None = None  # an upstream that works within the call returns the results at once


class HostLookup(Protocol):
    """An upstream whose accounts live on different hosts, which must be found first."""

    async def look_up_hosts(self, account: Account) -> dict[str, str]:
        """Look up the hosts of an account whose region does not tell them. Raises upstream_session_expired."""


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


class ModelList(Protocol):
    """An upstream that lists the models of an account."""

    async def list_models(self, account: Account) -> LiveModels:
        """Return the models that upstream lists for this account."""


class ImmediateImages(Protocol):
    """An upstream that makes images within the call. The call takes minutes, and a lost answer loses the images."""

    @property
    def image_seconds(self) -> float:
        """The longest time of one call."""

    async def generate_images(
        self, account: Account, order: ImageOrder, *, submit_key: str, arrived: Callable[[Record], Awaitable[None]]
    ) -> Submitted:
        """Order images, once, and return them. `arrived` gets what is there while more images follow."""


class Found(StrEnum):
    """What is known of an order whose answer was lost."""

    FOUND = "found"
    ABSENT = "absent"  # proved: upstream does not have it
    UNKNOWN = "unknown"  # not (yet) known


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The result of a look-up by our key. `more` = further matches: it may have been charged more than once."""

    found: Found
    record: Record | None = None
    more: tuple[str, ...] = ()


class KeyLookup(Protocol):
    """An upstream that finds an order whose answer was lost by the key that we sent with it."""

    async def look_up(self, account: Account, order: OpenOrder, *, owned: Collection[str] = ()) -> LookupResult:
        """Look for the order. `owned` = upstream ids of other jobs, which are no matches."""

    def can_look_up(self, kind: str) -> bool:
        """Whether orders of this kind can be found at all."""


class Cancel(Protocol):
    """An upstream that cancels an order that it has not begun."""

    async def cancel(self, account: Account, order: OpenOrder) -> bool:
        """Cancel the order. Return False if it is too late: then it is finished and charged."""


class FreshLinks(Protocol):
    """An upstream that gives new links of results only when it is asked for a single order."""

    async def fetch_single(self, account: Account, order: OpenOrder) -> Record | None:
        """Return the record of one order; None = upstream does not know it."""


class Callbacks(Protocol):
    """An upstream that reports changes of an order to our address. Reports are hints, never believed."""

    def submit_key_of(self, token: str) -> str | None:
        """Return the submit key of the token in a callback's path; None = no such token."""


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
    live_models: ModelList | None = None
    immediate_images: ImmediateImages | None = None
    lookup: KeyLookup | None = None
    cancel: Cancel | None = None
    callbacks: Callbacks | None = None
    facts: CredentialFacts | None = None
    proof: Proof | None = None
    fresh_links: FreshLinks | None = None
    polling: PollRules = field(default_factory=PollRules)


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

    async def fetch_records(self, account: Account, orders: list[OpenOrder]) -> dict[str, Record]:
        """Return the records of many orders in one call, by submit key. Unknown orders are absent."""

    def close(self) -> None:
        """Close all connections."""


class NotSentError(DreameryError):
    """The request was certainly not sent. Unlike other `upstream_unreachable` errors, this is never unclear."""

    def __init__(self, detail: str | None = None, *, code: str = "upstream_unreachable") -> None:
        super().__init__(code, detail=detail)
