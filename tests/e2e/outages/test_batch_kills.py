"""An API process is killed with SIGKILL at each step of a batch, before its transaction is committed and while it is.

No line is lost or paid twice, the batch ends, and a client that repeats its requests notices nothing else.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, Self
from uuid import UUID

import httpx
import psycopg
import pytest

from tests.support.crash.platform_snapshot import PlatformSnapshot, tracebacks
from tests.support.platform import CheckedPlatform, eventually, find_processes
from tests.support.servers.http_servers import WebhookReceiver, WebhookReceivers
from worker.local.platform_settings import PlatformOptions
from worker.local.processes import Child
from worker.local.supervisor import Platform

pytestmark = pytest.mark.timeout(600)
SLOTS = 2
LINES = 7
ENDED = {"completed", "failed", "expired", "cancelled"}
_numbers = count(7_001)
_names = count(1)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, webhook_receivers: WebhookReceivers) -> Iterator[Platform]:
    """One worker, and two accounts of the operator."""
    env = {"DREAMERY_ACCOUNT_MAX_IMAGES": str(SLOTS), "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "6000"}
    env |= {"DREAMERY_POLL_MIN_SECONDS": "0.5", "DREAMERY_POLL_MAX_SECONDS": "2"}
    folder = tmp_path_factory.mktemp("batch_kills")
    options = PlatformOptions(
        data_dir=folder / "data", flower="never", sandbox="at_start", throwaway=True, sandbox_seconds=0.5, extra_env=env
    )  # fmt: skip
    started = CheckedPlatform(options)
    # The ports are known now; the processes read this setting at their start.
    hosts = (started.sandbox_url, webhook_receivers.url)
    env["DREAMERY_FETCH_ALLOW"] = ",".join(url.removeprefix("http://") for url in hosts)
    with started:
        tokens = "batch-kills-000001:sandbox,batch-kills-000002:sandbox"
        answer = httpx.post(
            f"{started.url}/admin/v1/accounts", json={"tokens": tokens}, headers=_headers(started), trust_env=False, timeout=60
        )  # fmt: skip
        assert answer.is_success, answer.text
        yield started
        logs = started.logs_dir
    assert not (found := tracebacks(logs)), f"{len(found)} tracebacks\n" + "\n".join(found[:20])
    assert not find_processes(folder)


def _headers(platform: Platform) -> dict[str, str]:
    return {"Authorization": f"Bearer {platform.admin_key}"}


# ---- gates: places in the database where a step stops, so that its process can be killed there


@dataclass(frozen=True, slots=True)
class Gate:
    """A change of a row that stops at the gate. `change` and `condition` are those of a trigger."""

    name: str
    table: str
    change: str
    condition: str


_CREATED = Gate("the batch is made", "batches", "INSERT", "NEW.state = 'validating'")
_CHECKED = Gate("it is claimed to be checked", "batches", "UPDATE OF holder", "NEW.state = 'validating'")
_ACCEPTED = Gate("its jobs are accepted", "batches", "UPDATE OF state", "NEW.state = 'in_progress'")
_CLAIMED = Gate("it is claimed to be ended", "batches", "UPDATE OF holder", "NEW.state = 'finalizing'")
_WRITTEN = Gate("its results are stored", "batch_files", "INSERT", "NEW.purpose = 'batch_output'")
_COMPLETED = Gate("it ends", "batches", "UPDATE OF state", "NEW.state = 'completed'")
_CANCELLING = Gate("it is to be cancelled", "batches", "UPDATE OF state", "NEW.state = 'cancelling'")
_DEQUEUED = Gate(
    "its queued lines are cancelled", "jobs", "UPDATE OF state", "(OLD.state, NEW.state) = ('queued', 'cancelled')"
)
_TAKEN = Gate("it is claimed to be cancelled", "batches", "UPDATE OF holder", "NEW.state = 'cancelling'")
_DROPPED = Gate(
    "its held lines are cancelled", "jobs", "UPDATE OF state", "(OLD.state, NEW.state) = ('held', 'cancelled')"
)
_ASKED = Gate(
    "a running line is asked to end", "jobs", "UPDATE OF cancel_requested_at",
    "OLD.cancel_requested_at IS NULL AND NEW.cancel_requested_at IS NOT NULL AND NEW.state = 'running'",
)  # fmt: skip
_ENDING = Gate("its lines have ended", "batches", "UPDATE OF state", "NEW.state = 'finalizing'")
_CANCELLED = Gate("it ends as cancelled", "batches", "UPDATE OF state", "NEW.state = 'cancelled'")


def _has_ended(child: Child, pid: int) -> bool:
    return child.pid != pid or child.exit_code is not None


class Gates:
    """Closed gates in a database. A transaction waits at each until it is opened.

    With `at_commit` it waits in its COMMIT: that takes effect although its process is dead, and never learns of it.
    """

    def __init__(self, platform: Platform, gates: tuple[Gate, ...], *, at_commit: bool) -> None:
        self._platform, self._gates = platform, gates
        self._at_commit = at_commit
        self._connection = psycopg.connect(platform.database_url, autocommit=True)

    def __enter__(self) -> Self:
        run = self._connection.execute
        run(
            """CREATE OR REPLACE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(4711, TG_ARGV[0]::integer); RETURN NEW; END$$"""
        )
        kind = "CONSTRAINT TRIGGER {} AFTER" if self._at_commit else "TRIGGER {} BEFORE"
        moment = "DEFERRABLE INITIALLY DEFERRED" if self._at_commit else ""
        for number, gate in enumerate(self._gates):
            run("SELECT pg_advisory_lock(4711, %s)", (number,))
            condition = f"{gate.condition} AND NEW.holder IS NOT NULL" if "holder" in gate.change else gate.condition
            run(
                f"CREATE {kind.format(f'gate_{number}')} {gate.change} ON {gate.table} {moment}"
                f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION wait_at_gate({number})"
            )
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.execute("SELECT pg_advisory_unlock_all()")
        for number, gate in enumerate(self._gates):
            self._connection.execute(f"DROP TRIGGER gate_{number} ON {gate.table}")
        self._connection.close()

    def kill_at_each(self) -> None:
        """Wait until a transaction stands at each gate in turn, kill the API, and open the gate."""
        api = self._platform.children["api"]
        for number, gate in enumerate(self._gates):
            eventually(partial(self._is_reached, number), within=180, what=gate.name)
            pid = api.pid
            api.kill()
            eventually(partial(_has_ended, api, pid), what="the end of the API")
            self._connection.execute("SELECT pg_advisory_unlock(4711, %s)", (number,))
            eventually(lambda: not self._has_open_transactions(), what="the end of the transaction")
            # The step is done again when its lease has run out, a minute later.
            self._connection.execute("UPDATE batches SET lease_until = now() WHERE lease_until > now()")

    def _is_reached(self, number: int) -> bool:
        query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711 AND objid = %s AND NOT granted"
        return self._connection.execute(query, (number,)).fetchone() is not None

    def _has_open_transactions(self) -> bool:
        query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711 AND mode = 'ShareLock'"
        return self._connection.execute(query).fetchone() is not None


# ---- a client that repeats what failed


class Client:
    """A caller that repeats each request until it has an answer."""

    def __init__(self, platform: Platform, key: str = "") -> None:
        headers = {"Authorization": f"Bearer {key or platform.admin_key}"}
        self._http = httpx.Client(base_url=platform.url, headers=headers, timeout=20, trust_env=False)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer, which no fault of a process has caused."""
        end = time.monotonic() + 240
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.request(method, path, **options)
                if answer.status_code not in {500, 502, 503, 504}:
                    return answer
                assert answer.status_code != 500, answer.text
            assert time.monotonic() < end, f"{method} {path} was never answered"
            time.sleep(0.3)

    def make_batch(self, seconds: Mapping[int, float], webhook: str) -> str:
        """Upload lines that take so many seconds each, and make a batch of them; return its id."""
        lines = [
            {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": "/v1/images/generations",
                "body": {"prompt": f"a boat [[job:{number}]][[seconds:{duration}]]", "n": 1},
            }
            for number, duration in seconds.items()
        ]
        file = self.request(
            "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("boats.jsonl", "\n".join(map(json.dumps, lines)))}
        ).json()  # fmt: skip
        key = {"Idempotency-Key": f"batch-kills-{next(_names)}"}
        answer = self.request(
            "POST", "/v1/batches", json={"input_file_id": file["id"], "webhook": webhook}, headers=key
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def wait_for(self, batch: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read the batch until the condition is true."""
        end = time.monotonic() + 240
        shown: dict[str, Any] = {}
        while not condition(shown := self.request("GET", f"/v1/batches/{batch}").json()):
            assert time.monotonic() < end, shown
            time.sleep(0.3)
        return shown

    def results(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Return the ids of the lines in both files."""
        found = {}
        for name in ("output_file_id", "error_file_id"):
            text = self.request("GET", f"/v1/files/{batch[name]}/content").text if batch[name] else ""
            found[name] = [json.loads(line)["custom_id"] for line in text.splitlines()]
        return found


def _run_to_its_end(client: Client, numbers: list[int], webhook: str) -> dict[str, Any]:
    batch = client.make_batch(dict.fromkeys(numbers, 0.5), webhook)
    return client.wait_for(batch, lambda shown: shown["status"] in ENDED)


def _check(platform: Platform, client: Client, batch: dict[str, Any], numbers: list[int]) -> None:
    """Each line has one job and stands in one of the files once; nothing was paid twice or written twice."""
    snapshot = PlatformSnapshot(platform, numbers)
    assert len(snapshot.jobs) == len(numbers)
    assert not snapshot.open_jobs, "\n".join(snapshot.describe_history(job["id"]) for job in snapshot.open_jobs)
    snapshot.assert_charged_once()
    snapshot.assert_concurrency_within(slots=SLOTS)
    snapshot.assert_history_valid()
    snapshot.assert_files_stored(dict.fromkeys(numbers, 1))
    _check_files(client, batch, numbers)


def _check_files(client: Client, batch: dict[str, Any], numbers: list[int]) -> None:
    found = client.results(batch)
    expected = sorted(f"line-{number}" for number in numbers)
    assert sorted(found["output_file_id"] + found["error_file_id"]) == expected
    counts = batch["request_counts"]
    ends = (len(found["output_file_id"]), len(found["error_file_id"]))
    assert (counts["completed"], counts["failed"], counts["total"]) == (*ends, len(numbers))
    files = client.request("GET", "/v1/files?purpose=batch_output").json()["data"]
    assert len([file for file in files if batch["id"] in file["filename"]]) == sum(map(bool, ends))


# Each kill costs the start of an API, so not every gate is tried at both moments.
@pytest.mark.parametrize(
    ("at_commit", "gates"),
    [
        (False, (_CHECKED, _ACCEPTED, _WRITTEN)),
        (True, (_CREATED, _CHECKED, _ACCEPTED, _CLAIMED, _COMPLETED)),
    ],
    ids=["before_commit", "in_commit"],
)
def test_api_is_killed_at_each_step(
    platform: Platform, webhook_receivers: WebhookReceivers, at_commit: bool, gates: tuple[Gate, ...]
) -> None:  # fmt: skip
    receiver = webhook_receivers.new()
    numbers = [next(_numbers) for _ in range(LINES)]
    with contextlib.closing(Client(platform)) as client:
        with ThreadPoolExecutor(1) as pool, Gates(platform, gates, at_commit=at_commit) as closed:
            ended = pool.submit(_run_to_its_end, client, numbers, receiver.url)
            closed.kill_at_each()
            batch = ended.result(timeout=240)
        assert batch["status"] == "completed", batch
        _check(platform, client, batch, numbers)
    eventually(lambda: receiver.received, what="the event of its end")
    assert len(_events(receiver)) == 1


def _events(receiver: WebhookReceiver) -> set[str]:
    """Ids of the received events; one that is sent again has the same id."""
    return {webhook.headers["webhook-id"] for webhook in receiver.received}


# ---- a batch that is cancelled

_LONG, _SHORT = 240, 4


@pytest.fixture
def narrow_key(platform: Platform) -> str:
    """A key with three accounts of its own, of which twelve jobs may be open: six run, six are queued, the rest is held."""
    label = f"cancel-{next(_names)}"
    tokens = ",".join(f"{label}-{number}:sandbox" for number in range(3))
    labels = [f"{label} {number}" for number in (1, 2, 3)]
    key = {"user": "admin", "name": label, "accounts": labels, "limits": {"concurrent_jobs": 12}}
    with httpx.Client(base_url=platform.url, headers=_headers(platform), trust_env=False, timeout=60) as http:
        http.post("/admin/v1/accounts", json={"tokens": tokens, "label": label}).raise_for_status()
        return str(http.post("/admin/v1/keys", json=key).raise_for_status().json()["key"])


def _read(platform: Platform, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(platform.database_url) as connection:
        return connection.execute(query, values).fetchall()


def _states(platform: Platform, batch: str) -> set[str]:
    query = "SELECT DISTINCT j.state FROM jobs j WHERE j.batch_id = %s"
    return {state for (state,) in _read(platform, query, UUID(batch.partition("_")[2]))}


def _cancel(platform: Platform, client: Client, batch: str) -> tuple[datetime, dict[str, Any]]:
    """Cancel the batch, with repeats. Return when its cancellation was seen in the database, and the ended batch."""
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(client.request, "POST", f"/v1/batches/{batch}/cancel")
        query = "SELECT clock_timestamp() FROM batches WHERE id = %s AND state <> 'in_progress'"
        while not (seen := _read(platform, query, UUID(batch.partition("_")[2]))):
            time.sleep(0.05)
        answer = answered.result(timeout=240)
    assert answer.status_code == 200, answer.text
    return seen[0][0], client.wait_for(batch, lambda shown: shown["status"] in ENDED)


def _check_cancelled(
    platform: Platform, client: Client, batch: dict[str, Any], numbers: list[int], seen: datetime
) -> None:
    """No line starts after the cancellation, each ends once, and nothing is paid for lines that did not start."""
    snapshot = PlatformSnapshot(platform, numbers)
    assert len(snapshot.jobs) == len(numbers)
    histories = {job["id"]: snapshot.describe_history(job["id"]) for job in snapshot.jobs}
    assert {job["state"] for job in snapshot.jobs} == {"succeeded", "cancelled"}, "\n".join(histories.values())
    snapshot.assert_charged_once()
    snapshot.assert_concurrency_within(slots=SLOTS)
    snapshot.assert_history_valid()
    starts = {event["job_id"]: event["at"] for event in snapshot.events if event["to_state"] == "submitting"}
    assert not (late := [histories[job] for job, at in starts.items() if at > seen]), "\n".join(late)
    assert len(snapshot.accepted) == len(starts), "upstream has what was started, and nothing else"
    for job in snapshot.jobs:
        assert (job["state"] == "cancelled") or job["id"] in starts
        assert job["id"] in starts or not job["charged"], histories[job["id"]]
    assert sum(job["state"] == "cancelled" and job["id"] in starts for job in snapshot.jobs) >= 2
    snapshot.assert_files_stored({snapshot.number_of(job): 1 for job in snapshot.jobs if job["state"] == "succeeded"})
    _check_files(client, batch, numbers)


@pytest.mark.parametrize(
    ("at_commit", "seconds", "gates"),
    [
        # All accounts stay busy, as the client has to repeat its request, and lines of every state must be left.
        (
            False,
            [_SHORT] * 3 + [_LONG] * 21,
            (_CANCELLING, _DEQUEUED, _TAKEN, _DROPPED, _ASKED, _ENDING, _WRITTEN, _CANCELLED),
        ),
        # Accounts become free while no API runs: they must not begin another line.
        (True, [_LONG] * 2 + [_SHORT] * 22, (_CANCELLING, _TAKEN, _DROPPED, _ASKED, _ENDING, _CANCELLED)),
    ],
    ids=["before_commit", "in_commit"],
)
def test_api_is_killed_at_each_step_of_a_cancellation(
    platform: Platform, webhook_receivers: WebhookReceivers, narrow_key: str, at_commit: bool, seconds: list[int],
    gates: tuple[Gate, ...],
) -> None:  # fmt: skip
    receiver = webhook_receivers.new()
    numbers = [next(_numbers) for _ in seconds]
    with contextlib.closing(Client(platform, narrow_key)) as client:
        batch_id = client.make_batch(dict(zip(numbers, seconds, strict=True)), receiver.url)
        wanted = {"running", "queued", "held", "succeeded"}
        eventually(lambda: wanted <= _states(platform, batch_id), within=120, what="lines in each state")
        with ThreadPoolExecutor(1) as pool, Gates(platform, gates, at_commit=at_commit) as closed:
            cancelled = pool.submit(_cancel, platform, client, batch_id)
            closed.kill_at_each()
            seen, batch = cancelled.result(timeout=240)
        assert batch["status"] == "cancelled", batch
        _check_cancelled(platform, client, batch, numbers, seen)
    eventually(lambda: receiver.received, what="the event of its end")
    assert len(_events(receiver)) == 1
    assert {json.loads(webhook.body)["type"] for webhook in receiver.received} == {"batch.cancelled"}
