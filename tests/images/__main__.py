"""`make image-test`: build both images without Docker, run them from their files, and tell what works.

Prints one line for each check: ok, FAILED with the reason, or "not run" with what this machine lacks. Exit code 1 if a check
failed, 0 otherwise. Needs root; `--folder` keeps the base, the packages and the layers for the next run.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.images.building import Builder, Image, NotPossibleError
from tests.images.role_checks import RoleChecks
from tests.images.single_checks import SingleChecks

# What no run of this program shows, wherever it runs.
NOT_COVERED = (
    "Docker, Podman and Kubernetes themselves: the containers are namespaces of the kernel, without seccomp filter and limits",
    "the image python:3.11-slim-bookworm of Docker Hub: the base is made by debootstrap, with Debian's Python 3.11",
    "docker compose: its commands, settings, secrets, mounts and health checks are used",
    "docker compose: its networks, published ports, order of starts, restarts, and images of Postgres and Valkey are not",
    "Render and other hosts: render.yaml is compared with its specification and our settings (tests/shape/test_cluster_files.py)",
    "other processors than this machine's",
)


class Report:
    """Collects the outcome of each check."""

    def __init__(self) -> None:
        self.failed = 0

    def run(self, name: str, check: Callable[[], str]) -> bool:
        """Run a check and print its line; returns whether later ones can build on it."""
        begun = time.monotonic()
        try:
            text, outcome = check(), "ok"
        except NotPossibleError as error:
            text, outcome = str(error), "not run"
        except Exception as error:  # noqa: BLE001 - any failure is an outcome
            traceback.print_exc()
            text, outcome = f"{type(error).__name__}: {error}", "FAILED"
            self.failed += 1
        print(f"{outcome:8} {name}: {text}  [{time.monotonic() - begun:.0f} s]", flush=True)
        return outcome == "ok"


def _check_single(report: Report, image: Image, folder: Path) -> None:
    checks = SingleChecks(image, folder)
    steps = (checks.first_start, checks.health_and_picture, checks.busy_memory, checks.zombies, checks.stop_and_restart)
    try:
        if all(report.run(f"single, {step.__name__}", step) for step in steps):
            report.run("single, other_postgres", checks.other_postgres)
        checks.close()
        report.run("single, upgrade", checks.upgrade)
    finally:
        checks.close()


def _check_roles(report: Report, image: Image, folder: Path) -> None:
    checks = RoleChecks(image, folder / "roles")
    first = (checks.servers_are_left_out, checks.migrate, checks.health, checks.picture)
    steps = (*first, checks.restart, checks.sandbox_profile)
    try:
        all(report.run(f"roles, {step.__name__}", step) for step in steps)
    finally:
        checks.close()
    checks = RoleChecks(image, folder / "upgrade")
    try:
        report.run("roles, upgrade", checks.upgrade)
    finally:
        checks.close()


def main() -> int:
    """Build, run, report."""
    parser = argparse.ArgumentParser(prog="make image-test", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp/dreamery-images"), help="for base, packages and layers"
    )
    parser.add_argument("--only", choices=["single", "roles"], help="one of the images")
    parser.add_argument("--reuse", action="store_true", help="run the images of the last build")
    args = parser.parse_args()
    report = Report()
    try:
        builder = Builder(args.folder)
    except NotPossibleError as error:
        print(f"not run  everything: {error}")
        return 0
    checks = {"single": _check_single, "roles": _check_roles}
    try:
        if not args.reuse:
            report.run("base", lambda: builder.make_base() or "bookworm with Python 3.11, made by debootstrap")
            report.run("packages", lambda: f"{len(list(builder.fetch_packages().iterdir()))} downloaded")
        for target in (args.only,) if args.only else ("single", "roles"):
            images: list[Image] = []
            if report.run(
                f"{target}, build", lambda t=target, i=images: i.append(builder.build(t, reuse=args.reuse)) or i[0].name
            ):  # type: ignore[misc]
                with tempfile.TemporaryDirectory(prefix="dreamery-image-", dir="/var/tmp") as folder:
                    Path(folder).chmod(0o755)
                    checks[target](report, images[0], Path(folder))
    finally:
        builder.close()
    print("Not covered by any run:", *(f"- {line}" for line in NOT_COVERED), sep="\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
