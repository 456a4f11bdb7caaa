"""Routes of the Ark interface: images, video tasks, models and, with the control token, its ledger.

`keys.py` has the words of keys. `ep-<id of a model>` is an endpoint of every account. Words in a prompt:

- `[[refuse:CODE]]`, `[[fail:CODE]]`, and the faults of the other interface, such as `[[reset:after]]`
- images: `[[partial:N]]`, `[[refused:N]]`, `[[broken]]` (the last is an error of the service), `[[cut:N]]` (a stream
  breaks off after N of them)
- videos: `[[life:SECONDS]]` (the task expires), `[[notready:SECONDS]]` (its file is not there yet), `[[twice]]` (each
  callback comes two times), `[[resigned]]` (each GET has new links)
- `[[expires:SECONDS]]` of links

With `X-Orig-Host` the routes are also below `/api/v3`, where the regions have them.
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
from worker.sandbox.ark.inputs import fetch_links
from worker.sandbox.ark.keys import check_model, read_key, words_of
from worker.sandbox.ark.lost import LostAnswers
from worker.sandbox.ark.refusals import RefusedError, error_response, json_response
from worker.sandbox.ark.requests import ImageOrder, VideoOrder, final_of, read_image_order, read_video_order
from worker.sandbox.ark.state import ArkState, MainAccount
from worker.sandbox.ark.tasks import FINAL, Task
from worker.sandbox.results.drawing import ImageDrawing
from worker.sandbox.results.media import ResultStore
from worker.sandbox.results.video_files import VideoDrawing
from worker.sandbox.scripts import plain_text, read_script, script_words

PREFIX = "/ark/api/v3"
# The hosts of the regions, for clients that reach them through this server.
HOSTS = {"ark.cn-beijing.volces.com": "cn", "ark.ap-southeast.bytepluses.com": "intl"}
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
            *self._routes_below(PREFIX),
            *self._routes_below(PREFIX.removeprefix("/ark"), by_host=True),
            Route("/_ark/ledger", guarded(self._ledger), methods=["GET"]),
            Route("/_ark/lost", guarded(self._lose_answers), methods=["GET", "POST"]),
            Route("/_ark/reset", guarded(self._reset), methods=["POST"]),
        ]

    def _routes_below(self, prefix: str, *, by_host: bool = False) -> list[Route]:
        tasks = f"{prefix}/contents/generations/tasks"
        calls: list[tuple[str, str, Handler]] = [
            ("POST", f"{prefix}/images/generations", self._generate_images),
            ("POST", tasks, self._create_task),
            ("GET", tasks, self._list_tasks),
            ("GET", f"{tasks}/{{id}}", self._get_task),
            ("DELETE", f"{tasks}/{{id}}", self._delete_task),
            ("GET", f"{prefix}/models", self._list_models),
        ]
        return [
            Route(path, self._endpoint(handle, by_host=by_host), methods=[method]) for method, path, handle in calls
        ]

    def _endpoint(self, handle: Handler, *, by_host: bool) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            if by_host and _host(request) not in HOSTS:
                return sandbox_responses.edge_page(404)
            try:
                raw = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)
            name = ""
            try:
                key = read_key(request)
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
        script, words, now = read_script(order.prompt), script_words(order.prompt), time.time()
        await self._check(request, main, key, order)
        main.count_images(order, now)
        if before := self._state.take_fault(order.prompt, script.before) or self._state.lost.fails_before():
            return sandbox_responses.fault_response(before)
        count = _LAYERS if order.layers else int(words.get("partial", order.most))
        images = ImageResults(
            order,
            self._results,
            base=_base(request),
            expires=now + (LINK_SECONDS if script.link_seconds is None else script.link_seconds),
            count=count,
            refused=frozenset(range(min(int(words.get("refused", 0)), count))),
            breaks="broken" in words,
        )
        self._state.ledger.record_images(main.name, order, images.generated, now)
        seconds = self._state.options.seconds if script.seconds is None else script.seconds
        if after := self._state.take_fault(order.prompt, script.after):
            await asyncio.sleep(seconds)
            return sandbox_responses.fault_response(after)
        cut = int(words["cut"]) if "cut" in words else None
        return await self._deliver("images", await image_response(order, images, now, seconds=seconds, cut=cut))

    async def _check(self, request: Request, main: MainAccount, key: str, order: ImageOrder | VideoOrder) -> None:
        """Check what upstream checks beyond the form of an order. Raises RefusedError."""
        check_model(key, order.model)
        if not models.is_sold_in(order.public, HOSTS.get(_host(request), "")):
            raise RefusedError("InvalidEndpointOrModel.NotFound", "no model of this region", param="model")
        if order.has_flags:
            self._state.ledger.record_flags(order.prompt, main.name, time.time())
        if code := script_words(order.prompt).get("refuse"):
            raise RefusedError(code, "refused by the script of the prompt")
        await fetch_links(order.links)

    async def _deliver(self, kind: str, response: Response) -> Response:
        answer, is_lost = await self._state.lost.deliver(kind, response)
        if is_lost:
            self._state.ledger.record_lost(kind)
        return answer

    # ---- videos

    async def _create_task(self, request: Request, main: MainAccount, key: str, body: dict[str, Any]) -> Response:
        order = read_video_order(body, _ENDPOINTS)
        now, key_words = time.time(), words_of(key)
        if order.draft_of:
            draft = main.tasks.get(order.draft_of)
            if draft is None or draft.status(now) != "succeeded" or not draft.order.draft:
                raise RefusedError("NotFound.TaskNotFound", "no finished draft of this id", param="content")
            order = final_of(order, draft.order)
        script, words = read_script(order.prompt), script_words(order.prompt)
        await self._check(request, main, key, order)
        main.count_create(order, key_words, now)
        if before := self._state.take_fault(order.prompt, script.before) or self._state.lost.fails_before():
            return sandbox_responses.fault_response(before)
        life = float(words["life"]) if "life" in words else None
        failure = words.get("fail", "")
        task = self._state.create_task(main, order, script, now, key_words=key_words, failure=failure, life=life)
        self._add_results(task, _base(request))
        self._callbacks.watch(task, twice="twice" in words)
        if after := self._state.take_fault(order.prompt, script.after):
            return sandbox_responses.fault_response(after)
        identifier = {"safety_identifier": order.safety_identifier} if order.safety_identifier else {}
        return await self._deliver("creates", json_response({"id": task.id, **identifier}))

    def _add_results(self, task: Task, base: str, *, since: float | None = None) -> None:
        order = task.order
        seconds = LINK_SECONDS if task.script.link_seconds is None else task.script.link_seconds
        expires = (task.created_at if since is None else since) + seconds
        text, colour = plain_text(order.prompt), len(task.id) % 4
        video = self._results.add(VideoDrawing(text, colour, order.width, order.height, order.seconds))
        if not_ready := script_words(order.prompt).get("notready"):
            self._results.hold_back(video, task.finish_at + float(not_ready))
        lines = min(order.width, order.height)
        task.video_url = self._results.video_link(base, video, expires)(lines)
        if order.last_frame:
            frame = ImageDrawing(text, colour, "last frame", order.width, order.height, "jpeg")
            task.last_frame_url = self._results.link(base, self._results.add(frame), expires)(0, "jpeg")

    async def _get_task(self, request: Request, main: MainAccount, key: str, _: dict[str, Any]) -> Response:
        now = time.time()
        main.count_read(now)
        task = _find(main, request)
        if "resigned" in script_words(task.order.prompt):
            self._add_results(task, _base(request), since=now)
        return await self._deliver("gets", json_response(self._view(task, request, key, now)))

    def _view(self, task: Task, request: Request, key: str, now: float) -> dict[str, Any]:
        if not task.video_url:  # a task of an earlier process
            self._add_results(task, _base(request))
        return task.view(now, echoes="noecho" not in key)

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
            for task in main.listed(words_of(key), now)
            if task.order.flex == flex
            and (not wanted or task.id in wanted)
            and (not model or task.order.model == model)
            and (not status or task.status(now) == status)
        ]
        shown = found[(page - 1) * size : page * size]
        items = [self._view(task, request, key, now) for task in shown]
        return await self._deliver("lists", json_response({"items": items, "total": len(found)}))

    async def _delete_task(self, request: Request, main: MainAccount, _: str, __: dict[str, Any]) -> Response:
        now = time.time()
        main.count_read(now)
        task = _find(main, request)
        status = task.status(now)
        if status == "queued":
            self._state.cancel(task, now)
        elif status == "running":
            raise RefusedError("OperationDenied.Running", "The task is running and can not be deleted.")
        elif status == "cancelled":
            raise RefusedError("OperationDenied.InvalidState", "The task is cancelled.")
        elif status in FINAL:
            self._state.remove(main, task)
        return json_response({})

    # ---- models and control

    async def _list_models(self, _: Request, __: MainAccount, ___: str, ____: dict[str, Any]) -> Response:
        data = [{"id": name, "object": "model"} for name in models.public_names()]
        return json_response({"object": "list", "data": data})

    async def _ledger(self, _: Request) -> Response:
        return json_response(self._state.ledger.view(time.time()))

    async def _lose_answers(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self._state.lost = LostAnswers.parse(_body(await request.body()))
            except (ValueError, TypeError, RefusedError) as error:
                return json_response({"error": str(error)}, 400)
        lost = self._state.lost
        return json_response({**lost.shares, "before": lost.before, "late": lost.late, "how": lost.how})

    async def _reset(self, _: Request) -> Response:
        self._callbacks.stop()
        self._state.clear()
        return json_response({"status": "ok"})


def _host(request: Request) -> str:
    """Return the host that the client means, without its port; "" = this server itself."""
    return request.headers.get("x-orig-host", "").lower().partition(":")[0]


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
