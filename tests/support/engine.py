"""The job engine under test: real database, Redis, storage and sandbox. Tests call tasks as functions and move time in
the rows.
"""

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
from tests.support.servers.http_servers import RequestInterceptor
from worker import celery_tasks, storage
from worker.core.concurrency import event_loop
from worker.core.settings import get_settings
from worker.db.engine import get_engine, transaction
from worker.db.jobs import durations
from worker.db.platform import root_key
from worker.db.schema.accounts import accounts as accounts_table
from worker.messaging import celery_app, pubsub
from worker.messaging.redis_connection import celery_settings, redis_client
from worker.providers.registry import close_providers
from worker.sandbox.state import SandboxState
from worker.tasks.converse import converse
from worker.tasks.deliver_webhooks import deliver
from worker.tasks.dispatch import sweep
from worker.tasks.poll import poll
from worker.tasks.save import save, save_batch
from worker.tasks.stages.files import storage_wait
from worker.tasks.submit import submit, submit_batch

FINAL = {"succeeded", "failed", "cancelled"}
GENERATE = "/aigc_draft/generate"
HISTORY = "/get_history_by_ids"
USER_INFO = "/user_info"
MEDIA = "/_media"
QUEUES = ("fast", "bulk", "talk", "outbox")
_TABLES = (
    "webhook_attempts", "webhook_deliveries", "webhook_endpoints", "files", "job_events", "jobs", "accounts", "api_keys", "users", "requests",
    "api_processes", "account_checks", "keyring", "platform_state", "credit_prices", "list_paces", "alerts", "alert_rules", "metric_samples",
)  # fmt: skip
_TASKS = {
    "submit": submit,
    "submit_batch": submit_batch,
    "converse": converse,
    "poll": poll,
    "save": save,
    "save_batch": save_batch,
    "notify": deliver,
}


# Threads of an app under test may return a connection to a pool after its disposal, so old pools are disposed again.
# Not their engines: a disposed engine has another pool.
_old_pools: list[Any] = []


def reload_settings() -> None:
    """Clear the caches, so that this process reads its settings again. The fetcher reads them on each call."""
    if get_engine.is_created:
        _old_pools.append(get_engine().pool)
    for pool in _old_pools:
        pool.dispose()
    del _old_pools[:-64]
    close_providers()
    get_engine.forget()
    for cached in (get_settings, storage._store):
        cached.cache_clear()
    root_key._cached_root_key.cache_clear()
    durations.clear_cache()


def use_broker(url: str) -> None:
    """Point the Celery app, which is created at import, to a Redis."""
    settings = celery_settings(url)
    if celery_app.app.conf.broker_url != settings["broker_url"]:
        celery_app.app.conf.update(settings)
        celery_app._breaker.record(success=True)
        pubsub._breaker.record(success=True)
        celery_app.app._pool = None
        celery_app.app.amqp._producer_pool = None


def run_task(env: dict[str, str], name: str, ids: dict[str, Any], log: str | None = None) -> None:
    """Run a task. Entry point of the processes of `Engine.start_process`."""
    os.environ.update(env)
    reload_settings()
    use_broker(env["DREAMERY_REDIS_URL"])
    if log is not None:
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        from worker.core.observability.logging import configure_logging

        configure_logging(get_settings())
    _TASKS[name](**ids)


@dataclass
class Message:
    """A Celery message taken from Redis."""

    task: str
    ids: dict[str, str]

    def execute(self) -> str:
        """Run the task as a worker would and return its result."""
        return str(celery_app.app.tasks[self.task](**self.ids))


