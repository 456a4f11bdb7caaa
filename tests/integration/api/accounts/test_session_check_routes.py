"""Session id checks on a running platform, through the queue and a worker."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.api_client import ApiClient, new_session
from worker.local.supervisor import Platform


def test_worker_answers_checks_quickly(api_platform: Platform) -> None:
    good, dead = f"{new_session('plain')}:sandbox", f"{new_session('dead')}:sandbox"
    with ApiClient(api_platform, f"{good},{dead}") as client:
        begin = time.monotonic()
        assert client.http.post("/token/check", json={"token": good}).json() == {"live": True}
        assert client.http.post("/token/check", json={"token": dead}).json() == {"live": False}
        first, second = client.http.post("/token/points").json()
        assert first["points"]["totalCredit"] > 0
        assert second["error"]["code"] == "upstream_session_expired"
        [claim, _] = client.http.post("/token/receive").json()
        assert claim["received"] == 0
        assert time.monotonic() - begin < 20
        assert client.http.get("/v1/jobs").json()["data"] == []


def test_concurrent_checks(api_platform: Platform) -> None:
    tokens = [f"{new_session('plain')}:sandbox" for _ in range(40)]
    with ApiClient(api_platform) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda t: client.http.post("/token/check", json={"token": t}).json(), tokens))
    assert answers == [{"live": True}] * 40
