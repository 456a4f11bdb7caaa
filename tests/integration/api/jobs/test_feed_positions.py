"""The feed reports jobs that wait: when they are accepted, and their queue positions while other jobs change."""

import threading
import time

from tests.integration.api.jobs.test_feed_and_favourites import EVENTS, feed_events
from tests.support.api_client import ApiClient


def test_position_is_reported_while_other_jobs_change(api_platform) -> None:
    with ApiClient(api_platform) as client, ApiClient(api_platform, client.key) as other:
        jobs = [client.start_job("[[hang]]")["id"] for _ in range(24)]
        client.wait_for_status(jobs[0], "in_progress")
        last = jobs[-1]
        start = client.job(last)["queue"]["position"]
        assert start > 10

        def cancel_others() -> None:
            for job in reversed(jobs[:-1]):
                other.cancel(job)
                time.sleep(0.5)

        canceller = threading.Thread(target=cancel_others)
        with client.http.stream("GET", EVENTS) as stream:
            events = feed_events(stream)
            next(events)
            canceller.start()
            positions = []
            for _, _, job in events:
                if job["id"] == last:
                    positions.append(job["queue"]["position"])
                    if positions[-1] is None or positions[-1] <= 1:
                        break
        canceller.join()
        client.cancel(last)
    between = [position for position in positions if position is not None and 1 < position < start]
    assert between, positions


def test_jobs_of_another_client_are_reported_before_anything_happens_to_them(api_platform) -> None:
    with ApiClient(api_platform) as client, ApiClient(api_platform, client.key) as other:
        # The account of a session id exists after its first job.
        busy = client.start_job("[[hang]]")["id"]
        client.wait_for_status(busy, "in_progress")
        with client.http.stream("GET", EVENTS) as stream:
            events = feed_events(stream)
            next(events)
            jobs = [other.start_job("[[hang]]")["id"] for _ in range(20)]
            seen: dict[str, dict] = {}
            while not seen.keys() >= set(jobs):
                _, _, job = next(events)
                seen.setdefault(job["id"], job)
        for job_id in [busy, *jobs]:
            client.cancel(job_id)
    waiting = [job for job in seen.values() if job["queue"]["position"] is not None]
    assert len(waiting) >= 5
