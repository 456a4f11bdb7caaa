"""Tools for jobs that exist: wait, list, cancel."""

from urllib.parse import urlencode

from api.protocols.mcp.gateways.protocol import call_json
from api.protocols.mcp.tools.call import Call, Outcome
from api.protocols.mcp.tools.inputs import CancelJob, ListJobs, WaitForJob
from api.protocols.mcp.tools.results import job_fields, jobs_outcome, resource_links
from api.protocols.mcp.tools.waiting import check_job_id, describe_state, read_job, wait_for_jobs

_NONE = "There are no such jobs."


async def wait_for_job(call: Call, arguments: WaitForJob) -> Outcome:
    """Wait for a job."""
    job = await read_job(call, arguments.job_id)
    jobs = await wait_for_jobs(call, [job], arguments.wait_seconds)
    return await jobs_outcome(call, jobs, thumbnails=arguments.thumbnails)


async def list_jobs(call: Call, arguments: ListJobs) -> Outcome:
    """List jobs, newest first."""
    query = {"limit": arguments.limit, "status": arguments.status, "kind": arguments.kind, "q": arguments.words}
    query["after"] = arguments.after
    chosen = urlencode({name: value for name, value in query.items() if value is not None})
    page = await call_json(call.gateway, "GET", f"/v1/jobs?{chosen}")
    jobs = page["data"]
    return Outcome(
        structured={
            "jobs": [job_fields(job) for job in jobs],
            "next_after": page["last_id"] if page["has_more"] else None,
        },
        text="\n".join(f"{describe_state(job)} ({job['model']})" for job in jobs) or _NONE,
        links=resource_links(jobs) if call.has_links else [],
    )


async def cancel_job(call: Call, arguments: CancelJob) -> Outcome:
    """Cancel a job."""
    check_job_id(arguments.job_id)
    job = await call_json(call.gateway, "POST", f"/v1/jobs/{arguments.job_id}/cancel")
    cancelling = ", cancelling: the upstream may still finish and charge it" if job["cancelling"] else ""
    return Outcome(structured=job_fields(job), text=f"{describe_state(job)}{cancelling}")
