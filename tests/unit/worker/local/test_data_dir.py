"""The data folder: private, locked, and its keys kept."""

import os
import stat
from pathlib import Path

import pytest

from worker.local.data_dir import is_held, open_data_dir, write_private
from worker.local.processes import StartError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_keys_are_private_and_kept(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "a b" / "data")
    key = data.key("admin", prefix="sk-dreamery-")
    data.close()
    assert key.startswith("sk-dreamery-")
    assert len(key) > 50
    assert mode(data.path) == 0o700
    assert mode(data.path / "keys" / "admin.key") == 0o600
    again = open_data_dir(data.path)
    assert again.key("admin", prefix="sk-dreamery-") == key
    assert again.key("master") != key
    again.close()


def test_empty_key_file_counts_as_missing(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "data")
    (data.path / "keys").mkdir()
    (data.path / "keys" / "master.key").write_text("")
    assert data.key("master")
    data.close()


def test_second_supervisor_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "data")
    assert is_held(data.path)
    with pytest.raises(StartError, match=f"already runs on .*process {os.getpid()}.*--data-dir"):
        open_data_dir(data.path)
    data.close()
    assert not is_held(data.path)
    assert not is_held(tmp_path / "nowhere")
    open_data_dir(data.path).close()


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    before = mode(tmp_path)
    with pytest.raises(StartError, match="holds other files"):
        open_data_dir(tmp_path)
    assert mode(tmp_path) == before


def test_path_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StartError, match=r"Cannot use the data folder .*--data-dir"):
        open_data_dir(tmp_path / "file")


def test_write_private_replaces_whole_files(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    write_private(target, "one")
    (tmp_path / "secret.new").write_text("left by a crash")
    write_private(target, "two")
    assert target.read_text() == "two"
    assert mode(target) == 0o600
    assert list(tmp_path.iterdir()) == [target]
