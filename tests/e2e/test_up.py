"""`dreamery up`, related commands and `dreamery demo`, as real processes on a real data folder."""

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
from typer.testing import CliRunner

from api.cli.main import app
from tests.support.platform import ROOT, clean_env, eventually, find_processes, free_port
from worker.core.media.video import inspect_video

CHILDREN = {"postgres", "redis", "api", "worker-1"}  # Flower and the sandbox start when they are used


@dataclass
class RunningUp:
    """A running `dreamery up` and its output."""

    process: subprocess.Popen[str]
    data: Path
    port: int
    output: str = field(default="")

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return dreamery(*arguments, DREAMERY_DATA_DIR=str(self.data), **env)


def dreamery(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments],
        cwd=cwd, env=clean_env(**env), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@contextlib.contextmanager
def running_up(data: Path, *flags: str, port: int | None = None, **env: str) -> Iterator[RunningUp]:
    port = port or free_port()
    command = [sys.executable, "-P", "-m", "api.cli.main", "up", "--data-dir", str(data), "--port", str(port), *flags]
    process = subprocess.Popen(
        command, cwd=data.parent, env=clean_env(**env), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        up = RunningUp(process, data, port)
        assert process.stdout is not None
        for line in process.stdout:
            up.output += line
            if "Ctrl-C stops everything" in line:
                break
        assert process.poll() is None, up.output
        yield up
    finally:
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()
        eventually(lambda: find_processes(data) == [], what="the end of every process")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUp]:
    with running_up(tmp_path_factory.mktemp("folder with spaces") / "data") as running:
        yield running


def test_up_prints_addresses_and_key(up: RunningUp) -> None:
    key = (up.data / "keys" / "admin.key").read_text().strip()
    assert f"http://127.0.0.1:{up.port}" in up.output
    assert key.startswith("sk-dreamery-")
    assert key in up.output
    assert "demo:sandbox and ark-demo:sandbox" in up.output
    assert re.search(r"Flower +http://127.0.0.1:\d+", up.output)
    for folder in (up.data, up.data / "keys"):
        assert folder.stat().st_mode & 0o077 == 0


