"""Backup and restore: a snapshot of a running platform, restored into another database and storage."""

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
from worker.core.security.passphrase import WrongPassphraseError, decrypt_keys, encrypt_keys
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.platform import state as platform_state
from worker.db.users import audit_log
from worker.local.backups import restore
from worker.local.backups.archive import open_reader
from worker.local.backups.backup import backup_path, create_backup
from worker.local.processes import StartError
from worker.local.schema_upgrade import newest_revision, upgrade_schema
from worker.tasks.poll import poll

PASSPHRASE = "correct horse battery staple"


def silent(_what: str, _done: int, _total: int | None) -> None:
    pass


@pytest.fixture
def archive(engine: Engine, tmp_path: Path) -> Path:
    return tmp_path / "backup.zip"


def back_up(engine: Engine, archive: Path, **options: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"keys": {"master": engine.env["DREAMERY_MASTER_KEY"]}, "passphrase": None}
    values |= {"with_files": False, "show": silent, **options}
    archive.unlink(missing_ok=True)
    return create_backup(engine.env["DREAMERY_DATABASE_URL"], archive, **values)


@pytest.fixture
def target_url(database_url: str) -> str:
    """Another database with the latest schema and no rows."""
    return database_url


def restore_backup(archive: Path, url: str, *, resume_open: bool = False, force: bool = False) -> restore.RestoreReport:
    with open_reader(archive) as reader:
        restore.check_archive(reader, silent)
        restore.check_target(url, force=force)
        report = restore.restore(reader, url, resume_open=resume_open, show=silent)
        restore.restore_files(reader, report, sizes_only=False, show=silent)
    return report


