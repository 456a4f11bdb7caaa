"""The HTTP client of the command line: requests, waiting for jobs, error messages."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from api.cli.api_client import Client, ClientError, accepted_jobs, save_results, wait_for_jobs
from api.cli.display.progress_bars import add_job_bars, job_progress
from tests.support.platform import free_port


class ScriptedHandler(http.server.BaseHTTPRequestHandler):
    """A server with scripted responses per path (the last one repeats), which records all requests."""

    answers: dict[str, list[tuple[int, bytes]]]
    requests: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).requests.append((self.command, self.path, dict(self.headers), body))
        responses = type(self).answers[self.path]
        status, content = responses.pop(0) if len(responses) > 1 else responses[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[ScriptedHandler]]:
    handler = type("OneHandler", (ScriptedHandler,), {"answers": {}, "requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


def job(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "job_1", "status": status, "model": "m", "progress": 0, **more}


def json_response(content: dict[str, Any], status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps(content).encode()


def test_requests_send_the_key_and_omit_unset_parameters(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # must not be used for this machine
    server.answers["/v1/jobs?limit=5"] = [json_response({"data": []})]
    assert Client(server.url, "secret").get("/v1/jobs", limit=5, status=None) == {"data": []}
    [(method, _path, headers, _body)] = server.requests
    assert (method, headers["Authorization"]) == ("GET", "Bearer secret")


def test_downloads_are_atomic_and_do_not_send_the_key(server: Any, tmp_path: Path) -> None:
    server.answers["/file"] = [(200, b"image")]
    output = [{"url": f"{server.url}/file", "mime": "image/png"}, {"url": "/file", "mime": "x/y"}]
    saved = save_results(Client(server.url, "secret"), [job("completed", output=output)], tmp_path / "new folder")
    assert [file.name for file, _item in saved] == ["job_1-1.png", "job_1-2.bin"]
    assert all(file.read_bytes() == b"image" for file, _item in saved)
    assert all("Authorization" not in headers for _m, _p, headers, _b in server.requests)
    assert len(list((tmp_path / "new folder").iterdir())) == 2


def test_wait_for_jobs_polls_until_all_jobs_have_finished(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.api_client.FOLLOW_INTERVAL", 0.01)
    states = [job("queued"), job("in_progress", progress=40), job("completed", progress=100)]
    server.answers["/v1/jobs/job_1"] = [json_response(state) for state in states]
    shown: list[float] = []
    done = wait_for_jobs(Client(server.url, "k"), [job("queued")], lambda jobs: shown.append(jobs[0]["progress"]))
    assert shown == [0, 40, 100]
    assert done[0]["status"] == "completed"


def test_failed_job_raises_its_error(server: Any) -> None:
    error = {"message": "Upstream refused the content.", "code": "content_policy_violation"}
    with pytest.raises(ClientError, match=r"Job job_1 failed: Upstream refused") as raised:
        wait_for_jobs(Client(server.url, "k"), [job("failed", error=error)], lambda _jobs: None)
    assert raised.value.code == "content_policy_violation"


def test_accepted_jobs_returns_all_jobs_of_a_response() -> None:
    one, two = job("queued"), job("completed", progress=None)
    assert accepted_jobs({**one, "jobs": [one, two]}) == [one, two]
    assert accepted_jobs(one) == [one]


def test_each_job_has_a_progress_bar() -> None:
    progress = job_progress(Console(quiet=True))
    show = add_job_bars(progress, [job("queued", queue={"position": 3}), job("queued")])
    assert [task.description for task in progress.tasks] == ["queued 3", "queued"]
    show([job("in_progress", progress=40), job("completed", progress=None)])
    assert [(task.completed, task.description) for task in progress.tasks] == [(40, "generating"), (100, "done")]


def test_server_error_message_is_kept(server: Any) -> None:
    server.answers["/a"] = [json_response({"error": {"message": "Unknown API key.", "code": "invalid_api_key"}}, 401)]
    server.answers["/b"] = [(502, b"<html>bad gateway</html>")]
    server.answers["/c"] = [(200, b"<html>hello</html>")]
    client = Client(server.url, "k")
    with pytest.raises(ClientError, match="Unknown API key") as raised:
        client.get("/a")
    assert (raised.value.status, raised.value.code) == (401, "invalid_api_key")
    with pytest.raises(ClientError, match="answered 502"):
        client.get("/b")
    with pytest.raises(ClientError, match="Is it a Dreamery platform"):
        client.get("/c")


def test_unreachable_and_invalid_urls_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"Nothing answers at .*dreamery up"):
        Client(f"http://127.0.0.1:{free_port()}", "k").get("/v1/jobs")
    with pytest.raises(ClientError, match="not an http"):
        Client("file://", "k").save("file:///etc/passwd", tmp_path / "x")


def test_stream_yields_events_and_raises_error_events(server: Any) -> None:
    events = b': heartbeat\n\ndata: {"n": 1}\n\ndata: {"n": "\xe7\x94\xbb"}\n\n'
    server.answers["/chat"] = [(200, events + b"data: [DONE]\n\n")]
    assert list(Client(server.url, "k").stream("/chat", {"stream": True})) == [{"n": 1}, {"n": "画"}]
    assert json.loads(server.requests[0][3]) == {"stream": True}
    server.answers["/chat"] = [(200, events + b'data: {"error": {"message": "Too bad", "code": "stream_broken"}}\n\n')]
    stream = Client(server.url, "k").stream("/chat", {})
    assert [next(stream), next(stream)] == [{"n": 1}, {"n": "画"}]
    with pytest.raises(ClientError, match="Too bad") as broken:
        next(stream)
    assert broken.value.code == "stream_broken"
