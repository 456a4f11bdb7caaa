"""`make audit` and `make audit-update`: known vulnerabilities of exactly our packages, from a snapshot of advisories.

`update` asks an OSV service (https://osv.dev) and writes `snapshot.json`; it needs internet access. `check` needs none:
it compares the snapshot with the lock file and with the vendored npm packages, and fails for each advisory that
`accepted.toml` does not explain. A snapshot that lacks a package, or was changed by hand, fails too.
"""

import argparse
import hashlib
import json
import sys
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx

from deploy.supply_chain.components import ROOT, Component, npm_packages, python_packages

FOLDER = ROOT / "deploy" / "supply_chain"
SERVICE = "https://api.osv.dev"
OLD_AFTER_DAYS = 30
_ECOSYSTEMS = {"pypi": "PyPI", "npm": "npm"}
_BATCH = 500

Snapshot = dict[str, Any]


class AuditError(Exception):
    """The audit cannot be made; the message says what to do."""


def our_packages() -> list[Component]:
    """The packages of the lock file, for every platform, and those of the console."""
    return sorted({*python_packages(), *npm_packages()})


def digest(snapshot: Snapshot) -> str:
    """SHA-256 of everything in a snapshot but its own field `sha256`."""
    rest = {name: value for name, value in snapshot.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fetch(service: str, packages: list[Component]) -> Snapshot:
    """Ask the service about these versions. Raises AuditError."""
    found: dict[str, list[Component]] = {}
    try:
        with httpx.Client(base_url=service, timeout=30) as client:
            for start in range(0, len(packages), _BATCH):
                _ask(client, packages[start : start + _BATCH], found)
            details = {name: _get(client, f"/v1/vulns/{name}") for name in sorted(found)}
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise AuditError(
            f"{service} gave no usable answer ({type(error).__name__}: {error}). The snapshot is unchanged."
        ) from error
    advisories = [
        {
            "id": name,
            "aliases": sorted(details[name].get("aliases", [])),
            "summary": details[name].get("summary") or details[name].get("details", "").partition("\n")[0],
            "packages": sorted({f"{item.key} {item.version}" for item in items}),
            "fixed_in": _fixed_versions(details[name], items),
        }
        for name, items in sorted(found.items())
        if not details[name].get("withdrawn")
    ]
    versions: dict[str, list[str]] = {}
    for package in packages:
        versions.setdefault(package.key, []).append(package.version)
    snapshot = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": service,
        "packages": versions,
        "advisories": advisories,
    }
    return snapshot | {"sha256": digest(snapshot)}


def _ask(client: httpx.Client, packages: list[Component], found: dict[str, list[Component]]) -> None:
    """Add the advisories of these packages. An answer may have more pages."""
    queries: list[tuple[Component, str]] = [(package, "") for package in packages]
    while queries:
        body = [
            {"package": {"ecosystem": _ECOSYSTEMS[item.kind], "name": item.name}, "version": item.version}
            | ({"page_token": token} if token else {})
            for item, token in queries
        ]
        answer = client.post("/v1/querybatch", json={"queries": body}).raise_for_status().json()
        if len(answer["results"]) != len(queries):
            raise ValueError("it answered fewer questions than were asked")
        following = []
        for (item, _token), result in zip(queries, answer["results"], strict=True):
            for advisory in result.get("vulns", []):
                found.setdefault(advisory["id"], []).append(item)
            if token := result.get("next_page_token"):
                following.append((item, token))
        queries = following


def _get(client: httpx.Client, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(path).raise_for_status().json()
    return answer


def _fixed_versions(details: dict[str, Any], items: list[Component]) -> list[str]:
    names = {item.name for item in items}
    events = [
        event
        for affected in details.get("affected", [])
        if affected.get("package", {}).get("name") in names
        for span in affected.get("ranges", [])
        for event in span.get("events", [])
    ]
    return sorted({event["fixed"] for event in events if "fixed" in event})


def check(snapshot: Snapshot, packages: list[Component], accepted: dict[str, Any], today: date) -> list[str]:
    """Return what is wrong, one line each; empty = nothing."""
    if snapshot.get("sha256") != digest(snapshot):
        return ["The snapshot was changed by hand: its hash is wrong. Take it again: make audit-update"]
    known = {(name, version) for name, versions in snapshot["packages"].items() for version in versions}
    missing = sorted(f"{item.key} {item.version}" for item in packages if (item.key, item.version) not in known)
    problems = [f"The snapshot does not know {name}. Take it again: make audit-update" for name in missing]
    ours = {f"{item.key} {item.version}" for item in packages}
    for advisory in snapshot["advisories"]:
        affected = sorted(ours & set(advisory["packages"]))
        entry = next((accepted[name] for name in (advisory["id"], *advisory["aliases"]) if name in accepted), None)
        if not affected or (entry and entry["until"] >= today):
            continue
        reason = "" if entry is None else f" It was accepted until {entry['until']}."
        fixed = ", ".join(advisory["fixed_in"]) or "no version"
        problems.append(f"{', '.join(affected)}: {advisory['id']} {advisory['summary']} Fixed in {fixed}.{reason}")
    return problems


def read_accepted(file: Path) -> dict[str, Any]:
    """Read the advisories that were looked at: id -> reason and the last day on which that holds. Raises AuditError."""
    found = tomllib.loads(file.read_text()) if file.exists() else {}
    for name, entry in found.items():
        if set(entry) != {"reason", "until"} or not entry["reason"] or not isinstance(entry["until"], date):
            raise AuditError(f"{file.name}: {name} needs `reason` and `until` (a date).")
    return found


def run_check(folder: Path, today: date) -> int:
    """Check and print; returns the exit code."""
    file = folder / "snapshot.json"
    if not file.exists():
        raise AuditError(
            "There is no snapshot of advisories yet. Take one where the internet can be reached: `make audit-update`. "
            f"Keep the file {file}"
        )
    snapshot = json.loads(file.read_text())
    packages = our_packages()
    problems = check(snapshot, packages, read_accepted(folder / "accepted.toml"), today)
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    age = (today - date.fromisoformat(snapshot["taken_at"][:10])).days
    print(
        f"{len(packages)} packages, no known vulnerability. "
        f"The snapshot is of {snapshot['taken_at']} ({snapshot['source']})."
    )
    if age > OLD_AFTER_DAYS:
        print(f"It is {age} days old; newer advisories are not in it: make audit-update", file=sys.stderr)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run `check` or `update`."""
    parser = argparse.ArgumentParser(prog="audit", description=__doc__)
    parser.add_argument("action", choices=["check", "update"])
    parser.add_argument("--service", default=SERVICE, help="an OSV service")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where snapshot.json and accepted.toml are")
    args = parser.parse_args(arguments)
    try:
        if args.action == "update":
            snapshot = fetch(args.service, our_packages())
            draft = args.folder / "snapshot.json.new"
            draft.write_text(json.dumps(snapshot, indent=1) + "\n")
            draft.replace(args.folder / "snapshot.json")
        return run_check(args.folder, datetime.now(UTC).date())
    except AuditError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
