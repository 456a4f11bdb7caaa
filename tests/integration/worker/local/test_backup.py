"""Backup and restore: one moment of a running platform, back in another database with other storage."""

import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.engine import Engine
from tests.support.platform import ROOT, clean_env
from tests.support.servers.s3_server import Bucket
from worker import storage
from worker.core.security.encryption import master_key_ids
from worker.core.security.passphrase import WrongPassphraseError, lock_keys, unlock_keys
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.platform import state as platform_state
from worker.db.users import audit_log
from worker.local import backup_archive, restore
from worker.local.backup import make_backup, target_of
from worker.local.processes import StartError
from worker.local.schema_upgrade import newest_revision
from worker.tasks.poll import poll

PASSPHRASE = "correct horse battery staple"


def silent(_what: str, _done: int, _total: int | None) -> None:
    pass


@pytest.fixture
def place(engine: Engine, tmp_path: Path) -> Path:
    return tmp_path / "backup.zip"


def back_up(engine: Engine, place: Path, **options: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"keys": {"master": engine.env["DREAMERY_MASTER_KEY"]}, "passphrase": None}
    values |= {"with_files": False, "show": silent, **options}
    return make_backup(engine.env["DREAMERY_DATABASE_URL"], place, **values)


@pytest.fixture
def elsewhere(database_url: str) -> str:
    """Another database, of the newest schema and without rows."""
    return database_url


def bring_back(place: Path, url: str, *, resume_open: bool = False, force: bool = False) -> restore.Restored:
    with backup_archive.reading(place) as reader:
        restore.check(reader, silent)
        restore.check_target(url, force=force)
        found = restore.restore(reader, url, resume_open=resume_open, show=silent)
        restore.bring_files(reader, found, sizes_only=False, show=silent)
    return found