def test_up_never_prints_a_given_secret(tmp_path: Path) -> None:
    """Neither from the environment nor from a file `.env`, in production or not; nor does an error show one."""
    given = {
        "DREAMERY_MASTER_KEY": "q8Zt0sJ1nVw4Xc7Lr2Hy6Kd9Gm3Bf5Pa",
        "DREAMERY_METRICS_TOKEN": "Kx7Qm2Vt9Zr4Lw8Yn5Hc",
    }
    admin_key = "u7Re2Wn9Yk4Td1Vs6Qj3Xb8Zm5Lg0HcE"
    (tmp_path / ".env").write_text(f"DREAMERY_ADMIN_KEY={admin_key}\n")
    command = [sys.executable, "-P", "-m", "api.cli.main", "up", "--no-flower", "--profile", "small"]
    for env in ("production", "development"):
        port = free_port()
        process = subprocess.Popen(
            [*command, "--data-dir", str(tmp_path / env), "--port", str(port)],
            cwd=tmp_path, env=clean_env(DREAMERY_ENV=env, **given), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output = ""
        try:
            assert process.stdout is not None
            for line in process.stdout:
                output += line
                if "Ctrl-C stops everything" in line:
                    break
            assert "as given in DREAMERY_ADMIN_KEY" in output, output
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models")
            request.add_header("Authorization", f"Bearer {admin_key}")
            with urllib.request.urlopen(request, timeout=30) as response:
                assert response.status == 200
            assert ("demo:sandbox" in output) == (env == "development"), "a key that production refuses is not offered"
        finally:
            process.terminate()
            output += process.communicate()[0]
            eventually(lambda env=env: find_processes(tmp_path / env) == [], what="the end of every process")
        for secret in (admin_key, *given.values()):
            assert secret not in output


def command_lines(up: RunningUp) -> list[str]:
    return [" ".join(process.cmdline()) for process in find_processes(up.data)]


def test_flower_and_sandbox_start_at_their_first_connection(tmp_path: Path) -> None:
    """Nothing that an operator or a monitor looks at starts them. Also: a chosen profile."""
    with running_up(tmp_path / "data", "--profile", "small") as up:
        assert "Profile    small " in up.output
        for path in ("/healthz", "/readyz", "/metrics", "/console"):
            with urllib.request.urlopen(f"http://127.0.0.1:{up.port}{path}", timeout=30) as response:
                assert response.status == 200
        assert up.command("doctor").returncode == 0
        assert up.command("health", "scheduler").returncode == up.command("health", "worker").returncode == 0
        assert not [line for line in command_lines(up) if "worker.sandbox" in line or " flower " in line]
        flower = re.search(r"Flower +http://127.0.0.1:(\d+)", up.output)
        assert flower
        with socket.create_connection(("127.0.0.1", int(flower[1])), timeout=60) as client:
            client.sendall(b"GET /workers HTTP/1.1\r\nHost: flower\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 401"), "the first request waits for Flower and is answered"
        assert [line for line in command_lines(up) if " flower " in line]
        assert not [line for line in command_lines(up) if "worker.sandbox" in line]
        assert generate_succeeds(up, "a boat", tmp_path / "out")
        [sandbox] = [process for process in find_processes(up.data) if "worker.sandbox" in process.cmdline()]
        sandbox.kill()
        assert generate_succeeds(up, "another boat", tmp_path / "out"), "a crashed sandbox is restarted"
        assert_stops_cleanly(up, signal.SIGTERM)


def test_banner_shows_the_profile(up: RunningUp) -> None:
    assert re.search(r"Profile +(small|standard)  \([\d,]+ MB of memory available", up.output)


def test_printed_curl_command_works(up: RunningUp, tmp_path: Path) -> None:
    curl = up.output[up.output.index("curl ") : up.output.index("Ctrl-C stops")].strip()
    result = subprocess.run(
        ["sh", "-c", curl.replace("curl", "curl -sS", 1)], capture_output=True, text=True, check=False
    )
    if result.returncode == 127:
        pytest.skip("curl is not installed")
    [item] = json.loads(result.stdout)["data"]
    with urllib.request.urlopen(item["url"], timeout=30) as response:
        (tmp_path / "image").write_bytes(response.read())
    with Image.open(tmp_path / "image") as image:
        assert image.size == (2048, 2048)


def test_generate_saves_the_printed_files(up: RunningUp, tmp_path: Path) -> None:
    result = up.command("generate", "a red boat", "--size", "1440x2560", "-n", "2", "--out", str(tmp_path / "my out"))
    assert result.returncode == 0, result.stderr
    files = [Path(line) for line in result.stdout.splitlines()]
    assert len(files) == 2
    for file in files:
        with Image.open(file) as image:
            assert image.size == (1440, 2560)
    assert sorted((tmp_path / "my out").iterdir()) == sorted(files)


def test_generate_prints_why_a_job_failed(up: RunningUp, tmp_path: Path) -> None:
    result = up.command("generate", "[[fail:2038]] no", "--key", "demo:sandbox", "--out", str(tmp_path))
    assert result.returncode == 1
    assert "failed: " in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_generate_video(up: RunningUp, tmp_path: Path) -> None:
    result = up.command(
        "generate", "waves", "--video", "--size", "720x1280", "--key", "demo:sandbox", "--out", str(tmp_path)
    )
    assert result.returncode == 0, result.stderr
    [file] = [Path(line) for line in result.stdout.splitlines()]
    assert file.suffix == ".mp4"
    with file.open("rb") as content:
        facts = inspect_video(content)
    assert (facts.width, facts.height, round(facts.milliseconds / 1000)) == (720, 1280, 5)


def test_jobs_list(up: RunningUp, tmp_path: Path) -> None:
    up.command("generate", "listed boat", "-n", "1", "--key", "demo:sandbox", "--out", str(tmp_path))
    table = up.command("jobs", "list", "--key", "demo:sandbox")
    assert table.returncode == 0, table.stderr
    listed = json.loads(up.command("jobs", "list", "--key", "demo:sandbox", "--status", "completed", "--json").stdout)
    assert any(job["input"]["prompt"] == "listed boat" for job in listed["data"])
    assert listed["data"][0]["id"][-8:] in table.stdout


def test_admin_key_is_used_only_for_the_own_address(up: RunningUp) -> None:
    own = up.command("users", "list", "--url", f"http://127.0.0.1:{up.port}/", "--json")
    assert own.returncode == 0, own.stderr
    assert [user["name"] for user in json.loads(own.stdout)["data"]] == ["admin"]
    elsewhere = up.command("users", "list", "--url", f"http://localhost:{up.port}", "--json")
    assert elsewhere.returncode != 0


def test_doctor_passes(up: RunningUp) -> None:
    result = up.command("doctor", "--json")
    findings = {row["check"]: row for row in json.loads(result.stdout)["data"]}
    assert result.returncode == 0, findings
    assert {"settings", "database", "schema", "clock", "accounts", "redis", "scheduler", "workers", "disk"} <= set(
        findings
    )
    assert "worker-1@" in findings["workers"]["detail"]
    assert up.command("doctor").stdout.count("ok") >= 8


def test_migrate_finds_the_running_database(up: RunningUp) -> None:
    result = up.command("migrate")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The schema is at ")


def test_flower_requires_admin_key(up: RunningUp) -> None:
    flower = re.search(r"Flower +(http://127.0.0.1:\d+)", up.output)
    assert flower
    key = (up.data / "keys" / "admin.key").read_text().strip()

    def status(password: str) -> int:
        opener = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        opener.add_password(None, flower[1], "admin", password)
        try:
            with urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(opener)).open(
                flower[1] + "/workers"
            ) as a:
                return int(a.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    eventually(lambda: status("wrong") == 401, what="Flower refuses a wrong password")
    assert status(key) == 200


def test_no_secret_in_command_lines(up: RunningUp) -> None:
    secrets = [file.read_text().strip() for file in (up.data / "keys").iterdir()]
    running = json.loads((up.data / "running.json").read_text())
    secrets.append(running["redis_url"].split(":")[2].split("@")[0])
    lines = [" ".join(process.cmdline()) for process in find_processes(up.data)]
    assert len(lines) >= len(CHILDREN)
    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_second_up_on_the_same_folder_fails(up: RunningUp) -> None:
    result = dreamery("up", "--data-dir", str(up.data), "--port", str(free_port()))
    assert result.returncode == 1
    assert f"already runs on {up.data} (process {up.process.pid})" in result.stderr
    assert "Traceback" not in result.stderr


def test_taken_port_error_suggests_another_port(up: RunningUp, tmp_path: Path) -> None:
    result = dreamery("up", "--data-dir", str(tmp_path / "data"), "--port", str(up.port))
    assert result.returncode == 1
    assert f"Port {up.port} on 127.0.0.1 is used by another program" in result.stderr
    assert f"--port {up.port + 1}" in result.stderr


def test_invalid_setting_is_named(tmp_path: Path) -> None:
    result = dreamery("up", "--data-dir", str(tmp_path / "data"), DREAMERY_POLL_MIN_SECONDS="often")
    assert result.returncode == 1
    assert "DREAMERY_POLL_MIN_SECONDS" in result.stderr
    assert "Traceback" not in result.stderr


def test_invalid_usage_exits_with_code_2() -> None:
    assert dreamery("up", "--no-such-flag").returncode == 2
    assert dreamery("generate").returncode == 2


def test_every_command_has_help_with_an_example() -> None:
    for command in (["up"], ["demo"], ["migrate"], ["doctor"], ["generate"], ["jobs", "list"]):
        # In this process, because starting Python takes too long.
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        assert "Example: " in result.stdout, command


def test_doctor_without_platform_suggests_up(tmp_path: Path) -> None:
    result = dreamery("doctor", cwd=tmp_path)
    assert result.returncode == 1
    assert "FAIL" in result.stdout
    assert "dreamery up" in result.stdout
    listed = json.loads(dreamery("doctor", "--settings", "--json", cwd=tmp_path, DREAMERY_ADMIN_KEY="hush").stdout)[
        "data"
    ]
    row = {r["name"]: r for r in listed}["DREAMERY_ADMIN_KEY"]
    assert row["value"] == "(set)"
    assert all(r["meaning"] for r in listed)


def test_generate_without_platform_suggests_up(tmp_path: Path) -> None:
    result = dreamery("generate", "x", "--url", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert result.returncode == 1
    assert "Start a platform with `dreamery up`" in result.stderr
    assert "Traceback" not in result.stderr


def assert_stops_cleanly(up: RunningUp, stop_signal: signal.Signals) -> None:
    up.process.send_signal(stop_signal)
    assert up.process.wait(timeout=30) == 0
    assert find_processes(up.data) == []
    assert not (up.data / "running.json").exists()


def children_of(up: RunningUp) -> set[int]:
    """The living child processes of the supervisor, without their own children (Postgres)."""
    alive = set()
    for child in psutil.Process(up.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if child.status() != psutil.STATUS_ZOMBIE:
                alive.add(child.pid)
    return alive


def generate_succeeds(up: RunningUp, prompt: str, out: Path, **env: str) -> bool:
    result = up.command("generate", prompt, "-n", "1", "--key", "demo:sandbox", "--out", str(out), **env)
    return result.returncode == 0


def test_sigkill_of_any_process_leaves_no_orphan_and_loses_no_data(tmp_path: Path) -> None:
    """Kill the supervisor, restart it, kill each of its children, and stop the rest with Ctrl-C."""
    data, out = tmp_path / "data", tmp_path / "out"
    with running_up(data, "--no-flower") as up:
        assert generate_succeeds(up, "kept boat", out)
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
        eventually(lambda: len(children_of(again) - killed) == len(CHILDREN), what="every process is replaced")
        eventually(
            lambda: generate_succeeds(again, "another boat", out),
            within=60,
            what="an image after all processes were killed",
        )
        assert_stops_cleanly(again, signal.SIGINT)
        assert "database system is shut down" in (data / "logs" / "postgres.log").read_text()


def test_external_servers_are_used_and_not_stopped(
    tmp_path: Path, postgres_url: str, redis_url: str, database_url: str
) -> None:
    env = {"DREAMERY_DATABASE_URL": database_url, "DREAMERY_REDIS_URL": redis_url}
    with running_up(tmp_path / "data", "--no-flower", **env) as up:
        names = {file.stem for file in (up.data / "logs").iterdir()}
        assert names.isdisjoint({"postgres", "redis"})
        assert generate_succeeds(up, "boat", tmp_path / "out", **env)
        assert_stops_cleanly(up, signal.SIGTERM)
    with psycopg.connect(database_url) as connection, redis.Redis.from_url(redis_url) as client:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
        assert client.ping()


@contextlib.contextmanager
def taken_ports(*ports: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for port in ports:
            with contextlib.suppress(OSError):  # another process already uses the port
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.mark.parametrize("log_file", ["postgres.log", "worker-1.log"])
def test_demo_ends_with_its_parent_process(tmp_path: Path, log_file: str) -> None:
    """As with `make demo`: the parent is killed with SIGKILL early or late, and everything ends with it."""
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-P", "-m", "api.cli.main", "demo", "--die-with-parent", "--out", str(tmp_path / "out")]
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command],
        cwd=ROOT, env=clean_env(TMPDIR=str(tmp_path / "tmp")), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: list((tmp_path / "tmp").glob(f"*/logs/{log_file}")), what=log_file)
    [child] = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    eventually(lambda: not child.is_running() and find_processes(tmp_path) == [], within=30, what="the end of the demo")
    assert list((tmp_path / "tmp").iterdir()) == [], "its data folder is deleted too"


def test_killed_demo_is_cleaned_up_by_the_next_demo(tmp_path: Path) -> None:
    """For the next demo, all default ports are taken and the environment names another database."""
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
        result = dreamery(
            "demo", "--out", str(tmp_path / "out"), TMPDIR=str(temporary), DREAMERY_DATABASE_URL="postgresql://x/y"
        )
    assert result.returncode == 0, result.stdout + result.stderr
    files = list((tmp_path / "out").iterdir())
    assert sorted(file.suffix == ".mp4" for file in files) == [False] * 5 + [True] * 2
    assert "Done — 完成" in result.stdout, "the agent's answer"
    assert all(str(file) in result.stdout for file in files)
    assert list(temporary.iterdir()) == [], "the next demo deletes the data of the killed one"
    assert find_processes(temporary) == []
