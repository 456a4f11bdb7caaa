"""Many users on many accounts, some of them dead, broke, limited or flaky: do all jobs end correctly and in fair order?

The checks do not rely on the platform alone: charges, concurrent jobs and gaps between submits come from the sandbox's
ledger; outcomes and claims come from the rows.
"""

import asyncio
import statistics
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import httpx2
import psycopg
from psycopg.rows import dict_row

from tests.support.sandbox_client import read_ledger
from worker.core.errors import ERRORS, Fault
from worker.local.supervisor import Platform

_CONTENT = "content_policy_violation"
_CONCURRENCY = 40
_TIMEOUT_SECONDS = 1200.0


@dataclass(frozen=True)
class Scale:
    """The size of the scenario. `users` = (number of users, weight, jobs per user)."""

    users: tuple[tuple[int, float, int], ...]
    good: int
    bad: int  # of each kind: dead, broke, limited, flaky
    slots: int
    pace: float  # submits per minute of an account
    call_seconds: float  # total deadline of an upstream call

    @property
    def jobs(self) -> int:
        """The number of jobs, without the newcomer's job."""
        return sum(count * each for count, _, each in self.users)


FULL = Scale(users=((10, 3, 70), (15, 2, 40), (25, 1, 28)), good=12, bad=2, slots=2, pace=240, call_seconds=12)
SMALL = Scale(users=((2, 3, 24), (2, 2, 16), (4, 1, 10)), good=3, bad=1, slots=4, pace=600, call_seconds=5)


