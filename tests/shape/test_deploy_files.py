"""Docker, compose, environment template, lock files and Makefile agree with each other and with the code."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from api.cli.main import app as cli
from worker.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"migrate", "api", "worker", "talker", "scheduler", "flower", "sandbox"}
MONITORING = {"prometheus", "grafana"}
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def dockerfile() -> str:
    return re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())


def stages() -> dict[str, dict[str, str]]:
    """What each stage of the Dockerfile sets itself, by the name of the stage; CMD and HEALTHCHECK as JSON lists."""
    found: dict[str, dict[str, str]] = {}
    for text in re.split(r"^FROM ", dockerfile(), flags=re.MULTILINE)[1:]:
        name = text.partition("\n")[0].split()[-1]
        check = re.search(r"^HEALTHCHECK .*CMD (\[.+\])$", text, re.MULTILINE)
        words = dict(re.findall(r"^(USER|CMD|ENTRYPOINT) (.+)$", text, re.MULTILINE))
        found[name] = {**words, **({"HEALTHCHECK": check[1]} if check else {})}
    return found


def run_checker(*command: str | Path) -> None:
    """Run a checker; its output is the message of the failed test."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_matches_its_specification() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    run_checker(TOOLS / "check-jsonschema", *schema, "docker-compose.yml", "compose.small.yml")


def test_small_compose_is_the_single_container() -> None:
    text = (ROOT / "compose.small.yml").read_text()
    content = yaml.safe_load(text)
    for name in re.findall(r"\$\{(\w+):", text):
        assert re.search(rf"^#?{name}=", (ROOT / ".env.example").read_text(), re.MULTILINE), name
    (service,) = content["services"].values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"] == ["dreamery:/data"]
    assert set(content["volumes"]) == {"dreamery"}
    # The image's own command and stage: nothing to keep in step here.
    assert not {"command", "entrypoint"} & set(service)
    assert service["build"] == "."
    stage = stages()["single"]
    assert ["CMD", *json.loads(stage["HEALTHCHECK"])] == service["healthcheck"]["test"]
    assert json.loads(stage["CMD"]) == ["dreamery", "up", "--container"]
    known = {f"DREAMERY_{name.upper()}" for name in Settings.model_fields}
    assert set(service["environment"]) <= known
    assert service["ports"] == ["${DREAMERY_BIND:-127.0.0.1}:${DREAMERY_PORT:-8000}:8000"]


