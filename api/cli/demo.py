"""`dreamery demo`: start a temporary platform, generate each kind of result through the API, and remove everything."""

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

from api.cli.api_client import Client, ClientError, Json, accepted_jobs, save_results, wait_for_jobs
from api.cli.display.progress_bars import add_job_bars, job_progress
from worker.core.catalog.models import get_catalog
from worker.core.catalog.provider_data import ProviderData, all_providers
from worker.core.media.video import InvalidMediaError, inspect_video
from worker.core.security.session_tokens import DEMO_TOKEN
from worker.local.processes import StartError, stop_when_parent_dies
from worker.local.supervisor import Platform, PlatformOptions

PROMPT = "A lighthouse on a cliff at dawn, watercolour"
SIZE = (2560, 1440)
COUNT = 2
VIDEO_SECONDS = 5
VIDEO_SIZE = (1280, 720)
QUESTION = "Draw a small sailing boat in the harbour"
CHAT = "/v1/chat/completions"
JOB_SECONDS = 4.0
TIMEOUT_SECONDS = 180.0
_FOLDER_PREFIX = "dreamery-demo-"
_IMAGE_LINK = re.compile(r"!\[image\]\((\S+?)\)")


def run_demo(out: Path, *, die_with_parent: bool) -> None:
    """Run the demo. Raises ClientError on failure. No process is left running."""
    console = Console(highlight=False, soft_wrap=True)
    out = out.resolve()
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    options = PlatformOptions(
        data_dir=folder,
        throwaway=True,
        flower="never",
        sandbox_seconds=JOB_SECONDS,
        on_notice=lambda line: console.print(line, style="yellow"),
    )
    platform = Platform(options)
    _stop_on_signals(platform, die_with_parent=die_with_parent)
    try:
        began = time.monotonic()
        with console.status("Starting Postgres, Redis, API, worker and sandbox ..."):
            platform.start()
        console.print(f"The platform runs at {platform.url} ({time.monotonic() - began:.1f} s to start).")
        _make_all(_Demo(platform, Client(platform.url, DEMO_TOKEN), out, console))
        for provider in all_providers().values():
            if not provider.has_sessions:
                key = f"{provider.name}-{DEMO_TOKEN}"
                _make_with_key(_Demo(platform, Client(platform.url, key), out, console), provider)
    except KeyboardInterrupt:
        raise ClientError("Stopped before the demo was complete.") from None
    except (ClientError, StartError) as error:
        raise ClientError(f"{error}\nAll logs: {_keep_logs(platform.logs_dir, out)}") from error
    finally:
        with console.status("Stopping everything ..."):
            platform.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print("Everything is stopped. Next: `make up` runs the platform with your own accounts.")


def _keep_logs(logs: Path, out: Path) -> Path:
    """Copy the logs to the output folder. The rest of the data folder is deleted."""
    target = out / "demo-logs"
    shutil.copytree(logs, target, dirs_exist_ok=True)
    return target


@dataclass(frozen=True, slots=True)
class _Demo:
    """The running platform, its client, and where to save and print results."""

    platform: Platform
    client: Client
    out: Path
    console: Console

    def make(self, path: str, body: Json, *, count: int, what: str) -> list[Path]:
        """Create jobs, show their progress and save the files. Raises ClientError on a timeout or missing files."""
        shown = {name: value if len(str(value)) < 60 else "..." for name, value in body.items()}
        self.console.print(f"POST {self.client.url}{path}  {json.dumps(shown)}")
        began = time.monotonic()
        jobs = accepted_jobs(self.client.post(path, {**body, "async": True}))
        with job_progress(self.console) as bar:
            show_bars = add_job_bars(bar, jobs)

            def on_progress(current: list[Json]) -> None:
                show_bars(current)
                self.platform.check()
                if time.monotonic() - began > TIMEOUT_SECONDS:
                    raise ClientError(f"{what}: not finished after {TIMEOUT_SECONDS:.0f} s.")

            saved = save_results(self.client, wait_for_jobs(self.client, jobs, on_progress), self.out)
        if len(saved) != count:
            raise ClientError(f"{what}: expected {count} files, got {len(saved)}.")
        self.console.print(f"{what} after {time.monotonic() - began:.1f} s, saved and checked:")
        return [file for file, _ in saved]


def _make_all(demo: _Demo) -> None:
    """Generate images, an edit of the first image, a video that starts with it, and an agent conversation."""
    size = "{}x{}".format(*SIZE)
    images = demo.make(
        "/v1/images/generations", {"prompt": PROMPT, "size": size, "n": COUNT}, count=COUNT, what=f"{COUNT} images"
    )
    for file in images:
        demo.console.print(f"  {_check_image(file)}")
    first = base64.b64encode(images[0].read_bytes()).decode()
    edit = {"prompt": "The same by night, the lamp lit", "image": first, "size": size, "n": 1}
    (changed,) = demo.make("/v1/images/edits", edit, count=1, what="An image from an image")
    demo.console.print(f"  {_check_image(changed)}")
    body = {"prompt": "Waves roll ashore, gulls circle", "first_frame_image": first, "duration": VIDEO_SECONDS}
    (video,) = demo.make("/v1/videos/generations", body, count=1, what="A video from an image")
    demo.console.print(f"  {_check_video(video)}")
    _chat_with_agent(demo)


