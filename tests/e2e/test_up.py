"""`dreamery up`, the commands beside it and `dreamery demo`, as real processes on a real data folder."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from PIL import Image

from tests.support.platform import ROOT, clean_env, eventually, find_processes, free_port
from worker.core.media.video import inspect_video

CHILDREN = {"postgres", "redis", "sandbox", "api", "worker-1", "talker", "scheduler"}


@dataclass
class Up:
    """A running `dreamery up` and what it has printed."""

    process: subprocess.Popen[str]
    data: Path
    port: int
    printed: str = field(default="")

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return dreamery(*arguments, DREAMERY_DATA_DIR=str(self.data), **env)


def dreamery(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments],
        cwd=cwd, env=clean_env(**env), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@contextlib.contextmanager
def running_up(data: Path, *flags: str, port: int | None = None, **env: str) -> Iterator[Up]:
    port = port or free_port()
    command = [sys.executable, "-P", "-m", "api.cli.main", "up", "--data-dir", str(data), "--port", str(port), *flags]
    process = subprocess.Popen(
        command, cwd=data.parent, env=clean_env(**env), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        up = Up(process, data, port)
        assert process.stdout is not None
        for line in process.stdout:
            up.printed += line
            if "Ctrl-C stops everything" in line:
                break
        assert process.poll() is None, up.printed
        yield up
    finally:
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()
        eventually(lambda: find_processes(data) == [], what="the end of every process")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("a place") / "data") as running:
        yield running


def test_up_prints_what_a_newcomer_needs(up: Up) -> None:
    key = (up.data / "keys" / "admin.key").read_text().strip()
    assert f"http://127.0.0.1:{up.port}" in up.printed
    assert key.startswith("sk-dreamery-")
    assert key in up.printed
    assert "demo:sandbox" in up.printed
    assert re.search(r"Flower +http://127.0.0.1:\d+", up.printed)
    for folder in (up.data, up.data / "keys"):
        assert folder.stat().st_mode & 0o077 == 0


def test_printed_curl_makes_a_picture(up: Up, tmp_path: Path) -> None:
    curl = up.printed[up.printed.index("curl ") : up.printed.index("Ctrl-C stops")].strip()
    done = subprocess.run(
        ["sh", "-c", curl.replace("curl", "curl -sS", 1)], capture_output=True, text=True, check=False
    )
    if done.returncode == 127:
        pytest.skip("no curl on this machine")
    [item] = json.loads(done.stdout)["data"]
    with urllib.request.urlopen(item["url"], timeout=30) as answer:
        (tmp_path / "picture").write_bytes(answer.read())
    with Image.open(tmp_path / "picture") as picture:
        assert picture.size == (2048, 2048)


def test_generate_saves_what_it_says(up: Up, tmp_path: Path) -> None:
    done = up.command("generate", "a red boat", "--size", "1440x2560", "-n", "2", "--out", str(tmp_path / "my out"))
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert len(files) == 2
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (1440, 2560)
    assert sorted((tmp_path / "my out").iterdir()) == sorted(files)


def test_generate_tells_why_a_job_failed(up: Up, tmp_path: Path) -> None:
    done = up.command("generate", "[[fail:2038]] no", "--key", "demo:sandbox", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_generate_makes_a_video(up: Up, tmp_path: Path) -> None:
    done = up.command(
        "generate", "waves", "--video", "--size", "720x1280", "--key", "demo:sandbox", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    [file] = [Path(line) for line in done.stdout.splitlines()]
    assert file.suffix == ".mp4"
    with file.open("rb") as content:
        facts = inspect_video(content)
    assert (facts.width, facts.height, round(facts.milliseconds / 1000)) == (720, 1280, 5)


def test_jobs_list_shows_them(up: Up, tmp_path: Path) -> None:
    up.command("generate", "listed boat", "-n", "1", "--key", "demo:sandbox", "--out", str(tmp_path))
    table = up.command("jobs", "list", "--key", "demo:sandbox")
    assert table.returncode == 0, table.stderr
    listed = json.loads(up.command("jobs", "list", "--key", "demo:sandbox", "--status", "completed", "--json").stdout)
    assert any(job["input"]["prompt"] == "listed boat" for job in listed["data"])
    assert listed["data"][0]["id"] in table.stdout


def test_its_own_address_needs_no_key_and_another_gets_none_of_ours(up: Up) -> None:
    named = up.command("users", "list", "--url", f"http://127.0.0.1:{up.port}/", "--json")
    assert named.returncode == 0, named.stderr
    assert [user["name"] for user in json.loads(named.stdout)["data"]] == ["admin"]
    elsewhere = up.command("users", "list", "--url", f"http://localhost:{up.port}", "--json")
    assert elsewhere.returncode != 0


def test_doctor_is_content_with_it(up: Up) -> None:
    done = up.command("doctor", "--json")
    findings = {row["check"]: row for row in json.loads(done.stdout)["data"]}
    assert done.returncode == 0, findings
    assert {"settings", "database", "schema", "clock", "accounts", "redis", "workers", "disk"} <= set(findings)
    assert "worker-1@" in findings["workers"]["detail"]
    assert up.command("doctor").stdout.count("ok") >= 8


def test_migrate_finds_the_running_database(up: Up) -> None:
    done = up.command("migrate")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The schema is at ")


def test_flower_asks_for_the_admin_key(up: Up) -> None:
    found = re.search(r"Flower +(http://127.0.0.1:\d+)", up.printed)
    assert found
    key = (up.data / "keys" / "admin.key").read_text().strip()

    def status(password: str) -> int:
        opener = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        opener.add_password(None, found[1], "admin", password)
        try:
            with urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(opener)).open(
                found[1] + "/workers"
            ) as a:
                return int(a.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    eventually(lambda: status("wrong") == 401, what="Flower refuses a wrong password")
    assert status(key) == 200


def test_no_secret_is_on_any_command_line(up: Up) -> None:
    secrets = [file.read_text().strip() for file in (up.data / "keys").iterdir()]
    running = json.loads((up.data / "running.json").read_text())
    secrets.append(running["redis_url"].split(":")[2].split("@")[0])
    lines = [" ".join(process.cmdline()) for process in find_processes(up.data)]
    assert len(lines) >= len(CHILDREN)
    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_second_up_on_the_same_folder_is_refused(up: Up) -> None:
    done = dreamery("up", "--data-dir", str(up.data), "--port", str(free_port()))
    assert done.returncode == 1
    assert f"already runs on {up.data} (process {up.process.pid})" in done.stderr
    assert "Traceback" not in done.stderr


def test_taken_port_is_named_with_the_way_out(up: Up, tmp_path: Path) -> None:
    done = dreamery("up", "--data-dir", str(tmp_path / "data"), "--port", str(up.port))
    assert done.returncode == 1
    assert f"Port {up.port} on 127.0.0.1 is taken" in done.stderr
    assert f"--port {up.port + 1}" in done.stderr


def test_wrong_setting_is_named(tmp_path: Path) -> None:
    done = dreamery("up", "--data-dir", str(tmp_path / "data"), DREAMERY_POLL_MIN_SECONDS="often")
    assert done.returncode == 1
    assert "DREAMERY_POLL_MIN_SECONDS" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert dreamery("up", "--no-such-flag").returncode == 2
    assert dreamery("generate").returncode == 2


def test_every_command_has_help_with_an_example() -> None:
    for command in (["up"], ["demo"], ["migrate"], ["doctor"], ["generate"], ["jobs", "list"]):
        done = dreamery(*command, "--help")
        assert done.returncode == 0
        assert "Example: " in done.stdout, command


def test_doctor_without_a_platform_says_what_to_do(tmp_path: Path) -> None:
    done = dreamery("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "dreamery up" in done.stdout
    listed = json.loads(dreamery("doctor", "--settings", "--json", cwd=tmp_path, DREAMERY_ADMIN_KEY="hush").stdout)[
        "data"
    ]
    row = {r["name"]: r for r in listed}["DREAMERY_ADMIN_KEY"]
    assert row["value"] == "(set)"
    assert all(r["meaning"] for r in listed)


def test_generate_without_a_platform_says_what_to_do(tmp_path: Path) -> None:
    done = dreamery("generate", "x", "--url", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert done.returncode == 1
    assert "Start a platform with `dreamery up`" in done.stderr
    assert "Traceback" not in done.stderr


def stops_cleanly(up: Up, how: signal.Signals) -> None:
    up.process.send_signal(how)
    assert up.process.wait(timeout=30) == 0
    assert find_processes(up.data) == []
    assert not (up.data / "running.json").exists()


def children_of(up: Up) -> set[int]:
    """The processes that the supervisor itself started, without the dead. Postgres' are its own."""
    living = set()
    for child in psutil.Process(up.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended as it was looked at
            if child.status() != psutil.STATUS_ZOMBIE:
                living.add(child.pid)
    return living


def draws(up: Up, prompt: str, out: Path, **env: str) -> bool:
    done = up.command("generate", prompt, "-n", "1", "--key", "demo:sandbox", "--out", str(out), **env)
    return done.returncode == 0


def test_kill_9_of_anything_leaves_no_process_and_loses_nothing(tmp_path: Path) -> None:
    """First the supervisor, then, started again, each of its children; what is left ends cleanly with Ctrl-C."""
    data, out = tmp_path / "data", tmp_path / "out"
    with running_up(data, "--no-flower") as up:
        assert draws(up, "kept boat", out)
        key = (data / "keys" / "admin.key").read_text()
        up.process.kill()
        up.process.wait()
        eventually(lambda: find_processes(data) == [], within=30, what="the end of every process")
    with running_up(data, "--no-flower", port=up.port) as again:
        assert (data / "keys" / "admin.key").read_text() == key
        listed = json.loads(again.command("jobs", "list", "--key", "demo:sandbox", "--json").stdout)
        assert [job["input"]["prompt"] for job in listed["data"]] == ["kept boat"]
        killed = children_of(again)
        assert len(killed) == len(CHILDREN), killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(children_of(again) - killed) == len(CHILDREN), what="each is replaced")
        eventually(lambda: draws(again, "another boat", out), within=60, what="a picture after all were killed")
        stops_cleanly(again, signal.SIGINT)
        assert "database system is shut down" in (data / "logs" / "postgres.log").read_text()


