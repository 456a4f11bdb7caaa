"""Run schemathesis over the OpenAPI document of a running platform: `check.py PART EXAMPLES [more]`.

It goes through the values at the edges of each parameter, and with EXAMPLES > 0 makes up as many more for each path.

Two calls in three of a path with ids name something real, made here first, so that answers of success are seen too
(`hooks.py`); its jobs have ended, so their event streams end at once. Jobs are asked for with `Prefer: respond-async`,
or each of hundreds of pictures would be waited for.
"""

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import requests

_MAKING = "/v1/(images|chat|videos?)/?"
HERE = Path(__file__).resolve().parent
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "error_object",
)


# Each path is in one of them, but the feed of all jobs, whose answer ends after minutes only.
PARTS = {
    "making": ["--include-path-regex", f"^{_MAKING}"],
    "admin": ["--include-path-regex", "^/admin/"],
    "rest": ["--exclude-path-regex", f"^{_MAKING}|^/admin/|^/v1/jobs/events$"],
}
URL = os.environ["DREAMERY_URL"]
_HEADERS = {"Authorization": f"Bearer {os.environ['DREAMERY_KEY']}", "Prefer": "respond-async"}


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = requests.request(method, URL + path, json=body, headers=_HEADERS, timeout=60)
    answer.raise_for_status()
    return answer.json()


def things_of_a_caller() -> dict[str, list[str]]:
    """Finished jobs with their files, an endpoint and a delivery, by the names that paths give them."""
    picture = _call("POST", "/v1/images/generations", {"prompt": "a boat", "n": 1})["id"]
    video = _call("POST", "/v1/videos", {"prompt": "waves"})["id"]
    failed = _call("POST", "/v1/images/generations", {"prompt": "[[fail:2005]]", "n": 1})["id"]
    jobs = [_call("GET", f"/v1/jobs/{one.replace('video_', 'job_')}?wait=60") for one in (picture, video, failed)]
    assert [job["status"] for job in jobs] == ["completed", "completed", "failed"], jobs
    endpoint = _call("POST", "/v1/webhooks/endpoints", {"url": "https://hooks.example/dreamery"})["id"]
    delivery = _call("POST", f"/v1/webhooks/endpoints/{endpoint}/test")["id"]
    return {
        "job_id": [job["id"] for job in jobs],
        "video_id": [video],
        "task_id": [video],
        "file_id": [job["output"][0]["url"].split("/")[-2] for job in jobs[:2]],
        "model_id": ["jimeng-4.0", "jimeng-video-3.0", "agent"],
        "endpoint_id": [endpoint],
        "delivery_id": [delivery],
    }


def things_of_an_admin() -> dict[str, list[str]]:
    """A user and a key."""
    user = _call("POST", "/admin/v1/users", {"name": f"user-{uuid.uuid4().hex[:8]}", "role": "member"})
    key = _call("POST", "/admin/v1/keys", {"user": user["name"]})
    return {"user": [user["id"], user["name"]], "key_id": [key["id"]]}


def main() -> None:
    """Become schemathesis; its exit code says whether all checks held."""
    part, most, *more = sys.argv[1:]
    known = things_of_an_admin() if part == "admin" else things_of_a_caller()
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"),
        "run", f"{URL}/openapi.json",
        "--header", f"Authorization: Bearer {os.environ['DREAMERY_KEY']}",
        "--header", "Prefer: respond-async",
        *PARTS[part],
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing" if int(most) else "examples,coverage",
        "--max-examples", str(max(int(most), 1)),
        "--request-timeout", "30",
        # Its threads may break CPython 3.11's compiler: "AST constructor recursion depth mismatch". Run parts side by side.
        "--workers", "1",
        "--suppress-health-check", "all",
        "--warnings", "off",
        "--no-color",
        *more,
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "KNOWN_IDS": json.dumps(known)}
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main()
