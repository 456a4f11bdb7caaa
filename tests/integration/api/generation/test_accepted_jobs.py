"""Acceptance tells the feeds of new jobs at once: their first change may be minutes away."""

import json

from starlette.testclient import TestClient

from api.app import create_app
from tests.support.engine import Engine
from worker.core.ids import parse_public_id
from worker.messaging.pubsub import CHANNEL
from worker.messaging.redis_connection import redis_client


def test_new_jobs_are_published_when_they_are_accepted(engine: Engine) -> None:
    listener = redis_client().pubsub()
    listener.subscribe(CHANNEL)
    with TestClient(create_app()) as client:
        assert listener.get_message(timeout=10) is not None
        answer = client.post(
            "/v1/images/generations",
            json={"prompt": "a boat", "n": 1, "async": True},
            headers={"Authorization": "Bearer published-01:sandbox"},
        )
        assert answer.status_code == 202, answer.text
        # No worker runs here, so nothing else happens to the job.
        message = listener.get_message(timeout=10)
    listener.close()
    assert message is not None
    job_id = parse_public_id("job", answer.json()["id"])
    assert job_id is not None
    assert json.loads(message["data"]) == [[job_id.hex, "queued", 1]]
