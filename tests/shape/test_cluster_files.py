"""Kubernetes manifests, systemd units, the Render blueprint: valid for their own tools, consistent with the code."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.shape.test_deploy_files import SECRETS
from worker.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
SYSTEMD = ROOT / "deploy" / "systemd"
ROLES = {"api", "worker", "talker", "scheduler", "flower"}
VERSIONS = ["1.29", "1.37"]


def documents(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((KUBERNETES / folder).glob("*.yaml")):
        if file.name != "kustomization.yaml":
            for document in yaml.safe_load_all(file.read_text()):
                yield f"{folder}/{file.name} {document['kind']}", document


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for _, document in documents("base") if document["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    return {
        name.removeprefix("dreamery-"): document["spec"]["template"]
        for name, document in {**of_kind("Deployment"), **of_kind("Job")}.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_match_kubernetes_schemas(version: str) -> None:
    count = 0
    for folder in ("base", "example"):
        for name, document in documents(folder):
            count += 1
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{name}: {error.message}")
    assert count >= 20


def test_unknown_manifest_field_is_detected() -> None:
    worker = of_kind("Deployment")["dreamery-worker"]
    broken = {**worker, "spec": {**worker["spec"], "replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", ["base", "example"])
def test_kustomizations_list_every_file(folder: str) -> None:
    built = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
    named = set(built["resources"]) | {patch["path"] for patch in built.get("patches", []) if "path" in patch}
    files = {file.name for file in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert {name for name in named if not name.startswith("..")} == files
    for patch in built.get("patches", []):
        target = patch.get("target")
        assert target is None or target["name"] in of_kind(target["kind"])


def test_pods_run_every_role_with_least_privileges() -> None:
    assert set(pods()) == ROLES | {"migrate"}
    for role, template in pods().items():
        spec = template["spec"]
        (container,) = spec["containers"]
        assert container["args"][:3] == (["dreamery", "migrate"] if role == "migrate" else ["dreamery", "run", role])
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["automountServiceAccountToken"] is False
        for one in [container, *spec.get("initContainers", [])]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
            assert one["resources"]["requests"]
            assert one["resources"]["limits"]["memory"]
            assert {mount["mountPath"] for mount in one["volumeMounts"]} == {"/run/secrets", "/tmp", "/data"}


def test_pods_wait_for_migration_and_have_probes() -> None:
    for role in ROLES:
        spec = pods()[role]["spec"]
        if role == "flower":  # it uses no database
            assert "initContainers" not in spec
        else:
            assert spec["initContainers"][0]["args"] == ["dreamery", "migrate", "--wait"]
        container = spec["containers"][0]
        assert {"startupProbe", "livenessProbe"} <= set(container)
        # A probe must time out before the next one starts.
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe].get("timeoutSeconds", 1) <= container[probe]["periodSeconds"]
    for role in ("worker", "talker"):
        assert pods()[role]["spec"]["containers"][0]["livenessProbe"]["exec"]["command"] == [
            "dreamery",
            "health",
            "worker",
        ]
    # A running task may take as long as the watchdog allows, a conversation as long as its timeout.
    assert pods()["worker"]["spec"]["terminationGracePeriodSeconds"] > Settings.model_fields["watchdog_seconds"].default
    conversation_seconds = Settings.model_fields["conversation_timeout_seconds"].default
    assert pods()["talker"]["spec"]["terminationGracePeriodSeconds"] > conversation_seconds


def test_selectors_match_pods() -> None:
    labels = [template["metadata"]["labels"] for template in pods().values()]
    selectors = [document["spec"]["selector"] for document in of_kind("Service").values()]
    selectors += [document["spec"]["podSelector"]["matchLabels"] for document in of_kind("NetworkPolicy").values()]
    budgets = {
        name: document
        for _, document in documents("base")
        if document["kind"] == "PodDisruptionBudget"
        for name in [document["metadata"]["name"]]
    }
    selectors += [document["spec"]["selector"]["matchLabels"] for document in budgets.values()]
    for selector in selectors:
        assert any(selector.items() <= mine.items() for mine in labels), selector
    assert set(budgets) == {"dreamery-api", "dreamery-worker", "dreamery-talker"}
    scaled = {document["spec"]["scaleTargetRef"]["name"] for document in of_kind("HorizontalPodAutoscaler").values()}
    assert scaled == {"dreamery-api", "dreamery-worker"}
    for name in scaled:
        assert "replicas" not in of_kind("Deployment")[name]["spec"], "a fixed number conflicts with the autoscaler"


def secrets_of(spec: dict[str, Any], container: dict[str, Any]) -> set[str]:
    """The files that a container sees in /run/secrets, as names of settings."""
    (volume,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/run/secrets"]
    (projected,) = [each["projected"] for each in spec["volumes"] if each["name"] == volume]
    items = [item for source in projected["sources"] for item in source["secret"]["items"]]
    assert all(item["key"] == item["path"] for item in items)
    return {item["path"].removeprefix("dreamery_") for item in items}


def test_pods_get_only_the_secrets_that_they_need() -> None:
    found = {role: secrets_of(pod["spec"], pod["spec"]["containers"][0]) for role, pod in pods().items()}
    assert found == {role: secrets for role, secrets in SECRETS.items() if role != "sandbox"}
    for pod in pods().values():
        for container in pod["spec"].get("initContainers", []):
            assert secrets_of(pod["spec"], container) == {"database_url"}


def egress_of(role: str) -> list[dict[str, Any]]:
    """The rules for outgoing traffic of a role: those of all policies that select it."""
    labels = pods()[role]["metadata"]["labels"]
    rules: list[dict[str, Any]] = []
    for policy in of_kind("NetworkPolicy").values():
        selector = policy["spec"]["podSelector"]
        chosen = selector["matchLabels"].items() <= labels.items() and all(
            labels[rule["key"]] in rule["values"] for rule in selector.get("matchExpressions", [])
        )
        if chosen and "Egress" in policy["spec"]["policyTypes"]:
            rules += policy["spec"]["egress"]
    return rules


def allows(rules: list[dict[str, Any]], address: str, port: int) -> bool:
    def reaches(peer: dict[str, Any]) -> bool:
        block = peer["ipBlock"]
        target = ip_address(address)
        return target in ip_network(block["cidr"]) and not any(target in ip_network(part) for part in block["except"])

    return any(
        any(item["port"] <= port <= item.get("endPort", item["port"]) for item in rule["ports"])
        and ("to" not in rule or any(reaches(peer) for peer in rule["to"]))
        for rule in rules
    )


@pytest.mark.parametrize("role", sorted([*ROLES, "migrate"]))
def test_outgoing_traffic_is_limited_to_what_a_role_needs(role: str) -> None:
    rules = egress_of(role)
    assert allows(rules, "10.0.0.10", 53)
    assert allows(rules, "10.0.0.20", 5432) is (role != "flower")
    assert allows(rules, "10.0.0.30", 6379) is (role != "migrate")
    assert allows(rules, "8.8.8.8", 443) is (role in {"api", "worker", "talker"})
    assert allows(rules, "8.8.8.8", 8443) is (role in {"worker", "talker"})
    for private in ("169.254.169.254", "10.0.0.1", "192.168.1.1", "fd00::1", "::1", "127.0.0.1"):
        assert not allows(rules, private, 443), private
        assert not allows(rules, private, 80), private


def test_scheduler_has_one_replica() -> None:
    assert of_kind("Deployment")["dreamery-scheduler"]["spec"]["replicas"] == 1


def test_ports_of_services_and_policies_match_containers() -> None:
    for name, service in of_kind("Service").items():
        role = name.removeprefix("dreamery-")
        ports = {port["name"]: port["containerPort"] for port in pods()[role]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
        policy = of_kind("NetworkPolicy")[name]["spec"]["ingress"][0]["ports"]
        assert [rule["port"] for rule in policy] == list(ports.values())


def test_settings_named_in_deployment_files_exist() -> None:
    known = {f"DREAMERY_{name.upper()}" for name in Settings.model_fields}
    files = [*KUBERNETES.rglob("*.yaml"), *SYSTEMD.iterdir(), ROOT / "render.yaml", SERVICES_ON_RENDER]
    for file in files:
        named = set(re.findall(r"\bDREAMERY_[A-Z_]*[A-Z]\b", file.read_text()))
        assert named <= known, (file.name, named - known)


# --- systemd ---


def units(tmp_path: Path) -> list[Path]:
    """Copy the units, with the path of this machine's `dreamery`."""
    made = []
    for file in SYSTEMD.iterdir():
        if file.suffix in {".service", ".timer", ".target"}:
            text = file.read_text().replace(
                "/opt/dreamery/.venv/bin/dreamery", f"{Path(sys.executable).parent}/dreamery"
            )
            copy = tmp_path / file.name.replace("@.", "@worker.")
            copy.write_text(text)
            (tmp_path / file.name).write_text(text)
            made.append(copy)
    return made