def test_external_servers_are_used_when_set_and_left_alone(
    tmp_path: Path, postgres_url: str, redis_url: str, database_url: str
) -> None:
    env = {"DREAMERY_DATABASE_URL": database_url, "DREAMERY_REDIS_URL": redis_url}
    with running_up(tmp_path / "data", "--no-flower", **env) as up:
        names = {file.stem for file in (up.data / "logs").iterdir()}
        assert names.isdisjoint({"postgres", "redis"})
        assert draws(up, "boat", tmp_path / "out", **env)
        stops_cleanly(up, signal.SIGTERM)
    with psycopg.connect(database_url) as connection, redis.Redis.from_url(redis_url) as client:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
        assert client.ping()


@contextlib.contextmanager
def taken_ports(*ports: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for port in ports:
            with contextlib.suppress(OSError):  # taken by something else on this machine: as good
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.mark.parametrize("moment", ["postgres.log", "worker-1.log"])
def test_demo_ends_with_the_make_that_started_it(tmp_path: Path, moment: str) -> None:
    """As `make demo`: killed with -9 at an early and at a late moment, it takes everything with it."""
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-P", "-m", "api.cli.main", "demo", "--die-with-parent", "--out", str(tmp_path / "out")]
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command],
        cwd=ROOT, env=clean_env(TMPDIR=str(tmp_path / "tmp")), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: list((tmp_path / "tmp").glob(f"*/logs/{moment}")), what=moment)
    [child] = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    eventually(lambda: not child.is_running() and find_processes(tmp_path) == [], within=30, what="the end of the demo")
    assert list((tmp_path / "tmp").iterdir()) == [], "its data folder is gone too"


