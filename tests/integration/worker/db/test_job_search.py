"""Lists of jobs: the search for words finds the same jobs with and without its index, and dates are exact."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.engine import Engine
from worker.core.ids import first_id_at, new_id
from worker.db.engine import transaction
from worker.db.jobs import job_search
from worker.db.jobs.job_search import JobFilter
from worker.db.jobs.queries import Viewer, list_jobs

PROMPTS = ["a Red 红 boat", "红色的小船在湖上", "a house, 100% blue", "ZEPPELIN über dem Meer", "ox", "", "a boat\nat sea", "İstanbul"]  # fmt: skip


def found(viewer: Viewer | None = None, **filters: Any) -> list[UUID]:
    with transaction() as tx:
        views, more = list_jobs(
            tx, viewer or Viewer(all_jobs=True), JobFilter(**filters), after=None, limit=50, newest_first=False
        )
    assert not more
    return [view.job.id for view in views]


@contextmanager
def copied(engine: Engine) -> Iterator[None]:
    with transaction() as tx:
        job_search.copy_prompts(tx, now=datetime.now(UTC) + timedelta(hours=1), limit=1000)
    yield
    engine.sql("DELETE FROM prompts")


@pytest.mark.parametrize(
    "words", ["boat", "RED", "红", "红色", "小船在", "船", "100%", "zeppelin", "ÜBER", "ox", "o", "x", " ", "boat\nat", "nothing like this", "stan", "İstanbul", "i̇stanbul"],
)  # fmt: skip
def test_search_finds_the_same_jobs_with_and_without_its_index(engine: Engine, words: str) -> None:
    account = engine.add_account()
    jobs = {prompt: engine.add_job(account, prompt=prompt) for prompt in PROMPTS}
    plain = found(prompt=words)
    with copied(engine):
        assert found(prompt=words) == plain
        young = engine.add_job(account, prompt=f"{words} and more")
        assert found(prompt=words) == [*plain, young]
    if words in {"红", "红色", "小船在", "船"}:
        assert jobs["红色的小船在湖上"] in plain


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), start=st.integers(0, 60), length=st.integers(1, 20))
def test_grams_of_a_part_are_grams_of_the_text(database_url: str, text: str, start: int, length: int) -> None:
    """Otherwise the index would hide a match. In lower case, as the function makes it."""
    text = text.replace("\x00", "")
    part = text[start : start + length]
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            """SELECT prompt_grams(%(text)s) @> prompt_grams(%(part)s) OR strpos(lower(%(text)s), lower(%(part)s)) = 0""",
            {"text": text, "part": part},
        ).fetchone()
    assert row == (True,)


@pytest.mark.parametrize("common", [3, 99])
def test_a_common_word_is_searched_without_the_index(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, common: int
) -> None:
    monkeypatch.setattr("worker.db.jobs.job_search._MOST_FOUND", 2)
    account = engine.add_account()
    jobs = [engine.add_job(account, prompt=f"boat number {n}") for n in range(4)]
    with copied(engine):
        assert found(prompt="boat") == jobs
        assert found(prompt="number 3") == jobs[3:]


def test_the_index_shows_nobody_the_jobs_of_others(engine: Engine) -> None:
    mine, other = engine.add_account(), engine.add_account()
    jobs = [engine.add_job(account, prompt="a boat") for account in (mine, other)]
    with copied(engine):
        assert found(Viewer(account_ids=[mine]), prompt="boat") == jobs[:1]


def test_prompts_are_copied_in_batches_and_each_once(engine: Engine) -> None:
    account = engine.add_account()
    jobs = [engine.add_job(account, prompt=f"number {n}") for n in range(5)]
    late = datetime.now(UTC) + timedelta(hours=1)
    counts = []
    for _ in range(4):
        with transaction() as tx:
            counts.append(job_search.copy_prompts(tx, now=late, limit=2))
    assert counts == [2, 2, 1, 0]
    assert [row.job_id for row in engine.sql("SELECT job_id FROM prompts ORDER BY job_id")] == jobs
    engine.add_job(account, prompt="young")
    with transaction() as tx:
        assert job_search.copy_prompts(tx, now=datetime.now(UTC), limit=2) == 0, "older ids may still appear"


def test_date_filters_are_exact_to_the_microsecond(engine: Engine) -> None:
    account = engine.add_account()
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
    jobs = []
    for offset in (timedelta(microseconds=-1), timedelta(0), timedelta(microseconds=1)):
        # The id comes from the clock of the process, half an hour off, in either direction.
        wrong = timedelta(minutes=30 if offset else -30)
        job_id = UUID(int=first_id_at(moment + wrong).int + new_id().int % 2**60)
        jobs.append(engine.add_job(account, id=job_id))
        engine.sql("UPDATE jobs SET created_at = :at WHERE id = :id", id=job_id, at=moment + offset)
    before, exact, behind = jobs
    assert set(found(created_after=moment)) == {exact, behind}
    assert set(found(created_before=moment)) == {before}
    assert found(created_after=moment, created_before=moment + timedelta(microseconds=1)) == [exact]


def test_metadata_pairs_must_all_match(engine: Engine) -> None:
    account = engine.add_account()
    both, one, none = (
        engine.add_job(account, metadata=pairs) for pairs in ({"a": "1", "b": "2"}, {"a": "1"}, {})
    )  # fmt: skip
    assert found(metadata={"a": "1"}) == [both, one]
    assert found(metadata={"a": "1", "b": "2"}) == [both]
    assert found(metadata={"b": "1"}) == []
    assert found() == [both, one, none]
