"""The envelope (protocol section 2), other origins, and the total deadline."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.recorded_upstream import KEY, SESSION, ScriptedUpstream, make_account, make_order, open_orders
from worker.core.concurrency import event_loop, lanes
from worker.core.errors import DreameryError
from worker.core.settings import Settings
from worker.providers.base import NotSentError
from worker.providers.dreamina import http
from worker.providers.dreamina.regions import site_for
from worker.providers.dreamina.signing import sign, web_id


def send_request(region: str = "cn", session: str = SESSION, **settings: object) -> httpx.Request:
    script = ScriptedUpstream("get_history_by_ids.not_found.json", **settings)
    event_loop.run(script.provider.fetch_records(make_account(region, session=session), open_orders(KEY)))
    return script.last_request


@pytest.mark.parametrize(
    ("region", "site", "aid", "fetch_site"),
    [
        ("cn", "https://jimeng.jianying.com", "513695", "same-origin"),
        ("jp", "https://dreamina.capcut.com", "513641", "same-site"),
    ],
)
def test_request_headers(region, site, aid, fetch_site):
    headers = send_request(region).headers
    expected = {
        "accept": "application/json, text/plain, */*",
        "content-type": "application/json",
        "appid": aid,
        "appvr": "8.4.0",
        "app-sdk-version": "48.0.0",
        "pf": "7",
        "sign-ver": "1",
        "tdid": "",
        "origin": site,
        "sec-fetch-site": fetch_site,
    }
    assert {name: headers[name] for name in expected} == expected
    assert headers["sign"] == sign("/mweb/v1/get_history_by_ids", "8.4.0", int(headers["device-time"]))
    assert headers["referer"].startswith(site)
    assert set(headers["accept-encoding"].split(", ")) == {"gzip", "deflate"}


def test_no_anti_bot_parameters_are_sent():
    request = send_request("us")
    everything = f"{request.url} {request.headers} {request.headers['cookie']}".lower()
    for name in ("mstoken", "a_bogus", "x-bogus", "x-gnarly", "verifyfp", "sid_guard"):
        assert name not in everything


def test_request_cookies():
    assert send_request("us").headers["cookie"] == f"sessionid={SESSION}; sessionid_ss={SESSION}; cc-target-idc=useast5"
    cookies = dict(pair.split("=", 1) for pair in send_request("cn").headers["cookie"].split("; "))
    assert cookies["sessionid"] == cookies["sessionid_ss"] == cookies["sid_tt"] == SESSION
    assert cookies["_tea_web_id"] == web_id(SESSION) == send_request("cn").url.params["webId"]


def test_cookies_of_one_account_are_not_sent_for_another():
    script = ScriptedUpstream(
        httpx.Response(200, json={"ret": "0", "data": {}}, headers={"set-cookie": "evil=1; Path=/"})
    )
    event_loop.run(script.provider.fetch_records(make_account("us"), open_orders(KEY)))
    event_loop.run(script.provider.fetch_records(make_account("us", session="OTHER"), open_orders(KEY)))
    assert "evil" not in script.last_request.headers["cookie"]
    assert SESSION not in script.last_request.headers["cookie"]


def test_upstream_origin_keeps_path_query_and_real_host():
    origin = "http://127.0.0.1:7777"
    request = send_request("us", upstream_origin=origin)
    assert str(request.url).startswith(f"{origin}/mweb/v1/get_history_by_ids?aid=513641&")
    assert request.headers["host"] == "127.0.0.1:7777"
    assert request.headers["x-orig-host"] == "dreamina-api.us.capcut.com"
    assert "x-orig-host" not in send_request("us").headers


def test_sandbox_is_called_at_its_own_url():
    here = send_request("sandbox", upstream_origin="http://127.0.0.1:7777", sandbox_url="http://127.0.0.1:9")
    assert (here.url.port, "x-orig-host" in here.headers) == (9, False)
    assert send_request("sandbox", upstream_origin="http://127.0.0.1:7777", sandbox_url="").url.port == 7777


@pytest.mark.parametrize("session", ["a\r\nX-Evil: 1", "a; b=1", "", "é", 'a"b'])
def test_session_invalid_as_cookie_is_neither_sent_nor_shown(session):
    with pytest.raises(DreameryError) as caught:
        send_request("us", session=session)
    assert caught.value.code == "upstream_session_expired"
    assert not session or session not in str(caught.value.detail)


class SlowAsyncBody(httpx.AsyncByteStream):
    """An endless body, a byte at a time."""

    def __init__(self, chunk: bytes, pause: float) -> None:
        self.chunk = chunk
        self.pause = pause
        self.closed = False

    async def __aiter__(self):
        while True:
            await asyncio.sleep(self.pause)
            yield self.chunk

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("chunk", "pause", "seconds"), [(b" ", 0.01, 0.2), (b" " * 1_000_000, 0.0, 15)])
def test_body_of_a_submit_ends_at_the_total_deadline_or_the_size_limit(chunk, pause, seconds):
    stream = SlowAsyncBody(chunk, pause)
    script = ScriptedUpstream(httpx.Response(200, stream=stream), call_timeout_seconds=seconds)
    with pytest.raises(DreameryError) as caught:
        event_loop.run(script.provider.submit_image(make_account(), make_order(), submit_key=KEY))
    assert caught.value.code == "upstream_unreachable"
    assert not isinstance(caught.value, NotSentError), "upstream may have the job"
    assert stream.closed


@pytest.mark.parametrize(("chunk", "pause", "seconds"), [(b" ", 0.01, 0.2), (b" " * 1_000_000, 0.0, 15)])
def test_body_of_an_upload_ends_at_the_total_deadline_or_the_size_limit(chunk, pause, seconds):
    stream = SlowAsyncBody(chunk, pause)
    script = ScriptedUpstream(httpx.Response(200, stream=stream), call_timeout_seconds=seconds)
    with pytest.raises(NotSentError) as caught:
        event_loop.run(script.provider.upload_image(make_account(), b"image", name="a.png"))
    assert caught.value.code == "upstream_unreachable"
    assert stream.closed


@contextlib.contextmanager
def trickling_server() -> Iterator[str]:
    """Run a server that sends one byte of a header every 50 ms; yield its URL."""
    over = threading.Event()

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 1000:
                    connection.sendall(bytes([byte]))
                    if over.wait(0.05):
                        return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
    thread.join(10)


def test_slow_headers_end_at_the_total_deadline():
    with trickling_server() as url:
        lines = http.UpstreamHttp(Settings(_env_file=None, call_timeout_seconds=0.5))
        site = site_for("sandbox", None, url)
        with pytest.raises(DreameryError) as caught:
            event_loop.run(lines.call(make_account("sandbox"), site, url, "/mweb/v1/x?a=1", b"{}"))
        lines.close()
    assert caught.value.code == "upstream_unreachable"
    assert "total deadline" in str(caught.value.detail)


class StallingAnswer(httpx.AsyncByteStream):
    """An answer of 600 kB that stalls before its last piece."""

    def __init__(self, may_end: asyncio.Event) -> None:
        self.pieces = 0
        self._may_end = may_end

    async def __aiter__(self):
        for _ in range(2):
            self.pieces += 1
            yield bytes(300_000)
        await self._may_end.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_long_answers_of_proxies_that_stall_are_few_in_memory_and_leave_room_for_others():
    async def read(answer: StallingAnswer, owner: str, number: int, *, proxied: bool = True) -> int:
        with lanes.acting_for(owner, f"{owner}{number}"):
            return len(await http._read_whole(httpx.Response(200, stream=answer), proxied=proxied))

    async def run() -> None:
        may_end, ended = asyncio.Event(), asyncio.Event()
        ended.set()
        answers = [StallingAnswer(may_end) for _ in range(20)]
        reads = [asyncio.create_task(read(answer, "mallory", n)) for n, answer in enumerate(answers)]
        await settle()
        assert sorted(answer.pieces for answer in answers) == [1] * 16 + [2] * 4
        assert await read(StallingAnswer(ended), "alice", 1) == 600_000
        assert await read(StallingAnswer(ended), "mallory", 99, proxied=False) == 600_000
        may_end.set()
        assert await asyncio.gather(*reads) == [600_000] * 20

    event_loop.run(asyncio.wait_for(run(), 20))
