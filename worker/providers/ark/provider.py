"""The official interface of the vendor: implements `Provider`. Images are made within the call, videos are tasks."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx

from worker.core.errors import DreameryError, Reaction
from worker.core.observability.faults import before_sending
from worker.core.settings import Settings
from worker.providers.ark import orders
from worker.providers.ark.checks.key_check import KeyCheck
from worker.providers.ark.checks.proof import ArkProof
from worker.providers.ark.client import IMAGE_SECONDS, ArkClient
from worker.providers.ark.error_codes import rule_for
from worker.providers.ark.http import ArkHttp
from worker.providers.ark.image_requests import build_image_body
from worker.providers.ark.image_stream import StreamCompleted, StreamedImage, StreamFailed
from worker.providers.ark.responses import ApiError, ImageAnswer, ImageItem, image_usage
from worker.providers.ark.tasks import POLLING, ArkTasks
from worker.providers.ark.verdicts import refusal
from worker.providers.ark.video_requests import build_video_body
from worker.providers.base import (
    Account,
    Capabilities,
    ImageOrder,
    NotSentError,
    OpenOrder,
    Record,
    RecordState,
    ResultRef,
    Submitted,
    VideoOrder,
)
from worker.providers.live_models import LiveModels
from worker.providers.refusals import RefusedError, Verdict

Arrived = Callable[[Record], Awaitable[None]]


def create(settings: Settings) -> "ArkProvider":
    """Return a provider with connections of its own."""
    return ArkProvider(settings)


class ArkProvider:
    """Implements `Provider`. One instance per process, shared by all threads."""

    image_seconds = IMAGE_SECONDS

    def __init__(self, settings: Settings, *, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        self._http = ArkHttp(settings, transport)
        self._client = ArkClient(self._http)
        self._tasks = ArkTasks(self._client)
        self._public_url = settings.public_url
        self._capabilities = Capabilities(
            immediate_images=self,
            lookup=self._tasks,
            cancel=self._tasks,
            facts=KeyCheck(self._client),
            proof=ArkProof(self._http, settings.public_url),
            fresh_links=self._tasks,
            polling=POLLING,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What it has."""
        return self._capabilities

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    async def check_account(self, account: Account) -> None:
        """List one task, which costs nothing. A key alone does not tell what is left."""
        await self._client.check_key(account)

    async def list_models(self, account: Account) -> LiveModels:
        """Upstream's list holds models that the customer has not activated, so it tells nothing about an account."""
        del account
        return LiveModels()

    async def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Make images; see `generate_images`."""
        return await self.generate_images(account, order, submit_key=submit_key, arrived=_ignore)

    async def generate_images(
        self, account: Account, order: ImageOrder, *, submit_key: str, arrived: Arrived
    ) -> Submitted:
        """One call, never repeated here. Models that stream always do: what has arrived outlives a cut."""
        with_links = orders.has_links(order.inputs)
        with before_sending():
            call = await orders.image_call(account, order)
            body = build_image_body(call)
        made = _Images(order, submit_key)
        try:
            if call.stream:
                await self._read_stream(account, body, made, arrived)
            else:
                made.add_all(await self._client.generate_images(account, body))
        except RefusedError as error:
            raise _with_links(error, has_links=with_links) from None
        except NotSentError:
            raise
        except DreameryError as error:
            if not made.items or error.code != "upstream_unreachable":
                raise
            made.problem = error.detail or error.code
        record = made.record(account)
        return Submitted(record.upstream_id, record=record)

    async def _read_stream(self, account: Account, body: dict[str, object], made: "_Images", arrived: Arrived) -> None:
        async with aclosing(self._client.stream_images(account, body)) as events:
            async for event in events:
                match event:
                    case StreamedImage():
                        made.items.append(event.item)
                        if event.item.error is None:
                            await arrived(made.so_far())
                    case StreamCompleted():
                        made.answer = event.answer
                        made.problem = ""
                    case StreamFailed():
                        made.failure = event.error
        if made.answer is None and made.failure is None and not made.items:
            raise DreameryError("upstream_unreachable", detail="the stream ended without an image")

    async def submit_video(self, account: Account, order: VideoOrder, *, submit_key: str) -> Submitted:
        """Create a task. One call, never repeated here."""
        with_links = orders.has_links(order.inputs)
        with before_sending():
            call = await orders.video_call(account, order, submit_key=submit_key, public_url=self._public_url)
            body = build_video_body(call)
        try:
            return Submitted(await self._client.create_task(account, body))
        except RefusedError as error:
            raise _with_links(error, has_links=with_links) from None

    async def fetch_records(self, account: Account, open_orders: list[OpenOrder]) -> dict[str, Record]:
        """One list for up to a hundred tasks, and single calls for those that it leaves out."""
        return await self._tasks.fetch_records(account, open_orders)


async def _ignore(_: Record) -> None:
    """What has arrived is in the answer too."""


def _with_links(error: RefusedError, *, has_links: bool) -> RefusedError:
    """A picture that upstream could not open by its link is sent once more, within the body."""
    if not has_links or not error.name.startswith("InvalidImageURL"):
        return error
    verdict = Verdict(Reaction.RETRY_LATER, pauses=(0.0,), counts=True)
    return RefusedError(error.code, verdict, error.message, detail=error.detail, name=error.name)


@dataclass(slots=True)
class _Images:
    """What has come of one call. `problem` = why the rest is missing; `failure` = the error that ended the stream."""

    order: ImageOrder
    submit_key: str
    items: list[ImageItem] = field(default_factory=list)
    answer: ImageAnswer | None = None
    failure: ApiError | None = None
    problem: str = ""

    def add_all(self, answer: ImageAnswer) -> None:
        """Take over a whole answer."""
        self.items, self.answer = list(answer.items), answer

    def so_far(self) -> Record:
        """Return the images that are there while more may follow."""
        return self._record(RecordState.RUNNING)

    def record(self, account: Account) -> Record:
        """Return the record of the ended call. Raises RefusedError if there is no image, and upstream says why."""
        if not any(item.error is None for item in self.items):
            error = self.failure or (self.answer.error if self.answer is not None else None)
            error = error or next((item.error for item in self.items if item.error is not None), None)
            if error is not None:
                # An error in the place of an image has no status of its own.
                raise refusal(error, rule_for(error, status=400), status=200, secret=account.session)
            raise DreameryError("generation_failed", detail="an answer without images")
        return self._record(RecordState.DONE)

    def _record(self, state: RecordState) -> Record:
        expected = self.order.count or 1
        missing = [item.error.code for item in self.items if item.error is not None]
        if self.failure is not None:
            missing.append(self.failure.code)
        return Record(
            submit_key=self.submit_key,
            upstream_id=f"images-{self.submit_key}",
            state=state,
            expected=max(expected, len(self.items)),
            results=tuple(
                ResultRef(
                    item.url, item.width, item.height, item.format, layer=item.layer.as_dict() if item.layer else None
                )
                for item in self.items
                if item.error is None and item.url
            ),
            settled=state is RecordState.DONE,
            detail="; ".join([*missing, self.problem][:8]).strip("; ") or None,
            usage=image_usage(self.items, self.answer, inputs=len(self.order.inputs)),
        )
