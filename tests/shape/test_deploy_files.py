"""Docker, compose, environment template, lock files and Makefile agree with each other and with the code."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"migrate", "api", "worker", "talker", "beat", "flower", "sandbox"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def dockerfile() -> str:
    return re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())


def test_services_are_those_of_the_architecture(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == ROLES | {"postgres", "redis"}
    assert {name for name, service in compose["services"].items() if service.get("profiles")} == {"sandbox"}


def test_commands_name_modules_that_exist(compose: dict[str, Any]) -> None:
    for role in ROLES:
        command = compose["services"][role]["command"]
        assert command[:2] == ["python", "-m"], role
        targets = [command[2], *re.findall(r"(?:^| )([a-z_.]+):[a-z_]+(?: |$)", " ".join(command))]
        for target in targets:
            assert importlib.util.find_spec(target), f"{role}: {target}"


def test_worker_takes_the_queues_of_the_supervisor(compose: dict[str, Any]) -> None:
    from worker.local.supervisor import QUEUES, TALK_QUEUES

    command = compose["services"]["worker"]["command"]
    assert command[command.index("-Q") + 1] == QUEUES
    command = compose["services"]["talker"]["command"]
    assert command[command.index("-Q") + 1] == TALK_QUEUES
    assert command[command.index("-c") + 1] == str(Settings.model_fields["talk_concurrency"].default)


def test_everybody_waits_for_the_migration(compose: dict[str, Any]) -> None:
    for role in ROLES - {"migrate", "sandbox"}:
        waits = compose["services"][role]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        assert waits["postgres"]["condition"] == waits["redis"]["condition"] == "service_healthy"
    for server in ("postgres", "redis"):
        assert compose["services"][server]["healthcheck"]["test"]


def test_services_restart_and_the_migration_does_not(compose: dict[str, Any]) -> None:
    policies = {name: service["restart"] for name, service in compose["services"].items()}
    assert policies.pop("migrate") == "no"
    assert set(policies.values()) == {"unless-stopped"}


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    images += [name for name in re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE) if name != "build"]
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, f"{image} has no tag"
        assert tag != "latest"
        assert re.search(r"\d", tag), image


def test_named_volumes_are_declared_and_used(compose: dict[str, Any]) -> None:
    used = {v.split(":")[0] for service in compose["services"].values() for v in service.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_secrets_are_required_and_explained(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    template = (ROOT / ".env.example").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "DREAMERY_MASTER_KEY", "DREAMERY_ADMIN_KEY"}
    for name in re.findall(r"\$\{(\w+):", text):
        if name not in {"DREAMERY_UPSTREAM_ORIGIN", "DREAMERY_STORAGE_URL", "DREAMERY_LOG_LEVEL"}:
            assert re.search(rf"^#?{name}=", template, re.MULTILINE), f"{name} is missing in .env.example"
    for name in required:
        assert re.search(rf"^{name}=$", template, re.MULTILINE), f"{name} must have no default"


def test_settings_named_for_containers_exist(compose: dict[str, Any]) -> None:
    known = {f"DREAMERY_{name.upper()}" for name in Settings.model_fields}
    in_services = {
        n for s in compose["services"].values() for n in s.get("environment", {}) if n.startswith("DREAMERY_")
    }
    in_image = set(re.findall(r"(DREAMERY_\w+)=", dockerfile()))
    assert in_services | in_image <= known


def test_no_server_is_open_to_the_network_by_default(compose: dict[str, Any]) -> None:
    assert "ports" not in compose["services"]["postgres"]
    assert "ports" not in compose["services"]["redis"]
    for role in ("api", "flower"):
        for port in compose["services"][role]["ports"]:
            assert port.startswith(("127.0.0.1:", "${DREAMERY_BIND:-127.0.0.1}:"))


def test_image_copies_what_exists_and_what_the_build_may_see() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE):
        sources |= {source.removeprefix("./") for source in line.split()[:-1]}
    assert sources == allowed
    for source in sources:
        assert (ROOT / source).exists(), source


def test_image_runs_as_an_ordinary_user_with_the_api_of_compose(compose: dict[str, Any]) -> None:
    last_stage = dockerfile().rpartition("\nFROM ")[2]
    user = re.search(r"^USER (\S+)", last_stage, re.MULTILINE)
    assert user
    assert user[1] not in {"root", "0"}
    command = re.search(r"^CMD (\[.+\])$", last_stage, re.MULTILINE)
    assert command
    assert json.loads(command[1]) == compose["services"]["api"]["command"]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_pin_with_hashes_only(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|file:|^-e |^--(?!hash)", text, re.MULTILINE)
    entries = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]
    assert len(entries) > 30
    for entry in entries:
        assert re.match(r"[a-z0-9.\-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_make_help_lists_every_target_of_the_contract() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = "help setup demo up test test-unit test-integration test-e2e lint fmt bench revision lock"
    for target in wanted.split():
        assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE), target


def test_gate_runs_make_test() -> None:
    gate = ROOT / ".ci" / "run"
    assert gate.stat().st_mode & 0o111
    assert gate.read_text().rstrip().endswith("exec make test")
