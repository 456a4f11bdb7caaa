"""A hostile file ends the process that reads it; the process that asked neither grows nor waits for long."""

import asyncio
import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.support.media_files import TURNED_WEBP_BOMB, encode_image, slow_jpeg
from tests.support.platform import eventually
from tests.unit.worker.core.media.test_image import bomb
from worker.core.media.conversion import ConversionError, OutputFormat, conversion_work
from worker.core.media.image import InvalidImageError
from worker.core.media.isolation import client
from worker.core.media.isolation.client import MEGABYTE, DecodingUnavailableError, Work, run, run_async
from worker.core.media.normalization import NormalizedImage, begin_normalization, normalize_image


@pytest.fixture(autouse=True)
def _no_children_remain() -> Iterator[None]:
    yield
    eventually(lambda: not children(), what="all children have ended")


def children() -> list[psutil.Process]:
    """Return the processes that read a file now."""
    pid = client.server.process_id()
    with contextlib.suppress(psutil.NoSuchProcess):  # an idle server ends
        return psutil.Process(pid).children() if pid is not None else []
    return []


def normalization(data: bytes, **limits: int) -> Work[NormalizedImage]:
    work = begin_normalization(io.BytesIO(data))
    assert isinstance(work, Work)
    return replace(work, limits=replace(work.limits, **limits))


def slow_work(**limits: int) -> Work:
    work = conversion_work(io.BytesIO(slow_jpeg()), OutputFormat("png"))
    return replace(work, limits=replace(work.limits, **limits))


_MEASURE = """
import io, resource, sys
from worker.core.media.normalization import normalize_image
data = io.BytesIO(sys.stdin.buffer.read())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = normalize_image(data)
result.content.close()
print(result.info.width, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_large_picture_does_not_raise_the_callers_memory(kind: str) -> None:
    picture, side = (encode_image("GIF", (6000, 6000)), 6000) if kind == "gif" else (TURNED_WEBP_BOMB, 7900)
    # A process of its own: the peak of this one may come from another test.
    done = subprocess.run([sys.executable, "-c", _MEASURE], input=picture, capture_output=True, check=True)
    width, grown_kilobytes = map(int, done.stdout.split())
    assert width == side
    # The pixels take more than 100 MB.
    assert grown_kilobytes < 20_000


def test_picture_above_the_memory_limit_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="memory"):
        run(normalization(encode_image("BMP", (6000, 6000)), memory_bytes=200 * MEGABYTE))


@pytest.mark.parametrize("limit", ["cpu_seconds", "wall_seconds"])
def test_picture_above_a_time_limit_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel ends the child, not its parent.
    monkeypatch.setattr(client, "_GRACE_SECONDS", 1000)
    with pytest.raises(ConversionError, match="too long"):
        run(slow_work(**{limit: 1}))


def test_result_above_the_size_limit_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="damaged"):
        run(normalization(encode_image("BMP", (600, 600)), output_bytes=100))


def test_bomb_inside_an_icon_is_refused() -> None:
    png = bomb(30_000, 30_000)
    header = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png), 22)
    with pytest.raises(InvalidImageError, match="million pixels"):
        normalize_image(io.BytesIO(header + png))


def test_compressed_text_in_a_picture_does_not_fill_memory() -> None:
    text = b"iTXtSecret\0\1\0\0\0" + zlib.compress(b"x" * 80_000_000)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    plain = encode_image("PNG", (8, 8), "I;16")
    animated = struct.pack(">I4sII", 8, b"acTL", 1, 0)
    animated += struct.pack(">I", zlib.crc32(animated[4:]))
    with pytest.raises(InvalidImageError):
        normalize_image(io.BytesIO(plain[:33] + animated + chunk + plain[33:]))


def test_environment_does_not_reach_the_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    client.server.end()
    with normalize_image(io.BytesIO(encode_image("BMP", (8, 8)))).content:
        pass
    pid = client.server.process_id()
    assert psutil.Process(pid).environ() == {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_child_can_open_nothing_and_holds_no_file_of_another() -> None:
    async def look() -> None:
        works = [asyncio.create_task(run_async(slow_work(wall_seconds=20), owner=str(n))) for n in range(2)]
        await asyncio.to_thread(eventually, lambda: len(children()) == 2, what="both are read")
        for child in children():
            await asyncio.to_thread(eventually, lambda c=child: _open_files_limit(c) == 0, what="its limits")
            _check_confined(child)
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    asyncio.run(look())


def _check_confined(child: psutil.Process) -> None:
    targets = [str(entry.readlink()) for entry in Path(f"/proc/{child.pid}/fd").iterdir()]
    # Its own task: a socket, the source and the result.
    assert len([name for name in targets if name != "/dev/null"]) == 3, targets
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"


def _open_files_limit(process: psutil.Process) -> int:
    return process.rlimit(psutil.RLIMIT_NOFILE)[0]


def test_killed_child_is_a_refusal_and_the_next_file_is_read() -> None:
    async def kill() -> None:
        work = asyncio.create_task(run_async(slow_work()))
        await asyncio.to_thread(eventually, children, what="the file is read")
        [child] = children()
        child.kill()
        with pytest.raises(ConversionError, match="memory"):
            await work

    asyncio.run(kill())
    with normalize_image(io.BytesIO(encode_image("GIF"))).content:
        pass


def test_killed_server_takes_its_children_along_and_is_replaced() -> None:
    async def kill() -> list[psutil.Process]:
        work = asyncio.create_task(run_async(slow_work()))
        await asyncio.to_thread(eventually, children, what="the file is read")
        running = children()
        os.kill(client.server.process_id() or 0, signal.SIGKILL)
        with pytest.raises(ConversionError):
            await work
        return running

    for child in asyncio.run(kill()):
        eventually(lambda c=child: not c.is_running() or c.status() == psutil.STATUS_ZOMBIE, what="the child has ended")
    with normalize_image(io.BytesIO(encode_image("GIF"))).content:
        pass


def test_cancelled_caller_ends_its_child() -> None:
    async def cancel() -> None:
        work = asyncio.create_task(run_async(slow_work()))
        await asyncio.to_thread(eventually, children, what="the file is read")
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await asyncio.to_thread(eventually, lambda: not children(), what="the child has ended")

    asyncio.run(cancel())
    assert not client.turns.waiting()


def test_exception_while_waiting_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    class LeaseLostError(Exception):
        pass

    def lose() -> None:
        raise LeaseLostError

    monkeypatch.setattr(client, "_ASK_SECONDS", 0.01)
    with pytest.raises(LeaseLostError):
        run(slow_work(), while_waiting=lose)


_PARENT = """
import io, sys
from tests.support.media_files import slow_jpeg
from worker.core.media.conversion import OutputFormat, conversion_work
from worker.core.media.isolation import client
work = conversion_work(io.BytesIO(slow_jpeg()), OutputFormat("png"))
def tell():
    print(client.server.process_id(), flush=True)
