"""What is read after a crash test: our rows, the stored files, the sandbox's ledger, the logs. And what must hold there."""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import psycopg
from PIL import Image
from psycopg.rows import dict_row

from worker.local.supervisor import Platform

FINAL = {"succeeded", "failed", "cancelled"}
# The arrows of the state machine.
ARROWS = {
    (None, "queued"),
    ("queued", "submitting"),
    ("submitting", "running"),
    ("submitting", "queued"),
    ("running", "running"),
    ("running", "saving"),
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


class Books:
    """A snapshot of both sides; `numbers` narrows it to the orders of one test on a shared platform."""

    def __init__(self, platform: Platform, numbers: Iterable[int]) -> None:
        self.platform = platform
        wanted = set(numbers)
        with psycopg.connect(platform.database_url, row_factory=dict_row, connect_timeout=10) as connection:
            rows = connection.execute("SELECT * FROM jobs ORDER BY id").fetchall()
            self.jobs = [row for row in rows if _number(row["params"]["order"].get("prompt", "")) in wanted]
            ids = [job["id"] for job in self.jobs]
            self.events = connection.execute(
                "SELECT * FROM job_events WHERE job_id = ANY(%s) ORDER BY job_id, seq", (ids,)
            ).fetchall()
            self.files = connection.execute("SELECT * FROM files WHERE job_id = ANY(%s)", (ids,)).fetchall()
        answer = httpx2.get(f"{platform.sandbox_url}/_ledger", trust_env=False, timeout=30)
        self.ledger: dict[str, Any] = answer.json()
        self.accepted = [s for s in self.ledger["submits"] if s["accepted"] and _number(s["prompt"]) in wanted]

    def number_of(self, job: dict[str, Any]) -> int:
        """The order a job came from."""
        return _number(job["params"]["order"]["prompt"])

    @property
    def open_jobs(self) -> list[dict[str, Any]]:
        """Jobs that have not ended."""
        return [job for job in self.jobs if job["state"] not in FINAL]

    def story(self, job_id: Any) -> str:
        """A job's events, for the message of a failed test."""
        lines = [
            f"    {e['at']:%H:%M:%S.%f} {e['from_state']} -> {e['to_state']} by {e['actor']} {e['note']}"
            for e in self.events
            if e["job_id"] == job_id
        ]
        return "\n".join([f"  job {job_id}", *lines])

    def assert_paid_once(self) -> None:
        """One charge for every job that upstream got, under the key its row ended with; none for the others."""
        assert self.ledger["totals"]["duplicate_submit_ids"] == 0
        assert not self.ledger["violations"], self.ledger["violations"]
        charges = Counter(charge["submit_id"] for charge in self.ledger["charges"])
        assert not [key for key, count in charges.items() if count > 1]
        by_order = Counter(_number(line["prompt"]) for line in self.accepted)
        jobs_of = {self.number_of(job): job for job in self.jobs}
        doubled = [number for number, count in by_order.items() if count > 1]
        assert not doubled, "paid twice:\n" + "\n".join(self._receipt(jobs_of[n]) for n in doubled)
        assert len(jobs_of) == len(self.jobs), "one order became several jobs"
        keys = {str(job["submit_key"]): job for job in self.jobs if job["submit_key"]}
        strangers = [line for line in self.accepted if line["submit_id"] not in keys]
        assert not strangers, f"paid, but no row knows the key: {strangers}"
        for job in self.jobs:
            paid = charges[str(job["submit_key"])]
            reached = job["upstream_id"] is not None
            assert paid == int(reached), f"{paid} charges\n{self._receipt(job)}"
            if job["state"] == "succeeded":
                assert paid == 1, self._receipt(job)

    def _receipt(self, job: dict[str, Any]) -> str:
        prompt = job["params"]["order"]["prompt"]
        lines = [f"    upstream: {line}" for line in self.ledger["submits"] if line["prompt"] == prompt]
        return "\n".join([f"  {prompt} {job['submit_key']}", self.story(job["id"]), *lines])

    def assert_limits_kept(self, *, slots: int) -> None:
        """No account ever had more jobs in flight than it may (I5)."""
        over = {name: line for name, line in self.ledger["accounts"].items() if line["max_in_flight"] > slots}
        assert not over, over

    def assert_history_sound(self) -> None:
        """Events are gapless, follow the arrows, and nothing happens after the end (I1)."""
        by_job: dict[Any, list[dict[str, Any]]] = {}
        for event in self.events:
            by_job.setdefault(event["job_id"], []).append(event)
        for job in self.jobs:
            events = by_job[job["id"]]
            story = self.story(job["id"])
            assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), story
            assert events[-1]["to_state"] == job["state"], story
            assert len([e for e in events if e["to_state"] in FINAL]) == 1, story
            state = None
            for event in events:
                assert event["from_state"] == state, story
                assert (state, event["to_state"]) in ARROWS, story
                state = event["to_state"]

    def assert_files_stored(self, wanted: dict[int, int]) -> None:
        """Every succeeded job has its pictures: as many as upstream made, whole, readable, of the asked size."""
        by_job: dict[Any, list[dict[str, Any]]] = {}
        for row in self.files:
            by_job.setdefault(row["job_id"], []).append(row)
        seen: set[str] = set()
        for job in self.jobs:
            rows = by_job.get(job["id"], [])
            if job["state"] != "succeeded":
                assert not rows, self.story(job["id"])
                continue
            assert len(rows) == wanted[self.number_of(job)], self.story(job["id"])
            for row in rows:
                content = (self.platform.data_dir / "files" / row["key"]).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                assert digest == row["sha256"], row
                if digest not in seen:
                    seen.add(digest)
                    with Image.open(io.BytesIO(content)) as picture:
                        picture.load()
                        order = job["params"]["order"]
                        assert picture.size == (order["width"], order["height"])


def _number(prompt: str) -> int:
    found = _JOB_MARK.search(prompt or "")
    return int(found[1]) if found else -1


def tracebacks(logs: Path) -> list[str]:
    """Log lines of our processes that carry a traceback, shortened. A peer that was killed deserves one plain line."""
    found = []
    for path in sorted(logs.glob("*.log*")):
        if path.name.startswith(("postgres", "redis", "migrate")):
            continue
        lines = path.read_text(errors="replace").splitlines()
        found += [f"{path.name}: {line[:600]}" for line in lines if "Traceback" in line or '"exception"' in line]
    return found
