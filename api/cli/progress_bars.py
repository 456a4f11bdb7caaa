"""Progress bars of the commands that wait for jobs: one bar a job."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from api.cli.api_client import Json


def job_progress(console: Console) -> Progress:
    """An empty set of bars on this console."""
    columns = (TextColumn("{task.description:>12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def bars_of(progress: Progress, jobs: list[Json]) -> Callable[[list[Json]], None]:
    """A bar for each of the jobs; call the result with the same jobs as they are now."""
    bars = [progress.add_task(_stage(job), total=100) for job in jobs]

    def show(now: list[Json]) -> None:
        for bar, job in zip(bars, now, strict=True):
            done = 100.0 if job["status"] == "completed" else float(job.get("progress") or 0)
            progress.update(bar, completed=done, description=_stage(job))

    return show


def _stage(job: Json) -> str:
    if job["status"] in {"completed", "failed", "cancelled"}:
        return {"completed": "done"}.get(job["status"], str(job["status"]))
    if job["status"] == "queued":
        position = (job.get("queue") or {}).get("position")
        return f"queued {position}" if position else "queued"
    return "generating"
