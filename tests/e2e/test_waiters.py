"""Many waiting callers: blocked requests use no thread and no database connection each."""

import asyncio
import statistics
import time
from collections import Counter

import httpx2
import psutil
import psycopg

from tests.support.api_client import IMAGES, new_key

WAITERS = 500
REQUESTS = 50


class ResourceUsage:
    """Threads and connections of a running platform."""

    def __init__(self, platform) -> None:
        self.api = psutil.Process(platform.children["api"].pid)
        self.database_url = platform.database_url

    def threads(self) -> int:
        return self.api.num_threads()

    def connections(self) -> int:
        """Connections of the API process to Postgres, counted by the kernel."""
        port = int(self.database_url.rpartition(":")[2].partition("/")[0])
        return sum(one.raddr.port == port for one in self.api.net_connections("tcp") if one.raddr)

    def sessions(self) -> int:
        """All connections to Postgres, counted by Postgres."""
        with psycopg.connect(self.database_url) as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            ).fetchone()
        return count


async def measure_gets(http: httpx2.AsyncClient, job_id: str, *, times: int, concurrency: int) -> list[float]:
    """The seconds of each of `times` GETs of a job, `concurrency` at once."""

    async def get() -> float:
        started = time.perf_counter()
        response = await http.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200
        return time.perf_counter() - started

    seconds: list[float] = []
    for _ in range(times // concurrency):
        seconds += await asyncio.gather(*(get() for _ in range(concurrency)))
    return seconds


async def block_callers(platform, key: str) -> dict:
    """Block 500 callers on one account, measure the platform, cancel all jobs, and collect the responses."""
    usage = ResourceUsage(platform)
    many = httpx2.Limits(max_connections=WAITERS + 50, max_keepalive_connections=WAITERS + 50)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        base_url=platform.url, headers=headers, limits=many, timeout=120, trust_env=False
    ) as http:
        started = await http.post(IMAGES, json={"prompt": "[[hang]]", "n": 1, "async": True})
        first = started.json()["id"]
        # Warm: the thread pool and the connection pool grow to their size with the first busy moment.
        await measure_gets(http, first, times=200, concurrency=50)
        idle = await measure_gets(http, first, times=REQUESTS, concurrency=1)
        before = (usage.threads(), usage.connections(), usage.sessions())
        waiting = [asyncio.create_task(http.post(IMAGES, json={"prompt": "[[hang]]", "n": 1})) for _ in range(WAITERS)]
        count = "SELECT count(*) FROM jobs WHERE finished_at IS NULL AND params->'order'->>'prompt' = '[[hang]]'"
        async with await psycopg.AsyncConnection.connect(platform.database_url, autocommit=True) as connection:
            deadline = time.monotonic() + 90
            while (await (await connection.execute(count)).fetchone())[0] <= WAITERS:
                assert time.monotonic() < deadline, "500 callers were not accepted"
                assert not any(task.done() for task in waiting)
                await asyncio.sleep(0.1)
        loaded = await measure_gets(http, first, times=REQUESTS, concurrency=1)
        concurrent = await measure_gets(http, first, times=REQUESTS, concurrency=10)
        after = (usage.threads(), usage.connections(), usage.sessions())
        still_blocked = not any(task.done() for task in waiting)
        page, ids = {"has_more": True, "last_id": None}, []
        while page["has_more"]:
            query = {"limit": 100, **({"after": page["last_id"]} if page["last_id"] else {})}
            page = (await http.get("/v1/jobs", params=query)).json()
            ids += [job["id"] for job in page["data"]]
        for start in range(0, len(ids), 50):
            await asyncio.gather(*(http.post(f"/v1/jobs/{job_id}/cancel") for job_id in ids[start : start + 50]))
        responses = await asyncio.gather(*waiting)
    return {
        "idle": idle, "loaded": loaded, "concurrent": concurrent, "before": before, "after": after, "jobs": ids,
        "still_blocked": still_blocked, "responses": responses,
    }  # fmt: skip


def test_500_blocked_callers_do_not_slow_down_the_api(api_platform):
    result = asyncio.run(block_callers(api_platform, new_key()))
    assert result["still_blocked"], "all callers were still waiting during the measurement"
    assert len(result["loaded"]) == len(result["concurrent"]) == REQUESTS
    # A busy machine may slow down single requests; a thread or lock per waiter would be hundreds of times slower.
    assert statistics.median(result["loaded"]) < 10 * statistics.median(result["idle"]) + 0.02
    threads, connections, sessions = (
        late - early for early, late in zip(result["before"], result["after"], strict=True)
    )
    assert threads <= 8, result
    assert connections <= 12, result
    assert sessions <= 60, result  # the workers' pools may have grown too, but not by one per waiter
    assert len(result["jobs"]) == WAITERS + 1
    codes = Counter((response.status_code, response.json()["error"]["code"]) for response in result["responses"])
    assert codes == {(409, "job_cancelled"): WAITERS}
    assert all(response.headers["x-should-retry"] == "false" for response in result["responses"])
    assert len({response.headers["x-job-id"] for response in result["responses"]}) == WAITERS