class Engine:
    """Sets up rows, runs tasks and reads results for a test."""

    def __init__(
        self,
        *,
        monkeypatch: pytest.MonkeyPatch,
        env: dict[str, str],
        interceptor: RequestInterceptor,
        sandbox: SandboxState,
        url: str,
    ) -> None:
        self._monkeypatch = monkeypatch
        self.env: dict[str, str] = {}
        self.interceptor = interceptor
        self.sandbox = sandbox
        self.url = url
        # A slow machine must not make a task continue in the background while its test goes on.
        monkeypatch.setattr(event_loop, "PATIENCE_SECONDS", 120.0)
        monkeypatch.setattr(storage_wait, "_known", storage_wait._Knowledge())
        self.configure(**env)
        self.redis = redis.Redis.from_url(env["REDIS_URL"])
        self._processes: list[ForkServerProcess] = []

    def configure(self, **values: str) -> None:
        """Change settings for this test, with immediate effect."""
        for name, value in values.items():
            self.env[f"DREAMERY_{name}"] = value
            self._monkeypatch.setenv(f"DREAMERY_{name}", value)
        reload_settings()
        use_broker(self.env["DREAMERY_REDIS_URL"])
        # Created here: threads that start together would each create one, as the caches do not lock.
        get_engine(), redis_client()

    def close(self) -> None:
        """Stop processes and timers that the test has left running."""
        with celery_app._timer._changed:
            celery_app._timer._scheduled.clear()
        for process in self._processes:
            process.kill()
            process.join()
            process.close()
        self.redis.close()
        reload_settings()

    # --- rows ---

    def add_account(self, **changes: Any) -> UUID:
        """See `factories.make_account`."""
        with transaction() as tx:
            return factories.make_account(tx, **changes)

    def add_job(self, *account_ids: UUID, **changes: Any) -> UUID:
        """See `factories.make_job`."""
        with transaction() as tx:
            return factories.make_job(tx, list(account_ids), **changes)

    def sql(self, statement: str, **values: Any) -> list[Row[Any]]:
        """Run a statement in its own transaction and return its rows."""
        with transaction() as tx:
            result = tx.run(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    def job_row(self, job_id: UUID) -> Row[Any]:
        """Return the current row of the job."""
        return self.sql("SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def states(self, job_ids: Iterable[UUID]) -> list[str]:
        """Return the states of the jobs, in the same order."""
        states = {r.id: r.state for r in self.sql("SELECT id, state FROM jobs")}
        return [states[job_id] for job_id in job_ids]

    def state_history(self, job_id: UUID) -> list[str]:
        """Return all states of the job in order."""
        rows = self.job_events(job_id)
        return [row.to_state for row in rows if row.to_state != row.from_state]

    def job_events(self, job_id: UUID) -> list[Row[Any]]:
        """Return the events of the job in order."""
        return self.sql("SELECT * FROM job_events WHERE job_id = :id ORDER BY seq", id=job_id)

    def account_row(self, account_id: UUID) -> Row[Any]:
        """Return the current row of the account, with `rests`: the remaining cooldown."""
        return self.sql("SELECT *, rest_until - now() AS rests FROM accounts WHERE id = :id", id=account_id)[0]

    def files(self, job_id: UUID) -> list[Row[Any]]:
        """Return the rows of the job's stored files."""
        return self.sql("SELECT * FROM files WHERE job_id = :id ORDER BY n", id=job_id)

    def connect(self) -> psycopg.Connection:
        """Open a separate database connection."""
        return psycopg.connect(self.env["DREAMERY_DATABASE_URL"])

    # --- time, moved in the rows ---

    def make_due(self) -> None:
        """Make everything that waits for a time due: backoff, submit pace, next poll, next attempt to save."""
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

    def end_cooldowns(self) -> None:
        """End the cooldowns of all accounts."""
        self.sql("UPDATE accounts SET rest_until = now() - interval '1 second' WHERE rest_until IS NOT NULL")
        self.sql("UPDATE accounts SET kind_rests = '{}'")

    def lease_seconds(self, job_id: UUID) -> float:
        """Return the seconds until the job is due."""
        [row] = self.sql("SELECT extract(epoch FROM due_at - now())::float8 AS s FROM jobs WHERE id = :id", id=job_id)
        return float(row.s)

    def expire_leases(self) -> None:
        """Expire all leases and grace periods, and make everything due."""
        self.sql(
            "UPDATE jobs SET due_at = now() - interval '1 second' WHERE state IN ('submitting', 'saving', 'queued')"
        )
        self.make_due()

    def pass_deadline(self, job_id: UUID) -> None:
        """Move the deadline of the job into the past."""
        self.sql("UPDATE jobs SET deadline_at = now() - interval '1 second' WHERE id = :id", id=job_id)

    def finish_upstream(self) -> None:
        """Finish all generations in the sandbox."""
        for job in self.sandbox._by_submit.values():
            job.start_at = job.finish_at = min(job.finish_at, job.accepted_at)
            job.shows_items_early = False
        for account in self.sandbox.accounts.values():
            account._finish_times.clear()

    # --- tasks ---

    def submit(self, job_id: UUID) -> str:
        """Make everything due and run the submit task."""
        self.make_due()
        return submit(job_id=job_id)

    def poll(self, account_id: UUID) -> str:
        """Make everything due and run the poll task."""
        self.make_due()
        return poll(account_id=account_id)

    def save(self, job_id: UUID) -> str:
        """Make everything due and run the save task."""
        self.make_due()
        return save(job_id=job_id)

    def add_running_job(self, *account_ids: UUID, **changes: Any) -> UUID:
        """Add a job that is running upstream."""
        job_id = self.add_job(*account_ids, **{"prompt": "a boat [[hang]]", **changes})
        self.submit(job_id)
        assert self.job_row(job_id).state == "running"
        return job_id

    def add_saving_job(self, *account_ids: UUID, **changes: Any) -> UUID:
        """Add a job that upstream has finished and whose files are not stored yet."""
        job_id = self.add_job(*account_ids, **changes)
        self.submit(job_id)
        self.poll(self.job_row(job_id).account_id)
        assert self.job_row(job_id).state == "saving"
        return job_id

    def add_succeeded_job(self, *account_ids: UUID, **changes: Any) -> UUID:
        """Add a job that has succeeded."""
        job_id = self.add_saving_job(*account_ids, **changes)
        self.save(job_id)
        assert self.job_row(job_id).state == "succeeded"
        return job_id

    def run_until_final(
        self, *job_ids: UUID, rounds: int = 12, each_round: Callable[[], object] | None = None
    ) -> list[str]:
        """Advance time and run all due tasks until the jobs have final states. Returns the states."""
        for _ in range(rounds):
            if set(self.states(job_ids)) <= FINAL:
                break
            self.expire_leases()
            for row in self.sql("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id"):
                submit(job_id=row.id)
                self.make_due()
            for row in self.sql("SELECT id FROM accounts WHERE poll_due_at IS NOT NULL"):
                poll(account_id=row.id)
            for row in self.sql("SELECT id FROM jobs WHERE state = 'saving'"):
                save(job_id=row.id)
            if each_round is not None:
                each_round()
            sweep()
        return self.states(job_ids)

    def start_process(
        self, task: str, *, env: dict[str, str] | None = None, log: Path | None = None, **ids: Any
    ) -> Any:
        """Start a task in a separate process that the test can kill."""
        # The fork server starts with the first process and imports everything once.
        self._monkeypatch.setenv("PYTHONPATH", str(ROOT))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.support.engine"])
        values = {**self.env, **(env or {})}
        process = context.Process(target=run_task, args=(values, task, ids, str(log) if log else None), daemon=True)
        process.start()
        self._processes.append(process)
        return process

    # --- the upstream and the queues ---

    def ledger(self) -> dict[str, Any]:
        """Return the sandbox's ledger."""
        return self.sandbox.ledger_view(with_lists=True)

    def submits(self, prompt: str | None = None) -> list[dict[str, Any]]:
        """Return the submits that upstream received."""
        return [line for line in self.ledger()["submits"] if prompt is None or line["prompt"] == prompt]

    def charge_count(self) -> int:
        """Return the number of charges upstream."""
        return len(self.ledger()["charges"])

    def poll_count(self) -> int:
        """Return the number of polls that upstream received."""
        return self.ledger()["calls"].get("/mweb/v1/get_history_by_ids", 0)

    def take_messages(self, *tasks: str) -> list[Message]:
        """Remove all messages from Redis. Returns those of the given tasks, or all.

        The message of a poll may be sent a little later than the task that scheduled it.
        """
        messages = []
        for name in QUEUES:
            while (raw := self.redis.rpop(name)) is not None:
                envelope = json.loads(raw)
                _args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
                messages.append(Message(task=envelope["headers"]["task"], ids=kwargs))
        return [message for message in messages if not tasks or message.task in tasks]

    def run_worker(
        self, *job_ids: UUID, rng: random.Random, rounds: int = 60, loss: float = 0.0, duplication: float = 0.0
    ) -> None:
        """Act as beat and worker: tick, then execute the messages in random order, some lost and some duplicated."""
        for _ in range(rounds):
            if set(self.states(job_ids)) <= FINAL:
                return
            self.expire_leases()
            self.sql("UPDATE jobs SET nudged_at = NULL")
            celery_tasks.tick()
            celery_tasks.sweep()
            messages = [m for m in self.take_messages() if rng.random() >= loss]
            messages += [m for m in messages if rng.random() < duplication]
            rng.shuffle(messages)
            for message in messages:
                message.execute()


def delete_all_rows(database_url: str) -> None:
    """Delete the rows of all tables."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("; ".join(f"DELETE FROM {table}" for table in _TABLES))
