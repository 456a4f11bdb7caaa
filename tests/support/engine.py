"""The engine under test: real database, Redis, storage and sandbox; steps called as functions; time moved in the rows."""

import base64
import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis
from sqlalchemy import Row, text

from tests.support import factories
from tests.support.platform import ROOT
from tests.support.servers.http_servers import Gate
from worker import celery_tasks, safe_fetch, storage
from worker.core.settings import get_settings
from worker.db.engine import get_engine, transaction
from worker.db.jobs import durations
from worker.db.platform import root_key
from worker.db.schema.accounts import accounts as accounts_table
from worker.messaging import celery_app
from worker.messaging.redis_connection import redis_client
from worker.providers.registry import _dreamina
from worker.sandbox.state import World
from worker.tasks.converse import converse
from worker.tasks.deliver_webhooks import notify
from worker.tasks.dispatch import sweep
from worker.tasks.poll import poll
from worker.tasks.save import save
from worker.tasks.submit import submit

FINAL = {"succeeded", "failed", "cancelled"}
GENERATE = "/aigc_draft/generate"
HISTORY = "/get_history_by_ids"
USER_INFO = "/user_info"
MEDIA = "/_media"
QUEUES = ("fast", "bulk", "talk", "outbox")
_TABLES = (
    "webhook_attempts", "webhook_deliveries", "webhook_endpoints", "files", "job_events", "jobs", "accounts", "api_keys", "users", "requests",
    "api_processes", "account_checks", "keyring", "platform_state", "credit_prices",
)  # fmt: skip
_STEPS = {"submit": submit, "converse": converse, "poll": poll, "save": save, "notify": notify}


# Threads of an app under test may give a connection back to a pool after that was emptied: it is emptied once more.
_former: list[Any] = []


def forget_settings() -> None:
    """What the process read from its environment is read anew. The fetcher asks for its settings at each call."""
    if get_engine.cache_info().currsize:
        _former.append(get_engine())
    for engine in _former:
        engine.dispose()
    del _former[:-4]
    if _dreamina.cache_info().currsize:
        _dreamina().close()
    for cached in (get_settings, get_engine, _dreamina, storage._store):
        cached.cache_clear()
    root_key._root_of.cache_clear()
    durations.forget()


def use_broker(url: str) -> None:
    """Point the Celery app, made at import, at a Redis."""
    if celery_app.app.conf.broker_url != url:
        celery_app.app.conf.broker_url = url
        celery_app.app._pool = None
        celery_app.app.amqp._producer_pool = None


def run_step(env: dict[str, str], name: str, ids: dict[str, UUID], log: str | None = None) -> None:
    """The body of a step process (see `Engine.process`)."""
    os.environ.update(env)
    forget_settings()
    use_broker(env["DREAMERY_REDIS_URL"])
    if log is not None:
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from worker.core.observability.logging import configure_logging

        configure_logging(get_settings())
    _STEPS[name](**ids)


@dataclass
class Message:
    """A nudge as it lies in Redis."""

    task: str
    ids: dict[str, str]

    def obey(self) -> str:
        """Do what the worker would do with it."""
        return str(celery_app.app.tasks[self.task](**self.ids))


