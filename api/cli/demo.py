"""`dreamery demo`: a whole platform in a temporary folder, all kinds of results through the public API, and away."""

import base64
import fcntl
import json
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from PIL import Image
from rich.console import Console

from api.cli.api_client import Client, ClientError, Json, follow, save_results, started_jobs
from api.cli.progress_bars import bars_of, job_progress
from worker.core.media.video import NotAClipError, video_facts
from worker.local.processes import StartError, end_with_parent
from worker.local.supervisor import Platform, PlatformOptions

PROMPT = "A lighthouse on a cliff at dawn, watercolour"
SIZE = (2560, 1440)
COUNT = 2
VIDEO_SECONDS = 5
VIDEO_SIZE = (1280, 720)
QUESTION = "Draw a small sailing boat in the harbour"
CHAT = "/v1/chat/completions"
SECONDS = 4.0
PATIENCE_SECONDS = 180.0
_FOLDER_PREFIX = "dreamery-demo-"
_PICTURE = re.compile(r"!\[image\]\((\S+?)\)")


def run_demo(out: Path, *, die_with_parent: bool) -> None:
    """Run it; raises what went wrong. Whatever happens, nothing is left running."""
    console = Console(highlight=False, soft_wrap=True)
    out = out.resolve()
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    options = PlatformOptions(
        data_dir=folder,
        throwaway=True,
        flower=False,
        sandbox_seconds=SECONDS,
        on_notice=lambda line: console.print(line, style="yellow"),
    )
    platform = Platform(options)
    _stop_on_signals(platform, die_with_parent=die_with_parent)
    try:
        began = time.monotonic()
        with console.status("Starting Postgres, Redis, API, worker, scheduler and sandbox ..."):
            platform.start()
        console.print(f"The platform runs at {platform.url} ({time.monotonic() - began:.1f} s to start).")
        _make_all(_Show(platform, Client(platform.url, "demo:sandbox"), out, console))
    except KeyboardInterrupt:
        raise ClientError("Stopped before everything was made.") from None
    except (ClientError, StartError) as error:
        raise ClientError(f"{error}\nAll logs: {_keep_logs(platform.logs_dir, out)}") from error
    finally:
        with console.status("Stopping everything ..."):
            platform.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print("Everything is stopped again. Next: `make up` runs it for good, on your own accounts.")


def _keep_logs(logs: Path, out: Path) -> Path:
    """Copy the logs to where the pictures would have been; the rest of the data folder goes."""
    kept = out / "demo-logs"
    shutil.copytree(logs, kept, dirs_exist_ok=True)
    return kept


@dataclass(frozen=True, slots=True)
class _Show:
    """What the demo needs at hand."""

    platform: Platform
    client: Client
    out: Path
    console: Console

    def make(self, path: str, body: Json, *, count: int, what: str) -> list[Path]:
        """Order, follow with a bar per job, save; raises when it takes too long or too few came."""
        told = {name: value if len(str(value)) < 60 else "..." for name, value in body.items()}
        self.console.print(f"POST {self.client.url}{path}  {json.dumps(told)}")
        began = time.monotonic()
        jobs = started_jobs(self.client.post(path, {**body, "async": True}))
        with job_progress(self.console) as bar:
            show_bars = bars_of(bar, jobs)

            def show(now: list[Json]) -> None:
                show_bars(now)
                self.platform.check()
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise ClientError(f"{what} not ready after {PATIENCE_SECONDS:.0f} s.")

            saved = save_results(self.client, follow(self.client, jobs, show), self.out)
        if len(saved) != count:
            raise ClientError(f"{what}: {count} asked for, {len(saved)} came.")
        self.console.print(f"{what} after {time.monotonic() - began:.1f} s, saved and checked:")
        return [file for file, _ in saved]


