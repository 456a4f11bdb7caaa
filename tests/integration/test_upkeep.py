"""Housekeeping: what is past its time goes, what is not stays, and a link to a removed file can still be told so."""

from uuid import uuid4

import pytest

from tests.engine import Engine
from worker import storage
from worker.db import requests
from worker.db.engine import transaction
from worker.steps.upkeep import upkeep


def _remember(key: str) -> None:
    with transaction() as tx:
        assert requests.remember_request(tx, owner="user:1", key=key, group_id=uuid4(), fingerprint="f")


def test_idempotency_keys_are_forgotten_after_a_day(engine: Engine) -> None:
    _remember("old")
    engine.sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    _remember("new")
    assert upkeep().startswith("forgot 1 keys")
    assert [row.key for row in engine.sql("SELECT key FROM idempotency_keys")] == ["new"]


def test_results_stay_for_ever_by_default(engine: Engine) -> None:
    job = engine.to_end(engine.account())
    engine.sql("UPDATE jobs SET finished_at = now() - interval '1000 days'")
    assert upkeep().endswith("removed 0 files")
    assert storage.read_file(engine.files(job)[0].key)


def test_past_the_retention_the_bytes_go_and_the_row_says_so(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="30")
    account = engine.account()
    old, new = engine.to_end(account), engine.to_end(account)
    engine.sql("UPDATE jobs SET finished_at = now() - interval '31 days' WHERE id = :id", id=old)
    upkeep()
    assert all(row.removed_at is not None for row in engine.files(old))
    with pytest.raises(storage.MissingFileError):
        storage.read_file(engine.files(old)[0].key)
    assert all(row.removed_at is None and storage.read_file(row.key) for row in engine.files(new))
    assert upkeep().endswith("removed 0 files")
