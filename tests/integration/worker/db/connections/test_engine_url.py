"""The URL of the database is read in one way by processes and commands: its options, and several hosts."""

import socket
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from tests.support.engine import Engine
from worker.core.settings import Settings
from worker.db.platform import dump
from worker.local.schema_upgrade import newest_revision, upgrade_schema


def setting(engine: Engine, name: str) -> str:
    return str(engine.sql(f"SHOW {name}")[0][0])


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("-c%20work_mem=9MB", "work_mem", "9MB"),
        ("-cwork_mem=9MB%20-cgeqo=off", "geqo", "off"),
        ("-c%20statement_timeout=7000", "statement_timeout", "7s"),  # the operator's value wins over ours
        ("--work_mem=9MB", "work_mem", "9MB"),
    ],
)
def test_options_of_the_url_reach_every_process(engine: Engine, options: str, name: str, value: str) -> None:
    url = engine.env["DREAMERY_DATABASE_URL"]
    engine.configure(DATABASE_URL=f"{url}?options={options}")
    assert setting(engine, name) == value
    assert setting(engine, "lock_timeout") == "5s"  # ours stay
    with dump._connection(engine.env["DREAMERY_DATABASE_URL"]) as connection:  # as backup, restore and migrate connect
        assert connection.execute(text(f"SHOW {name}")).scalar() == value


def test_search_path_of_the_url_is_the_same_for_migrate_and_processes(engine: Engine) -> None:
    url = engine.env["DREAMERY_DATABASE_URL"]
    engine.sql("CREATE SCHEMA elsewhere")
    try:
        engine.configure(DATABASE_URL=f"{url}?options=-csearch_path%3Delsewhere")
        assert upgrade_schema() == newest_revision()
        tables = engine.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'elsewhere' AND tablename = 'jobs'")
        assert tables[0][0] == 1
        assert engine.sql("SELECT 'jobs'::regclass::oid = 'elsewhere.jobs'::regclass::oid")[0][0]
    finally:
        engine.configure(DATABASE_URL=url)
        engine.sql("DROP SCHEMA elsewhere CASCADE")


def test_second_host_is_used_when_the_first_does_not_answer(engine: Engine) -> None:
    url = engine.env["DREAMERY_DATABASE_URL"]
    port = urlsplit(url).port
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens on it
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        several = url.replace(f"127.0.0.1:{port}", f"{dead},127.0.0.1:{port}") + "?target_session_attrs=read-write"
        engine.configure(DATABASE_URL=several)
        assert engine.sql("SELECT 1")[0][0] == 1
        migrating = create_engine(Settings.model_construct(database_url=several).sqlalchemy_url)
        with migrating.connect() as connection:
            assert connection.execute(text("SHOW port")).scalar() == str(port)
        migrating.dispose()
    engine.configure(DATABASE_URL=url)