def rows_of(url: str, table: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return sorted(map(str, connection.execute(f"SELECT * FROM {table}").fetchall()))


def tables_of(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return sorted({name for (name,) in rows} - {"platform_state", "api_processes", "account_checks"})


# --- rows ---


def test_all_rows_are_restored(engine: Engine, archive: Path, target_url: str) -> None:
    awkward = "a tab\there, a line\nbreak, \\N, a \\ and “quotes” 你好"
    account = engine.add_account()
    job = engine.add_succeeded_job(
        account, prompt=awkward, metadata={"note": awkward}, webhook_url="https://example.com/hook"
    )
    engine.run_until_final(engine.add_job(account, prompt="no [[fail:2038]]"))
    with transaction() as tx:
        audit_log.record_action(
            tx, audit_log.Actor(name=awkward, user_id=None, address="::1"), "test", "x", text=awkward
        )
        engine_id = platform_state.get_installation_id(tx)
    manifest = back_up(engine, archive)
    report = restore_backup(archive, target_url)
    source_url = engine.env["DREAMERY_DATABASE_URL"]
    assert tables_of(source_url) == tables_of(target_url)
    differ = [name for name in tables_of(source_url) if rows_of(source_url, name) != rows_of(target_url, name)]
    assert differ == []
    assert report.rows == sum(table["rows"] for table in manifest["tables"])
    assert report.jobs == {"interrupted": 0}
    assert (report.files, report.missing) == (1, [])
    assert manifest["installation"] == engine_id
    assert engine_id not in "".join(rows_of(target_url, "platform_state")), "it is another platform"
    with psycopg.connect(target_url) as connection, pytest.raises(psycopg.errors.RaiseException):
        connection.execute("DELETE FROM audit_log")
    assert engine.job_row(job).params["order"]["prompt"] == awkward


def test_backup_is_a_consistent_snapshot(engine: Engine, archive: Path, target_url: str) -> None:
    """Jobs continue during the backup: every job in it has its events, every file its job."""
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
            back_up(engine, archive)
    finally:
        going.set()
        thread.join(30)
    assert failed == []
    restore_backup(archive, target_url)
    with psycopg.connect(target_url) as connection:
        torn = connection.execute(
            """SELECT j.id FROM jobs j WHERE j.error_code IS DISTINCT FROM 'interrupted_by_restore'
                 AND (j.event_seq <> (SELECT count(*) FROM job_events e WHERE e.job_id = j.id)
                      OR (j.state = 'succeeded') <> EXISTS (SELECT 1 FROM files f WHERE f.job_id = j.id))"""
        ).fetchall()
        assert torn == []
        assert connection.execute("SELECT count(*) FROM jobs").fetchone()[0] >= 3  # type: ignore[index]


def test_backup_file_format(engine: Engine, archive: Path, tmp_path: Path) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.part")) == []
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.testzip() is None
        manifest = json.loads(zipped.read("manifest.json"))
        whole = b"".join(zipped.read(name) for name in zipped.namelist())
    assert manifest["master_key_ids"] == master_key_ids()
    assert engine.env["DREAMERY_MASTER_KEY"].encode() not in whole


def test_backups_into_a_folder_that_does_not_exist_are_separate_files(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "backups" / "daily"
    files = []
    for _ in range(3):  # within the same second
        files.append(backup_path(folder))
        back_up(engine, files[-1])
    assert {file.parent for file in files} == {folder}
    assert sorted(folder.iterdir()) == sorted(set(files))
    assert len(set(files)) == 3


def test_backup_never_overwrites(engine: Engine, archive: Path, tmp_path: Path) -> None:
    assert backup_path(archive) == archive
    archive.write_text("an older backup")
    with pytest.raises(StartError, match="exists already"):
        backup_path(archive)
    with pytest.raises(StartError, match="exists already"):
        create_backup(
            engine.env["DREAMERY_DATABASE_URL"], archive, keys={}, passphrase=None, with_files=False, show=silent
        )  # another process was faster
    (tmp_path / "note").write_text("not a folder")
    with pytest.raises(StartError, match="is a file"):
        backup_path(tmp_path / "note")
    with pytest.raises(StartError, match="Cannot create the folder"):
        backup_path(tmp_path / "note" / "folder")
    assert archive.read_text() == "an older backup"
    (tmp_path / "folder.zip").mkdir()
    assert backup_path(tmp_path / "folder.zip").parent == tmp_path / "folder.zip"


def test_restore_into_a_shared_database_names_the_foreign_tables(
    engine: Engine, archive: Path, target_url: str
) -> None:
    back_up(engine, archive)
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE shop_orders (id int); INSERT INTO shop_orders VALUES (1)")
        try:
            for force in (False, True):
                with pytest.raises(StartError, match=r"tables of another application \(shop_orders\)"):
                    restore_backup(archive, target_url, force=force)
            assert connection.execute("SELECT count(*) FROM shop_orders").fetchone() == (1,)
        finally:
            connection.execute("DROP TABLE shop_orders")


def test_reached_connection_limit_is_named(engine: Engine, archive: Path, target_url: str) -> None:
    back_up(engine, archive)
    with psycopg.connect(target_url, autocommit=True) as connection:
        role = connection.execute("SELECT current_user").fetchone()
        assert role is not None
        # A superuser is exempt from limits, so another role connects.
        connection.execute(
            f"CREATE ROLE limited LOGIN PASSWORD 'limited' CONNECTION LIMIT 0; GRANT {role[0]} TO limited"
        )
        try:
            limited = target_url.replace(target_url.partition("://")[2].partition("@")[0], "limited:limited")
            for action in (
                lambda: restore.check_target(limited, force=True),
                lambda: create_backup(
                    limited, archive.with_name("b.zip"), keys={}, passphrase=None, with_files=False, show=silent
                ),
                lambda: upgrade_schema(limited),
            ):
                with pytest.raises(StartError, match="Postgres has no free connection"):
                    action()
        finally:
            connection.execute("DROP ROLE limited")


def test_failed_backup_leaves_no_file(engine: Engine, archive: Path) -> None:
    with pytest.raises(StartError, match="database"):
        create_backup(
            "postgresql://nobody@127.0.0.1:1/none", archive, keys={}, passphrase=None, with_files=False, show=silent
        )
    assert list(archive.parent.glob("backup.zip*")) == []


# --- refused backups and databases ---


def edit_manifest(archive: Path, **changes: Any) -> None:
    """Change the manifest of the archive."""
    with zipfile.ZipFile(archive) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, body in members.items():
            zipped.writestr(name, body)


def test_newer_schema_is_refused(engine: Engine, archive: Path, target_url: str) -> None:
    back_up(engine, archive)
    edit_manifest(archive, schema="9999_future")
    with pytest.raises(StartError, match="newer version"):
        restore_backup(archive, target_url)
    edit_manifest(archive, format=99)
    with pytest.raises(StartError, match="format 99"):
        restore_backup(archive, target_url)


def test_damaged_backup_changes_nothing(engine: Engine, archive: Path, target_url: str) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, archive)
    with psycopg.connect(target_url) as connection:
        connection.execute("INSERT INTO users (id, name, role) VALUES (gen_random_uuid(), 'here', 'admin')")
    before = rows_of(target_url, "users")
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as zipped:
        members = json.loads(zipped.read("manifest.json"))["members"]
    members["tables/jobs.copy"]["sha256"] = "0" * 64
    edit_manifest(archive, members=members)
    with pytest.raises(StartError, match="damaged"):
        restore_backup(archive, target_url, force=True)
    for broken in (whole[: len(whole) // 2], b""):
        archive.write_bytes(broken)
        with pytest.raises(StartError):
            restore_backup(archive, target_url, force=True)
    assert rows_of(target_url, "users") == before


def test_wrong_bytes_are_detected_or_irrelevant(engine: Engine, archive: Path) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, archive)
    whole = archive.read_bytes()
    detected = 0
    for at in range(0, len(whole), 61):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            with open_reader(archive) as reader:
                reader.verify(lambda _name: None)  # all members match the manifest
        except StartError:
            detected += 1
    assert detected > len(whole) / 61 / 2


def test_database_in_use_or_with_rows_is_refused(engine: Engine, archive: Path, target_url: str) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    back_up(engine, archive)
    source_url = engine.env["DREAMERY_DATABASE_URL"]
    with pytest.raises(StartError, match="uses this database"):
        restore_backup(archive, source_url, force=True)
    assert engine.job_row(job).state == "succeeded"
    restore_backup(archive, target_url)
    with pytest.raises(StartError, match="not empty"):
        restore_backup(archive, target_url)
    restore_backup(archive, target_url, force=True)
    assert rows_of(target_url, "jobs") == rows_of(source_url, "jobs")
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE other_table (id int)")
    with pytest.raises(StartError, match="other_table"):
        restore_backup(archive, target_url, force=True)


def test_restore_into_a_database_without_tables(engine: Engine, archive: Path, target_url: str) -> None:
    engine.add_succeeded_job(engine.add_account())
    back_up(engine, archive)
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    restore_backup(archive, target_url)
    assert rows_of(target_url, "jobs") == rows_of(engine.env["DREAMERY_DATABASE_URL"], "jobs")


# --- open jobs: nothing is charged twice ---


def use_database(engine: Engine, url: str) -> None:
    """Make the engine use that database."""
    engine.configure(DATABASE_URL=url)


@pytest.fixture
def open_jobs(engine: Engine) -> dict[str, UUID]:
    """A job in each open state, and one whose submit was lost."""

    def fresh() -> UUID:
        return engine.add_account(max_images=5)

    jobs = {
        "running": engine.add_running_job(fresh(), prompt="runs"),
        "saving": engine.add_saving_job(fresh(), prompt="saves"),
    }
    for name in ("arrived", "lost"):
        account = fresh()
        jobs[name] = engine.add_running_job(account, prompt=name)
        # The response of the submit was lost, or the submit was never sent.
        key = "submit_key" if name == "arrived" else "gen_random_uuid()"
        engine.sql(
            f"""UPDATE jobs SET state = 'submitting', upstream_id = NULL, submitted_at = NULL, submit_key = {key}
                WHERE id = :id""",
            id=jobs[name],
        )
    jobs["queued"] = engine.add_job(fresh(), prompt="waits", webhook_url="https://example.com/hook")
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '5 minutes' WHERE finished_at IS NULL")
    return jobs


def test_restore_continues_open_jobs_and_fails_queued_ones(
    engine: Engine, archive: Path, target_url: str, open_jobs: dict[str, UUID]
) -> None:
    back_up(engine, archive)
    # After the backup the queued job is submitted and charged. Then everything is lost.
    engine.submit(open_jobs["queued"])
    paid = engine.charge_count()
    edit_manifest(archive, made_at="2026-01-01T00:00:00+00:00")
    report = restore_backup(archive, target_url)
    assert report.jobs == {"interrupted": 1, "running": 1, "saving": 1, "submitting": 2}
    use_database(engine, target_url)
    waiting = engine.job_row(open_jobs["queued"])
    assert (waiting.state, waiting.error_code) == ("failed", "interrupted_by_restore")
    assert engine.job_events(open_jobs["queued"])[-1].actor == "restore"
    [delivery] = engine.sql("SELECT * FROM webhook_deliveries WHERE job_id = :id", id=open_jobs["queued"])
    assert delivery.event == "job.failed"
    left = engine.sql("SELECT deadline_at > now() + interval '4 minutes' AS good FROM jobs WHERE finished_at IS NULL")
    assert [row.good for row in left] == [True] * 4, "the downtime does not count"
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


def test_resume_open_runs_queued_jobs(
    engine: Engine, archive: Path, target_url: str, open_jobs: dict[str, UUID]
) -> None:
    back_up(engine, archive)
    paid = engine.charge_count()
    report = restore_backup(archive, target_url, resume_open=True)
    assert report.jobs == {"interrupted": 0, "queued": 1, "running": 1, "saving": 1, "submitting": 2}
    use_database(engine, target_url)
    engine.finish_upstream()
    assert set(engine.run_until_final(*open_jobs.values(), rounds=20, each_round=engine.finish_upstream)) == {
        "succeeded"
    }
    assert engine.charge_count() == paid + 2, "the one that waited, and the one that had not arrived"


def test_restored_accounts_are_polled_immediately(engine: Engine, archive: Path, target_url: str) -> None:
    account = engine.add_account()
    job = engine.add_running_job(account)
    engine.sql("UPDATE accounts SET poll_due_at = now() + interval '1 hour'")
    back_up(engine, archive)
    restore_backup(archive, target_url)
    use_database(engine, target_url)
    engine.finish_upstream()
    engine.sql("UPDATE accounts SET polled_at = NULL")
    poll(account_id=account)
    assert engine.job_row(job).account_id == account


# --- files ---


def stored(engine: Engine) -> dict[str, bytes]:
    return {row.key: storage.read_file(row.key) for row in engine.sql("SELECT key FROM files")}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_files_are_restored_into_another_storage(
    engine: Engine, archive: Path, target_url: str, tmp_path: Path, s3: Bucket, kind: str
) -> None:
    s3.empty()
    if kind == "bucket":
        engine.configure(**s3.settings())
    engine.add_succeeded_job(engine.add_account(), count=2)
    before = stored(engine)
    manifest = back_up(engine, archive, with_files=True)
    assert manifest["files"] == {"count": 2, "bytes": sum(map(len, before.values())), "included": True, "missing": []}
    other = s3.settings("another/prefix") if kind == "folder" else {"STORAGE_URL": f"file://{tmp_path}/other"}
    engine.configure(**other)
    report = restore_backup(archive, target_url)
    assert (report.files, report.missing) == (2, [])
    assert stored(engine) == before


def test_missing_and_changed_files_are_reported(engine: Engine, archive: Path, target_url: str) -> None:
    job = engine.add_succeeded_job(engine.add_account(), count=3)
    deleted, changed, kept = (row.key for row in engine.files(job))
    back_up(engine, archive)
    size = len(storage.read_file(changed))
    storage.delete_file(deleted)
    storage.put_file(changed, io.BytesIO(b"x" * size))
    report = restore_backup(archive, target_url)
    assert report.missing == sorted([deleted, changed]) or set(report.missing) == {deleted, changed}
    assert report.files == 1
    assert storage.read_file(kept)


def test_backup_reports_missing_files(engine: Engine, archive: Path, target_url: str) -> None:
    job = engine.add_succeeded_job(engine.add_account(), count=2)
    deleted = engine.files(job)[0].key
    storage.delete_file(deleted)
    assert back_up(engine, archive, with_files=True)["files"]["missing"] == [deleted]
    assert restore_backup(archive, target_url).missing == [deleted]


# --- keys ---


def test_keys_are_encrypted_with_the_passphrase() -> None:
    locked = encrypt_keys({"master": "one,two"}, PASSPHRASE)
    assert b"one,two" not in locked
    assert decrypt_keys(locked, PASSPHRASE) == {"master": "one,two"}
    torn = locked.replace(b'"nonce": "', b'"nonce": "AAAA')
    for encrypted, passphrase in (
        (locked, PASSPHRASE + "!"),
        (torn, PASSPHRASE),
        (b"{}", PASSPHRASE),
        (b"", PASSPHRASE),
    ):
        with pytest.raises(WrongPassphraseError):
            decrypt_keys(encrypted, passphrase)


def test_keys_are_restored_only_where_missing(engine: Engine, archive: Path, tmp_path: Path) -> None:
    keys = {"master": "new key of the tests,old key of the tests", "admin": "sk-dreamery-an-admin"}
    back_up(engine, archive, keys=keys, passphrase=PASSPHRASE)
    with open_reader(archive) as reader:
        names = reader.manifest["master_key_ids"]
        assert len(names) == 2
        assert restore.restore_keys(reader, tmp_path / "a", {}, None) == names, "what is needed is named"
        with pytest.raises(StartError, match="passphrase"):
            restore.restore_keys(reader, tmp_path / "a", {}, "another passphrase")
        assert restore.restore_keys(reader, tmp_path / "a", {}, PASSPHRASE) == []
        file = tmp_path / "a" / "keys" / "master.key"
        assert file.read_text().strip() == keys["master"]
        assert file.stat().st_mode & 0o777 == 0o600
        present = {"master": "old key of the tests"}
        assert restore.restore_keys(reader, tmp_path / "b", present, PASSPHRASE) == names[:1], "existing keys stay"


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
    """Return a copy of this code with one more migration."""
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


def test_backup_and_restore_commands(
    engine: Engine, archive: Path, tmp_path: Path, make_database: Callable[[], str]
) -> None:
    job = engine.add_succeeded_job(engine.add_account())
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    locked = ("--with-keys", "--passphrase-file", str(tmp_path / "passphrase"))
    result = command(engine, "backup", str(archive), "--with-files", *locked, PATH="")  # needs no Postgres program
    assert result.returncode == 0, result.stderr
    assert "1 files (included)" in result.stdout
    assert get_settings().master_key.get_secret_value() not in result.stdout + result.stderr
    other = {"DREAMERY_DATABASE_URL": make_database(), "DREAMERY_STORAGE_URL": f"file://{tmp_path}/other"}
    result = command(engine, "restore", str(archive), "--json", root=newer_version(tmp_path / "later"), **other)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["files"] == 1
    with psycopg.connect(other["DREAMERY_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT from_later FROM jobs").fetchall() == [(7,)], "older backups are migrated"
    file = tmp_path / "other" / engine.files(job)[0].key
    file.write_bytes(b"changed")
    strange = {"DREAMERY_MASTER_KEY": "k" * 40, "DREAMERY_DATA_DIR": str(tmp_path / "c")}
    result = command(engine, "restore", str(archive), "--force", **other, **strange)
    assert result.returncode == 1, result.stderr
    assert f"Master key {master_key_ids()[0]} is missing" in result.stdout
    assert file.read_bytes() != b"changed", "bytes of the backup replace damaged ones"
    assert "now belongs to this platform" in command(engine, "take-storage", **other).stdout
