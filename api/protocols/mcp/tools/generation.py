"""Tools that create jobs, and the estimate of what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.protocols.mcp.gateways.protocol import Json, call_json
from api.protocols.mcp.tools.arguments import read_arguments
from api.protocols.mcp.tools.call import Call, Outcome
from api.protocols.mcp.tools.costs import agree_on_cost, cost_of, estimate_cost, needs_consent
from api.protocols.mcp.tools.inputs import Creating, EditPicture, EstimateCost, MakePicture, MakeVideo
from api.protocols.mcp.tools.results import file_uri, job_files, jobs_outcome
from api.protocols.mcp.tools.uris import FileName, parse_uri
from api.protocols.mcp.tools.waiting import TERMINAL, read_job, wait_for_jobs
from worker.core.errors import DreameryError

# Arguments that are not fields of the REST call.
_OWN = frozenset({"wait_seconds", "thumbnails", "max_cost", "confirm_cost", "idempotency_key"})
_MEDIA = ("images", "first_frame", "last_frame", "reference_images", "reference_videos", "reference_audios")
# Arguments whose fields have another name.
_FIELDS = {
    "first_frame": "first_frame_image",
    "last_frame": "end_frame_image",
    "reference_videos": "videos",
    "reference_audios": "audios",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The REST call of a tool, and the arguments that the tool takes."""

    path: str
    arguments: type[Creating]


ENDPOINTS = {
    "make_picture": Endpoint("/v1/images/generations", MakePicture),
    "edit_picture": Endpoint("/v1/images/edits", EditPicture),
    "make_video": Endpoint("/v1/videos/generations", MakeVideo),
}


async def make_picture(call: Call, arguments: MakePicture) -> Outcome:
    """Create pictures."""
    return await _create(call, "make_picture", arguments)


async def edit_picture(call: Call, arguments: EditPicture) -> Outcome:
    """Create pictures from pictures."""
    return await _create(call, "edit_picture", arguments)


async def make_video(call: Call, arguments: MakeVideo) -> Outcome:
    """Create videos."""
    return await _create(call, "make_video", arguments)


async def _create(call: Call, tool: str, arguments: Creating) -> Outcome:
    endpoint = ENDPOINTS[tool]
    body = await _body(call, arguments)
    held = await agree_on_cost(call, arguments, endpoint.path, body)
    sent = {**body, **held, "async": True}
    own = {"idempotency-key": arguments.idempotency_key} if arguments.idempotency_key else {}
    with call.gateway.creating(sent) as creation:
        accepted = await call_json(call.gateway, "POST", endpoint.path, body=sent, headers={**creation.headers, **own})
        jobs = accepted.get("jobs") or [accepted]
        await call.report(0, f"Accepted: {', '.join(job['id'] for job in jobs)}")
        jobs = await wait_for_jobs(call, jobs, arguments.wait_seconds)
        # Who waits for nothing has got all that it asked for.
        if not arguments.wait_seconds or all(job["status"] in TERMINAL for job in jobs):
            creation.finish()
    return await jobs_outcome(call, jobs, thumbnails=arguments.thumbnails)


async def estimate(call: Call, arguments: EstimateCost) -> Outcome:
    """Tell what a call would cost and take."""
    endpoint = ENDPOINTS[arguments.tool]
    wanted = read_arguments(endpoint.arguments, arguments.arguments, prefix="arguments.")
    found = await estimate_cost(call, endpoint.path, await _body(call, wanted))
    cost, eta, refusals = cost_of(found), found.get("eta") or {}, found["refusals"]
    structured = {
        "model": found["model"],
        "cost": cost.amount,
        "currency": cost.unit,
        "known": cost.amount is not None,
        "jobs": len(found["jobs"]),
        "seconds": eta.get("p50"),
        "seconds_at_most": eta.get("p90"),
        "accounts_now": found["accounts"]["now"],
        "needs_confirmation": needs_consent(call, cost) is not None,
        "refusals": [{name: one[name] for name in ("code", "message", "param")} for one in refusals],
    }
    time = f", about {eta['p50']:g} s" if eta.get("p50") is not None else ""
    lines = [f"{found['model']}: {cost}{time}", *(f"Would be refused now: {one['message']}" for one in refusals)]
    return Outcome(structured=structured, text="\n".join(lines))


async def _body(call: Call, arguments: Creating) -> Json:
    """Return the body of the REST call. Names of earlier results become their links."""
    fields = arguments.model_dump(exclude_none=True, exclude=set(_OWN))
    for name in _MEDIA:
        if name in fields:
            fields[name] = await _resolve(call, fields[name], name)
    return {_FIELDS.get(name, name): value for name, value in fields.items()}


async def _resolve(call: Call, media: Any, param: str) -> Any:
    if isinstance(media, Sequence) and not isinstance(media, str):
        return [await _resolve(call, one, f"{param}[{number}]") for number, one in enumerate(media)]
    if not media.startswith("dreamery:"):
        return media
    name = parse_uri(media)
    if not isinstance(name, FileName):
        message = f"`{param}` must name a file, such as {file_uri('job_...', 1)}; got {media[:80]!r}."
        raise DreameryError("invalid_value", message, param=param)
    files = job_files(await read_job(call, name.job_id))
    if not 1 <= name.number <= len(files):
        raise DreameryError("file_not_found", f"`{param}`: {name.job_id} has {len(files)} files.", param=param)
    return files[name.number - 1]["url"]
