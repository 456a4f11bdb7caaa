"""schemathesis over `/openapi.json` of a running platform: no 5xx, and every error is an error object."""

import os
from concurrent.futures import ThreadPoolExecutor

from tests.support.api_client import new_key
from tests.support.client_environments import ensure_environment, run
from worker.local.supervisor import Platform, PlatformOptions

# The gate sends the same requests in each run. To search for new failures: `TEST_SEED=7 TEST_EXAMPLES=25`.
_EXAMPLES = os.environ.get("TEST_EXAMPLES", "0")
_SEED = os.environ.get("TEST_SEED", "1")


def test_api_conforms_to_its_openapi_document(tmp_path):
    """In three parallel parts: generation, administration, and the rest."""
    ensure_environment("schemathesis")
    # Thousands of unusual requests a minute; each account submits one of the resulting jobs per second.
    env = {"DREAMERY_REQUESTS_PER_MINUTE": "0", "DREAMERY_OPEN_JOBS_PER_CALLER": "100000"}
    env["DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE"] = "60"
    platform = Platform(
        PlatformOptions(data_dir=tmp_path / "data", flower="never", throwaway=True, sandbox_seconds=0.2, extra_env=env)
    )
    # The requests contain invented session ids of every region: none may leave this machine.
    env["DREAMERY_UPSTREAM_ORIGIN"] = platform.sandbox_url
    with platform, ThreadPoolExecutor(3) as pool:
        keys = {"generation": new_key(), "rest": new_key(), "admin": platform.admin_key}
        runs = [
            pool.submit(run, "schemathesis", "check.py", platform, key, part, _EXAMPLES, "--seed", _SEED, seconds=280)
            for part, key in keys.items()
        ]
    for future in runs:
        output = future.result()
        assert "No issues found" in output, output
