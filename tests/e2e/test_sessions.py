"""Session ids as API keys: every region, lists with several regions, and the number of upstream calls per job."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.api_client import ApiClient, account_name, assert_error, new_key, new_session
from tests.support.platform import eventually
from tests.support.sandbox_client import read_ledger


@pytest.mark.parametrize(
    ("key", "region"),
    [
        ("{}", "us"),
        ("{}:cn", "cn"),
        ("us-{}", "us"),
        ("sg-{}", "sg"),
        ("{}:hk", "hk"),
        ("jp-{}", "jp"),
        ("{}:sandbox", "sandbox"),
    ],
)
def test_session_of_every_region(multi_region_platform, key, region):
    """All upstream hosts point to the sandbox, so every region works; the region of a bare session id is detected."""
    session = new_session(f"caller-{region}-" if region in {"us", "cn", "sg", "hk", "jp"} else "caller")
    with ApiClient(multi_region_platform, key.format(session)) as client:
        response = client.generate_images(n=1, size="512x512")
        assert response.status_code == 200, response.text
        image = httpx.get(response.json()["data"][0]["url"], trust_env=False)
        assert image.status_code == 200
        assert client.job(response.headers["x-job-id"])["status"] == "completed"


def test_session_list_with_several_regions(multi_region_platform):
    with ApiClient(
        multi_region_platform, f"{new_session('a-cn-')}:cn, us-{new_session('a-us-')},{new_key()}"
    ) as client:
        jobs = [client.start_job()["id"] for _ in range(6)]
        assert {client.wait_for_end(job_id)["status"] for job_id in jobs} == {"completed"}
    with ApiClient(multi_region_platform, "a:cn") as client:
        assert_error(client.generate_images(model="dreamina-gpt-image-2"), 404, "model_not_found", "model")


def test_100_open_jobs_need_at_most_two_upstream_calls_each(multi_region_platform):
    def fetch_ledger() -> dict:
        return read_ledger(multi_region_platform)

    def count_calls(ledger: dict) -> int:
        return sum(count for path, count in ledger["calls"].items() if path != "/_media")

    with ApiClient(multi_region_platform, new_key()) as client:
        name = account_name(client.key)
        before = fetch_ledger()
        with ThreadPoolExecutor(8) as pool:
            started = pool.map(lambda n: client.start_job(f"job {n} [[seconds:12]]", size="512x512"), range(100))
            jobs = [job["id"] for job in started]
        eventually(
            lambda: not client.http.get("/v1/jobs", params={"status": "queued,in_progress"}).json()["data"],
            within=90,
            what="all jobs ended",
        )
        pages = [client.http.get("/v1/jobs", params={"limit": 100, "status": "completed"}).json()]
        assert {job["id"] for job in pages[0]["data"]} == set(jobs)
        after = fetch_ledger()
    assert after["accounts"][name]["submits"] == 100
    assert after["accounts"][name]["charged"] == sum(
        charge["amount"] for charge in after["charges"] if charge["account"] == name
    )
    assert after["accounts"][name]["max_in_flight"] > 50
    assert count_calls(after) - count_calls(before) <= 200
