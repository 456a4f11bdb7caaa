"""Retries on a whole platform: every request is one job and one charge, despite client retries and crashes."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import psycopg
import pytest
from openai import AsyncOpenAI

from tests.support.api_client import IMAGES, ApiClient, account_name, new_key
from tests.support.platform import eventually
from tests.support.sandbox_client import read_ledger
from worker.local.supervisor import Platform

# Hides the SDK's timeout: the server cannot answer before the client gives up.
WITHOUT_TIMEOUT_HEADER = {"x-stainless-read-timeout": ""}


@pytest.fixture
def platform(multi_region_platform: Platform) -> Platform:
    """A shared platform. Tests kill its API, which is running again when the test ends."""
    return multi_region_platform


class CallerSnapshot:
    """A caller's jobs on the platform, and its submits and charges upstream."""

    def __init__(self, platform: Platform, key: str) -> None:
        ledger = read_ledger(platform)
        name = account_name(key)
        self.submits = [line for line in ledger["submits"] if line["account"] == name]
        self.charges = [line for line in ledger["charges"] if line["account"] == name]
        with ApiClient(platform, key) as caller:
            self.jobs, query = [], {"limit": 100}
            while True:
                page = caller.http.get("/v1/jobs", params=query).json()
                self.jobs += page["data"]
                if not page["has_more"]:
                    break
                query["after"] = page["last_id"]

    def assert_one_job_each(self, requests: int) -> None:
        """Assert one job, one submit and one charge per request."""
        by_prompt = Counter(job["input"]["prompt"] for job in self.jobs)
        assert len(self.jobs) == requests, by_prompt.most_common(3)
        assert len(self.submits) == requests
        assert len(self.charges) == requests
        assert len({charge["submit_id"] for charge in self.charges}) == requests


def wait_until_ended(platform: Platform, key: str) -> None:
    def open_jobs() -> list[Any]:
        with ApiClient(platform, key) as caller:
            return caller.http.get("/v1/jobs", params={"status": "queued,in_progress"}).json()["data"]

    eventually(lambda: not open_jobs(), within=90, what="all jobs ended")


def generate_in_parallel(
    platform: Platform, key: str, *, prompts: list[str], headers: dict[str, str] | None = None, **options: Any
) -> list[Any]:
    """Send each prompt with its own client; returns the responses or the exceptions of the SDK."""

    async def generate(client: AsyncOpenAI, prompt: str) -> Any:
        return await client.images.generate(
            model="jimeng-4.0", prompt=prompt, n=1, size="512x512", extra_headers=headers
        )

    async def run_all() -> list[Any]:
        base = f"{platform.url}/v1"
        clients = [AsyncOpenAI(base_url=base, api_key=key, **options) for _ in prompts]
        try:
            requests = [generate(client, prompt) for client, prompt in zip(clients, prompts, strict=True)]
            return await asyncio.gather(*requests, return_exceptions=True)
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    return asyncio.run(run_all())


def count_joins(platform: Platform) -> int:
    with psycopg.connect(platform.database_url) as connection:
        return connection.execute("SELECT coalesce(sum(joins), 0) FROM requests").fetchone()[0]


@pytest.mark.parametrize(
    ("clients", "headers"),
    [(30, {}), (100, WITHOUT_TIMEOUT_HEADER)],
    ids=["with timeout header", "without timeout header"],
)
def test_sdk_retries_with_short_timeouts_create_one_job_each(platform, clients, headers):
    """Jobs of 5 s, timeouts of 3 s. A server that knows the timeout answers earlier and invites the retry, which joins."""
    key, before = new_key(), count_joins(platform)
    prompts = [f"client {number} [[seconds:5]]" for number in range(clients)]
    # Two retries are enough on an idle machine.
    responses = generate_in_parallel(platform, key, prompts=prompts, timeout=3, max_retries=8, headers=headers)
    wait_until_ended(platform, key)
    CallerSnapshot(platform, key).assert_one_job_each(clients)
    urls = [response.data[0].url for response in responses if not isinstance(response, BaseException)]
    errors = [response for response in responses if isinstance(response, BaseException)]
    assert count_joins(platform) - before >= clients, "the clients retried"
    timeouts = (openai.APITimeoutError, openai.InternalServerError)
    assert all(isinstance(error, timeouts) for error in errors), errors
    assert {error.code for error in errors if isinstance(error, openai.APIStatusError)} <= {"generation_timeout"}
    assert len(urls) > clients // 2
    assert len(set(urls)) == len(urls)


def test_api_killed_while_sdk_clients_wait(platform):
    """The SDK retries after the broken connection; the new process joins the retries to their jobs."""
    key, clients = new_key(), 20
    prompts = [f"killed {number} [[seconds:4]]" for number in range(clients)]

    def kill() -> None:
        with ApiClient(platform, key) as caller:
            eventually(lambda: len(caller.http.get("/v1/jobs", params={"limit": 100}).json()["data"]) == clients)
        platform.children["api"].kill()

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        responses = generate_in_parallel(platform, key, prompts=prompts, timeout=60, max_retries=8)
        killer.result()
    assert [response for response in responses if isinstance(response, BaseException)] == []
    assert len({response.data[0].url for response in responses}) == clients
    CallerSnapshot(platform, key).assert_one_job_each(clients)


def test_api_killed_while_clients_without_retry_headers_wait(platform):
    key, clients = new_key(), 10

    async def retry_until_success(http: httpx2.AsyncClient, number: int) -> dict[str, Any]:
        while True:
            try:
                response = await http.post(IMAGES, json={"prompt": f"plain {number} [[seconds:4]]", "n": 1})
                if response.status_code == 200:
                    return response.json()
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.3)

    async def run_all() -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=platform.url, headers=headers, timeout=60, trust_env=False) as http:
            requests = [asyncio.create_task(retry_until_success(http, number)) for number in range(clients)]
            count = 0
            while count < clients:
                await asyncio.sleep(0.1)
                count = len((await http.get("/v1/jobs")).json()["data"])
            await asyncio.to_thread(platform.children["api"].kill)
            return await asyncio.gather(*requests)

    responses = asyncio.run(run_all())
    assert len({response["data"][0]["url"] for response in responses}) == clients
    CallerSnapshot(platform, key).assert_one_job_each(clients)


def test_two_identical_parallel_calls_stay_two_jobs_when_retried(platform):
    """`@ai-sdk/openai` with n = 2 on an unknown model sends two identical calls at once and expects two images."""
    key = new_key()
    twins = ["twins [[seconds:5]]"] * 2
    responses = generate_in_parallel(
        platform, key, prompts=twins, timeout=3, max_retries=4, headers=WITHOUT_TIMEOUT_HEADER
    )
    assert [response for response in responses if isinstance(response, BaseException)] == []
    assert len({response.data[0].url for response in responses}) == 2
    CallerSnapshot(platform, key).assert_one_job_each(2)


def test_parallel_identical_calls_never_join(platform):
    key = new_key()
    responses = generate_in_parallel(platform, key, prompts=["the same [[seconds:1]]"] * 8, timeout=60, max_retries=2)
    assert len({response.data[0].url for response in responses}) == 8
    CallerSnapshot(platform, key).assert_one_job_each(8)
