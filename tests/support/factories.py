"""Creates rows for tests: plain functions with valid defaults."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from api.auth.session_tokens import session_token_hash
from worker.core.ids import new_id
from worker.core.security.encryption import encrypt_secret, new_webhook_secret
from worker.core.security.session_tokens import SessionToken
from worker.core.webhook_policy import FINAL_EVENTS
from worker.db.accounts import accounts
from worker.db.accounts.accounts import PresentedToken
from worker.db.engine import Transaction
from worker.db.jobs import state_machine
from worker.db.jobs.state_machine import NewJob
from worker.db.webhooks import endpoints

MODEL = "jimeng-4.0"
VIDEO_MODEL = "jimeng-video-3.0"
SIDE = 64


def make_account(
    tx: Transaction,
    *,
    session: str | None = None,
    region: str = "sandbox",
    pool: bool = False,
    max_images: int | None = None,
    max_videos: int | None = None,
    submits_per_minute: float | None = None,
) -> UUID:
    """Add an upstream account and return its id. The session id scripts its behaviour in the sandbox."""
    token = SessionToken(session=session or f"plain{uuid4().hex}", region=region)
    digest = session_token_hash(token)
    account_id = accounts.add_account(
        tx,
        PresentedToken(
            lookup_hash=digest,
            region=region,
            label=f"session-{digest[:8]}",
            secret=encrypt_secret(token.session, context=accounts.secret_context(digest)),
        ),
        pool=pool,
    )
    tx.run(
        text(
            """UPDATE accounts SET max_images = :images, max_videos = :videos, submits_per_minute = :pace
               WHERE id = :id"""
        ),
        {"id": account_id, "images": max_images, "videos": max_videos, "pace": submits_per_minute},
    )
    return account_id


def new_job(account_ids: list[UUID], *, prompt: str = "a boat", count: int = 1, **changes: Any) -> NewJob:
    """Return a job as the API would create it, but with a tiny image or the smallest video; `order` overrides its fields."""
    kind = changes.get("kind", "image")
    model = changes.get("model", VIDEO_MODEL if kind == "video" else MODEL)
    order: dict[str, Any] = {
        "prompt": prompt,
        "width": SIDE,
        "height": SIDE,
        "ratio": "1:1",
        "resolution": "1k",
        "count": count,
        "seed": 7,
        "negative_prompt": "",
        "sample_strength": 0.5,
    }
    if kind == "video":
        order = {
            "prompt": prompt,
            "ratio": "1:1",
            "resolution": "720p",
            "seconds": 5,
            "seed": 7,
            "fps": 24,
            "parts": [],
        }
    order |= changes.pop("order", {})
    values: dict[str, Any] = {
        "owner": "tokens:test",
        "kind": kind,
        "model": model,
        "params": {"order": order, "n": count, "asked_model": model},
        "account_ids": account_ids,
    }
    return NewJob(**{**values, **changes})


def make_job(tx: Transaction, account_ids: list[UUID], **changes: Any) -> UUID:
    """Accept a job and return its id."""
    job = new_job(account_ids, **changes)
    state_machine.accept(tx, [job])
    return job.id


def make_endpoint(
    tx: Transaction, url: str, *, owner: str = "tokens:test", events: tuple[str, ...] = FINAL_EVENTS, **changes: Any
) -> tuple[UUID, str]:
    """Add a webhook endpoint and return its id and its secret."""
    endpoint_id, secret = new_id(), new_webhook_secret()
    sealed = encrypt_secret(secret, context=endpoints.secret_context(endpoint_id))
    new = endpoints.NewEndpoint(id=endpoint_id, owner=owner, url=url, events=list(events), secret=sealed, **changes)
    assert endpoints.add_endpoint(tx, new)
    return endpoint_id, secret