def rows_of(url: str, table: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return sorted(map(str, connection.execute(f"SELECT * FROM {table}").fetchall()))


def tables_of(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return sorted({name for (name,) in found} - {"platform_state", "api_processes", "account_checks"})


# --- rows ---


def test_every_row_comes_back(engine: Engine, place: Path, elsewhere: str) -> None:
    awkward = "a tab\there, a line\nbreak, \\N, a \\ and “quotes” 你好"
    account = engine.add_account()
    job = engine.add_succeeded_job(account, prompt=awkward, metadata={"note": awkward}, webhook_url="https://example.com/hook")
    engine.run_until_final(engine.add_job(account, prompt="no [[fail:2038]]"))
    with transaction() as tx:
        audit_log.note_act(tx, audit_log.Actor(name=awkward, user_id=None, address="::1"), "test", "x", text=awkward)
        engine_id = platform_state.installation(tx)
    made = back_up(engine, place)
    found = bring_back(place, elsewhere)
    here = engine.env["DREAMERY_DATABASE_URL"]
    assert tables_of(here) == tables_of(elsewhere)
    differ = [name for name in tables_of(here) if rows_of(here, name) != rows_of(elsewhere, name)]
    assert differ == []
    assert found.rows == sum(table["rows"] for table in made["tables"])
    assert found.jobs == {"interrupted": 0}
    assert (found.files, found.missing) == (1, [])
    assert made["installation"] == engine_id
    assert engine_id not in "".join(rows_of(elsewhere, "platform_state")), "it is another platform"
    with psycopg.connect(elsewhere) as connection, pytest.raises(psycopg.errors.RaiseException):
        connection.execute("DELETE FROM audit_log")
    assert engine.job_row(job).params["order"]["prompt"] == awkward


def test_a_backup_is_of_one_moment(engine: Engine, place: Path, elsewhere: str) -> None:
    """While one is made, jobs go on: every job of the copy has its events, every file its job."""
    account = engine.add_account()
    for _ in range(3):
        engine.add_succeeded_job(account)
    going, failed = threading.Event(), []

    def work() -> None:
        try:
            while not going.is_set():
                engine.run_until_final(engine.add_job(account))
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(4):
            back_up(engine, place)
    finally:
        going.set()
        thread.join(30)
    assert failed == []
    bring_back(place, elsewhere)
    with psycopg.connect(elsewhere) as connection:
        torn = connection.execute(
            """SELECT j.id FROM jobs j WHERE j.error_code IS DISTINCT FROM 'interrupted_by_restore'
                 AND (j.event_seq <> (SELECT count(*) FROM job_events e WHERE e.job_id = j.id)
                      OR (j.state = 'succeeded') <> EXISTS (SELECT 1 FROM files f WHERE f.job_id = j.id))"""
        ).fetchall()
        assert torn == []
        assert connection.execute("SELECT count(*) FROM jobs").fetchone()[0] >= 3  # type: ignore[index]


def test_what_a_backup_file_is(engine: Engine, place: Path, tmp_path: Path) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, place)
    assert place.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.part")) == []
    with zipfile.ZipFile(place) as zipped:
        assert zipped.testzip() is None
        manifest = json.loads(zipped.read("manifest.json"))
        whole = b"".join(zipped.read(name) for name in zipped.namelist())
    assert manifest["master_key_ids"] == master_key_ids()
    assert engine.env["DREAMERY_MASTER_KEY"].encode() not in whole
    assert target_of(tmp_path).parent == tmp_path
    assert target_of(place) == place


def test_a_backup_that_fails_leaves_no_file(engine: Engine, place: Path) -> None:
    with pytest.raises(StartError, match="database"):
        make_backup(
            "postgresql://nobody@127.0.0.1:1/none", place, keys={}, passphrase=None, with_files=False, show=silent
        )
    assert list(place.parent.glob("backup.zip*")) == []


# --- what is refused ---


def edited(place: Path, **changes: Any) -> None:
    """The archive with another manifest."""
    with zipfile.ZipFile(place) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()
    with zipfile.ZipFile(place, "w") as zipped:
        for name, body in members.items():
            zipped.writestr(name, body)


def test_a_newer_schema_is_refused(engine: Engine, place: Path, elsewhere: str) -> None:
    back_up(engine, place)
    edited(place, schema="9999_future")
    with pytest.raises(StartError, match="newer version"):
        bring_back(place, elsewhere)
    edited(place, format=99)
    with pytest.raises(StartError, match="format 99"):
        bring_back(place, elsewhere)


def test_a_damaged_backup_changes_nothing(engine: Engine, place: Path, elsewhere: str) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, place)
    with psycopg.connect(elsewhere) as connection:
        connection.execute("INSERT INTO users (id, name, role) VALUES (gen_random_uuid(), 'here', 'admin')")
    before = rows_of(elsewhere, "users")
    whole = place.read_bytes()
    with zipfile.ZipFile(place) as zipped:
        members = json.loads(zipped.read("manifest.json"))["members"]
    members["tables/jobs.copy"]["sha256"] = "0" * 64
    edited(place, members=members)
    with pytest.raises(StartError, match="damaged"):
        bring_back(place, elsewhere, force=True)
    for broken in (whole[: len(whole) // 2], b""):
        place.write_bytes(broken)
        with pytest.raises(StartError):
            bring_back(place, elsewhere, force=True)
    assert rows_of(elsewhere, "users") == before


def test_a_wrong_byte_anywhere_is_told_or_changes_nothing_that_is_read(engine: Engine, place: Path) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, place)
    whole = place.read_bytes()
    told = 0
    for at in range(0, len(whole), 61):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            with backup_archive.reading(place) as reader:
                reader.check(lambda _name: None)  # every member is what the manifest says
        except StartError:
            told += 1
    assert told > len(whole) / 61 / 2


def test_a_database_in_use_or_with_rows_is_refused(engine: Engine, place: Path, elsewhere: str) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    back_up(engine, place)
    here = engine.env["DREAMERY_DATABASE_URL"]
    with pytest.raises(StartError, match="uses this database"):
        bring_back(place, here, force=True)
    assert engine.job_row(job).state == "succeeded"
    bring_back(place, elsewhere)
    with pytest.raises(StartError, match="not empty"):
        bring_back(place, elsewhere)
    bring_back(place, elsewhere, force=True)
    assert rows_of(elsewhere, "jobs") == rows_of(here, "jobs")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE somebodys (id int)")
    with pytest.raises(StartError, match="somebodys"):
        bring_back(place, elsewhere, force=True)


def test_a_database_without_tables_will_do(engine: Engine, place: Path, elsewhere: str) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, place)
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    bring_back(place, elsewhere)
    assert rows_of(elsewhere, "jobs") == rows_of(engine.env["DREAMERY_DATABASE_URL"], "jobs")


# --- open jobs: nothing is paid twice ---


def moved(engine: Engine, url: str) -> None:
    """From now on the engine works on that database."""
    engine.configure(DATABASE_URL=url)


