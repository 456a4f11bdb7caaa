"""Housekeeping: what is past its retention loses its bytes, never its row; nothing else is touched."""

import pytest

from tests.engine import Engine
from worker import storage
from worker.steps.upkeep import upkeep


def test_results_past_their_retention_lose_their_bytes_only(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    old, young = engine.to_end(engine.account(), count=2), engine.to_end(engine.account())
    engine.sql("UPDATE jobs SET finished_at = now() - interval '8 days' WHERE id = :id", id=old)
    assert "removed 2 files" in upkeep()
    assert all(row.removed_at for row in engine.files(old))
    for row in engine.files(old):
        with pytest.raises(storage.MissingFileError):
            storage.read_file(row.key)
    [kept] = engine.files(young)
    assert kept.removed_at is None
    assert storage.read_file(kept.key)
    assert engine.row(old).state == "succeeded"
    assert "removed 0 files" in upkeep()


def test_a_crash_between_bytes_and_row_is_repeated(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="7")
    job = engine.to_end(engine.account())
    engine.sql("UPDATE jobs SET finished_at = now() - interval '8 days'")
    storage.delete_file(engine.files(job)[0].key)
    assert "removed 1 files" in upkeep()
    assert engine.files(job)[0].removed_at


def test_without_a_retention_everything_stays(engine: Engine) -> None:
    job = engine.to_end(engine.account())
    engine.sql("UPDATE jobs SET finished_at = now() - interval '9999 days'")
    upkeep()
    assert storage.read_file(engine.files(job)[0].key)