@dataclass
class Figures:
    """The results; `problems` is empty if everything is correct."""

    users: int
    accounts: int
    jobs: int
    ends: dict[str, int]
    wall_seconds: float
    jobs_per_second: float
    submits: int
    refusals: int
    shares: dict[str, float]  # by weight: jobs per user, divided by the fair share
    shares_counted: int  # claims while all users had waiting jobs
    newcomer_behind: int  # claims of other jobs between its acceptance and its own claim
    newcomer_seconds: float
    max_concurrent: int
    max_submits_per_minute: int
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON data."""
        return asdict(self)


@dataclass
class _User:
    weight: float
    key: str
    prompts: list[str]


def settings(scale: Scale) -> dict[str, str]:
    """The platform settings of the scenario."""
    return {
        "DREAMERY_REQUESTS_PER_MINUTE": "0",
        "DREAMERY_ACCOUNT_MAX_IMAGES": str(scale.slots),
        "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": str(scale.pace),
        "DREAMERY_LOG_LEVEL": "warning",
        # Flaky accounts cause unclear submits; short times keep the wait for them short.
        "DREAMERY_CALL_TIMEOUT_SECONDS": str(scale.call_seconds),
        "DREAMERY_WATCHDOG_SECONDS": str(1.4 * scale.call_seconds),
        "DREAMERY_LEASE_SECONDS": str(1.8 * scale.call_seconds),
        "DREAMERY_UNCLEAR_GRACE_SECONDS": "3",
    }


def run_many(platform: Platform, scale: Scale) -> Figures:
    """Set up users and accounts on a new platform, send all jobs, wait for their end, and collect the figures."""
    with httpx2.Client(base_url=platform.url, headers=_bearer(platform.admin_key), timeout=60) as admin:
        _add_accounts(admin, _session_ids(scale)[:1])
        admin.patch(f"/admin/v1/accounts/{_accounts(admin)[0]['id']}", json={"max_images": 1}).raise_for_status()
        users = [
            _add_user(admin, f"user{n}-{weight}-{k}", weight, each)
            for n, (count, weight, each) in enumerate(scale.users)
            for k in range(count)
        ]
        newcomer = _add_user(admin, "newcomer", 1, 1)
    # A single account with one slot processes almost nothing while the jobs arrive, so all users wait when the others join.
    asyncio.run(_send(platform, [(user.key, prompt) for user in _by_job_count(users) for prompt in user.prompts]))
    started = time.time()
    with httpx2.Client(base_url=platform.url, headers=_bearer(platform.admin_key), timeout=60) as admin:
        admin.patch(f"/admin/v1/accounts/{_accounts(admin)[0]['id']}", json={"max_images": None}).raise_for_status()
        _add_accounts(admin, _session_ids(scale)[1:])
    _wait(platform, until=lambda left: left <= 0.6 * scale.jobs)
    asyncio.run(_send(platform, [(newcomer.key, newcomer.prompts[0])]))
    _wait(platform, until=lambda left: left == 0)
    return _collect_figures(platform, scale, users, newcomer, started=started)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _session_ids(scale: Scale) -> list[str]:
    """The session ids; their first word scripts the behaviour of the account."""
    kinds = ["good"] * scale.good + [kind for kind in ("dead", "broke", "limited", "flaky") for _ in range(scale.bad)]
    return [f"{kind}-many-{n}" for n, kind in enumerate(kinds)]


def _accounts(admin: httpx2.Client) -> list[dict[str, Any]]:
    accounts: list[dict[str, Any]] = admin.get("/admin/v1/accounts").json()["data"]
    return accounts


def _add_accounts(admin: httpx2.Client, sessions: list[str]) -> None:
    demo = [account for account in _accounts(admin) if account["label"] == "sandbox demo"]
    tokens = ",".join(f"{session}:sandbox" for session in sessions)
    admin.post("/admin/v1/accounts", json={"tokens": tokens}).raise_for_status()
    for account in demo:
        admin.delete(f"/admin/v1/accounts/{account['id']}").raise_for_status()


def _add_user(admin: httpx2.Client, name: str, weight: float, jobs: int) -> _User:
    admin.post("/admin/v1/users", json={"name": name, "weight": weight}).raise_for_status()
    key = admin.post("/admin/v1/keys", json={"user": name}).raise_for_status().json()["key"]
    # One job in twelve is refused by upstream at submit, one in twelve fails after it was accepted.
    scripts = ["[[refuse:2038]]", "[[fail:2038]]", *[""] * 10]
    return _User(weight, key, [f"{name} boat {n} {scripts[n % 12]}".strip() for n in range(jobs)])


def _by_job_count(users: list[_User]) -> list[_User]:
    """Users with most jobs first, so that the arrival order does not favour users with few jobs."""
    return sorted(users, key=lambda user: -len(user.prompts))


async def _send(platform: Platform, orders: list[tuple[str, str]]) -> None:
    remaining = iter(orders)

    async def caller(client: httpx2.AsyncClient) -> None:
        for key, prompt in remaining:
            body = {"prompt": prompt, "n": 1, "resolution": "1k", "async": True}
            response = await client.post("/v1/images/generations", json=body, headers=_bearer(key))
            response.raise_for_status()

    async with httpx2.AsyncClient(base_url=platform.url, timeout=120) as client:
        await asyncio.gather(*(caller(client) for _ in range(min(_CONCURRENCY, len(orders)))))


def _wait(platform: Platform, *, until: Any) -> None:
    """Wait until `until(open jobs)` is true."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with psycopg.connect(platform.database_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute("SELECT count(*) FROM jobs WHERE finished_at IS NULL").fetchone()
            if row is not None and until(row[0]):
                return
            time.sleep(0.2)
    raise TimeoutError(f"jobs are still open after {_TIMEOUT_SECONDS} s")


