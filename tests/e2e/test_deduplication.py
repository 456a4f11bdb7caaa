"""Repeat storms on the whole platform: every wish is one job and one charge, whatever clients and crashes do."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import openai
import psycopg
import pytest
from openai import AsyncOpenAI

from tests.support.api_client import IMAGES, ApiClient, account_name, new_key
from tests.support.platform import eventually
from worker.local.supervisor import Platform

# As an SDK that does not tell its timeout: the server cannot answer before the client gives up.
SILENT = {"x-stainless-read-timeout": ""}


@pytest.fixture
def platform(multi_region_platform: Platform) -> Platform:
    """Its API is killed in here, and is back when its test ends."""
    return multi_region_platform


class CallerSnapshot:
    """What a caller's wishes became, here and upstream."""

    def __init__(self, platform: Platform, key: str) -> None:
        ledger = httpx.get(f"{platform.sandbox_url}/_ledger", trust_env=False, timeout=30).json()
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

    def assert_once(self, wishes: int) -> None:
        """A job and a charge for every wish."""
        by_prompt = Counter(job["input"]["prompt"] for job in self.jobs)
        assert len(self.jobs) == wishes, by_prompt.most_common(3)
        assert len(self.submits) == wishes
        assert len(self.charges) == wishes
        assert len({charge["submit_id"] for charge in self.charges}) == wishes


def ended(platform: Platform, key: str) -> None:
    def open_jobs() -> list[Any]:
        with ApiClient(platform, key) as caller:
            return caller.http.get("/v1/jobs", params={"status": "queued,in_progress"}).json()["data"]

    eventually(lambda: not open_jobs(), within=90, what="all jobs ended")


def storm(
    platform: Platform, key: str, *, prompts: list[str], headers: dict[str, str] | None = None, **options: Any
) -> list[Any]:
    """Each prompt is asked for by a client of its own; their answers, or what the SDK raised."""

    async def ask(client: AsyncOpenAI, prompt: str) -> Any:
        return await client.images.generate(
            model="jimeng-4.0", prompt=prompt, n=1, size="512x512", extra_headers=headers
        )

    async def all_of_them() -> list[Any]:
        base = f"{platform.url}/v1"
        clients = [AsyncOpenAI(base_url=base, api_key=key, **options) for _ in prompts]
        try:
            asked = [ask(client, prompt) for client, prompt in zip(clients, prompts, strict=True)]
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    return asyncio.run(all_of_them())


def joins(platform: Platform) -> int:
    with psycopg.connect(platform.database_url) as connection:
        return connection.execute("SELECT coalesce(sum(joins), 0) FROM requests").fetchone()[0]


@pytest.mark.parametrize(
    ("clients", "headers"), [(30, {}), (100, SILENT)], ids=["as it is", "without telling its timeout"]
)
def test_clients_with_short_timeouts_that_repeat_by_themselves(platform, clients, headers):
    """Jobs of 5 s, timeouts of 3 s. Told the timeout, the server answers before it and the SDK repeats nothing."""
    key, before = new_key(), joins(platform)
    prompts = [f"client {number} [[seconds:5]]" for number in range(clients)]
    # Two repeats are enough on a machine that has nothing else to do.
    answers = storm(platform, key, prompts=prompts, timeout=3, max_retries=8, headers=headers)
    ended(platform, key)
    CallerSnapshot(platform, key).assert_once(clients)
    pictures = [answer.data[0].url for answer in answers if not isinstance(answer, BaseException)]
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    if headers:
        assert joins(platform) - before >= clients, "the clients really repeated"
        assert all(isinstance(error, openai.APITimeoutError) for error in refused), refused
        assert len(pictures) > clients // 2
        assert len(set(pictures)) == len(pictures)
    else:
        assert {error.code for error in refused} == {"generation_timeout"}
        assert len(refused) == clients


def test_the_api_killed_while_sdk_clients_wait(platform):
    """They see a cut connection and repeat by themselves; the new process joins them to their jobs."""
    key, clients = new_key(), 20
    prompts = [f"killed {number} [[seconds:4]]" for number in range(clients)]

    def kill() -> None:
        with ApiClient(platform, key) as caller:
            eventually(lambda: len(caller.http.get("/v1/jobs", params={"limit": 100}).json()["data"]) == clients)
        platform.children["api"].kill()

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        answers = storm(platform, key, prompts=prompts, timeout=60, max_retries=8)
        killer.result()
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert len({answer.data[0].url for answer in answers}) == clients
    CallerSnapshot(platform, key).assert_once(clients)


def test_the_api_killed_while_clients_wait_that_mark_nothing(platform):
    key, clients = new_key(), 10

    async def stubborn(http: httpx2.AsyncClient, number: int) -> dict[str, Any]:
        while True:
            try:
                answer = await http.post(IMAGES, json={"prompt": f"plain {number} [[seconds:4]]", "n": 1})
                if answer.status_code == 200:
                    return answer.json()
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.3)

    async def all_of_them() -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=platform.url, headers=headers, timeout=60, trust_env=False) as http:
            asked = [asyncio.create_task(stubborn(http, number)) for number in range(clients)]
            count = 0
            while count < clients:
                await asyncio.sleep(0.1)
                count = len((await http.get("/v1/jobs")).json()["data"])
            await asyncio.to_thread(platform.children["api"].kill)
            return await asyncio.gather(*asked)

    answers = asyncio.run(all_of_them())
    assert len({answer["data"][0]["url"] for answer in answers}) == clients
    CallerSnapshot(platform, key).assert_once(clients)


def test_a_pair_of_identical_calls_is_two_wishes_also_when_both_are_repeated(platform):
    """`@ai-sdk/openai` with n = 2 on an unknown model sends two identical calls at once and wants two pictures."""
    key = new_key()
    twins = ["twins [[seconds:5]]"] * 2
    answers = storm(platform, key, prompts=twins, timeout=3, max_retries=4, headers=SILENT)
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert len({answer.data[0].url for answer in answers}) == 2
    CallerSnapshot(platform, key).assert_once(2)


def test_parallel_identical_calls_never_join(platform):
    key = new_key()
    answers = storm(platform, key, prompts=["the same [[seconds:1]]"] * 8, timeout=60, max_retries=2)
    assert len({answer.data[0].url for answer in answers}) == 8
    CallerSnapshot(platform, key).assert_once(8)
