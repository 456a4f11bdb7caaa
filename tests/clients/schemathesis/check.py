"""Run schemathesis over the OpenAPI document of a running platform: `check.py PART EXAMPLES [more]`.

It tests boundary values of each parameter. With EXAMPLES > 0 it tests all of them, not one of each kind, and also
generates that many requests per path.

Two of three calls of a path with ids use an existing object created here, so that successful responses are tested too
(`hooks.py`). Its jobs have ended, so their event streams end immediately. Requests send `Prefer: respond-async`, so that
they do not wait for hundreds of images.
"""

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import requests

_GENERATION = "/v1/(images|chat|videos?)/?"
HERE = Path(__file__).resolve().parent
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "error_object",
)


# Every path belongs to one part, except the feed of all jobs, which ends only after minutes.
PARTS = {
    "generation": ["--include-path-regex", f"^{_GENERATION}"],
    "admin": ["--include-path-regex", "^/admin/"],
    "rest": ["--exclude-path-regex", f"^{_GENERATION}|^/admin/|^/v1/jobs/events$"],
}
URL = os.environ["DREAMERY_URL"]
_HEADERS = {"Authorization": f"Bearer {os.environ['DREAMERY_KEY']}", "Prefer": "respond-async"}


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    response = requests.request(method, URL + path, json=body, headers=_HEADERS, timeout=60)
    response.raise_for_status()
    return response.json()


def create_caller_objects() -> dict[str, list[str]]:
    """Finished jobs with files, an endpoint and a delivery: path parameter -> ids."""
    image = _call("POST", "/v1/images/generations", {"prompt": "a boat", "n": 1})["id"]
    video = _call("POST", "/v1/videos", {"prompt": "waves"})["id"]
    failed = _call("POST", "/v1/images/generations", {"prompt": "[[fail:2005]]", "n": 1})["id"]
    jobs = [_call("GET", f"/v1/jobs/{job_id.replace('video_', 'job_')}?wait=60") for job_id in (image, video, failed)]
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


def create_admin_objects() -> dict[str, list[str]]:
    """A user and a key: path parameter -> ids."""
    user = _call("POST", "/admin/v1/users", {"name": f"user-{uuid.uuid4().hex[:8]}", "role": "member"})
    key = _call("POST", "/admin/v1/keys", {"user": user["name"]})
    return {"user": [user["id"], user["name"]], "key_id": [key["id"]]}


def main() -> None:
    """Replace this process with schemathesis, which exits with 0 if all checks pass."""
    part, examples, *options = sys.argv[1:]
    known_ids = create_admin_objects() if part == "admin" else create_caller_objects()
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"),
        "run", f"{URL}/openapi.json",
        "--header", f"Authorization: Bearer {os.environ['DREAMERY_KEY']}",
        "--header", "Prefer: respond-async",
        *PARTS[part],
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing" if int(examples) else "examples,coverage",
        "--max-examples", str(max(int(examples), 1)),
        "--request-timeout", "30",
        # Its threads may hit a bug of CPython 3.11: "AST constructor recursion depth mismatch". Run parts in parallel instead.
        "--workers", "1",
        "--suppress-health-check", "all",
        "--warnings", "off",
        "--no-color",
        *options,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(HERE),
        "KNOWN_IDS": json.dumps(known_ids),
        "EVERY_CASE": "1" if int(examples) else "0",
    }
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main()
