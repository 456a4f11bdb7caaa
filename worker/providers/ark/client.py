"""The endpoints of Ark: images, video tasks, models, and the free check of a key. Each call is made once."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from worker.core.errors import DreameryError
from worker.providers.ark.http import ArkHttp
from worker.providers.ark.image_stream import StreamCompleted, StreamedImage, StreamEvent, parse_events
from worker.providers.ark.responses import (
    ImageAnswer,
    Task,
    TaskPage,
    UnreadableError,
    parse_images,
    parse_task,
    parse_task_page,
)
from worker.providers.base import Account

IMAGES, TASKS, MODELS = "/images/generations", "/contents/generations/tasks", "/models"
# The slowest model takes two minutes for an image; connections that are cut are the main cause of double payment.
IMAGE_SECONDS = 300.0
# A create call answers in seconds, with reference videos in tens of seconds.
CREATE_SECONDS = 60.0
MOST_IDS = 100  # of one list: an address of four kilobytes
_PAGE_SIZE = 500


class ArkClient:
    """Calls of one process for all accounts. Use it on the event loop."""

    def __init__(self, http: ArkHttp) -> None:
        self._http = http

    async def generate_images(self, account: Account, body: dict[str, Any]) -> ImageAnswer:
        """Generate images and wait for them. Raises `upstream_unreachable` if it is unclear whether they were made."""
        answer = await self._http.post(account, IMAGES, body, seconds=IMAGE_SECONDS, waits=True)
        try:
            return parse_images(answer)
        except UnreadableError as error:
            raise DreameryError("upstream_unreachable", detail=f"{IMAGES}: {error}") from None

    async def stream_images(self, account: Account, body: dict[str, Any]) -> AsyncGenerator[StreamEvent]:
        """Generate images and yield each as it is finished. `body` asks for a stream.

        Ends without StreamCompleted if the stream was cut: then the rest is unclear.
        """
        async with aclosing(self._http.stream(account, IMAGES, body, seconds=IMAGE_SECONDS)) as lines:
            async for line in lines:
                for event in parse_events([line]) if isinstance(line, str) else _events(line):
                    yield event

    async def create_task(self, account: Account, body: dict[str, Any]) -> str:
        """Create a video task; return its id. Raises `upstream_unreachable` if it is unclear whether it exists."""
        answer = await self._http.post(account, TASKS, body, seconds=CREATE_SECONDS)
        name = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(name, str) or not name:
            raise DreameryError("upstream_unreachable", detail=f"{TASKS}: accepted without an id")
        return name

    async def get_task(self, account: Account, task_id: str) -> Task:
        """Return one task. Raises RefusedError if upstream does not know it."""
        return _task(await self._http.get(account, f"{TASKS}/{task_id}"))

    async def list_tasks(
        self, account: Account, task_ids: Sequence[str], *, flex: bool = False, model: str | None = None
    ) -> list[Task]:
        """Return the tasks of these ids, at most `MOST_IDS`. Unknown ids are absent. One list a second is allowed."""
        query = [("page_size", str(MOST_IDS)), *(("filter.task_ids", one) for one in task_ids)]
        query += [("filter.model", model)] if model is not None else []
        query += [("filter.service_tier", "flex")] if flex else []
        return list((await self._list(account, query)).tasks)

    async def list_recent(self, account: Account, model: str, *, page: int = 1, flex: bool = False) -> TaskPage:
        """Return a page of the tasks of a model of the last seven days. `model` = as it was sent."""
        query = [("page_num", str(page)), ("page_size", str(_PAGE_SIZE)), ("filter.model", model)]
        query += [("filter.service_tier", "flex")] if flex else []
        return await self._list(account, query)

    async def _list(self, account: Account, query: list[tuple[str, str]]) -> TaskPage:
        if account.list_turn is not None:
            await account.list_turn()
        return _page(await self._http.get(account, TASKS, query))

    async def cancel_task(self, account: Account, task_id: str) -> None:
        """Cancel a queued task. Raises RefusedError if it runs already: then it will be paid."""
        await self._http.delete(account, f"{TASKS}/{task_id}")

    async def check_key(self, account: Account) -> None:
        """Make a free call that only a valid key passes. Raises RefusedError."""
        await self.count_tasks(account)

    async def count_tasks(self, account: Account, model: str | None = None) -> int:
        """Return how many tasks of the last seven days the key can see, of all models or one. Raises RefusedError."""
        query = [("page_num", "1"), ("page_size", "1")] + ([("filter.model", model)] if model is not None else [])
        return (await self._list(account, query)).total

    async def list_models(self, account: Account) -> list[str]:
        """Return the ids of all public models, also of those that the customer has not activated."""
        answer = await self._http.get(account, MODELS)
        rows = answer.get("data") if isinstance(answer, dict) else None
        return [row["id"] for row in rows or [] if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _events(body: Any) -> Iterator[StreamEvent]:
    """Yield the events of an answer that came as JSON, although a stream was asked for."""
    try:
        answer = parse_images(body)
    except UnreadableError as error:
        raise DreameryError("upstream_unreachable", detail=f"{IMAGES}: {error}") from None
    yield from (StreamedImage(index, item) for index, item in enumerate(answer.items))
    yield StreamCompleted(answer)


def _task(body: Any) -> Task:
    try:
        return parse_task(body)
    except UnreadableError as error:
        raise DreameryError("upstream_unreachable", detail=f"{TASKS}: {error}") from None


def _page(body: Any) -> TaskPage:
    try:
        return parse_task_page(body)
    except UnreadableError as error:
        raise DreameryError("upstream_unreachable", detail=f"{TASKS}: {error}") from None
