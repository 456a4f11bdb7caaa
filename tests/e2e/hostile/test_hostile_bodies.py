"""Bodies that make a parser take gigabytes or seconds, and bodies that never end: the API keeps its memory, and others
are answered meanwhile.
"""

import base64
import contextlib
import gzip
import json
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.support.api_client import ApiClient, new_key
from tests.support.platform import CheckedPlatform, allowance_seconds, start_platform

pytestmark = pytest.mark.timeout(400)

MEGABYTE = 1024 * 1024
MAX_GROWTH = 64 * MEGABYTE
SIZE = 40 * MEGABYTE
IMAGES, CHAT, ESTIMATE = "/v1/images/generations", "/v1/chat/completions", "/v1/estimate"
USER_MESSAGE = '{"role":"user","content":"'
USER = '{"messages":[' + USER_MESSAGE
FORM = "multipart/form-data; boundary=b"


def repeated(begin: str, part: str, end: str, size: int = SIZE) -> bytes:
    return f"{begin}{part * (size // len(part))}{end}".encode()


def part(name: str, data: bytes = b"x", headers: bytes = b"") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n' + headers + b"\r\n" + data + b"\r\n"
    )


def png_of(size: int) -> bytes:
    """A file that begins like a PNG."""
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + random.Random(1).randbytes(size)


def base64_of(size: int) -> str:
    return base64.b64encode(png_of(size)).decode()


def image_body(image: object) -> bytes:
    return json.dumps({"prompt": "x", "image": image}).encode()


def wrapped(path: str, body: str) -> bytes:
    return f'{{"endpoint":"{path}","body":{body}}}'.encode()


