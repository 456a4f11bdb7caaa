"""Reads our rows, the stored files, the sandbox's ledger and the logs after a crash test, and checks the invariants."""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import httpx2
import psycopg
from PIL import Image
from psycopg.rows import dict_row

FINAL = {"succeeded", "failed", "cancelled"}
# The allowed transitions of the state machine.
TRANSITIONS = {
    (None, "queued"),
    (None, "held"),
    ("held", "queued"),
    ("queued", "held"),
    ("held", "failed"),
    ("held", "cancelled"),
    ("queued", "submitting"),
    ("submitting", "running"),
    ("submitting", "queued"),
    ("running", "running"),
    ("submitting", "submitting"),
    ("saving", "saving"),
    ("running", "saving"),
    ("running", "queued"),
    ("saving", "succeeded"),
    ("queued", "failed"),
    ("submitting", "failed"),
    ("running", "failed"),
    ("saving", "failed"),
    ("queued", "cancelled"),
    ("submitting", "cancelled"),
    ("running", "cancelled"),
}
_JOB_MARK = re.compile(r"\[\[job:(\d+)\]\]")


class BothSides(Protocol):
    """What is read of a platform: where its database is, its sandbox, and its data if they are on this machine."""

    @property
    def database_url(self) -> str:
        """URL of the database."""

    @property
    def sandbox_url(self) -> str:
        """URL of the sandbox."""

    @property
    def sandbox_control_headers(self) -> dict[str, str]:
        """Headers of the sandbox's ledger."""

    @property
    def data_dir(self) -> Path:
        """The data folder."""


class PlatformSnapshot:
    """A snapshot of both sides, limited to the requests with these `numbers` (a platform can serve several tests)."""

    def __init__(self, platform: BothSides, numbers: Iterable[int]) -> None:
        self.platform = platform
        expected = set(numbers)
        with psycopg.connect(platform.database_url, row_factory=dict_row, connect_timeout=10) as connection:
            rows = connection.execute("SELECT * FROM jobs ORDER BY id").fetchall()
            self.jobs = [row for row in rows if _number(row["params"]["order"].get("prompt", "")) in expected]
            ids = [job["id"] for job in self.jobs]
            self.events = connection.execute(
                "SELECT * FROM job_events WHERE job_id = ANY(%s) ORDER BY job_id, seq", (ids,)
            ).fetchall()
            self.files = connection.execute("SELECT * FROM files WHERE job_id = ANY(%s)", (ids,)).fetchall()
        answer = httpx2.get(
            f"{platform.sandbox_url}/_ledger", headers=platform.sandbox_control_headers, trust_env=False, timeout=30
        )
        self.ledger: dict[str, Any] = answer.json()
        self.accepted = [s for s in self.ledger["submits"] if s["accepted"] and _number(s["prompt"]) in expected]

    def number_of(self, job: dict[str, Any]) -> int:
        """Return the number of the request that created the job."""
        return _number(job["params"]["order"]["prompt"])

    @property
    def open_jobs(self) -> list[dict[str, Any]]:
        """Jobs without a final state."""
        return [job for job in self.jobs if job["state"] not in FINAL]

    def describe_history(self, job_id: Any) -> str:
        """Return a job's events as text for the message of a failed test."""
        lines = [
            f"    {e['at']:%H:%M:%S.%f} {e['from_state']} -> {e['to_state']} by {e['actor']} {e['note']}"
            for e in self.events
            if e["job_id"] == job_id
        ]
        return "\n".join([f"  job {job_id}", *lines])

    def assert_charged_once(self) -> None:
        """Assert one charge per job that upstream accepted, under the submit key of its row, and none for other jobs."""
        assert self.ledger["totals"]["duplicate_submit_ids"] == 0
        assert not self.ledger["violations"], self.ledger["violations"]
        charges = Counter(charge["submit_id"] for charge in self.ledger["charges"])
        assert not [key for key, count in charges.items() if count > 1]
        by_number = Counter(_number(line["prompt"]) for line in self.accepted)
        jobs_of = {self.number_of(job): job for job in self.jobs}
        charged_twice = [number for number, count in by_number.items() if count > 1]
        assert not charged_twice, "charged twice:\n" + "\n".join(
            self._describe_charges(jobs_of[n]) for n in charged_twice
        )
        assert len(jobs_of) == len(self.jobs), "one request created several jobs"
        keys = {str(job["submit_key"]): job for job in self.jobs if job["submit_key"]}
        unknown = [line for line in self.accepted if line["submit_id"] not in keys]
        assert not unknown, f"charged, but no row has the key: {unknown}"
        for job in self.jobs:
            paid = charges[str(job["submit_key"])]
            reached = job["upstream_id"] is not None
            assert paid == int(reached), f"{paid} charges\n{self._describe_charges(job)}"
            if job["state"] == "succeeded":
                assert paid == 1, self._describe_charges(job)

    def _describe_charges(self, job: dict[str, Any]) -> str:
        prompt = job["params"]["order"]["prompt"]
        lines = [f"    upstream: {line}" for line in self.ledger["submits"] if line["prompt"] == prompt]
        return "\n".join([f"  {prompt} {job['submit_key']}", self.describe_history(job["id"]), *lines])

    def assert_concurrency_within(self, *, slots: int) -> None:
        """Assert that no account exceeded its number of concurrent jobs (I5)."""
        over = {name: line for name, line in self.ledger["accounts"].items() if line["max_in_flight"] > slots}
        assert not over, over

    def assert_history_valid(self) -> None:
        """Assert that events are gapless, follow the state machine and end with the final state (I1)."""
        by_job: dict[Any, list[dict[str, Any]]] = {}
        for event in self.events:
            by_job.setdefault(event["job_id"], []).append(event)
        for job in self.jobs:
            events = by_job[job["id"]]
            history = self.describe_history(job["id"])
            assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), history
            assert events[-1]["to_state"] == job["state"], history
            assert len([e for e in events if e["to_state"] in FINAL]) == 1, history
            state = None
            for event in events:
                assert event["from_state"] == state, history
                assert (state, event["to_state"]) in TRANSITIONS, history
                state = event["to_state"]

    def assert_files_stored(self, expected: dict[int, int]) -> None:
        """Assert that each succeeded job has the expected number of readable images of the requested size."""
        by_job: dict[Any, list[dict[str, Any]]] = {}
        for row in self.files:
            by_job.setdefault(row["job_id"], []).append(row)
        seen: set[str] = set()
        for job in self.jobs:
            rows = by_job.get(job["id"], [])
            if job["state"] != "succeeded":
                assert not rows, self.describe_history(job["id"])
                continue
            assert len(rows) == expected[self.number_of(job)], self.describe_history(job["id"])
            for row in rows:
                content = (self.platform.data_dir / "files" / row["key"]).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                assert digest == row["sha256"], row
                if digest not in seen:
                    seen.add(digest)
                    with Image.open(io.BytesIO(content)) as image:
                        image.load()
                        order = job["params"]["order"]
                        assert image.size == (order["width"], order["height"])


def _number(prompt: str) -> int:
    match = _JOB_MARK.search(prompt or "")
    return int(match[1]) if match else -1


def tracebacks(logs: Path) -> list[str]:
    """Return log lines of our processes that contain a traceback, shortened. A killed peer may cause only a plain line."""
    found = []
    for path in sorted(logs.glob("*.log*")):
        if path.name.startswith(("postgres", "redis", "migrate")):
            continue
        lines = path.read_text(errors="replace").splitlines()
        found += [f"{path.name}: {line[:600]}" for line in lines if "Traceback" in line or '"exception"' in line]
    return found
