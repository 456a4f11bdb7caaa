"""The data folder: private, locked, with persistent keys."""

import os
import stat
from pathlib import Path

import pytest

from worker.local.data_dir import is_locked, open_data_dir, write_private
from worker.local.processes import StartError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_keys_are_private_and_persistent(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "a b" / "data")
    key = data.key("admin", prefix="sk-dreamery-")
    data.close()
    assert key.startswith("sk-dreamery-")
    assert len(key) > 50
    assert mode(data.path) == 0o700
    assert mode(data.path / "keys" / "admin.key") == 0o600
    reopened = open_data_dir(data.path)
    assert reopened.key("admin", prefix="sk-dreamery-") == key
    assert reopened.key("master") != key
    reopened.close()


def test_empty_key_file_counts_as_missing(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "data")
    (data.path / "keys").mkdir()
    (data.path / "keys" / "master.key").write_text("")
    assert data.key("master")
    data.close()


def test_second_supervisor_is_refused_with_the_process_id(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "data")
    assert is_locked(data.path)
    with pytest.raises(StartError, match=f"already runs on .*process {os.getpid()}.*--data-dir"):
        open_data_dir(data.path)
    data.close()
    assert not is_locked(data.path)
    assert not is_locked(tmp_path / "nowhere")
    open_data_dir(data.path).close()


def test_foreign_folder_is_refused_unchanged(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    before = mode(tmp_path)
    with pytest.raises(StartError, match="contains other files"):
        open_data_dir(tmp_path)
    assert mode(tmp_path) == before


def test_path_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StartError, match=r"Cannot use the data folder .*--data-dir"):
        open_data_dir(tmp_path / "file")


def test_write_private_replaces_files_atomically(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    write_private(target, "one")
    (tmp_path / "secret.new").write_text("left by a crash")
    write_private(target, "two")
    assert target.read_text() == "two"
    assert mode(target) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_root_of_a_mounted_disk_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_data_dir(tmp_path).close()
    assert mode(tmp_path) == 0o700


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    first = open_data_dir(tmp_path / "data", own_tmp=True)
    (first.path / "tmp" / "left").write_text("half a video")
    (first.path / "files").mkdir()
    first.close()
    open_data_dir(first.path, own_tmp=True).close()
    assert list((first.path / "tmp").iterdir()) == []
    assert mode(first.path / "tmp") == 0o700
    assert (first.path / "files").is_dir()