@pytest.fixture
def open_jobs(engine: Engine) -> dict[str, UUID]:
    """A job in every open state, and one whose submit was lost."""

    def fresh() -> UUID:
        return engine.add_account(max_images=5)

    jobs = {"running": engine.add_running_job(fresh(), prompt="runs"), "saving": engine.add_saving_job(fresh(), prompt="saves")}
    for name in ("arrived", "lost"):
        account = fresh()
        jobs[name] = engine.add_running_job(account, prompt=name)
        # As if the answer to the submit had not come, or the submit had not gone out.
        key = "submit_key" if name == "arrived" else "gen_random_uuid()"
        engine.sql(
            f"""UPDATE jobs SET state = 'submitting', upstream_id = NULL, submitted_at = NULL, submit_key = {key}
                WHERE id = :id""",
            id=jobs[name],
        )
    jobs["queued"] = engine.add_job(fresh(), prompt="waits", webhook_url="https://example.com/hook")
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '5 minutes' WHERE finished_at IS NULL")
    return jobs


def test_open_jobs_go_on_after_a_restore_and_waiting_ones_end(
    engine: Engine, place: Path, elsewhere: str, open_jobs: dict[str, UUID]
) -> None:
    back_up(engine, place)
    # The platform goes on after the backup: what waited is submitted and paid. Then all is lost.
    engine.submit(open_jobs["queued"])
    paid = engine.charge_count()
    edited(place, made_at="2026-01-01T00:00:00+00:00")
    found = bring_back(place, elsewhere)
    assert found.jobs == {"interrupted": 1, "running": 1, "saving": 1, "submitting": 2}
    moved(engine, elsewhere)
    waiting = engine.job_row(open_jobs["queued"])
    assert (waiting.state, waiting.error_code) == ("failed", "interrupted_by_restore")
    assert engine.job_events(open_jobs["queued"])[-1].actor == "restore"
    [told] = engine.sql("SELECT * FROM webhook_deliveries WHERE job_id = :id", id=open_jobs["queued"])
    assert told.event == "job.failed"
    left = engine.sql("SELECT deadline_at > now() + interval '4 minutes' AS good FROM jobs WHERE finished_at IS NULL")
    assert [row.good for row in left] == [True] * 4, "the time in between counts for nobody"
    engine.finish_upstream()
    states = dict(zip(open_jobs, engine.run_until_final(*open_jobs.values(), rounds=20), strict=True))
    assert states == {
        "running": "succeeded",
        "saving": "succeeded",
        "arrived": "succeeded",
        "lost": "failed",
        "queued": "failed",
    }
    assert engine.charge_count() == paid, "nothing is sent again"


def test_waiting_jobs_run_when_nothing_ran_since(
    engine: Engine, place: Path, elsewhere: str, open_jobs: dict[str, UUID]
) -> None:
    back_up(engine, place)
    paid = engine.charge_count()
    found = bring_back(place, elsewhere, resume_open=True)
    assert found.jobs == {"interrupted": 0, "queued": 1, "running": 1, "saving": 1, "submitting": 2}
    moved(engine, elsewhere)
    engine.finish_upstream()
    assert set(engine.run_until_final(*open_jobs.values(), rounds=20, each_round=engine.finish_upstream)) == {"succeeded"}
    assert engine.charge_count() == paid + 2, "the one that waited, and the one that had not arrived"


def test_restored_accounts_are_polled_at_once(engine: Engine, place: Path, elsewhere: str) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    engine.sql("UPDATE accounts SET poll_due_at = now() + interval '1 hour'")
    back_up(engine, place)
    bring_back(place, elsewhere)
    moved(engine, elsewhere)
    engine.finish_upstream()
    engine.sql("UPDATE accounts SET polled_at = NULL")
    poll(account_id=account)
    assert engine.job_row(job).account_id == account


# --- files ---


def stored(engine: Engine) -> dict[str, bytes]:
    return {row.key: storage.read_file(row.key) for row in engine.sql("SELECT key FROM files")}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_files_come_back_into_another_storage(
    engine: Engine, place: Path, elsewhere: str, tmp_path: Path, s3: Bucket, kind: str
) -> None:
    s3.empty()
    if kind == "bucket":
        engine.configure(**s3.settings())
    engine.add_succeeded_job(engine.add_account(), count=2)
    before = stored(engine)
    made = back_up(engine, place, with_files=True)
    assert made["files"] == {"count": 2, "bytes": sum(map(len, before.values())), "included": True, "missing": []}
    other = s3.settings("another/place") if kind == "folder" else {"STORAGE_URL": f"file://{tmp_path}/other"}
    engine.configure(**other)
    found = bring_back(place, elsewhere)
    assert (found.files, found.missing) == (2, [])
    assert stored(engine) == before