# Name -> path and body.
JSON_BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty lists": (IMAGES, lambda: repeated('{"prompt":"x","images":[[]', ",[]", "]}")),
    "empty lists, estimate": (ESTIMATE, lambda: wrapped(IMAGES, repeated('{"images":[0', ",[]", "]}").decode())),
    "nested lists": (IMAGES, lambda: repeated('{"prompt":"x","images":', "[", "")),
    "nested objects": (IMAGES, lambda: repeated('{"prompt":"x","a":', '{"a":', "")),
    "objects": (CHAT, lambda: repeated('{"messages":[{}', ',{"a":{}}', "]}")),
    "keys": (IMAGES, lambda: json.dumps(dict.fromkeys(map(str, range(2_000_000)), 0)).encode()),
    "one key again and again": (IMAGES, lambda: repeated('{"prompt":"x"', ',"a":0', "}")),
    "a number": (IMAGES, lambda: repeated('{"prompt":"x","seed":1', "0", "}")),
    "a fraction": (IMAGES, lambda: repeated('{"prompt":"x","seed":0.', "1", "}")),
    "escapes": (IMAGES, lambda: repeated('{"prompt":"', "\\u0041", '"}')),
    "backslashes": (IMAGES, lambda: repeated('{"prompt":"', "\\\\", '"}')),
    "open string": (IMAGES, lambda: repeated('{"prompt":"x","a":"', '\\"', "")),
    "text": (CHAT, lambda: repeated(USER, "a boat, ", '"}]}')),
    "wide text": (CHAT, lambda: repeated(f"{USER}\U0001f6a2", "a, ", '"}]}', 3_900_000)),
    "wide text in an estimate": (
        ESTIMATE,
        lambda: wrapped(CHAT, repeated(f"{USER}\U0001f6a2", "a, ", '"}]}', 3_900_000).decode()),
    ),
    "long messages": (
        CHAT,
        lambda: repeated(f'{USER}x"}}', "," + USER_MESSAGE + "a [" * 60_000 + '"}', "]}", 3_900_000),
    ),
    "quotations": (CHAT, lambda: repeated(f"{USER}", '\\"', '"}]}', 3_900_000)),
    "lists in a text": (IMAGES, lambda: image_body("[" + "[]," * 1_200_000 + "[]]")),
    "lists in a size": (
        IMAGES,
        lambda: json.dumps({"prompt": "x", "size": '{"a":[' + "[]," * 1_200_000 + "[]]}"}).encode(),
    ),
    "messages": (CHAT, lambda: repeated(f'{USER}x"}}', f',{USER_MESSAGE}x"}}', "]}", 2_000_000)),
    "numbers": (IMAGES, lambda: repeated('{"prompt":"x","image":[1', ",1", "]}")),
    "blank": (IMAGES, lambda: repeated("", " ", "{}")),
    "base64 of nothing": (IMAGES, lambda: repeated('{"prompt":"x","image":"', "A", '"}')),
    "a picture that is none": (IMAGES, lambda: image_body(base64_of(95_000_000))),
    "a picture as numbers": (IMAGES, lambda: image_body(list(png_of(9_000_000)))),
    "pictures in a chat": (
        CHAT,
        lambda: repeated(USER, f"![](data:image/png;base64,{base64_of(9_000_000)}) ", '"}]}', 100 * MEGABYTE),
    ),
    "short pictures": (
        IMAGES,
        lambda: repeated('{"prompt":"x","image":"', f"data:image/png;base64,{base64_of(12_000)} ", '"}'),
    ),
}
FORM_BODIES: dict[str, Callable[[], bytes]] = {
    "parts": lambda: part("a") * (SIZE // 60),
    "text": lambda: part("prompt", b"a, " * (SIZE // 3)) + b"--b--\r\n",
    "headers": lambda: part("a", headers=b"X: y\r\n" * (SIZE // 6)),
    "a header": lambda: part("a", headers=b"X: " + b"y" * SIZE + b"\r\n"),
    "beginnings of the boundary": lambda: part("prompt", b"\r\n--\r\n-" * (SIZE // 8)) + b"--b--\r\n",
    "line ends": lambda: part("image", b"\r" * SIZE, b"Content-Type: image/png\r\n") + b"--b--\r\n",
    "before the boundary": lambda: b"\r\n" * (SIZE // 2) + part("prompt") + b"--b--\r\n",
    "after the boundary": lambda: part("prompt") + b"--b--\r\n" + b"x" * SIZE,
    "lists in a field": lambda: part("prompt") + part("images", b"[" + b"[]," * 1_200_000 + b"[]]") + b"--b--\r\n",
}

# Text outside the parts is no part of a form.
AROUND = ("before the boundary", "after the boundary")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    env = {"DREAMERY_REQUESTS_PER_MINUTE": "0", "DREAMERY_REQUEST_STALL_TIMEOUT_SECONDS": "8"}
    env |= {"DREAMERY_REQUEST_BYTES_UNDER_WAY_PER_CALLER": "160000000"}
    with start_platform(tmp_path_factory.mktemp("platform"), extra_env=env) as running:
        yield running


@pytest.fixture
def member(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform) as client:
        yield client


@pytest.fixture
def other(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, new_key("other")) as client:
        assert client.http.get("/v1/jobs").status_code == 200
        yield client


@contextlib.contextmanager
def memory_is_kept(platform: CheckedPlatform) -> Iterator[None]:
    """Fail if an API process grows by more than 64 MB within the block, or ends."""
    ours = {name: child.pid for name, child in platform.children.items() if name.startswith("api")}
    assert ours
    for pid in ours.values():
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # the peak starts again
    before = {name: psutil.Process(pid).memory_info().rss for name, pid in ours.items()}
    yield
    for name, pid in ours.items():
        assert platform.children[name].pid == pid, f"{name} was started again"
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        print(f"{name}: {before[name] // MEGABYTE} MB, at most {(peak - before[name]) // MEGABYTE} MB more")
        assert peak - before[name] < MAX_GROWTH, f"{name} grew by {(peak - before[name]) // MEGABYTE} MB"


@contextlib.contextmanager
def others_are_answered(other: ApiClient) -> Iterator[None]:
    """Fail if another user's requests take clearly longer within the block than before."""

    def one() -> float:
        began = time.monotonic()
        assert other.http.get("/v1/jobs").status_code == 200
        return time.monotonic() - began

    undisturbed = statistics.median(one() for _ in range(20))
    stopped, times = threading.Event(), [one()]

    def ask() -> None:
        while not stopped.wait(0.02):  # without a pause, these requests would take most of the processor
            times.append(one())

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            stopped.set()
            asking.result()
    print(
        f"others: {undisturbed * 1000:.0f} ms before, median {statistics.median(times) * 1000:.0f} ms, longest {max(times) * 1000:.0f} ms"
    )
    assert max(times) < max(2.0, 40 * undisturbed, allowance_seconds() / 4), (
        f"{max(times):.2f} s instead of {undisturbed:.3f} s"
    )


def send(client: ApiClient, path: str, content_type: str, body: bytes, **headers: str) -> httpx.Response:
    return client.http.post(path, content=body, headers={"Content-Type": content_type, **headers}, timeout=120)


@pytest.mark.parametrize("name", JSON_BODIES)
def test_json_body_is_refused_within_little_memory(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient, name: str
) -> None:
    path, make = JSON_BODIES[name]
    body = make()
    with memory_is_kept(platform), others_are_answered(other):
        began = time.monotonic()
        answer = send(member, path, "application/json", body)
        print(f"{name}: {answer.status_code} {answer.json()['error']['message'][:90]} {time.monotonic() - began:.2f} s")
    assert 400 <= answer.status_code < 500, answer.text[:300]


@pytest.mark.parametrize("name", FORM_BODIES)
def test_form_is_refused_within_little_memory(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient, name: str
) -> None:
    body = FORM_BODIES[name]()
    with memory_is_kept(platform), others_are_answered(other):
        began = time.monotonic()
        answer = send(member, IMAGES, FORM, body, Prefer="respond-async")
        print(f"{name}: {answer.status_code} {answer.text[:120]} {time.monotonic() - began:.2f} s")
    assert 400 <= answer.status_code < 500 or (answer.status_code == 202 and name in AROUND), answer.text[:300]


@pytest.mark.parametrize("path", ["/v1/webhooks", "/console/session", "/v1/keys"])
def test_small_calls_count_values_too(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient, path: str
) -> None:
    with memory_is_kept(platform), others_are_answered(other):
        for body in (repeated('{"url":[0', ",[]", "]}", 900_000), repeated("", "[", "", 900_000)):
            answers = [send(member, path, "application/json", body).status_code for _ in range(5)]
            assert all(400 <= status < 500 for status in answers), answers


def test_many_small_bodies_of_many_values_wait_for_each_other(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient
) -> None:
    """Each takes 15 kB on the way and a hundred times as much as objects."""
    body = repeated('{"prompt":"x","images":[0', ",0", "]}", 15_000)
    headers = {"Authorization": f"Bearer {member.key}", "Content-Type": "application/json"}
    # No connection is used twice: httpx may close one that it has just given to another of many threads.
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        memory_is_kept(platform),
        others_are_answered(other),
        httpx.Client(base_url=platform.url, headers=headers, timeout=120, trust_env=False, limits=limits) as http,
        ThreadPoolExecutor(200) as pool,
    ):
        answers = list(pool.map(lambda _: http.post(IMAGES, content=body).status_code, range(400)))
    assert set(answers) == {400}


def test_compressed_bodies_are_bounded(platform: CheckedPlatform, member: ApiClient, other: ApiClient) -> None:
    bombs = [gzip.compress(repeated('{"prompt":"', " ", '"}', 200 * MEGABYTE)), gzip.compress(b"", mtime=0) * 500_000]
    with memory_is_kept(platform), others_are_answered(other):
        for bomb in bombs:
            headers = {"Content-Encoding": "gzip"}
            assert send(member, IMAGES, "application/json", bomb, **headers).status_code in {400, 413}


def open_upload(platform: CheckedPlatform, key: str, *, declared: int, sent: bytes, kind: str = FORM) -> socket.socket:
    """Begin an upload and send no more of it."""
    address = urlsplit(platform.url)
    line = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=60)
    head = f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    line.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: {declared}\r\n\r\n".encode() + sent)
    return line


def status_of(line: socket.socket) -> int:
    data = b""
    while b"\r\n" not in data and (piece := line.recv(65_536)):
        data += piece
    return int(data.split()[1])


def test_stalled_uploads_take_no_memory_and_end(platform: CheckedPlatform, other: ApiClient) -> None:
    """Six callers with 80 uploads each: 1 MB of 100 MB arrives, and nothing more."""
    begun = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(MEGABYTE)
    with memory_is_kept(platform), others_are_answered(other), contextlib.ExitStack() as stack:
        keys = [new_key(f"stall-{n}") for n in range(6)]
        lines = [
            stack.enter_context(open_upload(platform, key, declared=100 * MEGABYTE, sent=begun))
            for key in keys
            for _ in range(80)
        ]
        assert {status_of(line) for line in lines} == {408}


@pytest.mark.parametrize("kind", [FORM, "application/json"])
def test_upload_that_drips_ends(platform: CheckedPlatform, kind: str) -> None:
    with open_upload(platform, new_key("drip"), declared=1000, sent=b'{"prompt": "', kind=kind) as line:
        stopped = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stopped.wait(0.2):
                    line.sendall(b"a")

        with ThreadPoolExecutor(1) as pool:
            pool.submit(drip)
            try:
                assert status_of(line) == 408
            finally:
                stopped.set()


def test_chunks_of_one_byte_end_too(platform: CheckedPlatform, other: ApiClient) -> None:
    address = urlsplit(platform.url)
    with (
        others_are_answered(other),
        socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=60) as line,
    ):
        head = f"POST {IMAGES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {new_key('chunks')}\r\n"
        line.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        line.sendall(b"1\r\n \r\n" * 200_000 + b"2\r\n{}\r\n0\r\n\r\n")
        assert status_of(line) == 400


def test_bytes_under_way_are_limited_per_caller(platform: CheckedPlatform, member: ApiClient, other: ApiClient) -> None:
    """A caller may have 160 MB under way: its third upload of 70 MB is refused, others' are not, and the room comes back."""
    begun = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(70 * MEGABYTE)
    picture = part("prompt") + begun + b"\r\n--b--\r\n"
    greedy = new_key("greedy")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(open_upload(platform, greedy, declared=100 * MEGABYTE, sent=begun))
        with ApiClient(platform, greedy) as client:
            refused = until(lambda: send(client, IMAGES, FORM, picture), 429)
            assert refused.json()["error"]["code"] == "too_many_open_requests"
            assert "uploads under way" in refused.json()["error"]["message"]
            assert refused.headers["retry-after"] == "10"
            assert send(other, IMAGES, FORM, picture).status_code == 400, "not a picture"
    with ApiClient(platform, greedy) as client:
        assert until(lambda: send(client, IMAGES, FORM, picture), 400).status_code == 400


def until(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """Ask until the answer has a status: the uploads of other connections arrive and end in their own time."""
    for _ in range(50):
        answer = ask()
        if answer.status_code == status:
            return answer
        time.sleep(0.2)
    raise AssertionError(answer.text)
