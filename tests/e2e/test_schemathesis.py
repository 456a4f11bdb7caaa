"""schemathesis over `/openapi.json` of a running platform: no 5xx, every failure is the error object."""

from concurrent.futures import ThreadPoolExecutor

from tests.clients.environments import environment, run
from tests.face import new_key
from tests.platform import start_platform

# Hundreds of requests in a minute, each body as odd as it gets; what they start is drawn by the sandbox at once.
_SETTINGS = {"DREAMERY_REQUESTS_PER_MINUTE": "0", "DREAMERY_OPEN_JOBS_PER_CALLER": "100000"}
_EXAMPLES = "10"


def test_the_document_tells_the_truth_and_nothing_breaks(tmp_path):
    environment("schemathesis")
    with start_platform(tmp_path, extra_env=_SETTINGS, sandbox_seconds=0.2) as platform, ThreadPoolExecutor(2) as pool:
        keys = {"caller": new_key(), "admin": platform.admin_key}
        runs = [
            pool.submit(run, "schemathesis", "check.py", platform, key, whose, _EXAMPLES, seconds=280)
            for whose, key in keys.items()
        ]
        for told in runs:
            said = told.result()
            assert "No issues found" in said, said
