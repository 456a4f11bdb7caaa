"""The vendor's Ark libraries, each in its own environment, against the Ark-native endpoints of a running platform."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.client_environments import run
from tests.support.platform import start_platform
from worker.local.supervisor import Platform

LIBRARIES = {"volcengine": "volcenginesdkarkruntime", "byteplus": "byteplussdkarkruntime"}
PARTS = "images sets stream videos cancel errors repeats"
SCRIPT = "../ark_check.py"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with a quick sandbox."""
    env = {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000", "DREAMERY_POLL_MIN_SECONDS": "0.2"}
    with start_platform(tmp_path_factory.mktemp("ark"), extra_env=env, sandbox_seconds=0.5) as started:
        yield started


@pytest.fixture(scope="module")
def outputs(platform: Platform) -> Iterator[dict[str, Future[str]]]:
    """The output of each library's checks. They run at the same time, each as its own customer."""
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        yield {
            client: pool.submit(run, client, SCRIPT, platform, f"ark-{client}:sandbox", library, *PARTS.split())
            for client, library in LIBRARIES.items()
        }


@pytest.mark.parametrize("client", LIBRARIES)
def test_library_works_with_another_base_url(outputs: dict[str, Future[str]], client: str) -> None:
    passed = [line for line in outputs[client].result().splitlines() if line.endswith(" ok")]
    assert passed == [f"{part} ok" for part in PARTS.split()]