def test_units_are_valid(tmp_path: Path) -> None:
    """systemd verifies the units if it is installed; sections and keys are checked in any case."""
    files = units(tmp_path)
    assert len(files) == 10
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run(
            [analyze, "verify", "--man=no", *files],
            env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    for file in files:
        sections = re.findall(r"^\[(\w+)\]$", file.read_text(), re.MULTILINE)
        assert sections[0] == "Unit"
        assert set(sections) <= {"Unit", "Service", "Timer", "Install"}
        for line in file.read_text().splitlines():
            assert not line or line.startswith(("#", "[")) or re.match(r"[A-Z]\w+=", line), (file.name, line)


def test_units_run_every_role() -> None:
    for role in ROLES:
        text = (SYSTEMD / f"dreamery-{role}.service").read_text()
        assert f"ExecStart=/opt/dreamery/.venv/bin/dreamery run {role}\n" in text
        assert "User=dreamery\n" in text
        assert "NoNewPrivileges=yes\n" in text
        assert "ProtectSystem=strict\n" in text
    target = (SYSTEMD / "dreamery.target").read_text()
    for role in ("worker", "talker", "scheduler"):
        assert f"dreamery-health@{role}.timer" in target, "what hangs is restarted"
    for name in re.findall(r"dreamery-[\w@]+\.(?:service|timer)", target):
        assert (SYSTEMD / re.sub(r"@\w+", "@", name)).exists(), name


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("worker", "health worker --name worker"),
        ("talker", "health worker --name talker"),
        ("scheduler", "health scheduler"),
    ],
)
def test_health_unit_asks_for_its_role(tmp_path: Path, name: str, asked: str) -> None:
    """The command of the unit, as systemd expands it, with a program that records its arguments."""
    program = tmp_path / "dreamery"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    program.chmod(0o755)
    text = (SYSTEMD / "dreamery-health@.service").read_text()
    (line,) = re.findall(r"^ExecStart=/bin/sh -c '(.+)'$", text, re.MULTILINE)
    command = line.replace("%i", name).replace("$$", "$").replace("/opt/dreamery/.venv/bin/dreamery", str(program))
    subprocess.run(["sh", "-c", command], check=True, timeout=20)
    assert (tmp_path / "asked").read_text().strip() == asked


