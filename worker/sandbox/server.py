"""The sandbox over HTTP: routes, the checks every call passes, faults, and the control pages.

A stand-in for the private web API of Dreamina and Jimeng. It shares no code with the client that talks to it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from worker.sandbox import responses as sandbox_responses
from worker.sandbox.agent import converse
from worker.sandbox.ledger import MEDIA
from worker.sandbox.models.hosts import HOSTS, Host, family_of
from worker.sandbox.options import Options
from worker.sandbox.requests.fields import RefusedError
from worker.sandbox.requests.signature import check_app, check_sign
from worker.sandbox.scripts import Fault, Faults, Role
from worker.sandbox.state import Call, World
from worker.sandbox.upload_server import upload_routes

Handler = Callable[[World, Call], Response]
Endpoint = Callable[[Request], Awaitable[Response]]

API: dict[str, Handler] = {
    "/lv/v1/user/web/user_info": World.user_info,
    "/passport/account/info/v2": World.account_info,
    "/commerce/v1/benefits/user_credit": World.user_credit,
    "/commerce/v1/benefits/credit_receive": World.credit_receive,
    "/commerce/v1/benefits/user_credit_history": World.user_credit_history,
    "/mweb/v1/aigc_draft/generate": World.generate,
    "/mweb/v1/get_history_by_ids": World.poll,
    "/mweb/v1/get_upload_token": World.upload_token,
    "/mweb/v1/algo_proxy": World.check_upload,
    "/mweb/v1/get_local_item_list": World.local_items,
    "/mweb/v1/get_common_config": World.picture_config,
    "/mweb/v1/video_generate/get_common_config": World.video_config,
    "/mweb/v1/creation_agent/v2/conversation": converse,
}
_NOBODY = Role()


class Sandbox(Starlette):
    """Hands the transport down, so that an answer can be a broken connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # ASGI has no word for "hang up"; uvicorn's `send` is a method of the cycle that holds the transport.
            scope[sandbox_responses.TRANSPORT_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)


def _cookies(header: str) -> dict[str, str]:
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return {name: value for name, _, value in pairs if name}


def _host(headers: Headers, family: str) -> Host | None:
    """The true host of a call; None when the client addressed the sandbox itself."""
    name = headers.get("x-orig-host")
    if name is None:
        return None
    host = HOSTS.get(name.lower().partition(":")[0])
    if host is None or family not in host.families:
        raise LookupError(name)
    return host


def _check(world: World, call: Call, wanted: str | None) -> str:
    """The code this call is refused with before its handler sees it; empty = it may pass."""
    mode = world.options.sign
    try:
        if call.account.role.dead:
            return "1015"
        appid = call.headers.get("appid", "")
        check_app(appid=appid, aid=call.aid, aid_needed=call.family == "mweb", wanted=wanted)
        if mode != "off":
            check_sign(call.path, call.headers, call.now)
    except RefusedError as problem:
        world.violation(call, problem.code, problem.detail)
        if problem.code != "1014" or mode == "enforce":
            return problem.code
    home = call.account.home
    if call.host and home and home not in call.host.homes:
        # For user_info this is an answered question, not a mistake.
        if call.family != "lv":
            world.violation(call, "1015", f"a session of cluster {home} on {call.headers['x-orig-host']}")
        return "1015"
    return ""


async def _faulty(fault: Fault, act: Callable[[], Awaitable[Response]]) -> Response:
    response = sandbox_responses.broken(fault.before) if fault.before else await act()
    if fault.latency:
        await asyncio.sleep(fault.latency)
    return sandbox_responses.broken(fault.after) if fault.after else response


def _api_endpoint(world: World, path: str, handler: Handler) -> Endpoint:
    family = family_of(path)

    async def endpoint(request: Request) -> Response:
        headers = request.headers
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        now = time.time()
        ledger = world.ledger
        ledger.calls[path] += 1
        session = (cookies := _cookies(headers.get("cookie", ""))).get("sessionid", "")
        try:
            host = _host(headers, family)
        except LookupError as problem:
            ledger.violation("404", path=path, account="", detail=f"no such path on host {problem}", now=now)
            return sandbox_responses.edge_page(404)
        if not session:
            ledger.violation("1015", path=path, account="", detail="cookie sessionid is missing", now=now)
            return sandbox_responses.refusal(family, "1015", now)
        call = Call(
            path=path,
            headers=headers,
            cookies=cookies,
            aid=request.query_params.get("aid", ""),
            body=body,
            base=f"{request.url.scheme}://{headers.get('host', '')}",
            now=now,
            account=world.account(session),
            host=host,
            query=request.query_params,
        )

        async def act() -> Response:
            code = _check(world, call, host.aid if host else None)
            response = sandbox_responses.refusal(family, code, now) if code else handler(world, call)
            if call.hold:
                await asyncio.sleep(call.hold)
            return response

        return await _faulty(world.faults.draw(path, call.account.role), act)

    return endpoint


def _media_endpoint(world: World) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        world.ledger.calls[MEDIA] += 1
        path = request.path_params["path"]
        query = request.query_params

        async def act() -> Response:
            expires, signature = query.get("x-expires", ""), query.get("x-signature", "")
            if not world.gallery.allowed(path, expires=expires, signature=signature, now=time.time()):
                return sandbox_responses.edge_page(403)
            picture = world.gallery.find(path)
            if picture is None:
                return sandbox_responses.edge_page(404)
            content = await world.gallery.draw(picture)
            return sandbox_responses.part_of(content, picture.media_type, request.headers.get("range", ""))

        return await _faulty(world.faults.draw(MEDIA, _NOBODY), act)

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _control_routes(world: World) -> list[Route]:
    async def health(_: Request) -> Response:
        return _json({"status": "ok"})

    async def ledger(request: Request) -> Response:
        summary = request.query_params.get("summary", "") not in {"", "0"}
        return _json(world.ledger_view(with_lists=not summary))

    async def reset(_: Request) -> Response:
        world.reset()
        return _json({"status": "ok"})

    async def faults(request: Request) -> Response:
        if request.method == "POST":
            try:
                world.faults = _read_faults(await request.body())
            except ValueError as problem:
                return _json({"error": str(problem)}, 400)
        return _json(world.faults.show())

    return [
        Route("/_health", health),
        Route("/_ledger", ledger),
        Route("/_reset", reset, methods=["POST"]),
        Route("/_faults", faults, methods=["GET", "POST"]),
    ]


def _read_faults(raw: bytes) -> Faults:
    body = orjson.loads(raw or b"{}")
    if not isinstance(body, dict):
        raise ValueError("a JSON object is needed")  # noqa: TRY004  (a caller's mistake, not a type error of ours)
    return Faults.read(body)


def _lost(world: World) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def lost(_: Request, __: Exception) -> Response:
        world.ledger.calls["unknown"] += 1
        return sandbox_responses.edge_page(404)

    return lost


def create_app(options: Options | None = None) -> Starlette:
    """A sandbox with its own memory; `app.state.world` is there for tests in the same process."""
    world = World(options or Options())
    routes = [Route(path, _api_endpoint(world, path, handler), methods=["POST"]) for path, handler in API.items()]
    routes.append(Route("/_media/{path:path}", _media_endpoint(world)))
    routes += upload_routes(world, _faulty)
    routes += _control_routes(world)
    lost = _lost(world)
    app = Sandbox(routes=routes, exception_handlers={404: lost, 405: lost})
    app.state.world = world
    return app
