"""Files of callers that make decoders take gigabytes or minutes: no process of the platform grows, waits or ends."""

import base64
import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.api_client import ApiClient, assert_error, new_key
from tests.support.media_files import (
    WEBP_BOMB,
    encode_image,
    make_video,
    slow_jpeg,
    video_with_unknown_codec,
    wav_with_rate,
)
from tests.support.platform import CheckedPlatform, allowance_seconds, eventually, start_platform
from tests.support.servers.http_servers import running_app

pytestmark = pytest.mark.timeout(400)

MAX_GROWTH = 64 * 1024 * 1024
OMNI = "jimeng-video-seedance-2.0"
MEGABYTE = 1024 * 1024


QUICK: dict[str, Any] = {
    "image": ("a.gif", encode_image("GIF"), "image/gif"),
    "prompt": (None, "a boat"),
    "async": (None, "true"),
}


class Links:
    """Serves files by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(self.files[scope["path"]], media_type="application/octet-stream")(scope, receive, send)

    def add(self, data: bytes) -> str:
        path = f"/{len(self.files)}"
        self.files[path] = data
        return f"{self.url}{path}"


@pytest.fixture(scope="module")
def links() -> Iterator[Links]:
    app = Links()
    with running_app(app) as app.url:
        yield app


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    folder = tmp_path_factory.mktemp("platform")
    with start_platform(folder, extra_env={"DREAMERY_FETCH_ALLOW": "127.0.0.1"}) as running:
        yield running


@pytest.fixture
def member(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform) as client:
        assert client.generate_images(n=1).status_code == 200
        yield client


@pytest.fixture
def other(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, new_key("other")) as client:
        assert client.generate_images(n=1).status_code == 200
        yield client


@pytest.fixture
def user(platform: CheckedPlatform) -> Iterator[ApiClient]:
    """A caller with an API key, who shares no places with callers with session ids."""
    with ApiClient(platform, platform.admin_key) as admin:
        assert admin.http.post("/admin/v1/accounts", json={"tokens": new_key()}).is_success
        assert admin.http.post("/admin/v1/users", json={"name": "user"}).is_success
        made = admin.http.post("/admin/v1/keys", json={"user": "user", "name": "test"})
        with admin.as_caller(made.json()["key"]) as client:
            yield client


def peak(pid: int) -> int:
    """Return the largest memory of a process, in bytes, since `memory_is_kept` began."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@contextlib.contextmanager
def memory_is_kept(platform: CheckedPlatform) -> Iterator[None]:
    """Fail if a process of ours grows by more than 64 MB within the block, or ends."""
    ours = {name: child.pid for name, child in platform.children.items() if name.startswith(("api", "worker"))}
    assert len(ours) >= 2, platform.children
    for pid in ours.values():
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again
    before = {name: psutil.Process(pid).memory_info().rss for name, pid in ours.items()}
    yield
    for name, pid in ours.items():
        assert platform.children[name].pid == pid, f"{name} was started again"
        grown = peak(pid) - before[name]
        print(f"{name}: {before[name] // MEGABYTE} MB, at most {grown // MEGABYTE} MB more")
        assert grown < MAX_GROWTH, f"{name} grew by {grown // MEGABYTE} MB"


@contextlib.contextmanager
def others_are_answered(other: ApiClient) -> Iterator[None]:
    """Fail if another user's requests take clearly longer within the block than before."""

    def one() -> float:
        began = time.monotonic()
        assert other.http.get("/v1/jobs").status_code == 200
        return time.monotonic() - began

    undisturbed = statistics.median(one() for _ in range(10))
    ended, times = threading.Event(), []

    def ask() -> None:
        while True:
            times.append(one())
            if ended.wait(0.05):
                return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join(60)
    print(f"GET: {undisturbed:.3f} s undisturbed, then {statistics.median(times):.3f} s, at most {max(times):.2f} s")
    assert statistics.median(times) < 2 * undisturbed + allowance_seconds()
    assert max(times) < max(5.0, allowance_seconds())


def together(function: Callable[[int], int], count: int) -> list[int]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