def _make_with_key(demo: _Demo, provider: ProviderData) -> None:
    """Generate an image and a video with a key of a provider that has keys instead of sessions."""
    catalog = get_catalog()
    image_model = catalog.image_model(None, [provider.name])
    video_model = catalog.video_model(None, [provider.name])
    size = image_model.size("1:1", image_model.default_resolution)
    ratio, resolution = "16:9", video_model.resolutions[0]
    demo.console.print(f"With a key of {provider.title}:")
    pixels: Json = {"model": image_model.id, "size": f"{size.width}x{size.height}", "n": 1}
    (image,) = demo.make("/v1/images/generations", {"prompt": PROMPT, **pixels}, count=1, what="An image")
    demo.console.print(f"  {_check_image(image, (size.width, size.height))}")
    frame: Json = {"model": video_model.id, "resolution": resolution, "ratio": ratio, "duration": VIDEO_SECONDS}
    body = {"prompt": "Waves roll ashore, gulls circle", **frame}
    (video,) = demo.make("/v1/videos/generations", body, count=1, what="A video")
    demo.console.print(f"  {_check_video(video, video_model.frame(ratio, resolution))}")


def _chat_with_agent(demo: _Demo) -> None:
    """Stream an answer of the agent and save the image that it generates."""
    body = {"model": "agent", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    demo.console.print(f"POST {demo.client.url}{CHAT}  {json.dumps(body)}")
    began, text = time.monotonic(), ""
    for event in demo.client.stream(CHAT, body):
        for choice in event["choices"]:
            delta = choice["delta"]
            if progress := delta.get("reasoning_content"):
                # Each progress message gets its own line.
                demo.console.print(f"\n{progress.strip()}", style="dim", end="", markup=False)
            if content := delta.get("content"):
                demo.console.print(content, end="", markup=False)
                text += content
        demo.platform.check()
        if time.monotonic() - began > TIMEOUT_SECONDS:
            raise ClientError(f"The agent did not finish after {TIMEOUT_SECONDS:.0f} s.")
    links = _IMAGE_LINK.findall(text)
    if len(links) != 1 or not text.partition("![")[0].strip():
        raise ClientError(f"Expected some text and one image from the agent, but got: {text[:500]!r}")
    file = demo.out / f"agent-{links[0].removesuffix('/content').rpartition('/')[2]}.jpg"
    demo.client.save(links[0], file)
    demo.console.print(f"\nAn answer of the agent after {time.monotonic() - began:.1f} s, its image saved and checked:")
    demo.console.print(f"  {_check_image(file, None)}")


def _check_image(file: Path, expected: tuple[int, int] | None = SIZE) -> str:
    """Return a description of a saved image. Raises ClientError if it is broken or does not have the expected size."""
    try:
        with Image.open(file) as image:
            image.load()
            size, kind = image.size, image.format
    except OSError as error:
        raise ClientError(f"{file} is not a complete image: {error}") from error
    if expected is not None and size != expected:
        raise ClientError(f"{file} is {size[0]}x{size[1]}, expected {expected[0]}x{expected[1]}.")
    return f"{file}  {kind} {size[0]}x{size[1]}, {file.stat().st_size // 1000} kB"


def _check_video(file: Path, expected: tuple[int, int] = VIDEO_SIZE) -> str:
    """Return a description of a saved video. Raises ClientError if it is broken or has the wrong size or length."""
    try:
        with file.open("rb") as content:
            facts = inspect_video(content)
    except InvalidMediaError as error:
        raise ClientError(f"{file} is not a complete video: {error}") from error
    if (facts.width, facts.height) != expected or abs(facts.milliseconds - VIDEO_SECONDS * 1000) > 300:
        actual = f"{facts.width}x{facts.height} of {facts.milliseconds / 1000:.1f} s"
        raise ClientError(f"{file} is {actual}, expected {expected[0]}x{expected[1]} of {VIDEO_SECONDS} s.")
    length = f"{facts.milliseconds / 1000:.1f} s"
    return f"{file}  {facts.mime} {facts.width}x{facts.height}, {length}, {file.stat().st_size // 1000} kB"


def _stop_on_signals(platform: Platform, *, die_with_parent: bool) -> None:
    stopping = False

    def stop() -> None:
        nonlocal stopping
        platform.request_stop()
        if not stopping:
            stopping = True
            raise KeyboardInterrupt

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    if die_with_parent:
        stop_when_parent_dies(stop)


def _remove_leftovers() -> None:
    """Remove the folders of demos that were killed. Running demos hold the lock of their folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
