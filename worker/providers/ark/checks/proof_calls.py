"""Calls of the proof: their answers with status and headers, whatever they are, and tasks that are watched."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from worker.core.errors import DreameryError
from worker.providers.ark.client import CREATE_SECONDS, IMAGES, TASKS
from worker.providers.ark.http import Answer, ArkHttp
from worker.providers.ark.models import built_in_models, model_id
from worker.providers.ark.recovery_keys import AttemptKeys
from worker.providers.ark.responses import Task, UnreadableError, parse_error, parse_task, parse_task_page
from worker.providers.base import Account
from worker.providers.proofs import Finding

IMAGE_MODEL, VIDEO_MODEL, FLEX_MODEL = "seedream-5.0-flash", "seedance-2.0-mini", "seedance-1.0-pro-fast"
SIDE, SECONDS, RESOLUTION, RATIO = 1024, 4, "480p", "16:9"
FINAL = frozenset({"succeeded", "failed", "expired", "cancelled"})
_PROMPT = "a paper boat on a calm lake, morning light"
_CUT_SECONDS = 0.001
_USER = "0" * 40


class Calls:
    """Makes the calls of one step for one account. It never repeats one that may cost money."""

    def __init__(self, http: ArkHttp, account: Account) -> None:
        self._http, self.account = http, account

    def script(self, words: str) -> str:
        """Return words that script the sandbox; upstream gets none."""
        return f" {words}" if self.account.region == "sandbox" else ""

    async def list(self, query: list[tuple[str, str]], *, paced: bool = True) -> Answer:
        """List tasks, at the pace that upstream allows unless it is to be exceeded."""
        if paced and self.account.list_turn is not None:
            await self.account.list_turn()
        return await self._http.probe(self.account, "GET", TASKS, query=query)

    async def get(self, path: str) -> Answer:
        """Make a free call."""
        return await self._http.probe(self.account, "GET", path)

    async def delete(self, task_id: str) -> Answer:
        """Ask to delete a task."""
        return await self._http.probe(self.account, "DELETE", f"{TASKS}/{task_id}")

    async def image(self, prompt: str = _PROMPT, **fields: Any) -> Answer:
        """Make one image."""
        body = {
            "model": model_id(self.account, IMAGE_MODEL), "prompt": prompt, "size": f"{SIDE}x{SIDE}",
            "watermark": False, "response_format": "url", **fields,
        }  # fmt: skip
        return await self._http.probe(self.account, "POST", IMAGES, body, seconds=300.0)

    async def video(
        self, keys: AttemptKeys, *, clip: str = "", model: str = VIDEO_MODEL, words: str = "", **fields: Any
    ) -> Answer:
        """Create a task."""
        return await self._http.probe(
            self.account, "POST", TASKS, self.video_body(keys, clip=clip, model=model, words=words, **fields),
            seconds=CREATE_SECONDS,
        )  # fmt: skip

    async def lost_video(self, keys: AttemptKeys) -> bool:
        """Create a task and hang up before its answer. Return whether the answer is lost, as it should be."""
        try:
            body = self.video_body(keys)
            await self._http.probe(self.account, "POST", TASKS, body, seconds=CREATE_SECONDS, read_seconds=_CUT_SECONDS)
        except DreameryError as error:
            return error.code == "upstream_unreachable"
        return False

    def video_body(
        self, keys: AttemptKeys, *, clip: str = "", model: str = VIDEO_MODEL, words: str = "", **fields: Any
    ) -> dict[str, Any]:
        """Return the body of a create call."""
        content: list[dict[str, Any]] = [{"type": "text", "text": f"{_PROMPT}{words}"}]
        if clip:
            content[0]["text"] = f"Video 1 in another light{words}"
            content.append({"type": "video_url", "video_url": {"url": clip}, "role": "reference_video"})
        audio = {} if model == FLEX_MODEL else {"generate_audio": False}
        return {
            "model": model_id(self.account, model), "content": content, "resolution": RESOLUTION, "ratio": RATIO,
            "duration": SECONDS, "watermark": False, **audio,
            "safety_identifier": f"{_USER}.{keys.token}", "execution_expires_after": keys.expires_after, **fields,
        }  # fmt: skip

    async def task(self, task_id: str) -> Task | None:
        """Return a task as a single call shows it."""
        return read_task((await self.get(f"{TASKS}/{task_id}")).body)

    async def listed(self, matches: Callable[[Task], bool], *, seconds: float) -> tuple[Task | None, float]:
        """List the tasks of the video model until one matches. Return it, and how long that took."""
        started = time.monotonic()
        model = model_id(self.account, VIDEO_MODEL)
        while True:
            answer = await self.list([("page_size", "100"), ("filter.model", model)])
            found = next((task for task in read_tasks(answer.body) if matches(task)), None)
            took = time.monotonic() - started
            if found is not None or took > seconds:
                return found, took

    async def wait(self, task_id: str, until: Callable[[Task], bool], *, seconds: float) -> Task | None:
        """Get a task again and again until it is as wanted or final. Return how it is at last."""
        end = time.monotonic() + seconds
        while True:
            task = await self.task(task_id)
            if task is None or until(task) or task.status in FINAL or time.monotonic() > end:
                return task
            await asyncio.sleep(min(3.0, max(end - time.monotonic(), 0.1)))


def read_task(body: Any) -> Task | None:
    """Return the task of an answer; None = it holds none."""
    try:
        return parse_task(body)
    except UnreadableError:
        return None


def read_tasks(body: Any) -> tuple[Task, ...]:
    """Return the tasks of a list; of any other answer none."""
    try:
        return parse_task_page(body).tasks
    except UnreadableError:
        return ()


def named(answer: Answer) -> str:
    """Return status and code of an answer, such as `400 InvalidParameter`."""
    error = parse_error(answer.body)
    return f"{answer.status} {error.code}" if error is not None else str(answer.status)


def refused(answer: Answer, what: str) -> Finding:
    """Return whether an answer is the refusal that it should be."""
    if answer.status < 300:
        return Finding(f"{what}: accepted, and charged", ok=False)
    return Finding(f"{what}: {named(answer)}", ok=answer.status == 400)


def failed(answer: Answer) -> Finding:
    """Return that a call did not work."""
    error = parse_error(answer.body)
    return Finding(f"refused: {named(answer)} {error.message[:200] if error else ''}".strip(), ok=False)


def rate_headers(headers: Mapping[str, str]) -> str:
    """Return the headers that tell of limits."""
    found = {name: text for name, text in headers.items() if "limit" in name or name == "retry-after"}
    return ", ".join(f"{name}: {text}" for name, text in sorted(found.items())) or "none"


def pricing(model: str) -> Any:
    """Return the pricing of a model of the proof; None = the catalog does not have it."""
    models = built_in_models()
    found = models.find_image(model) or models.find_video(model)
    return found.pricing if found is not None else None
