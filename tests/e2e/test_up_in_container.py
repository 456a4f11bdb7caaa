"""`dreamery up --container` as a process; `make image-test` runs it in the image."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.platform import ROOT, clean_env, eventually, find_processes, free_port


def start_and_stop(data: Path, port: int) -> str:
    """Return the output of one run, from its start to its end after SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "api.cli.main", "up", "--container", "--data-dir", str(data), "--profile", "small"],
        cwd=data.parent, env=clean_env(PORT=str(port)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if "Ctrl-C stops everything" in line:
                health = subprocess.run(
                    [sys.executable, "-P", "-m", "api.cli.main", "health", "api"],
                    cwd=ROOT, env=clean_env(DREAMERY_DATA_DIR=str(data)), capture_output=True, text=True, check=False,
                )  # fmt: skip
                output += health.stdout + health.stderr
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, output
    finally:
        process.kill()
        process.communicate()
        eventually(lambda: find_processes(data) == [], what="the end of every process")
    return output


def test_container_prints_its_key_once_and_uses_the_port_of_the_host(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first, second = (start_and_stop(data, free_port()) for _ in range(2))
    key = (data / "keys" / "admin.key").read_text().strip()
    assert key in first
    assert key not in second
    assert "keys/admin.key" in second
    for output in (first, second):
        assert "the API answers" in output
        assert "Flower  " not in output, "its address inside the container leads nowhere"
        assert re.search(r"^Stopped\.$", output, re.MULTILINE)
        assert "database system is ready to accept connections" in output, "logs of the processes are in the output"
    assert sorted(file.name for file in (data / "logs").iterdir()) == ["migrate.log", "postgres.log"]
