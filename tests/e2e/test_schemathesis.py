"""schemathesis over `/openapi.json` of a running platform: no 5xx, every failure is the error object."""

import os
from concurrent.futures import ThreadPoolExecutor

from tests.support.api_client import new_key
from tests.support.client_environments import ensure_environment, run
from worker.local.supervisor import Platform, PlatformOptions

# The gate asks the same in each run. To hunt: `TEST_SEED=7 TEST_EXAMPLES=25`.
_EXAMPLES = os.environ.get("TEST_EXAMPLES", "0")
_SEED = os.environ.get("TEST_SEED", "1")


def test_the_document_tells_the_truth_and_nothing_breaks(tmp_path):
    """In three parts side by side: what makes something, what administrators may, and the rest."""
    ensure_environment("schemathesis")
    # Thousands of requests in a minute, each as odd as it gets; of what they start an account draws one a second.
    env = {"DREAMERY_REQUESTS_PER_MINUTE": "0", "DREAMERY_OPEN_JOBS_PER_CALLER": "100000"}
    env["DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE"] = "60"
    platform = Platform(
        PlatformOptions(data_dir=tmp_path / "data", flower=False, throwaway=True, sandbox_seconds=0.2, extra_env=env)
    )
    # Session ids of every region are made up here: none may leave this machine.
    env["DREAMERY_UPSTREAM_ORIGIN"] = platform.sandbox_url
    with platform, ThreadPoolExecutor(3) as pool:
        keys = {"making": new_key(), "rest": new_key(), "admin": platform.admin_key}
        runs = [
            pool.submit(run, "schemathesis", "check.py", platform, key, part, _EXAMPLES, "--seed", _SEED, seconds=280)
            for part, key in keys.items()
        ]
    for told in runs:
        said = told.result()
        assert "No issues found" in said, said
