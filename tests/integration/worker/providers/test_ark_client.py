"""Calls of Ark against the sandbox over real HTTP: each outcome is what the job engine may conclude from it."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from tests.support.servers.http_servers import running_app
from worker.core.errors import DreameryError, Reaction
from worker.core.settings import Settings
from worker.providers.ark.client import ArkClient
from worker.providers.ark.http import ArkHttp
from worker.providers.ark.image_requests import ImageCall, build_image_body
from worker.providers.ark.image_stream import StreamCompleted
from worker.providers.ark.models import built_in_models
from worker.providers.ark.recovery_keys import SentVideo, echoes_keys, find_matches, keys_of
from worker.providers.ark.responses import TaskStatus
from worker.providers.ark.video_requests import VideoCall, build_video_body
from worker.providers.base import Account, NotSentError
from worker.providers.refusals import RefusedError
from worker.sandbox.options import Options
from worker.sandbox.server import create_app

Answer = TypeVar("Answer")
SECRET = "ark-secret-key"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_app(create_app(Options(seconds=0.0))) as url:
        yield url


def account(key: str = SECRET, region: str = "sandbox", proxy: str | None = None) -> Account:
    return Account(id="a", region=region, session=key, proxy=proxy, provider="ark")


def call(url: str, make: Callable[[ArkClient], Awaitable[Answer]], *, seconds: float = 10.0) -> Answer:
    """Make calls with a client of their own on a loop of their own."""

    async def run() -> Answer:
        http = ArkHttp(Settings(sandbox_url=url, call_timeout_seconds=seconds))
        try:
            return await make(ArkClient(http))
        finally:
            await http._transports.aclose()

    return asyncio.run(run())


def image_body(prompt: str = "a boat", model: str = "seedream-5.0-flash", **values: Any) -> dict[str, Any]:
    found = built_in_models().images[model]
    return build_image_body(ImageCall(found, found.ids["intl"], prompt, "2048x2048", **values))


def video_call(prompt: str = "waves", **values: Any) -> VideoCall:
    found = built_in_models().videos["seedance-2.0-mini"]
    fields = {
        "mode": "text",
        "keys": keys_of(str(uuid4()), "ab" * 20),
        "resolution": "480p",
        "ratio": "16:9",
        "prompt": prompt,
    }
    return VideoCall(found, found.ids["intl"], **{**fields, **values})


def test_images(url: str) -> None:
    answer = call(url, lambda ark: ark.generate_images(account(), image_body()))
    assert answer.generated == 1
    assert answer.items[0].url


def test_streamed_images(url: str) -> None:
    async def collect(ark: ArkClient) -> list[Any]:
        body = image_body(model="seedream-4.5", max_images=2, stream=True)
        return [event async for event in ark.stream_images(account(), body)]

    *_, end = call(url, collect)
    assert isinstance(end, StreamCompleted)
    assert end.answer.generated == 2


def test_video_is_created_found_and_listed(url: str) -> None:
    order = video_call()

    async def run(ark: ArkClient) -> None:
        name = await ark.create_task(account(), build_video_body(order))
        assert (await ark.get_task(account(), name)).status is TaskStatus.SUCCEEDED
        [listed] = await ark.list_tasks(account(), [name, "cgt-unknown"])
        assert listed.id == name
        assert echoes_keys(order.keys, listed)

    call(url, run)


def test_lost_create_call_is_found_by_its_keys(url: str) -> None:
    order = video_call("[[reset:after]] waves that are lost")

    async def run(ark: ArkClient) -> None:
        with pytest.raises(DreameryError) as lost:
            await ark.create_task(account("ark-lost"), build_video_body(order))
        assert lost.value.kind.reaction is Reaction.UNCLEAR
        assert not isinstance(lost.value, NotSentError)
        page = await ark.list_recent(account("ark-lost"), order.model_id)
        sent = SentVideo(order.keys, order.model_id, page.tasks[0].created_at or 0.0, "480p", "16:9", 5)
        assert len(find_matches(sent, page.tasks, owned=())) == 1

    call(url, run)


def test_lost_image_call_is_unclear(url: str) -> None:
    with pytest.raises(DreameryError) as lost:
        call(url, lambda ark: ark.generate_images(account(), image_body("[[reset:after]] a boat")))
    assert lost.value.code == "upstream_unreachable"
    assert not isinstance(lost.value, NotSentError)


@pytest.mark.parametrize("before", ["[[reset]]", "[[http:502]]", "[[html]]", "[[empty]]"])
def test_answers_without_a_named_error_are_unclear(url: str, before: str) -> None:
    with pytest.raises(DreameryError) as unclear:
        call(url, lambda ark: ark.generate_images(account(), image_body(f"{before} a boat")))
    assert unclear.value.kind.reaction is Reaction.UNCLEAR
    assert not isinstance(unclear.value, NotSentError)


@pytest.mark.parametrize(
    ("code", "ours", "reaction"),
    [
        ("InputTextSensitiveContentDetected", "content_policy_violation", Reaction.GIVE_UP),
        ("InvalidParameter", "invalid_parameters", Reaction.GIVE_UP),
        ("ModelNotOpen", "no_account_available", Reaction.OTHER_ACCOUNT),
        ("AuthenticationError", "accounts_need_login", Reaction.OTHER_ACCOUNT),
        ("InvalidAccountStatus", "accounts_blocked", Reaction.OTHER_ACCOUNT),
        ("AccountOverdueError", "insufficient_quota", Reaction.OTHER_ACCOUNT),
        ("ServerOverloaded", "upstream_error", Reaction.OTHER_ACCOUNT),
        ("ModelAccountIpmRateLimitExceeded", "rate_limit_exceeded", Reaction.OTHER_ACCOUNT),
    ],
)
def test_named_errors_are_refusals(url: str, code: str, ours: str, reaction: Reaction) -> None:
    with pytest.raises(RefusedError) as refused:
        call(url, lambda ark: ark.generate_images(account(), image_body(f"[[refuse:{code}]] a boat")))
    assert (refused.value.code, refused.value.verdict.reaction) == (ours, reaction)
    assert code in (refused.value.detail or "")


def test_error_of_upstream_may_be_tried_again(url: str) -> None:
    with pytest.raises(RefusedError) as again:
        call(url, lambda ark: ark.generate_images(account(), image_body("[[refuse:InternalServiceError]] a boat")))
    assert again.value.code == "upstream_error"
    assert again.value.verdict.pauses == (5.0, 20.0)


def test_key_is_checked_without_cost(url: str) -> None:
    call(url, lambda ark: ark.check_key(account("ark-checked")))
    with pytest.raises(RefusedError) as refused:
        call(url, lambda ark: ark.check_key(account("ark-dead")))
    assert (refused.value.code, refused.value.verdict.stops) == ("accounts_need_login", "needs_login")


def test_models_are_listed(url: str) -> None:
    listed = call(url, lambda ark: ark.list_models(account()))
    assert set(listed) >= {"dreamina-seedance-2-0-260128", "dola-seedream-5-0-pro-260628"}


def test_queued_task_is_cancelled_and_a_running_one_is_not(url: str) -> None:
    async def run(ark: ArkClient) -> None:
        queued = await ark.create_task(account(), build_video_body(video_call("[[queue:60]] waves")))
        await ark.cancel_task(account(), queued)
        running = await ark.create_task(account(), build_video_body(video_call("[[seconds:60]] waves")))
        with pytest.raises(RefusedError):
            await ark.cancel_task(account(), running)

    call(url, run)


def test_server_that_is_not_there_got_nothing() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotSentError):
        call(f"http://127.0.0.1:{port}", lambda ark: ark.create_task(account(), build_video_body(video_call())))


def test_server_that_never_answers_is_unclear_after_the_deadline() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(DreameryError) as unclear:
            call(f"http://127.0.0.1:{port}", lambda ark: ark.check_key(account()), seconds=0.5)
    assert unclear.value.code == "upstream_unreachable"


def test_secret_stays_out_of_errors() -> None:
    """A server that echoes the key in its error."""
    body = b'{"error": {"code": "InvalidParameter", "message": "bad key %s"}}' % SECRET.encode()
    head = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(head + body)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RefusedError) as refused:
            call(url, lambda ark: ark.create_task(account(), build_video_body(video_call())))
        thread.join(10)
    error = refused.value
    assert SECRET not in f"{error!r} {error} {error.message} {error.detail}"
    assert SECRET not in repr(account())
