"""`dreamery demo`: a whole platform in a temporary folder, a few pictures through the public API, and away again."""

import fcntl
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import FrameType

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from api.client import Client, ClientError, Json, follow, mean_progress, save_results, started_jobs
from worker.local.processes import StartError, end_with_parent
from worker.local.supervisor import Platform, PlatformOptions

PROMPT = "A lighthouse on a cliff at dawn, watercolour"
SIZE = (2560, 1440)
COUNT = 2
SECONDS = 4.0
PATIENCE_SECONDS = 180.0
_FOLDER_PREFIX = "dreamery-demo-"


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
        saved = _make_pictures(platform, out, console)
        for file, _item in saved:
            console.print(f"  {_checked(file)}")
    except KeyboardInterrupt:
        raise ClientError("Stopped before the pictures were made.") from None
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


def _make_pictures(platform: Platform, out: Path, console: Console) -> list[tuple[Path, Json]]:
    client = Client(platform.url, "demo:sandbox")
    width, height = SIZE
    body = {"prompt": PROMPT, "size": f"{width}x{height}", "n": COUNT, "async": True}
    console.print(f'POST {client.url}/v1/images/generations  {{"prompt": "{PROMPT}", "size": "{width}x{height}", ...}}')
    began = time.monotonic()
    columns = (TextColumn("{task.description:>12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("generating", total=100)

        def show(jobs: list[Json]) -> None:
            bar.update(task, completed=mean_progress(jobs))
            platform.check()
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise ClientError(f"The pictures were not ready after {PATIENCE_SECONDS:.0f} s.")

        started = started_jobs(client.post("/v1/images/generations", body))
        saved = save_results(client, follow(client, started, show), out)
    if len(saved) != COUNT:
        raise ClientError(f"{COUNT} pictures were asked for, {len(saved)} came.")
    console.print(f"{len(saved)} pictures after {time.monotonic() - began:.1f} s, saved and checked:")
    return saved


def _checked(file: Path) -> str:
    """A line about a saved picture; raises when it is broken or not of the size that was asked for."""
    try:
        with Image.open(file) as picture:
            picture.load()
            size, kind = picture.size, picture.format
    except OSError as error:
        raise ClientError(f"{file} is not a whole picture: {error}") from error
    if size != SIZE:
        raise ClientError(f"{file} is {size[0]}x{size[1]}, but {SIZE[0]}x{SIZE[1]} was asked for.")
    return f"{file}  {kind} {size[0]}x{size[1]}, {file.stat().st_size // 1000} kB"


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
