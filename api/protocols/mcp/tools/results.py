"""Jobs as results of tools: structured content, words, links to resources, previews."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from api.protocols.mcp.gateways.protocol import Answer, Gateway, Json, RefusedError, call
from api.protocols.mcp.tools.call import Call, Outcome
from api.protocols.mcp.tools.waiting import TERMINAL, describe_state
from worker.core.errors import DreameryError

_PROMPT_CHARS = 300
_MOST_PREVIEWS = 4
# Clients limit a message, some of them to a megabyte.
_MOST_PREVIEW_BYTES = 100_000
_LINKED_JOBS = 50


def job_uri(job_id: str) -> str:
    """Return the name of a job as a resource."""
    return f"dreamery://jobs/{job_id}"


def file_uri(job_id: str, number: int) -> str:
    """Return the name of a result as a resource; the first has the number 1."""
    return f"{job_uri(job_id)}/files/{number}"


def own_path(url: str) -> str:
    """Return path and query of a link to a file of the platform, without what a proxy puts before it."""
    parts = urlsplit(url)
    path = parts.path[max(parts.path.find("/v1/files/"), 0) :]
    return f"{path}?{parts.query}" if parts.query else path


def job_files(job: Json) -> list[Json]:
    """Return the results of a job of pictures or videos."""
    output = job.get("output")
    return output if isinstance(output, list) else []


def job_fields(job: Json) -> dict[str, Any]:
    """Return a job as structured content (`tools/outputs.py`)."""
    queue, usage, error = job.get("queue") or {}, job.get("usage") or {}, job.get("error")
    prompt = (job.get("input") or {}).get("prompt")
    output = job.get("output")
    return {
        "id": job["id"],
        "uri": job_uri(job["id"]),
        **{name: job[name] for name in ("kind", "status", "model", "progress", "created_at", "completed_at")},
        "prompt": prompt[:_PROMPT_CHARS] if isinstance(prompt, str) else None,
        "queue_position": queue.get("position"),
        "eta_seconds": queue.get("eta_seconds"),
        "cancelling": bool(job.get("cancelling")),
        "files": [_file_fields(job["id"], number, item) for number, item in enumerate(job_files(job), start=1)],
        "text": output.get("text") if isinstance(output, dict) else None,
        "error": error and {"code": str(error["code"]), "message": str(error["message"])},
        **_cost(usage),
    }


def _file_fields(job_id: str, number: int, item: Json) -> dict[str, Any]:
    return {
        "uri": file_uri(job_id, number),
        "mime_type": item["mime"],
        **{name: item.get(name) for name in ("url", "width", "height", "bytes", "seconds")},
    }


def _cost(usage: Json) -> dict[str, Any]:
    kind = "cost" if usage.get("currency") else "credits"
    charged, estimated = usage.get(f"{kind}_charged"), usage.get(f"{kind}_estimated")
    cost = estimated if charged is None else charged
    return {"cost": cost, "currency": None if cost is None else usage.get("currency") or "credits"}


async def jobs_outcome(call: Call, jobs: Sequence[Json], *, thumbnails: bool) -> Outcome:
    """Return what a tool says about jobs that it created or waited for."""
    done = all(job["status"] in TERMINAL for job in jobs)
    waiting = [job["id"] for job in jobs if job["status"] not in TERMINAL]
    following = None if done else f"Call wait_for_job with job_id {waiting[0]}; do not make the same call again."
    ended_badly = done and all(job["status"] != "completed" for job in jobs)
    return Outcome(
        structured={"jobs": [job_fields(job) for job in jobs], "done": done, "next": following},
        text="\n".join([*(_describe(job) for job in jobs), *([following] if following else [])]),
        links=resource_links(jobs) if call.has_links else [],
        previews=await _previews(call.gateway, jobs) if thumbnails else [],
        failed=ended_badly,
    )


def _describe(job: Json) -> str:
    if job["status"] == "failed":
        error = job.get("error") or {}
        return f"{job['id']} failed ({error.get('code')}): {error.get('message')}"
    if job["status"] != "completed":
        return describe_state(job)
    cost = _cost(job.get("usage") or {})
    price = f", {cost['cost']} {cost['currency']}" if cost["cost"] is not None else ""
    files = [
        f"{number}. {item['url']} ({item['mime']}{_size(item)})" for number, item in enumerate(job_files(job), start=1)
    ]
    text = [job["output"]["text"]] if isinstance(job.get("output"), dict) else []
    return "\n".join([f"{job['id']} completed: {job['model']}{price}", *files, *text])


def _size(item: Json) -> str:
    return f", {item['width']}x{item['height']}" if item.get("width") else ""


def resource_links(jobs: Sequence[Json]) -> list[dict[str, Any]]:
    """Return the jobs and their results as resources, at most those of 50 jobs."""
    links: list[dict[str, Any]] = []
    for job in jobs[:_LINKED_JOBS]:
        links.append(job_resource(job))
        for number, item in enumerate(job_files(job), start=1):
            links.append(
                {
                    "uri": file_uri(job["id"], number),
                    "name": f"{job['id']}-{number}",
                    "description": item["url"],
                    "mime_type": item["mime"],
                    "size": item.get("bytes"),
                }
            )
    return links


def job_resource(job: Json) -> dict[str, Any]:
    """Return a job as an entry of a list of resources."""
    prompt = str((job.get("input") or {}).get("prompt") or "")
    return {
        "uri": job_uri(job["id"]),
        "name": job["id"],
        "title": prompt[:80] or None,
        "description": f"{job['kind']} by {job['model']}, {job['status']}",
        "mime_type": "application/json",
    }


async def _previews(gateway: Gateway, jobs: Sequence[Json]) -> list[tuple[bytes, str]]:
    """Return small pictures of the first results. A preview that cannot be made is left out: the links are there."""
    found = []
    items = [item for job in jobs for item in job_files(job)]
    for item in items[:_MOST_PREVIEWS]:
        answer = await _preview(gateway, item)
        if answer is not None:
            found.append((answer.body, answer.headers.get("content-type", "").partition(";")[0]))
    return found


async def _preview(gateway: Gateway, item: Json) -> Answer | None:
    if str(item["mime"]).startswith("image/"):
        path = own_path(item["url"]).replace("/content", "/thumbnail", 1)
    elif item.get("thumbnail_url"):
        path = own_path(item["thumbnail_url"])
    else:
        return None
    try:
        return await call(gateway, "GET", path, most_bytes=_MOST_PREVIEW_BYTES)
    except (RefusedError, DreameryError):
        return None