def _make_all(show: _Show) -> None:
    """Pictures, a picture from the first of them, a video that begins with it, and an answer of the agent."""
    size = "{}x{}".format(*SIZE)
    pictures = show.make(
        "/v1/images/generations", {"prompt": PROMPT, "size": size, "n": COUNT}, count=COUNT, what=f"{COUNT} pictures"
    )
    for file in pictures:
        show.console.print(f"  {_checked_picture(file)}")
    first = base64.b64encode(pictures[0].read_bytes()).decode()
    again = {"prompt": "The same by night, the lamp lit", "image": first, "size": size, "n": 1}
    (changed,) = show.make("/v1/images/edits", again, count=1, what="A picture from a picture")
    show.console.print(f"  {_checked_picture(changed)}")
    moving = {"prompt": "Waves roll ashore, gulls circle", "first_frame_image": first, "duration": VIDEO_SECONDS}
    (film,) = show.make("/v1/videos/generations", moving, count=1, what="A video from a picture")
    show.console.print(f"  {_checked_video(film)}")
    _talk(show)


def _talk(show: _Show) -> None:
    """An answer of the agent as it is said, and the picture that it decided to make."""
    body = {"model": "agent", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    show.console.print(f"POST {show.client.url}{CHAT}  {json.dumps(body)}")
    began, said = time.monotonic(), ""
    for event in show.client.stream(CHAT, body):
        for choice in event["choices"]:
            delta = choice["delta"]
            if doing := delta.get("reasoning_content"):
                # Lines of progress stand on lines of their own.
                show.console.print(f"\n{doing.strip()}", style="dim", end="", markup=False)
            if words := delta.get("content"):
                show.console.print(words, end="", markup=False)
                said += words
        show.platform.check()
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise ClientError(f"The agent's answer not ready after {PATIENCE_SECONDS:.0f} s.")
    links = _PICTURE.findall(said)
    if len(links) != 1 or not said.partition("![")[0].strip():
        raise ClientError(f"The agent was to say something and draw one picture, but said: {said[:500]!r}")
    file = show.out / f"agent-{links[0].removesuffix('/content').rpartition('/')[2]}.jpg"
    show.client.save(links[0], file)
    show.console.print(
        f"\nAn answer of the agent after {time.monotonic() - began:.1f} s, its picture saved and checked:"
    )
    show.console.print(f"  {_checked_picture(file, None)}")


def _checked_picture(file: Path, wanted: tuple[int, int] | None = SIZE) -> str:
    """A line about a saved picture; raises when it is broken or not of the size that was asked for, if any was."""
    try:
        with Image.open(file) as picture:
            picture.load()
            size, kind = picture.size, picture.format
    except OSError as error:
        raise ClientError(f"{file} is not a whole picture: {error}") from error
    if wanted is not None and size != wanted:
        raise ClientError(f"{file} is {size[0]}x{size[1]}, but {wanted[0]}x{wanted[1]} was asked for.")
    return f"{file}  {kind} {size[0]}x{size[1]}, {file.stat().st_size // 1000} kB"


def _checked_video(file: Path) -> str:
    """A line about a saved video; raises when it is broken or not of the length and shape that was asked for."""
    try:
        with file.open("rb") as content:
            facts = video_facts(content)
    except NotAClipError as error:
        raise ClientError(f"{file} is not a whole video: {error}") from error
    if (facts.width, facts.height) != VIDEO_SIZE or abs(facts.milliseconds - VIDEO_SECONDS * 1000) > 300:
        told = f"{facts.width}x{facts.height} of {facts.milliseconds / 1000:.1f} s"
        raise ClientError(f"{file} is {told}, but {VIDEO_SIZE[0]}x{VIDEO_SIZE[1]} of {VIDEO_SECONDS} s was asked for.")
    length = f"{facts.milliseconds / 1000:.1f} s"
    return f"{file}  {facts.mime} {facts.width}x{facts.height}, {length}, {file.stat().st_size // 1000} kB"


def _stop_on_signals(platform: Platform, *, die_with_parent: bool) -> None:
    stopping = False

    def stop() -> None:
        nonlocal stopping
        platform.ask_to_stop()
        if not stopping:
            stopping = True
            raise KeyboardInterrupt

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    if die_with_parent:
        end_with_parent(stop)


def _remove_leftovers() -> None:
    """Remove the folders of demos that were killed with -9; those still in use hold their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
