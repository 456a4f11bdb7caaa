"""Every wait for Postgres ends: a server that says nothing any more, and sessions that it ended."""

import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.frozen_link import FrozenLink, frozen_link
from worker.db import engine as db
from worker.db.connecting import reasons
from worker.db.connecting.reachability import reachability
from worker.db.engine import get_engine, is_database_away, retry_for_a_caller, transaction

NO_ANSWER = "no answer from the server"
# The client waits one second longer than the server would work.
QUICK = "?options=-c%20statement_timeout=500"


@pytest.fixture
def link(engine: Engine) -> Iterator[FrozenLink]:
    """The database through a link that can freeze, with a short limit for statements."""
    url = engine.env["DREAMERY_DATABASE_URL"]
    port = urlsplit(url).port
    assert port is not None
    with frozen_link(port) as link:
        engine.configure(DATABASE_URL=url.replace(f":{port}/", f":{link.port}/") + QUICK)
        yield link
        link.thaw()
        engine.configure(DATABASE_URL=url)


def ask() -> object:
    with transaction() as tx:
        return tx.run(text("SELECT 1")).scalar()


def failure(work: object) -> OperationalError:
    with pytest.raises(OperationalError) as caught:
        work()  # type: ignore[operator]
    assert is_database_away(caught.value)
    return caught.value


def test_statement_whose_answer_never_comes(link: FrozenLink) -> None:
    def work() -> None:
        with transaction() as tx:
            tx.run(text("SELECT 1"))
            link.freeze()
            tx.run(text("SELECT 2"))

    assert NO_ANSWER in str(failure(work))
    link.thaw()
    assert ask() == 1  # the connection is not used again


def test_commit_whose_answer_never_comes(link: FrozenLink) -> None:
    """It may have happened or not; no action of the commit runs."""
    announced: list[int] = []

    def work() -> None:
        with transaction() as tx:
            tx.run(text("SELECT 1"))
            tx.on_commit(lambda: announced.append(1))
            link.freeze()

    assert NO_ANSWER in str(failure(work))
    assert not announced


def test_idle_connection_that_died(link: FrozenLink, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask() == 1
    monkeypatch.setattr(db, "PING_AFTER_SECONDS", 0.0)
    link.freeze()
    reason = reasons.reason_for_operators(failure(ask))
    assert reason.startswith("The database does not respond.")
    link.thaw()
    eventually(lambda: reachability.seconds_away == 0.0, what="found again without any caller")
    assert ask() == 1


def test_one_thread_asks_a_silent_server_and_all_others_fail_at_once(link: FrozenLink) -> None:
    get_engine()  # no connection yet
    link.freeze()
    failure(ask)
    eventually(lambda: reachability.is_silent, what="known to be silent")
    accepted = link.accepted
    threads = [threading.Thread(target=failure, args=(ask,)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Forty attempts of three seconds each would be forty connections.
    assert link.accepted - accepted <= 3


def test_caller_is_not_kept_waiting_by_a_silent_server(link: FrozenLink) -> None:
    attempts: list[float] = []
    link.freeze()

    @retry_for_a_caller
    def work() -> object:
        attempts.append(time.monotonic())
        return ask()

    failure(work)
    assert len(attempts) == 1
    link.thaw()
    eventually(lambda: not reachability.is_silent, what="found again")
    assert work() == 1


def test_caller_waits_while_a_server_restarts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses at once, so trying again costs nothing."""
    url = engine.env["DREAMERY_DATABASE_URL"]
    engine.configure(DATABASE_URL=url.replace(f":{urlsplit(url).port}/", ":1/"))
    monkeypatch.setattr(db, "CALLER_RETRY_SECONDS", 1.0)
    attempts: list[int] = []

    @retry_for_a_caller
    def work() -> object:
        attempts.append(1)
        return ask()

    failure(work)
    assert len(attempts) > 1
    engine.configure(DATABASE_URL=url)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE platform_state SET value = value", "CREATE TABLE never (n int)", "SELECT 1 FROM jobs FOR UPDATE"],
)
def test_read_only_session_is_dropped(engine: Engine, statement: str) -> None:
    """With `target_session_attrs=any` it connects, and every write fails: as on the connections of before a failover."""
    url, setting = engine.env["DREAMERY_DATABASE_URL"], "default_transaction_read_only=on"
    engine.configure(DATABASE_URL=f"{url}?target_session_attrs=any&options=-c%20{setting}")
    seen: list[int] = []

    def write() -> None:
        with transaction() as tx:
            seen.append(tx.run(text("SELECT pg_backend_pid()")).scalar())
            tx.run(text(statement))

    error = failure(write)
    assert reasons.reason_for_callers(error) == reasons.READ_ONLY
    failure(write)
    assert len(set(seen)) == 2, "the connection was dropped"
    engine.configure(DATABASE_URL=f"{url}?options=-c%20{setting}")
    assert reasons.reason_for_callers(failure(ask)) == reasons.READ_ONLY  # refused when it connects
    engine.configure(DATABASE_URL=url)


def test_session_that_the_server_ended(engine: Engine) -> None:
    with psycopg.connect(engine.env["DREAMERY_DATABASE_URL"], autocommit=True) as other:

        def killed() -> None:
            with transaction() as tx:
                other.execute("SELECT pg_terminate_backend(%s)", (tx.run(text("SELECT pg_backend_pid()")).scalar(),))
                tx.run(text("SELECT 1"))

        error = failure(killed)
    assert reasons.reason_for_callers(error) == reasons.STARTING_OR_STOPPING
    assert ask() == 1


def test_transaction_that_was_idle_for_too_long(engine: Engine) -> None:
    """The driver calls it an internal error, as if the statement were wrong."""

    def sleepy() -> None:
        with transaction() as tx:
            tx.run(text("SET LOCAL idle_in_transaction_session_timeout = 1"))
            threading.Event().wait(0.3)
            tx.run(text("SELECT 1"))

    failure(sleepy)
    assert ask() == 1


def test_no_free_connection(engine: Engine) -> None:
    url = engine.env["DREAMERY_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 0")
        try:
            engine.configure(DATABASE_URL=url.replace("postgres:test@", "narrow:narrow@"))
            assert reasons.reason_for_callers(failure(ask)) == reasons.NO_CONNECTION_FREE
        finally:
            engine.configure(DATABASE_URL=url)
            admin.execute("DROP ROLE narrow")


def test_statement_that_waits_too_long_says_nothing_about_the_database(engine: Engine) -> None:
    def slow() -> None:
        with transaction() as tx:
            tx.run(text("SET LOCAL statement_timeout = 50"))
            tx.run(text("SELECT pg_sleep(5)"))

    with pytest.raises(OperationalError) as caught:
        slow()
    assert not is_database_away(caught.value)
    assert ask() == 1
