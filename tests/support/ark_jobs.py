"""Jobs on accounts of the official API: rows for the engine under test, and the sandbox's side of them."""

import json
import time
from typing import Any
from uuid import UUID, uuid4

from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.providers.registry import PROVIDERS
from worker.sandbox.ark.state import ArkState
from worker.sandbox.ark.tasks import Task

IMAGE_MODEL, VIDEO_MODEL = "seedream-5.0-flash", "seedance-2.0-mini"
CREATE, IMAGES = "/contents/generations/tasks", "/images/generations"


class ArkJobs:
    """Adds accounts and jobs of the official API to an engine, and moves their time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.state: ArkState = engine.interceptor._app.state.ark  # type: ignore[attr-defined]
        self.state.clear()

    def add_account(self, words: str = "", *, facts: dict[str, Any] | None = None, **columns: Any) -> UUID:
        """Add an account. `words` in its key script the sandbox; a dot in them separates keys of one customer."""
        account = self.engine.add_account(session=words if "." in words else f"ark{uuid4().int}-{words}")
        values = {"provider": "ark", "currency": "USD", **columns}
        for name, value in values.items():
            self.engine.sql(f"UPDATE accounts SET {name} = :value WHERE id = :id", value=value, id=account)
        if facts is not None:
            self.engine.sql(
                "UPDATE accounts SET provider_facts = CAST(:f AS jsonb) WHERE id = :id", f=json.dumps(facts), id=account
            )
        return account

    def add_video(self, *accounts: UUID, prompt: str = "waves", **options: Any) -> UUID:
        """Accept the smallest video."""
        order = {"prompt": prompt, "ratio": "16:9", "resolution": "480p", "seconds": 4, "seed": -1, "fps": 24}
        model = options.pop("model", VIDEO_MODEL)
        return self._add(accounts, "video", model, {**order, "options": {"mode": "text", **options}})

    def add_image(self, *accounts: UUID, prompt: str = "a boat", retry_unclear: bool = False, **options: Any) -> UUID:
        """Accept one image."""
        order = {"prompt": prompt, "width": 1024, "height": 1024, "ratio": "1:1", "resolution": "1k"}
        order |= {"count": 1, "seed": -1, "options": options}
        return self._add(accounts, "image", IMAGE_MODEL, order, **({"retry_unclear": True} if retry_unclear else {}))

    def _add(self, accounts: tuple[UUID, ...], kind: str, model: str, order: dict[str, Any], **params: Any) -> UUID:
        values = {"order": order, "n": 1, "asked_model": model, **params}
        new = state_machine.NewJob(
            "tokens:test", kind, model, values, list(accounts), providers=["ark"], currency="USD", price=1000
        )
        with transaction() as tx:
            state_machine.accept(tx, [new])
        return new.id

    # ---- the sandbox

    def tasks(self, account: UUID | None = None) -> list[Task]:
        """Return all tasks, oldest first."""
        del account
        return list(self.state.ledger.videos)

    def ledger(self) -> dict[str, Any]:
        """Return the sandbox's ledger."""
        return self.state.ledger.view(time.time())

    def finish(self) -> None:
        """Finish all tasks that are at work."""
        for task in self.tasks():
            task.start_at = task.finish_at = min(task.finish_at, task.created_at)

    # ---- time

    def lose_time(self, job: UUID, seconds: float) -> None:
        """Let the answer of the job have been lost so much earlier."""
        self.engine.sql(
            """UPDATE jobs SET absent_since = absent_since - make_interval(secs => :s),
                   due_at = due_at - make_interval(secs => :s) WHERE id = :id""",
            id=job,
            s=seconds,
        )
        self.forget_lists()

    def forget_lists(self) -> None:
        """As if the last lists had been read long ago."""
        self.engine.sql("DELETE FROM list_paces")
        for main in self.state.mains.values():
            main.listed_at = 0.0
        PROVIDERS["ark"]()._tasks._recent.clear()  # type: ignore[attr-defined]

    def look(self, job: UUID, at: float) -> str:
        """Poll `at` seconds after the answer was lost."""
        row = self.engine.sql(
            "SELECT extract(epoch FROM now() - absent_since)::float8 AS s FROM jobs WHERE id = :id", id=job
        )[0]
        self.lose_time(job, at - row.s)
        return self.engine.poll(self.engine.job_row(job).account_id)
