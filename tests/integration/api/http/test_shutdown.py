"""SIGTERM of an API process: streams end, and what is still open at the end of its patience leaves no traceback."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.support.engine import Engine
from tests.support.platform import clean_env, eventually, free_port

KEY = "sk-dreamery-" + "s" * 40


def test_shutdown_ends_streams_and_logs_no_traceback(engine: Engine, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "api.http.server", "--port", str(port), "--drain-seconds", "1"]
    log = tmp_path / "api.log"
    with log.open("wb") as output:
        env = clean_env(**{**engine.env, "DREAMERY_ADMIN_KEY": KEY})
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=60) as client:
            eventually(lambda: b"startup complete" in log.read_bytes(), what="the server is ready")
            with client.stream("GET", "/v1/jobs/events") as feed, socket.create_connection(("127.0.0.1", port)) as slow:
                frames = feed.iter_bytes()
                start = next(frames)
                # A request whose body never arrives: only the end of the process ends it.
                head = f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
                slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{{".encode())
                threading.Event().wait(0.5)  # it is read
                process.send_signal(signal.SIGTERM)
                rest = b"".join(frames)
                answer = slow.makefile("rb").read()
        assert process.wait(30) == 0
    finally:
        process.kill()
    text = log.read_text()
    assert start.startswith(b"retry:")
    assert rest.endswith(b": this server restarts\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"restarting"' in answer
    assert "request_cut" in text
    assert "Traceback" not in text
