"""The sandbox's HTTP server: routes, common checks of each call, faults, and control routes.

It imitates the private web API of Dreamina and Jimeng, and below `/ark` the official API (`ark/`). It shares no code
with the clients that call it.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
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
from worker.sandbox.ark.routes import ArkInterface
from worker.sandbox.ark.state import ArkState
from worker.sandbox.kept.state_file import StateFile
from worker.sandbox.ledger import MEDIA
from worker.sandbox.models.hosts import HOSTS, Host, family_of
from worker.sandbox.options import CONTROL_HEADER, Options
from worker.sandbox.requests.fields import RefusedError
from worker.sandbox.requests.signature import check_app, check_sign
from worker.sandbox.scripts import AccountBehaviour, Fault, Faults
from worker.sandbox.state import Call, SandboxState
from worker.sandbox.uploads.server import upload_routes

Handler = Callable[[SandboxState, Call], Response]
Endpoint = Callable[[Request], Awaitable[Response]]

API: dict[str, Handler] = {
    "/lv/v1/user/web/user_info": SandboxState.user_info,
    "/passport/account/info/v2": SandboxState.account_info,
    "/commerce/v1/benefits/user_credit": SandboxState.user_credit,
    "/commerce/v1/benefits/credit_receive": SandboxState.credit_receive,
    "/commerce/v1/benefits/user_credit_history": SandboxState.user_credit_history,
    "/mweb/v1/aigc_draft/generate": SandboxState.generate,
    "/mweb/v1/get_history_by_ids": SandboxState.poll,
    "/mweb/v1/get_upload_token": SandboxState.upload_token,
    "/mweb/v1/algo_proxy": SandboxState.check_upload,
    "/mweb/v1/get_local_item_list": SandboxState.local_items,
    "/mweb/v1/get_common_config": SandboxState.image_config,
    "/mweb/v1/video_generate/get_common_config": SandboxState.video_config,
    "/mweb/v1/creation_agent/v2/conversation": converse,
}
_DEFAULT_BEHAVIOUR = AccountBehaviour()


class Sandbox(Starlette):
    """Passes the transport to responses, so that a response can break the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # ASGI cannot reset a connection; uvicorn's `send` is a method of the object that holds the transport.
            scope[sandbox_responses.TRANSPORT_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)


def _cookies(header: str) -> dict[str, str]:
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return {name: value for name, _, value in pairs if name}


def _host(headers: Headers, family: str) -> Host | None:
    """Return the upstream host of a call, or None when the client addressed the sandbox itself.

    Raises LookupError when the host does not serve the family.
    """
    name = headers.get("x-orig-host")
    if name is None:
        return None
    host = HOSTS.get(name.lower().partition(":")[0])
    if host is None or family not in host.families:
        raise LookupError(name)
    return host


def _check(state: SandboxState, call: Call, expected_aid: str | None) -> str:
    """Return the code that refuses this call before its handler runs, or an empty string."""
    mode = state.options.sign
    try:
        if call.account.behaviour.dead:
            return "1015"
        appid = call.headers.get("appid", "")
        check_app(appid=appid, aid=call.aid, aid_needed=call.family == "mweb", expected_aid=expected_aid)
        if mode != "off":
            check_sign(call.path, call.headers, call.now)
    except RefusedError as error:
        state.record_violation(call, error.code, error.detail)
        if error.code != "1014" or mode == "enforce":
            return error.code
    cluster = call.account.cluster
    if call.host and cluster and cluster not in call.host.clusters:
        # user_info calls may ask the wrong host: clients find their region that way.
        if call.family != "lv":
            state.record_violation(call, "1015", f"a session of cluster {cluster} on {call.headers['x-orig-host']}")
        return "1015"
    return ""


async def _respond_with_fault(fault: Fault, handle: Callable[[], Awaitable[Response]]) -> Response:
    response = sandbox_responses.fault_response(fault.before) if fault.before else await handle()
    if fault.latency:
        await asyncio.sleep(fault.latency)
    return sandbox_responses.fault_response(fault.after) if fault.after else response