client._ASK_SECONDS = 0.1
client.run(work, while_waiting=tell)
"""


def test_children_end_with_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        eventually(server.children, what="the file is read")
        processes = [server, *server.children()]
        parent.kill()
    for process in processes:
        eventually(lambda p=process: not p.is_running(), what=f"{process} has ended")


def test_idle_server_ends_and_the_next_file_starts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_IDLE_SECONDS", 0.1)
    client.server.end()
    for _ in range(3):
        with normalize_image(io.BytesIO(encode_image("GIF"))).content:
            pass
        eventually(lambda: client.server.process_id() is None, what="the idle server has ended")
    client.server.end()


def test_server_that_cannot_start_is_not_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    client.server.end()
    monkeypatch.setattr(client, "_PROGRAM", Path("/nonexistent.py"))
    with pytest.raises(DecodingUnavailableError):
        normalize_image(io.BytesIO(encode_image("GIF")))
    client.server.end()


def test_event_loop_goes_on_while_a_file_is_read() -> None:
    async def count() -> int:
        work = asyncio.create_task(run_async(slow_work(wall_seconds=1)))
        rounds = 0
        while not work.done():
            await asyncio.sleep(0.01)
            rounds += 1
        with pytest.raises(ConversionError):
            await work
        return rounds

    assert asyncio.run(count()) > 10


def test_too_long_a_line_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ASK_SECONDS", 0.01)

    async def wait() -> None:
        turns = [client.turns.enter("one", 2), client.turns.enter("two", 2)]
        try:
            with pytest.raises(DecodingUnavailableError):
                await run_async(normalization(encode_image("GIF")), owner="three", patience_seconds=0.05)
        finally:
            for turn in turns:
                client.turns.leave(turn)

    asyncio.run(wait())
    assert not client.turns.waiting()


@pytest.mark.parametrize(
    "report",
    [
        {"mime": "text/html", "width": 1, "height": 1, "written": False},
        {"mime": "image/png", "width": 2**40, "height": 1, "written": False},
        {"mime": "image/png", "width": "1", "height": 1, "written": False},
        {"mime": "image/png", "width": True, "height": 1, "written": False},
        {"written": False},
        {"mime": ["image/png"], "width": 1, "height": 1, "written": False},
    ],
)
def test_report_with_impossible_values_is_a_refusal(report: dict[str, object]) -> None:
    work = normalization(encode_image("GIF"))
    with io.BytesIO() as result, pytest.raises(InvalidImageError, match="damaged"):
        client._conclude(work, report, result)
    work.source.end()
