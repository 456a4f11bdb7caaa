"""Routes of the Ark interface: images, video tasks, models and, with the control token, its ledger.

Words in a key make its main account behave: `dead`, `overdue`, `closed` (models not activated), `endpoints` (endpoints
only), `custom` (lists need a model), `noecho` (lists do not show the values that a client could recognise).
`ep-<id of a model>` is an endpoint of every account. Words in a prompt: `[[refuse:CODE]]`, `[[fail:CODE]]`,
`[[partial:N]]`, `[[refused:N]]`, and the faults of the other interface, such as `[[reset:after]]`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from worker.sandbox import responses as sandbox_responses
from worker.sandbox.ark import models
from worker.sandbox.ark.callbacks import Callbacks
from worker.sandbox.ark.images import LINK_SECONDS, ImageResults, image_response
from worker.sandbox.ark.refusals import RefusedError, error_response, json_response
from worker.sandbox.ark.requests import read_image_order, read_video_order
from worker.sandbox.ark.state import CREATES_PER_MINUTE, IMAGES_PER_MINUTE, ArkState, MainAccount
from worker.sandbox.ark.tasks import FINAL, Task
from worker.sandbox.results.drawing import ImageDrawing
from worker.sandbox.results.media import ResultStore
from worker.sandbox.results.video_files import VideoDrawing
from worker.sandbox.scripts import plain_text, read_script, script_words

PREFIX = "/ark/api/v3"
_TASKS = f"{PREFIX}/contents/generations/tasks"
_LAYERS = 3
_ENDPOINTS = {f"ep-{name}": name for name in (*models.IMAGES, *models.VIDEOS)}
_MOST_PAGE = 500
Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, MainAccount, str, dict[str, Any]], Awaitable[Response]]


class ArkInterface:
    """The endpoints and what they work on. `results` stores the media of the whole sandbox."""

    def __init__(self, state: ArkState, results: ResultStore) -> None:
        self._state, self._results, self._callbacks = state, results, Callbacks()

    def routes(self, guarded: Callable[[Endpoint], Endpoint]) -> list[Route]:
        """Return the routes; `guarded` = a wrapper for control routes."""
        return [
            Route(f"{PREFIX}/images/generations", self._endpoint(self._generate_images), methods=["POST"]),
            Route(_TASKS, self._endpoint(self._create_task), methods=["POST"]),
            Route(_TASKS, self._endpoint(self._list_tasks), methods=["GET"]),
            Route(f"{_TASKS}/{{id}}", self._endpoint(self._get_task), methods=["GET"]),
            Route(f"{_TASKS}/{{id}}", self._endpoint(self._delete_task), methods=["DELETE"]),
            Route(f"{PREFIX}/models", self._endpoint(self._list_models), methods=["GET"]),
            Route("/_ark/ledger", guarded(self._ledger), methods=["GET"]),
            Route("/_ark/reset", guarded(self._reset), methods=["POST"]),
        ]

    def _endpoint(self, handle: Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                raw = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)
            name = ""
            try:
                key = _key_of(request)
                main = self._state.main_of(key)
                name = main.name
                return await handle(request, main, key, _body(raw))
            except RefusedError as error:
                if error.violation:
                    self._state.ledger.record_violation(error, name, time.time())
                return error_response(error)

        return endpoint

    # ---- images

    async def _generate_images(self, request: Request, main: MainAccount, key: str, body: dict[str, Any]) -> Response:
        order = read_image_order(body, _ENDPOINTS)
        _check_model(key, order.model)
        script, words, now = read_script(order.prompt), script_words(order.prompt), time.time()
        _refuse_by_script(words)
        main.count_call(f"image {order.model}", IMAGES_PER_MINUTE, now, weight=17 if order.layers else 1)
        if before := self._state.take_fault(order.prompt, script.before):
            return sandbox_responses.fault_response(before)
        count = _LAYERS if order.layers else int(words.get("partial", order.most))
        refused = frozenset(range(min(int(words.get("refused", 0)), count)))
        images = ImageResults(order, self._results, base=_base(request), now=now, count=count, refused=refused)
        self._state.ledger.record_images(main.name, order, images.generated, now)
        seconds = self._state.options.seconds if script.seconds is None else script.seconds
        if after := self._state.take_fault(order.prompt, script.after):
            await asyncio.sleep(seconds)
            return sandbox_responses.fault_response(after)
        return await image_response(order, images, now, seconds=seconds)

    # ---- videos

    async def _create_task(self, request: Request, main: MainAccount, key: str, body: dict[str, Any]) -> Response:
        order = read_video_order(body, _ENDPOINTS)
        _check_model(key, order.model)
        script, words, now = read_script(order.prompt), script_words(order.prompt), time.time()
        _refuse_by_script(words)
        main.count_call(f"video {order.model}", CREATES_PER_MINUTE, now)
        if order.draft_of:
            draft = main.tasks.get(order.draft_of)
            if draft is None or draft.status(now) != "succeeded" or not draft.order.draft:
                raise RefusedError("NotFound.TaskNotFound", "no finished draft of this id", param="content")
        if before := self._state.take_fault(order.prompt, script.before):
            return sandbox_responses.fault_response(before)
        task = self._state.create_task(main, order, script, now, failure=words.get("fail", ""))
        self._add_results(task, _base(request))
        self._callbacks.watch(task)
        if after := self._state.take_fault(order.prompt, script.after):
            return sandbox_responses.fault_response(after)
        identifier = {"safety_identifier": order.safety_identifier} if order.safety_identifier else {}
        return json_response({"id": task.id, **identifier})

    def _add_results(self, task: Task, base: str) -> None:
        order, expires = task.order, task.created_at + LINK_SECONDS
        text, colour = plain_text(order.prompt), len(task.id) % 4
        video = self._results.add(VideoDrawing(text, colour, order.width, order.height, order.seconds))
        lines = min(order.width, order.height)
        task.video_url = self._results.video_link(base, video, expires)(lines)
        if order.last_frame:
            frame = ImageDrawing(text, colour, "last frame", order.width, order.height, "jpeg")
            task.last_frame_url = self._results.link(base, self._results.add(frame), expires)(0, "jpeg")

    async def _get_task(self, request: Request, main: MainAccount, key: str, _: dict[str, Any]) -> Response:
        return json_response(_find(main, request).view(time.time(), echoes="noecho" not in key))

    async def _list_tasks(self, request: Request, main: MainAccount, key: str, _: dict[str, Any]) -> Response:
        query, now = request.query_params, time.time()
        model = query.get("filter.model")
        if "custom" in key and not model:
            raise RefusedError("AccessDenied", "this key lists the tasks of one model only")
        main.count_list(now)
        page, size = _number(query.get("page_num"), 1), _number(query.get("page_size"), 20)
        wanted, status = set(query.getlist("filter.task_ids")), query.get("filter.status")
        flex = query.get("filter.service_tier", "default") == "flex"
        found = [
            task
            for task in reversed(main.tasks.values())
            if task.order.flex == flex
            and (not wanted or task.id in wanted)
            and (not model or task.order.model == model)
            and (not status or task.status(now) == status)
            and not task.script.absent
        ]
        shown = found[(page - 1) * size : page * size]
        items = [task.view(now, echoes="noecho" not in key) for task in shown]
        return json_response({"items": items, "total": len(found)})

    async def _delete_task(self, request: Request, main: MainAccount, _: str, __: dict[str, Any]) -> Response:
        task, now = _find(main, request), time.time()
        status = task.status(now)
        if status == "queued":
            task.cancelled_at = now
        elif status == "running":
            raise RefusedError("OperationDenied.Running", "The task is running and can not be deleted.")
        elif status == "cancelled":
            raise RefusedError("OperationDenied.InvalidState", "The task is cancelled.")
        elif status in FINAL:
            del main.tasks[task.id]
        return json_response({})

    # ---- models and control

    async def _list_models(self, _: Request, __: MainAccount, ___: str, ____: dict[str, Any]) -> Response:
        data = [{"id": name, "object": "model"} for name in models.public_names()]
        return json_response({"object": "list", "data": data})

    async def _ledger(self, _: Request) -> Response:
        return json_response(self._state.ledger.view(time.time()))

    async def _reset(self, _: Request) -> Response:
        self._callbacks.stop()
        self._state.clear()
        return json_response({"status": "ok"})


def _key_of(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip() or "dead" in key:
        raise RefusedError("AuthenticationError", "The API key does not exist or is not valid.")
    if "overdue" in key:
        raise RefusedError("AccountOverdueError", "The account has an overdue balance.")
    return key.strip()


def _check_model(key: str, model: str) -> None:
    if "closed" in key:
        raise RefusedError("ModelNotOpen", f"The account has not activated the model {model}.", param="model")
    if "endpoints" in key and not model.startswith("ep-"):
        raise RefusedError("InvalidEndpointOrModel.ModelIDAccessDisabled", "endpoints only", param="model")


def _refuse_by_script(words: dict[str, str]) -> None:
    if code := words.get("refuse"):
        raise RefusedError(code, "refused by the script of the prompt")


def _body(raw: bytes) -> dict[str, Any]:
    if not raw:
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("InvalidParameter", "the body is not JSON", violation=True) from None
    if not isinstance(body, dict):
        raise RefusedError("InvalidParameter", "the body is not an object", violation=True)
    return body


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


def _find(main: MainAccount, request: Request) -> Task:
    task = main.tasks.get(request.path_params["id"])
    if task is None:
        raise RefusedError("NotFound.TaskNotFound", "The specified task is not found.")
    return task


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= _MOST_PAGE:
        raise RefusedError("InvalidParameter", "page_num and page_size are 1 to 500")
    return int(text)