def _api_endpoint(state: SandboxState, path: str, handler: Handler) -> Endpoint:
    family = family_of(path)

    async def endpoint(request: Request) -> Response:
        headers = request.headers
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        now = time.time()
        ledger = state.ledger
        ledger.calls[path] += 1
        session = (cookies := _cookies(headers.get("cookie", ""))).get("sessionid", "")
        try:
            host = _host(headers, family)
        except LookupError as error:
            ledger.record_violation("404", path=path, account="", detail=f"no such path on host {error}", now=now)
            return sandbox_responses.edge_page(404)
        if not session:
            ledger.record_violation("1015", path=path, account="", detail="cookie sessionid is missing", now=now)
            return sandbox_responses.refusal(family, "1015", now)
        call = Call(
            path=path,
            headers=headers,
            cookies=cookies,
            aid=request.query_params.get("aid", ""),
            body=body,
            base=f"{request.url.scheme}://{headers.get('host', '')}",
            now=now,
            account=state.get_account(session),
            host=host,
            query=request.query_params,
        )

        async def handle() -> Response:
            code = _check(state, call, host.aid if host else None)
            response = sandbox_responses.refusal(family, code, now) if code else handler(state, call)
            if call.delay:
                await asyncio.sleep(call.delay)
            return response

        return await _respond_with_fault(state.faults.next_fault(path, call.account.behaviour), handle)

    return endpoint


def _media_endpoint(state: SandboxState) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        state.ledger.calls[MEDIA] += 1
        path = request.path_params["path"]
        query = request.query_params

        async def handle() -> Response:
            expires, signature = query.get("x-expires", ""), query.get("x-signature", "")
            if not state.results.is_link_valid(path, expires=expires, signature=signature, now=time.time()):
                return sandbox_responses.edge_page(403)
            if state.results.is_held_back(path, time.time()):
                return _json({"error": {"code": "video_not_ready", "message": "video not ready"}}, 400)
            drawing = state.results.find(path)
            if drawing is None:
                return sandbox_responses.edge_page(404)
            content = await state.results.get_bytes(drawing)
            return sandbox_responses.range_response(content, drawing.media_type, request.headers.get("range", ""))

        return await _respond_with_fault(state.faults.next_fault(MEDIA, _DEFAULT_BEHAVIOUR), handle)

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _guarded(state: SandboxState, handle: Endpoint) -> Endpoint:
    """Let only those call who know the token: URLs that members choose, such as webhooks, reach this server too."""
    token = state.options.control_token.encode()

    async def endpoint(request: Request) -> Response:
        if not token or not hmac.compare_digest(request.headers.get(CONTROL_HEADER, "").encode(), token):
            return _json({"error": f"the header {CONTROL_HEADER} with the token of this sandbox is required"}, 403)
        return await handle(request)

    return endpoint


def _control_routes(state: SandboxState) -> list[Route]:
    async def health(_: Request) -> Response:
        return _json({"status": "ok"})

    async def ledger(request: Request) -> Response:
        summary = request.query_params.get("summary", "") not in {"", "0"}
        return _json(state.ledger_view(with_lists=not summary))

    async def reset(_: Request) -> Response:
        state.reset()
        return _json({"status": "ok"})

    async def faults(request: Request) -> Response:
        if request.method == "POST":
            try:
                state.faults = _read_faults(await request.body())
            except ValueError as error:
                return _json({"error": str(error)}, 400)
        return _json(state.faults.as_dict())

    return [
        Route("/_health", health),
        Route("/_ledger", _guarded(state, ledger)),
        Route("/_reset", _guarded(state, reset), methods=["POST"]),
        Route("/_faults", _guarded(state, faults), methods=["GET", "POST"]),
    ]


def _read_faults(raw: bytes) -> Faults:
    body = orjson.loads(raw or b"{}")
    if not isinstance(body, dict):
        raise ValueError("a JSON object is required")  # noqa: TRY004  (an error of the caller, not a type error)
    return Faults.parse(body)


def _unknown_path(state: SandboxState) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def unknown_path(_: Request, __: Exception) -> Response:
        state.ledger.calls["unknown"] += 1
        return sandbox_responses.edge_page(404)

    return unknown_path


def create_app(options: Options | None = None) -> Starlette:
    """Create a sandbox with its own state; tests in the same process read it as `app.state.sandbox`."""
    options = options or Options()
    kept = StateFile(Path(options.state_file)) if options.state_file else None
    state = SandboxState(options, kept)
    routes = [Route(path, _api_endpoint(state, path, handler), methods=["POST"]) for path, handler in API.items()]
    routes.append(Route("/_media/{path:path}", _media_endpoint(state)))
    routes += upload_routes(state, _respond_with_fault)
    routes += _control_routes(state)
    ark = ArkState(options, kept)
    routes += ArkInterface(ark, state.results).routes(partial(_guarded, state))
    unknown_path = _unknown_path(state)
    app = Sandbox(routes=routes, exception_handlers={404: unknown_path, 405: unknown_path})
    app.state.sandbox, app.state.ark = state, ark
    return app