# --- Render: the licence of its schema does not allow a copy, so these are the fields of its published specification ---

SERVICES_ON_RENDER = ROOT / "deploy" / "render" / "services.yaml"
_COMMON = {"type", "name", "plan", "region", "envVars", "ipAllowList"}
_DOCKER = _COMMON | {"runtime", "numInstances", "dockerCommand", "maxShutdownDelaySeconds", "scaling"}
_FIELDS = {
    "web": _DOCKER | {"preDeployCommand", "healthCheckPath", "domains"},
    "worker": _DOCKER | {"preDeployCommand"},
    "keyvalue": _COMMON - {"envVars"} | {"maxmemoryPolicy"},
}


def test_blueprint_of_one_service_keeps_everything_on_its_disk() -> None:
    blueprint = yaml.safe_load((ROOT / "render.yaml").read_text())
    assert set(blueprint) == {"services"}
    (service,) = blueprint["services"]
    assert set(service) <= _FIELDS["web"] | {"disk"}
    assert set(service["disk"]) == {"name", "mountPath", "sizeGB"}
    # Without a command of its own: the image's, which runs everything and uses the host's port.
    assert "dockerCommand" not in service
    assert service["numInstances"] == 1
    values = {item["key"]: item["value"] for item in service["envVars"]}
    assert values["DREAMERY_DATA_DIR"].startswith(service["disk"]["mountPath"] + "/")
    assert not {"PORT", "DREAMERY_API_PORT", "DREAMERY_DATABASE_URL", "DREAMERY_REDIS_URL"} & set(values)


def test_blueprint_of_several_services_matches_renders_specification() -> None:
    blueprint = yaml.safe_load(SERVICES_ON_RENDER.read_text())
    assert set(blueprint) == {"services", "databases", "envVarGroups"}
    services = {service["name"]: service for service in blueprint["services"]}
    databases = {database["name"] for database in blueprint["databases"]}
    groups = {group["name"] for group in blueprint["envVarGroups"]}
    for service in services.values():
        assert set(service) <= _FIELDS[service["type"]], service["name"]
        assert service["type"] == "keyvalue" or service["runtime"] == "docker"
        assert service.get("maxShutdownDelaySeconds", 30) <= 300
        for variable in service.get("envVars", []):
            if "fromGroup" in variable:
                assert variable["fromGroup"] in groups
                continue
            (source,) = set(variable) - {"key"}
            if source == "fromDatabase":
                assert variable[source]["name"] in databases
            elif source == "fromService":
                named = services[variable[source]["name"]]
                assert named["type"] == variable[source]["type"]
                key = variable[source].get("envVarKey")
                assert key is None or key in {item.get("key") for item in named["envVars"]}
            else:
                assert source in {"value", "sync"}
                assert source == "sync" or isinstance(variable["value"], str)
    for database in blueprint["databases"]:
        assert set(database) <= {
            "name",
            "plan",
            "region",
            "postgresMajorVersion",
            "databaseName",
            "user",
            "ipAllowList",
        }
    assert services["dreamery-redis"]["maxmemoryPolicy"] == "noeviction"
    roles = {s["dockerCommand"] for s in services.values() if "dockerCommand" in s}
    assert roles == {f"dreamery run {role}" for role in ROLES - {"flower"}}