def test_missing_and_changed_files_are_named(engine: Engine, place: Path, elsewhere: str) -> None:
    job = engine.add_succeeded_job(engine.add_account(), count=3)
    gone, changed, kept = (row.key for row in engine.files(job))
    back_up(engine, place)
    size = len(storage.read_file(changed))
    storage.delete_file(gone)
    storage.put_file(changed, io.BytesIO(b"x" * size))
    found = bring_back(place, elsewhere)
    assert found.missing == sorted([gone, changed]) or set(found.missing) == {gone, changed}
    assert found.files == 1
    assert storage.read_file(kept)


def test_a_backup_names_the_files_it_could_not_take(engine: Engine, place: Path, elsewhere: str) -> None:
    job = engine.add_succeeded_job(engine.add_account(), count=2)
    gone = engine.files(job)[0].key
    storage.delete_file(gone)
    assert back_up(engine, place, with_files=True)["files"]["missing"] == [gone]
    assert bring_back(place, elsewhere).missing == [gone]


# --- keys ---


def test_keys_are_locked_by_their_passphrase() -> None:
    locked = lock_keys({"master": "one,two"}, PASSPHRASE)
    assert b"one,two" not in locked
    assert unlock_keys(locked, PASSPHRASE) == {"master": "one,two"}
    torn = locked.replace(b'"nonce": "', b'"nonce": "AAAA')
    for given, passphrase in ((locked, PASSPHRASE + "!"), (torn, PASSPHRASE), (b"{}", PASSPHRASE), (b"", PASSPHRASE)):
        with pytest.raises(WrongPassphraseError):
            unlock_keys(given, passphrase)


def test_keys_of_a_backup_go_where_there_are_none(engine: Engine, place: Path, tmp_path: Path) -> None:
    keys = {"master": "new key of the tests,old key of the tests", "admin": "sk-dreamery-an-admin"}
    back_up(engine, place, keys=keys, passphrase=PASSPHRASE)
    with backup_archive.reading(place) as reader:
        names = reader.manifest["master_key_ids"]
        assert len(names) == 2
        assert restore.bring_keys(reader, tmp_path / "a", {}, None) == names, "what is needed is named"
        with pytest.raises(StartError, match="passphrase"):
            restore.bring_keys(reader, tmp_path / "a", {}, "another passphrase")
        assert restore.bring_keys(reader, tmp_path / "a", {}, PASSPHRASE) == []
        file = tmp_path / "a" / "keys" / "master.key"
        assert file.read_text().strip() == keys["master"]
        assert file.stat().st_mode & 0o777 == 0o600
        present = {"master": "old key of the tests"}
        assert restore.bring_keys(reader, tmp_path / "b", present, PASSPHRASE) == names[:1], "a key here stays"


# --- the commands ---

_LATER = """
import sqlalchemy as sa
from alembic import op

revision: str = "9999_later"
down_revision: str = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("from_later", sa.Integer(), server_default="7"))
"""


def newer_version(folder: Path) -> Path:
    """This code, and one migration more."""
    for name in ("api", "worker", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", folder)
    (folder / "migrations/versions/9999_later.py").write_text(_LATER.format(head=newest_revision()))
    return folder


def command(engine: Engine, *arguments: str, root: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    values = clean_env(**{**engine.env, **env, "PYTHONPATH": str(root)})
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments], cwd=root, env=values,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_commands_tell_what_they_did(
    engine: Engine, place: Path, tmp_path: Path, make_database: Callable[[], str]
) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    locked = ("--with-keys", "--passphrase-file", str(tmp_path / "passphrase"))
    told = command(engine, "backup", str(place), "--with-files", *locked, PATH="")  # no program of Postgres is needed
    assert told.returncode == 0, told.stderr
    assert "1 files (included)" in told.stdout
    assert get_settings().master_key.get_secret_value() not in told.stdout + told.stderr
    other = {"DREAMERY_DATABASE_URL": make_database(), "DREAMERY_STORAGE_URL": f"file://{tmp_path}/other"}
    told = command(engine, "restore", str(place), "--json", root=newer_version(tmp_path / "later"), **other)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["files"] == 1
    with psycopg.connect(other["DREAMERY_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT from_later FROM jobs").fetchall() == [(7,)], "older backups are migrated"
    file = tmp_path / "other" / engine.files(job)[0].key
    file.write_bytes(b"changed")
    strange = {"DREAMERY_MASTER_KEY": "k" * 40, "DREAMERY_DATA_DIR": str(tmp_path / "c")}
    told = command(engine, "restore", str(place), "--force", **other, **strange)
    assert told.returncode == 1, told.stderr
    assert f"Master key {master_key_ids()[0]} is not here" in told.stdout
    assert file.read_bytes() != b"changed", "bytes of the backup replace damaged ones"
    assert "belongs to this platform" in command(engine, "take-storage", **other).stdout
