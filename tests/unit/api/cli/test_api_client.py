"""The command line's HTTP client: what it sends, how it follows jobs, what it says when something fails."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from api.cli.api_client import Client, ClientError, accepted_jobs, follow, save_results
from api.cli.progress_bars import add_job_bars, job_progress
from tests.support.platform import free_port


class Peer(http.server.BaseHTTPRequestHandler):
    """Answers from a table of path -> answers, the last one again and again; remembers what came."""

    answers: dict[str, list[tuple[int, bytes]]]
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).seen.append((self.command, self.path, dict(self.headers), body))
        left = type(self).answers[self.path]
        status, content = left.pop(0) if len(left) > 1 else left[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[type[Peer]]:
    handler = type("OnePeer", (Peer,), {"answers": {}, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


def job(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "job_1", "status": status, "model": "m", "progress": 0, **more}


def said(content: dict[str, Any], status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps(content).encode()


def test_calls_carry_the_key_and_leave_out_what_is_not_asked(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not for this machine itself
    peer.answers["/v1/jobs?limit=5"] = [said({"data": []})]
    assert Client(peer.url, "secret").get("/v1/jobs", limit=5, status=None) == {"data": []}
    [(method, _path, headers, _body)] = peer.seen
    assert (method, headers["Authorization"]) == ("GET", "Bearer secret")


def test_downloads_go_without_the_key_and_appear_whole(peer: Any, tmp_path: Path) -> None:
    peer.answers["/file"] = [(200, b"picture")]
    output = [{"url": f"{peer.url}/file", "mime": "image/png"}, {"url": "/file", "mime": "x/y"}]
    saved = save_results(Client(peer.url, "secret"), [job("completed", output=output)], tmp_path / "new folder")
    assert [file.name for file, _item in saved] == ["job_1-1.png", "job_1-2.bin"]
    assert all(file.read_bytes() == b"picture" for file, _item in saved)
    assert all("Authorization" not in headers for _m, _p, headers, _b in peer.seen)
    assert len(list((tmp_path / "new folder").iterdir())) == 2


def test_follow_asks_until_the_end(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.api_client.FOLLOW_INTERVAL", 0.01)
    rounds = [job("queued"), job("in_progress", progress=40), job("completed", progress=100)]
    peer.answers["/v1/jobs/job_1"] = [said(step) for step in rounds]
    shown: list[float] = []
    done = follow(Client(peer.url, "k"), [job("queued")], lambda jobs: shown.append(jobs[0]["progress"]))
    assert shown == [0, 40, 100]
    assert done[0]["status"] == "completed"


def test_failed_job_raises_its_reason(peer: Any) -> None:
    fault = {"message": "Upstream refused the content.", "code": "content_policy_violation"}
    with pytest.raises(ClientError, match=r"Job job_1 failed: Upstream refused") as raised:
        follow(Client(peer.url, "k"), [job("failed", error=fault)], lambda _jobs: None)
    assert raised.value.code == "content_policy_violation"


def test_several_jobs_of_one_answer_are_all_followed() -> None:
    one, two = job("queued"), job("completed", progress=None)
    assert accepted_jobs({**one, "jobs": [one, two]}) == [one, two]
    assert accepted_jobs(one) == [one]


def test_each_job_has_its_bar() -> None:
    progress = job_progress(Console(quiet=True))
    show = add_job_bars(progress, [job("queued", queue={"position": 3}), job("queued")])
    assert [task.description for task in progress.tasks] == ["queued 3", "queued"]
    show([job("in_progress", progress=40), job("completed", progress=None)])
    assert [(task.completed, task.description) for task in progress.tasks] == [(40, "generating"), (100, "done")]


def test_server_errors_are_shown_in_their_own_words(peer: Any) -> None:
    peer.answers["/a"] = [said({"error": {"message": "Unknown API key.", "code": "invalid_api_key"}}, 401)]
    peer.answers["/b"] = [(502, b"<html>bad gateway</html>")]
    peer.answers["/c"] = [(200, b"<html>hello</html>")]
    client = Client(peer.url, "k")
    with pytest.raises(ClientError, match="Unknown API key") as raised:
        client.get("/a")
    assert (raised.value.status, raised.value.code) == (401, "invalid_api_key")
    with pytest.raises(ClientError, match="answered 502"):
        client.get("/b")
    with pytest.raises(ClientError, match="Is it a Dreamery platform"):
        client.get("/c")


def test_nobody_there_and_wrong_addresses_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"Nothing answers at .*dreamery up"):
        Client(f"http://127.0.0.1:{free_port()}", "k").get("/v1/jobs")
    with pytest.raises(ClientError, match="not an http"):
        Client("file://", "k").save("file:///etc/passwd", tmp_path / "x")


def test_a_stream_is_told_event_by_event_and_its_error_is_raised(peer: Any) -> None:
    events = b': heartbeat\n\ndata: {"n": 1}\n\ndata: {"n": "\xe7\x94\xbb"}\n\n'
    peer.answers["/chat"] = [(200, events + b"data: [DONE]\n\n")]
    assert list(Client(peer.url, "k").stream("/chat", {"stream": True})) == [{"n": 1}, {"n": "画"}]
    assert json.loads(peer.seen[0][3]) == {"stream": True}
    peer.answers["/chat"] = [(200, events + b'data: {"error": {"message": "Too bad", "code": "stream_broken"}}\n\n')]
    told = Client(peer.url, "k").stream("/chat", {})
    assert [next(told), next(told)] == [{"n": 1}, {"n": "画"}]
    with pytest.raises(ClientError, match="Too bad") as broken:
        next(told)
    assert broken.value.code == "stream_broken"
