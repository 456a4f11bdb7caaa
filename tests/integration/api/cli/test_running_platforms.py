"""Two platforms on one machine, and the key that commands use."""

import contextlib
import re
import socket
from pathlib import Path

from tests.e2e.test_up import RunningUp, dreamery, running_up, taken_ports

ADMIN_KEY = "sk-dreamery-a-key-from-the-environment-of-up"


def flower_port(up: RunningUp) -> int:
    found = re.search(r"Flower +http://127.0.0.1:(\d+)", up.output)
    assert found, up.output
    return int(found[1])


def title_of_flower(port: int) -> str:
    """Ask a Flower without its password: it answers 401, and starts if it does not run yet."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /workers HTTP/1.1\r\nHost: flower\r\nConnection: close\r\n\r\n")
        return client.recv(100).split(b"\r\n")[0].decode()


def test_each_platform_has_its_own_flower_and_commands_name_their_key(tmp_path: Path) -> None:
    first_folder, second_folder = tmp_path / "first", tmp_path / "second"
    first_folder.mkdir()
    second_folder.mkdir()
    with contextlib.ExitStack() as stack:
        stack.enter_context(taken_ports(5555))
        first = stack.enter_context(running_up(first_folder / "data", DREAMERY_ADMIN_KEY=ADMIN_KEY))
        second = stack.enter_context(running_up(second_folder / "data"))
        ports = [flower_port(first), flower_port(second)]
        assert len({5555, *ports}) == 3
        assert [title_of_flower(port).split()[1] for port in ports] == ["401", "401"]

        # The second has a key of its own in its folder, the first was given one that is not stored.
        assert second.command("users", "list").returncode == 0
        refused = first.command("users", "list")
        assert refused.returncode == 1
        assert "It used the key of the sandbox" in refused.stderr
        assert "--key or DREAMERY_ADMIN_KEY" in refused.stderr
        assert first.command("users", "list", DREAMERY_ADMIN_KEY=ADMIN_KEY).returncode == 0

        # A key in the folder that the running platform does not know.
        keys = first_folder / "data" / "keys"
        keys.mkdir(exist_ok=True)
        (keys / "admin.key").write_text("sk-dreamery-of-an-earlier-start\n")
        refused = first.command("users", "list")
        assert f"It used the key in {keys / 'admin.key'}" in " ".join(refused.stderr.split())

        # A key that the user gave needs no explanation.
        wrong = first.command("users", "list", "--key", "sk-dreamery-wrong")
        assert wrong.returncode == 1
        assert "It used" not in wrong.stderr


def test_misspelled_settings_are_reported_by_commands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DREAMERY_ADMIN_KY=x\n")
    env = {"DREAMERY_DATA_DIR": str(tmp_path / "data"), "DREAMERY_API_PROT": "1"}
    doctor = dreamery("doctor", cwd=tmp_path, **env)
    assert "did you mean DREAMERY_ADMIN_KEY?" in doctor.stdout
    assert "did you mean DREAMERY_API_PORT?" in doctor.stdout
    migrated = dreamery("migrate", cwd=tmp_path, DREAMERY_DATABASE_URL="db/dreamery", **env)
    assert migrated.returncode == 1
    assert "Error: DREAMERY_DATABASE_URL cannot be used: it has no scheme" in migrated.stderr
    assert "Warning: DREAMERY_API_PROT" in migrated.stderr
    up = dreamery("up", cwd=tmp_path, DREAMERY_REDIS_URL="sentinel://a:26379", **env)
    assert up.returncode == 1
    assert "Error: DREAMERY_REDIS_URL cannot be used: " in up.stderr
    assert "which primary the Sentinels watch" in up.stderr
    assert "Warning: DREAMERY_API_PROT" in up.stderr


def test_doctor_names_wrong_urls(tmp_path: Path) -> None:
    doctor = dreamery(
        "doctor", cwd=tmp_path, DREAMERY_DATABASE_URL="postgresql://u:a@b@db/x", DREAMERY_REDIS_URL="redis:6379",
        DREAMERY_STORAGE_URL="/srv", DREAMERY_DATA_DIR=str(tmp_path / "data"),
    )  # fmt: skip
    assert doctor.returncode == 1
    text = " ".join(doctor.stdout.split())
    assert "DREAMERY_DATABASE_URL cannot be used: percent-encode" in text
    for name in ("REDIS", "STORAGE"):
        assert f"DREAMERY_{name}_URL cannot be used: it has no scheme" in text
