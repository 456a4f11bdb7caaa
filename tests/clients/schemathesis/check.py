"""Run schemathesis over the OpenAPI document of a running platform: `check.py MAX_EXAMPLES [more options]`.

Jobs are asked for with `Prefer: respond-async`, or each of hundreds of pictures would be waited for. Event streams stay
open as long as a job lives, so they are left out here; they have tests of their own.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "error_object",
)


def main() -> None:
    """Become schemathesis; its exit code says whether all checks held."""
    most, *more = sys.argv[1:]
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{os.environ['DREAMERY_URL']}/openapi.json",
        "--header", f"Authorization: Bearer {os.environ['DREAMERY_KEY']}",
        "--header", "Prefer: respond-async",
        "--exclude-path-regex", "/events$",
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing",
        "--max-examples", most,
        "--request-timeout", "30",
        "--workers", "2",
        "--suppress-health-check", "all",
        "--warnings", "off",
        "--no-color",
        *more,
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main()