def _collect_figures(
    platform: Platform,
    scale: Scale,
    users: list[_User],
    newcomer: _User,
    *,
    started: float,
) -> Figures:
    with psycopg.connect(platform.database_url, row_factory=dict_row) as connection:
        jobs = connection.execute(
            """SELECT j.id, j.params #>> '{order,prompt}' AS prompt, j.state, j.error_code, j.created_at, j.finished_at,
                   (SELECT min(at) FROM job_events e WHERE e.job_id = j.id AND e.to_state = 'submitting') AS claimed_at
               FROM jobs j"""
        ).fetchall()
    ledger = read_ledger(platform)
    by_prompt = {job["prompt"]: job for job in jobs}
    shares, counted = _shares(users, by_prompt, started)
    new = by_prompt[newcomer.prompts[0]]
    used_accounts = [view for view in ledger["accounts"].values() if view["submits"]]
    wall = max(job["finished_at"] for job in jobs).timestamp() - started
    return Figures(
        users=len(users) + 1,
        accounts=len(_session_ids(scale)),
        jobs=len(jobs),
        ends=dict(Counter(job["error_code"] or job["state"] for job in jobs)),
        wall_seconds=round(wall, 1),
        jobs_per_second=round(len(jobs) / wall, 1),
        submits=len(ledger["submits"]),
        refusals=sum(not line["accepted"] for line in ledger["submits"]),
        shares=shares,
        shares_counted=counted,
        newcomer_behind=sum(new["created_at"] < job["claimed_at"] < new["claimed_at"] for job in jobs),
        newcomer_seconds=round((new["claimed_at"] - new["created_at"]).total_seconds(), 2),
        max_concurrent=max(view["max_in_flight"] for view in used_accounts),
        max_submits_per_minute=max(_max_submits_per_minute(ledger, name) for name in ledger["accounts"]),
        problems=[*_check_outcomes(jobs, scale), *_check_ledger(ledger, by_prompt, scale)],
    )


def _shares(users: list[_User], jobs: dict[str, Any], started: float) -> tuple[dict[str, float], int]:
    """By weight: average jobs per user while all users had waiting jobs, divided by the fair share; and all such claims."""
    claimed: dict[int, list[datetime]] = {
        n: sorted(jobs[prompt]["claimed_at"] for prompt in user.prompts) for n, user in enumerate(users)
    }
    until = min(times[-1] for times in claimed.values())
    claims = {n: sum(started <= at.timestamp() <= until.timestamp() for at in times) for n, times in claimed.items()}
    total, weights = sum(claims.values()), sum(user.weight for user in users)
    shares: dict[str, float] = {}
    for weight in sorted({user.weight for user in users}):
        of_weight = [claims[n] for n, user in enumerate(users) if user.weight == weight]
        shares[f"{weight:g}"] = round(statistics.mean(of_weight) / (total * weight / weights), 3) if total else 0.0
    return shares, total


def _check_outcomes(jobs: list[dict[str, Any]], scale: Scale) -> list[str]:
    problems = [] if len(jobs) == scale.jobs + 1 else [f"{len(jobs)} jobs instead of {scale.jobs + 1}"]
    for job in jobs:
        scripted, end = "[[" in job["prompt"], job["error_code"] or job["state"]
        # A flaky account may break every attempt of a job; then it must have failed with an upstream error.
        upstream_failure = end in ERRORS and ERRORS[end].fault is Fault.UPSTREAM
        if end != (_CONTENT if scripted else "succeeded") and not upstream_failure:
            problems.append(f"{job['prompt']!r} ended as {end}")
    return problems


def _check_ledger(ledger: dict[str, Any], jobs: dict[str, Any], scale: Scale) -> list[str]:
    problems = [f"the sandbox reported: {code} x {count}" for code, count in ledger["violations"].items()]
    if ledger["totals"]["duplicate_submit_ids"]:
        problems.append(f"{ledger['totals']['duplicate_submit_ids']} submit keys were sent twice")
    charged = Counter(line["prompt"] for line in ledger["submits"] if line["accepted"])
    problems += [f"{prompt!r} was charged {count} times" for prompt, count in charged.items() if count > 1]
    problems += [
        f"{p!r} succeeded without a charge" for p, job in jobs.items() if job["state"] == "succeeded" and not charged[p]
    ]
    for name, view in ledger["accounts"].items():
        if view["max_in_flight"] > scale.slots:
            problems.append(f"account {name} had {view['max_in_flight']} concurrent jobs")
        if (most := _max_submits_per_minute(ledger, name)) > scale.pace + 1:
            problems.append(f"account {name} received {most} submits in a minute")
    return problems


def _max_submits_per_minute(ledger: dict[str, Any], account: str) -> int:
    """The maximum number of submits to an account within any 60 seconds."""
    times = sorted(line["at"] for line in ledger["submits"] if line["account"] == account)
    return max((bisect_left(times, at + 60) - n for n, at in enumerate(times)), default=0)