def test_version_has_one_source(compose: dict[str, Any]) -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    small = yaml.safe_load((ROOT / "compose.small.yml").read_text())["services"]["dreamery"]
    overlay = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "example" / "kustomization.yaml").read_text())
    assert small["image"] == f"dreamery:{ours}"
    assert {compose["services"][role]["image"] for role in ROLES} == {f"dreamery:{ours}-roles"}
    assert {image["newTag"] for image in overlay["images"]} == {f"{ours}-roles"}
    assert set(re.findall(r"dreamery:(\d[\w.]*)", dockerfile())) == {ours}
    newest = re.search(r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == ours
    for file in [*(ROOT / "api").rglob("*.py"), *(ROOT / "worker").rglob("*.py")]:
        assert not re.search(r'version\w*="\d+\.\d+\.\d+"', file.read_text()), f"{file} has a version of its own"


def test_dockerfile_passes_hadolint() -> None:
    run_checker(TOOLS / "hadolint", "Dockerfile")


def test_compose_has_every_service(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == ROLES | MONITORING | {"postgres", "redis"}
    profiles = {name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service}
    assert profiles == {"sandbox": ["sandbox"], "prometheus": ["monitoring"], "grafana": ["monitoring"]}


def test_commands_of_services_exist(compose: dict[str, Any]) -> None:
    known = set(get_command(cli).commands["run"].commands)  # type: ignore[attr-defined]
    for role in ROLES - {"migrate", "sandbox"}:
        assert compose["services"][role]["command"][:3] == ["dreamery", "run", role]
    assert known == ROLES - {"migrate", "sandbox"}
    assert compose["services"]["migrate"]["command"] == ["dreamery", "migrate"]
    assert compose["services"]["sandbox"]["command"][:3] == ["python", "-m", "worker.sandbox"]


@pytest.mark.parametrize(
    "arguments",
    [("run", "flower", "--host", "0.0.0.0", "--help"), ("health", "api", "--help"), ("health", "worker", "--help"),
     ("health", "scheduler", "--help"), ("migrate", "--wait", "--help")],
)  # fmt: skip
def test_commands_accept_their_flags(arguments: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(cli, arguments)
    assert answer.exit_code == 0, answer.output


def test_every_service_has_a_health_check(compose: dict[str, Any]) -> None:
    checks = {name: service.get("healthcheck", {}).get("test") for name, service in compose["services"].items()}
    assert {name for name, check in checks.items() if not check} == {"migrate"}
    assert checks["worker"] == checks["talker"] == ["CMD", "dreamery", "health", "worker"]
    assert checks["scheduler"] == ["CMD", "dreamery", "health", "scheduler"]
    assert checks["api"] == ["CMD", "dreamery", "health", "api"]


def test_our_containers_have_least_privileges(compose: dict[str, Any]) -> None:
    for role in ROLES:
        service = compose["services"][role]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "/tmp" in service["volumes"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_service_waits_for_the_migration(compose: dict[str, Any]) -> None:
    for role in ROLES - {"migrate", "sandbox"}:
        waits = compose["services"][role]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        assert waits["postgres"]["condition"] == waits["redis"]["condition"] == "service_healthy"
    for server in ("postgres", "redis"):
        assert compose["services"][server]["healthcheck"]["test"]


def test_every_service_but_the_migration_restarts(compose: dict[str, Any]) -> None:
    policies = {name: service["restart"] for name, service in compose["services"].items()}
    assert policies.pop("migrate") == "no"
    assert set(policies.values()) == {"unless-stopped"}


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    images += [name for name in re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE) if name not in stages()]
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, f"{image} has no tag"
        assert tag != "latest"
        assert re.search(r"\d", tag), image


def test_named_volumes_are_declared_and_used(compose: dict[str, Any]) -> None:
    used = {v.split(":")[0] for service in compose["services"].values() for v in service.get("volumes", [])}
    assert {name for name in used if not name.startswith(("./", "/"))} == set(compose["volumes"])
    for file in used:
        assert not file.startswith("./") or (ROOT / file).exists(), file


def test_script_creates_every_secret_file(compose: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "deploy" / "make-secrets.sh"
    script.parent.mkdir()
    script.write_text((ROOT / "deploy" / "make-secrets.sh").read_text())
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=of-an-earlier-version\n")
    made = []
    for _ in range(2):
        subprocess.run(["sh", script], check=True, capture_output=True)
        made.append({file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()})
    assert made[0] == made[1]
    assert {f"./secrets/{name}" for name in made[0]} == {item["file"] for item in compose["secrets"].values()}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert made[0]["dreamery_database_url"] == "postgresql://dreamery:of-an-earlier-version@postgres:5432/dreamery"
    # A container's settings read these files.
    read = Settings(_secrets_dir=tmp_path / "secrets", _env_file=None)  # type: ignore[call-arg]
    assert read.redis_url == f"redis://:{made[0]['redis_password']}@redis:6379/0"
    assert read.master_key.get_secret_value() == made[0]["dreamery_master_key"]
    assert read.admin_key.get_secret_value().startswith("sk-dreamery-")
    assert len(read.metrics_token.get_secret_value()) == 64


def test_environment_contains_no_secret(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable in service.get("environment", {}):
            secret = re.search(r"KEY|PASSWORD|TOKEN|DATABASE_URL|REDIS_URL", variable)
            assert not secret or variable.endswith(("_FILE", "__FILE", "SESSION_TOKENS")), (name, variable)
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"]
    assert compose["services"]["sandbox"]["secrets"] == []


# Fixed in containers: their mounts and ports depend on them.
FIXED = {"DREAMERY_DATA_DIR", "DREAMERY_API_HOST", "DREAMERY_API_PORT"}
# What each role uses, and no more.
SECRETS = {
    "migrate": {"database_url"},
    "scheduler": {"database_url", "redis_url", "master_key"},
    "worker": {"database_url", "redis_url", "master_key", "s3_access_key_id", "s3_secret_access_key"},
    "flower": {"redis_url", "flower_password"},
    "sandbox": set(),
}
SECRETS["talker"] = SECRETS["worker"]
SECRETS["api"] = SECRETS["worker"] | {"admin_key", "metrics_token"}


def environment_in(service: dict[str, Any], dotenv: dict[str, str]) -> dict[str, str]:
    """The environment of a service as Docker Compose makes it: the env files, then `environment` with variables."""
    found: dict[str, str] = {}
    for file in service.get("env_file", []):
        assert file == {"path": ".env", "required": False}
        found |= dotenv
    for name, value in service.get("environment", {}).items():
        found[name] = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: dotenv.get(match[1]) or match[2], str(value))
    return found


@pytest.mark.parametrize("role", sorted(ROLES - {"sandbox"}))
def test_every_setting_of_env_arrives_in_every_service(compose: dict[str, Any], role: str) -> None:
    dotenv = {f"DREAMERY_{name.upper()}": f"value of {name}" for name in Settings.model_fields}
    dotenv |= {"DREAMERY_MISSPELLED": "is reported by the service"}
    arrived = environment_in(compose["services"][role], dotenv)
    assert {name for name, value in dotenv.items() if arrived.get(name) != value} == FIXED


def test_defaults_of_services_are_those_of_the_settings(compose: dict[str, Any]) -> None:
    """Without `.env`, what compose sets is valid."""
    for role in ROLES - {"sandbox"}:
        values = {
            name.removeprefix("DREAMERY_").lower(): value
            for name, value in environment_in(compose["services"][role], {}).items()
            if name.startswith("DREAMERY_")
        }
        settings = Settings(_env_file=None, **values)  # type: ignore[arg-type]
        assert (str(settings.data_dir), settings.api_port) == ("/data", 8000)


def test_containers_get_only_the_secrets_that_they_need(compose: dict[str, Any]) -> None:
    found = {role: {name.removeprefix("dreamery_") for name in compose["services"][role]["secrets"]} for role in ROLES}
    assert found == SECRETS
    assert compose["services"]["grafana"]["secrets"] == ["grafana_password"]
    assert compose["services"]["prometheus"]["secrets"] == ["dreamery_metrics_token"]
    holders = {
        name for name, service in compose["services"].items() if "dreamery_admin_key" in service.get("secrets", [])
    }
    assert holders == {"api"}, "the admin key is no other program's password"


def test_every_container_has_a_memory_limit(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
    redis = compose["services"]["redis"]
    most = re.search(r"--maxmemory (\d+)mb", " ".join(redis["command"]))
    assert most, "a full Redis refuses writes; one that is killed forgets"
    assert int(most[1]) < int(redis["mem_limit"].removesuffix("m"))


def test_variables_of_compose_are_in_env_example(compose: dict[str, Any]) -> None:
    template = (ROOT / ".env.example").read_text()
    for name in re.findall(r"\$\{(\w+):", (ROOT / "docker-compose.yml").read_text()):
        if name not in {"DREAMERY_UPSTREAM_ORIGIN", "DREAMERY_LOG_LEVEL"}:
            assert re.search(rf"^#?{name}=", template, re.MULTILINE), f"{name} is missing in .env.example"


def test_settings_of_containers_exist(compose: dict[str, Any]) -> None:
    known = {f"DREAMERY_{name.upper()}" for name in Settings.model_fields}
    in_services = {
        n for s in compose["services"].values() for n in s.get("environment", {}) if n.startswith("DREAMERY_")
    }
    in_image = set(re.findall(r"(DREAMERY_\w+)=", dockerfile()))
    assert in_services | in_image <= known


def test_ports_are_local_by_default(compose: dict[str, Any]) -> None:
    assert "ports" not in compose["services"]["postgres"]
    assert "ports" not in compose["services"]["redis"]
    for role in ("api", "flower", "prometheus", "grafana"):
        for port in compose["services"][role]["ports"]:
            assert port.startswith(("127.0.0.1:", "${DREAMERY_BIND:-127.0.0.1}:"))


def test_image_copies_existing_files_that_dockerignore_allows() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE):
        sources |= {source.removeprefix("./") for source in line.split()[:-1]}
    assert sources == allowed
    for source in sources:
        assert (ROOT / source).exists(), source


def test_images_run_as_an_unprivileged_user(compose: dict[str, Any]) -> None:
    found = stages()
    assert list(found)[-1] == "single", "hosts without targets build the last stage"
    assert found["runtime"]["USER"] == "10001:10001"
    assert json.loads(found["runtime"]["ENTRYPOINT"]) == ["tini", "--"]
    # A second one would be a child, and warn at each start.
    assert not any("init" in compose["services"][role] for role in ROLES)
    assert not any("USER" in words for name, words in found.items() if name != "runtime")
    assert json.loads(found["roles"]["CMD"]) == compose["services"]["api"]["command"]
    assert ["CMD", *json.loads(found["roles"]["HEALTHCHECK"])] == compose["services"]["api"]["healthcheck"]["test"]
    assert {compose["services"][role]["build"]["target"] for role in ROLES} == {"roles"}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_contain_versions_and_hashes_only(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|file:|^-e |^--(?!hash)", text, re.MULTILINE)
    entries = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]
    assert len(entries) > 30
    for entry in entries:
        assert re.match(r"[a-z0-9.\-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_make_help_lists_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = "help setup demo up test test-unit test-integration test-e2e test-ops lint fmt bench revision lock"
    for target in wanted.split():
        assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE), target


def test_gate_runs_both_kinds_of_tests() -> None:
    gate = ROOT / ".ci" / "run"
    assert gate.stat().st_mode & 0o111
    lines = gate.read_text().splitlines()
    assert "set -euo pipefail" in lines
    runs = [line.partition(" || ")[0] for line in lines if line.startswith("make ")]
    assert runs == ["make test", "make test-ops ARGS=--begin-within=170"]