def test_demo_killed_with_9_leaves_nothing_running_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    """The next one also finds every usual port taken, and a database of somebody else in its surroundings."""
    temporary = tmp_path / "tmp dir"
    temporary.mkdir()
    command = [sys.executable, "-P", "-m", "api.cli.main", "demo", "--out", str(tmp_path / "out")]
    env = clean_env(TMPDIR=str(temporary))
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        eventually(lambda: list(temporary.glob("*/logs/worker-1.log")))
        os.kill(demo.pid, signal.SIGKILL)
    eventually(lambda: find_processes(tmp_path) == [], within=30, what="the end of every process")
    assert list(temporary.iterdir()) != []
    with taken_ports(8000, 5432, 6379, 5555):
        done = dreamery(
            "demo", "--out", str(tmp_path / "out"), TMPDIR=str(temporary), DREAMERY_DATABASE_URL="postgresql://x/y"
        )
    assert done.returncode == 0, done.stdout + done.stderr
    made = list((tmp_path / "out").iterdir())
    assert sorted(file.suffix == ".mp4" for file in made) == [False, False, False, False, True]
    assert "Done — 完成" in done.stdout, "what the agent says"
    assert all(str(file) in done.stdout for file in made)
    assert list(temporary.iterdir()) == [], "the next demo removes what the killed one left"
    assert find_processes(temporary) == []