class Engine:
    """Everything a test of a step needs."""

    def __init__(
        self, *, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], gate: Gate, world: World, url: str
    ) -> None:
        self._monkeypatch = monkeypatch
        self.env: dict[str, str] = {}
        self.gate = gate
        self.world = world
        self.url = url
        self.configure(**env)
        self.redis = redis.Redis.from_url(env["REDIS_URL"])
        self._processes: list[ForkServerProcess] = []

    def configure(self, **values: str) -> None:
        """Settings of this test, in force at once."""
        for name, value in values.items():
            self.env[f"DREAMERY_{name}"] = value
            self._monkeypatch.setenv(f"DREAMERY_{name}", value)
        forget_settings()
        use_broker(self.env["DREAMERY_REDIS_URL"])
        # Made here, not by the first threads of a test at once: the caches would let each of them make one.
        get_engine(), redis_client(), safe_fetch._client()

    def close(self) -> None:
        """End what the test left behind."""
        with celery_app._timer._changed:
            celery_app._timer._due.clear()
        for process in self._processes:
            process.kill()
            process.join()
            process.close()
        self.redis.close()
        forget_settings()

    # --- rows ---

    def account(self, **changes: Any) -> UUID:
        """See `factories.make_account`."""
        with transaction() as tx:
            return factories.make_account(tx, **changes)

    def job(self, *account_ids: UUID, **changes: Any) -> UUID:
        """See `factories.make_job`."""
        with transaction() as tx:
            return factories.make_job(tx, list(account_ids), **changes)

    def sql(self, statement: str, **values: Any) -> list[Row[Any]]:
        """Run a statement in a transaction of its own."""
        with transaction() as tx:
            result = tx.run(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    def row(self, job_id: UUID) -> Row[Any]:
        """The job as it stands."""
        return self.sql("SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def states(self, job_ids: Iterable[UUID]) -> list[str]:
        """Where jobs stand, in the order asked."""
        found = {r.id: r.state for r in self.sql("SELECT id, state FROM jobs")}
        return [found[job_id] for job_id in job_ids]

    def story(self, job_id: UUID) -> list[str]:
        """Every state the job went through."""
        rows = self.events(job_id)
        return [row.to_state for row in rows if row.to_state != row.from_state]

    def events(self, job_id: UUID) -> list[Row[Any]]:
        """What happened to the job."""
        return self.sql("SELECT * FROM job_events WHERE job_id = :id ORDER BY seq", id=job_id)

    def account_row(self, account_id: UUID) -> Row[Any]:
        """The account as it stands."""
        return self.sql("SELECT *, rest_until - now() AS rests FROM accounts WHERE id = :id", id=account_id)[0]

    def files(self, job_id: UUID) -> list[Row[Any]]:
        """The stored results of the job."""
        return self.sql("SELECT * FROM files WHERE job_id = :id ORDER BY n", id=job_id)

    def connect(self) -> psycopg.Connection:
        """A connection of somebody else."""
        return psycopg.connect(self.env["DREAMERY_DATABASE_URL"])

    # --- time, as data ---

    def due(self) -> None:
        """Whatever waits for a moment finds that it has come: backoff, pace, next poll, next try of a save."""
        self.sql(
            """UPDATE jobs SET due_at = now() - interval '1 second', nudged_at = NULL
               WHERE state IN ('queued', 'saving')"""
        )
        self.sql(
            """UPDATE accounts SET next_submit_at = now() - interval '1 second',
                   poll_due_at = CASE WHEN poll_due_at IS NOT NULL THEN now() - interval '1 second' END"""
        )
        if "polled_at" in accounts_table.c:
            self.sql("UPDATE accounts SET polled_at = now() - interval '1 hour'")
        self.sql(
            """UPDATE webhook_deliveries SET due_at = now() - interval '1 second', claimed_until = NULL
               WHERE due_at IS NOT NULL"""
        )

    def rested(self) -> None:
        """Accounts at rest have rested."""
        self.sql("UPDATE accounts SET rest_until = now() - interval '1 second' WHERE rest_until IS NOT NULL")
        self.sql("UPDATE accounts SET kind_rests = '{}'")

    def lapse(self) -> None:
        """Every lease and grace period has run out."""
        self.sql(
            "UPDATE jobs SET due_at = now() - interval '1 second' WHERE state IN ('submitting', 'saving', 'queued')"
        )
        self.due()

    def overdue(self, job_id: UUID) -> None:
        """The deadline of the job has passed."""
        self.sql("UPDATE jobs SET deadline_at = now() - interval '1 second' WHERE id = :id", id=job_id)

    def finish_upstream(self) -> None:
        """Every generation in the sandbox is done now."""
        for job in self.world._by_submit.values():
            job.start_at = job.finish_at = min(job.finish_at, job.accepted_at)
            job.lingers = False
        for account in self.world.accounts.values():
            account._ends.clear()

    # --- steps ---

    def submit(self, job_id: UUID) -> str:
        """The submit step for a job, its time having come."""
        self.due()
        return submit(job_id=job_id)

    def poll(self, account_id: UUID) -> str:
        """The poll step, its time having come."""
        self.due()
        return poll(account_id=account_id)

    def save(self, job_id: UUID) -> str:
        """The save step, its time having come."""
        self.due()
        return save(job_id=job_id)

    def to_running(self, *account_ids: UUID, **changes: Any) -> UUID:
        """A job that upstream works on."""
        job_id = self.job(*account_ids, **{"prompt": "a boat [[hang]]", **changes})
        self.submit(job_id)
        assert self.row(job_id).state == "running"
        return job_id

    def to_saving(self, *account_ids: UUID, **changes: Any) -> UUID:
        """A job that upstream has finished."""
        job_id = self.job(*account_ids, **changes)
        self.submit(job_id)
        self.poll(self.row(job_id).account_id)
        assert self.row(job_id).state == "saving"
        return job_id

    def to_end(self, *account_ids: UUID, **changes: Any) -> UUID:
        """A job that has succeeded."""
        job_id = self.to_saving(*account_ids, **changes)
        self.save(job_id)
        assert self.row(job_id).state == "succeeded"
        return job_id

    def drive(self, *job_ids: UUID, rounds: int = 12, each_round: Callable[[], object] | None = None) -> list[str]:
        """Let time pass and run every step that is due, until the jobs have ended; their states."""
        for _ in range(rounds):
            if set(self.states(job_ids)) <= FINAL:
                break
            self.lapse()
            for row in self.sql("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id"):
                submit(job_id=row.id)
                self.due()
            for row in self.sql("SELECT id FROM accounts WHERE poll_due_at IS NOT NULL"):
                poll(account_id=row.id)
            for row in self.sql("SELECT id FROM jobs WHERE state = 'saving'"):
                save(job_id=row.id)
            if each_round is not None:
                each_round()
            sweep()
        return self.states(job_ids)

    def process(self, step: str, *, env: dict[str, str] | None = None, log: Path | None = None, **ids: UUID) -> Any:
        """The step in a process of its own, to be killed."""
        # The server that the processes are forked from starts with the first of them, and imports everything once.
        self._monkeypatch.setenv("PYTHONPATH", str(ROOT))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.support.engine"])
        values = {**self.env, **(env or {})}
        process = context.Process(target=run_step, args=(values, step, ids, str(log) if log else None), daemon=True)
        process.start()
        self._processes.append(process)
        return process

    # --- the outside ---

    def ledger(self) -> dict[str, Any]:
        """The sandbox's books."""
        return self.world.ledger_view(with_lists=True)

    def submits(self, prompt: str | None = None) -> list[dict[str, Any]]:
        """The submits upstream saw."""
        return [line for line in self.ledger()["submits"] if prompt is None or line["prompt"] == prompt]

    def charges(self) -> int:
        """How often upstream charged anybody."""
        return len(self.ledger()["charges"])

    def polls(self) -> int:
        """How often upstream was asked."""
        return self.ledger()["calls"].get("/mweb/v1/get_history_by_ids", 0)

    def messages(self, *wanted: str) -> list[Message]:
        """Take every nudge out of Redis; those of the wanted tasks, or all.

        A nudge of a poll may come a moment later than the step that wished for it.
        """
        found = []
        for name in QUEUES:
            while (raw := self.redis.rpop(name)) is not None:
                envelope = json.loads(raw)
                _args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
                found.append(Message(task=envelope["headers"]["task"], ids=kwargs))
        return [message for message in found if not wanted or message.task in wanted]

    def work(
        self, *job_ids: UUID, dice: random.Random, rounds: int = 60, loss: float = 0.0, twice: float = 0.0
    ) -> None:
        """Be beat and worker: tick, then obey the messages, some lost, some doubled, none in order."""
        for _ in range(rounds):
            if set(self.states(job_ids)) <= FINAL:
                return
            self.lapse()
            self.sql("UPDATE jobs SET nudged_at = NULL")
            celery_tasks.tick()
            celery_tasks.sweep()
            letters = [m for m in self.messages() if dice.random() >= loss]
            letters += [m for m in letters if dice.random() < twice]
            dice.shuffle(letters)
            for letter in letters:
                letter.obey()


def wipe(database_url: str) -> None:
    """No rows."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("; ".join(f"DELETE FROM {table}" for table in _TABLES))
