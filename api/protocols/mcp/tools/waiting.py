"""Wait for jobs with their event streams, and tell the client how they proceed.

Only the wait belongs to the tool call: when it ends, for whatever reason, the jobs continue.
"""

from collections.abc import Sequence

import anyio

from api.protocols.mcp.gateways.protocol import Json, RefusedError, UnreachableError, call_json, read_events
from api.protocols.mcp.tools.call import Call
from worker.core.errors import DreameryError

TERMINAL = frozenset({"completed", "failed", "cancelled"})
# Between two attempts to reach a platform that restarts.
_PAUSE_SECONDS = 1.0
_MOST_IDS = 100


class _Progress:
    """Progress notifications of several jobs. The protocol wants each value to be larger than the last one."""

    def __init__(self, call: Call, jobs: Sequence[Json]) -> None:
        self._call = call
        self._percent = {str(job["id"]): 0.0 for job in jobs}
        self._last = 0.0  # the acceptance was reported

    async def report(self, job: Json) -> None:
        self._percent[str(job["id"])] = 100.0 if job["status"] in TERMINAL else float(job["progress"] or 0)
        mean = sum(self._percent.values()) / len(self._percent)
        self._last = max(mean, self._last + 0.001)
        await self._call.report(self._last, describe_state(job))


async def wait_for_jobs(call: Call, jobs: Sequence[Json], seconds: float) -> list[Json]:
    """Return the jobs as they are when all have ended, or after `seconds`. Raises RefusedError."""
    current = {str(job["id"]): job for job in jobs}
    progress = _Progress(call, jobs)
    with anyio.move_on_after(min(seconds, call.settings.longest_wait)):
        for job_id in current:
            await _follow(call, job_id, current, progress)
    open_ids = [job_id for job_id, job in current.items() if job["status"] not in TERMINAL]
    for first in range(0, len(open_ids), _MOST_IDS):
        ids = ",".join(open_ids[first : first + _MOST_IDS])
        page = await call_json(call.gateway, "GET", f"/v1/jobs?limit={_MOST_IDS}&ids={ids}")
        current |= {job["id"]: job for job in page["data"]}
    return list(current.values())


async def _follow(call: Call, job_id: str, current: dict[str, Json], progress: _Progress) -> None:
    """Report each change of a job until it has ended, or until this process stops."""
    while current[job_id]["status"] not in TERMINAL:
        try:
            async with call.gateway.open("GET", f"/v1/jobs/{job_id}/events") as reply:
                if reply.status >= 400:
                    break  # the look at the end says why
                async for event in read_events(reply.pieces):
                    if event is not None:
                        current[job_id] = event
                    await progress.report(current[job_id])
        except (UnreachableError, RefusedError):
            if not call.gateway.reconnects:
                raise
        if current[job_id]["status"] in TERMINAL or not call.gateway.reconnects:
            break
        await anyio.sleep(_PAUSE_SECONDS)


async def read_job(call: Call, job_id: str) -> Json:
    """Return a job. Raises RefusedError, also for a text that is no id."""
    check_job_id(job_id)
    job: Json = await call_json(call.gateway, "GET", f"/v1/jobs/{job_id}")
    return job


def check_job_id(job_id: str) -> None:
    """Raise `job_not_found` for a text that would be another path."""
    if not job_id.replace("_", "").isalnum() or not job_id.isascii():
        raise DreameryError("job_not_found", f"There is no job {job_id[:60]!r}.", param="job_id")


def describe_state(job: Json) -> str:
    """Return one line about the state of a job, with its id: the client can follow it even if this call is lost."""
    name, queue = job["id"], job.get("queue") or {}
    if job["status"] == "queued":
        place = f", position {queue['position']}" if queue.get("position") else ""
        return f"{name}: queued{place}{_remaining(job)}"
    if job["status"] == "in_progress":
        return f"{name}: {job['progress']} %{_remaining(job)}"
    return f"{name}: {job['status']}"


def _remaining(job: Json) -> str:
    text = (job.get("eta") or {}).get("text")
    return f", {text}" if text else ""
