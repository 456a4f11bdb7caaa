"""Progress bars of the commands that wait for jobs: one bar per job."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from api.cli.api_client import Json


def job_progress(console: Console) -> Progress:
    """Return an empty progress display on this console."""
    columns = (TextColumn("{task.description:>12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def add_job_bars(progress: Progress, jobs: list[Json]) -> Callable[[list[Json]], None]:
    """Add a bar for each job and return a function that updates the bars with the current jobs."""
    bars = [progress.add_task(_label(job), total=100) for job in jobs]

    def update(current: list[Json]) -> None:
        for bar, job in zip(bars, current, strict=True):
            done = 100.0 if job["status"] == "completed" else float(job.get("progress") or 0)
            progress.update(bar, completed=done, description=_label(job))

    return update


def _label(job: Json) -> str:
    if job["status"] in {"completed", "failed", "cancelled"}:
        return {"completed": "done"}.get(job["status"], str(job["status"]))
    if job["status"] == "queued":
        position = (job.get("queue") or {}).get("position")
        return f"queued {position}" if position else "queued"
    return "generating"
