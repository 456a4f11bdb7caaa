"""A check-up of one account: the free call, at times the list of models; what is learned is noted on its row.

Used by `refresh` (as they fall due, one after the other) and `check` (when somebody asks). Each outcome is committed as
it is known, so a worker that dies in between has only to be followed by another check-up, which is due anyhow.
"""

import random
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from worker.core.errors import DreameryError, Fault
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.accounts import health, model_listings
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances
from worker.db.engine import retry_when_database_away, transaction
from worker.messaging import celery_app
from worker.providers.base import LiveModels
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns
from worker.tasks.stages.account_session import EXPIRED, NotServableError, asked

log = get_logger("checkups")

# A session that is still unknown rests for longer than the first time: it hardly ever comes back.
STILL_EXPIRED_SECONDS = 1800.0

Result = dict[str, Any]


def check_up(row: AccountRow, *, models: bool) -> Result:
    """Ask upstream about the account: `{live, credits, models}`, or `live` as far as known and `error`."""
    asked_at = time.monotonic()
    try:
        left = asked(row, lambda account: get_provider().credits(account)).total
    except DreameryError as error:
        log.info("checkup_refused", account=row.label, code=error.code, detail=error.detail)
        return _refused(row, error)
    _works(row, left, seconds_ago=time.monotonic() - asked_at)
    counts, failed = None, None
    if models:
        watchdog.renew()
        try:
            counts = list_models(row)
        except DreameryError as error:
            # Says nothing of the session: it has just been seen to work.
            log.info("models_not_listed", account=row.label, code=error.code, detail=error.detail)
            failed = error
    _note(row, failed)
    told: Result = {"live": True, "credits": left, "models": counts}
    return told | ({"error": _told(failed)} if failed else {})


def list_models(row: AccountRow) -> dict[str, int]:
    """Ask what upstream offers the account and keep it; how many models of each kind."""
    found = _plain(asked(row, lambda account: get_provider().list_models(account)))
    with transaction() as tx:
        model_listings.store_models(tx, row.id, found)
    return {kind: len(rows) for kind, rows in found.items()}


def _plain(models: LiveModels) -> dict[str, Any]:
    """The form that is stored, see `worker.core.catalog.upstream_models`. Pixels are the catalog's business."""
    images = [{name: value for name, value in asdict(model).items() if name != "sizes"} for model in models.images]
    return {"images": images, "videos": [asdict(model) for model in models.videos]}


@retry_when_database_away
def _works(row: AccountRow, left: int, *, seconds_ago: float) -> None:
    with transaction() as tx:
        balances.note_credits(tx, row.id, left, seconds_ago=seconds_ago)
        if health.session_works(tx, row.id):
            tx.on_commit(partial(celery_app.nudge_submit, account_id=row.id))
            log.info("session_works_again", account=row.label)


@retry_when_database_away
def _refused(row: AccountRow, error: DreameryError) -> Result:
    about_it = error.kind.fault is Fault.ACCOUNT and error.code != "proxy_unreachable"
    told: Result = {"live": None, "credits": None, "models": None, "error": _told(error)}
    with transaction() as tx:
        if error.code == EXPIRED and not isinstance(error, NotServableError):
            told["live"] = False
            if health.login_refused(tx, row.id, seconds=STILL_EXPIRED_SECONDS):
                log.warning("account_needs_login", account=row.label)
        elif about_it and not isinstance(error, NotServableError):
            # Punished, limited, without rights: upstream knows whose session it is.
            told["live"] = True
            if seconds := cooldowns.rest_seconds(error.code, row.region, datetime.now(UTC)):
                health.rest(tx, row.id, seconds=seconds, code=error.code)
        # Upstream answered: the next time is the usual one. Else it is tried again before long.
        next_in = _next_in() if told["live"] is not None else model_listings.AGAIN_SECONDS
        model_listings.note_checkup(tx, row.id, code=error.code, next_in=next_in)
    return told


@retry_when_database_away
def _note(row: AccountRow, failed: DreameryError | None) -> None:
    with transaction() as tx:
        next_in = _next_in() if failed is None else model_listings.AGAIN_SECONDS
        model_listings.note_checkup(tx, row.id, code=failed.code if failed else None, next_in=next_in)


def _next_in() -> float:
    settings = get_settings()
    # Spread, so that accounts added together do not march in step for ever.
    least = min(settings.account_check_seconds, settings.models_refresh_seconds)
    return least * random.uniform(0.8, 1.2)  # noqa: S311


def _told(error: DreameryError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}