def as_data(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_pictures_that_are_small_on_disk_and_large_in_memory(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient
) -> None:
    bombs = [as_data(WEBP_BOMB)] * 3
    with memory_is_kept(platform), others_are_answered(other):

        def estimate(_: int) -> int:
            body = {"endpoint": "/v1/images/edits", "body": {"prompt": "a boat", "images": bombs}}
            return member.http.post("/v1/estimate", json=body).status_code

        for _ in range(5):
            assert together(estimate, 16) == [200] * 16


def test_pictures_of_sixty_megapixels_are_decoded_elsewhere(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient
) -> None:
    # GIF is converted, so its 60 million pixels must be decoded.
    picture = encode_image("GIF", (7900, 7900), "1")
    assert len(picture) < 5 * MEGABYTE
    files = {**QUICK, "image": ("a.gif", picture, "image/gif")}
    with memory_is_kept(platform), others_are_answered(other):
        statuses = together(lambda _: member.http.post("/v1/images/edits", files=files, timeout=120).status_code, 4)
    assert set(statuses) == {202}


def test_picture_of_endless_passes_delays_its_owner_only(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient, user: ApiClient
) -> None:
    # More passes than a child has time for, on any machine.
    slow = {**QUICK, "image": ("a.jpg", slow_jpeg(20_000, orientation=6), "image/jpeg")}
    with memory_is_kept(platform), ThreadPoolExecutor(7) as pool:

        def send(client: ApiClient, files: dict[str, Any]) -> Future[Any]:
            return pool.submit(client.http.post, "/v1/images/edits", files=files, timeout=300)

        with others_are_answered(user):
            waiting = [send(member, slow) for _ in range(6)]
            eventually(lambda: decoding(platform), what="a slow file is read")
            answer = send(user, QUICK).result(60)
            assert answer.status_code == 202, answer.text
            assert not any(one.done() for one in waiting), "the file that came last was ready first"
        # Callers with session ids share the places of one owner, and take turns.
        quick = send(other, QUICK)
        while not wait([quick], timeout=3).done and not all(one.done() for one in waiting):
            end_children(platform)
        assert sum(one.done() for one in waiting) < 4, "a file waits for those in progress, not for all before it"
        assert quick.result(60).status_code == 202
        eventually(lambda: end_children(platform) == [] and all(one.done() for one in waiting), what="all are answered")
        statuses = {one.result().status_code for one in waiting}
    assert statuses <= {400, 503}


def decoding(platform: CheckedPlatform) -> list[psutil.Process]:
    """Return the processes in which the API reads files now."""
    found = []
    for server in psutil.Process(platform.children["api"].pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # an idle server ends
            found += server.children()
    return found


def end_children(platform: CheckedPlatform) -> list[psutil.Process]:
    """End the processes in which the API reads files, as their limits would after a minute. Return them."""
    found = decoding(platform)
    for child in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    return found


@pytest.mark.parametrize(
    ("field", "data", "code"),
    [
        ("video_file_1", video_with_unknown_codec(), "invalid_video"),
        ("audio_file_1", wav_with_rate(1), "invalid_audio"),
        ("audio_file_1", b"OggS" * (2 * MEGABYTE), "invalid_audio"),
        ("video_file_1", make_video("red")[:-100], "invalid_video"),
        ("image_file_1", b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00", "invalid_image"),
        ("image_file_1", b"BM" + b"\xff" * 200, "invalid_image"),
    ],
)
def test_damaged_upload_is_refused(member: ApiClient, field: str, data: bytes, code: str) -> None:
    parts = {"prompt": (None, "a boat"), "model": (None, OMNI), field: ("file", data, "application/octet-stream")}
    if not field.startswith("image"):
        parts["image_file_1"] = ("cat.png", encode_image("PNG"), "image/png")
    message = assert_error(member.http.post("/v1/videos/generations", files=parts), 400, code, field)
    assert "cannot be used" in message


def test_damaged_links_fail_their_jobs_at_once(
    platform: CheckedPlatform, member: ApiClient, other: ApiClient, links: Links
) -> None:
    bodies = [
        ({"videos": [links.add(video_with_unknown_codec())]}, "invalid_video"),
        ({"audios": [links.add(wav_with_rate(1))]}, "invalid_audio"),
        ({"audios": [links.add(b"OggS" * (25 * MEGABYTE - 1))]}, "invalid_audio"),
        ({"images": [links.add(b"BM" + b"\xff" * 200)]}, "invalid_image"),
    ]
    picture = as_data(encode_image("PNG"))
    with memory_is_kept(platform):
        started = []
        for fields, code in bodies:
            body = {"prompt": "a boat", "model": OMNI, "images": [picture], "async": True, **fields}
            answer = member.http.post("/v1/videos/generations", json=body)
            assert answer.status_code == 202, answer.text
            started.append((answer.json()["id"], code))
        with others_are_answered(other):
            assert other.generate_images(n=1).status_code == 200
        for job_id, code in started:
            eventually(lambda j=job_id: member.job(j)["status"] == "failed", within=120, what=f"{job_id} failed")
            job = member.job(job_id)
            assert job["error"]["code"] == code, job
            assert job.get("attempt", 1) <= 1, job
