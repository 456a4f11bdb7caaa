"""Requests of the whole API that arrive or end together share reads, and get their own answers."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event

from api.app import create_app
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import running_app
from worker.core.ids import public_id
from worker.db.engine import get_engine, transaction
from worker.db.users import api_keys, users
from worker.messaging import pubsub

IMAGES = "/v1/images/generations"
CALLERS = 40


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    engine.add_account(pool=True)
    with running_app(create_app(), lifespan="on") as url:
        yield url


@pytest.fixture
def statements(engine: Engine) -> Iterator[Counter[str]]:
    """Counts the statements of this process by the name in their comment, and those that read files."""
    counts: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        name = re.search(r"/\* (\w+) \*/", statement)
        counts["files" if "FROM files" in statement else name[1] if name else "other"] += 1

    event.listen(get_engine(), "before_cursor_execute", count)
    yield counts
    event.remove(get_engine(), "before_cursor_execute", count)


def add_key(name: str) -> tuple[UUID, str]:
    with transaction() as tx:
        row = users.add_user(tx, name=name, role="member")
        assert row is not None
        return api_keys.create_key(tx, api_keys.NewKey(user_id=row.id, name="key"))


def finish_all(engine: Engine) -> None:
    """End all jobs with one file each, and publish it in one message, as a worker does."""
    engine.sql(
        """UPDATE jobs SET state = 'succeeded', attempt = 1, account_id = (SELECT id FROM accounts LIMIT 1),
               submit_key = gen_random_uuid(), submitted_at = now(), finished_at = now(), event_seq = 4"""
    )
    engine.sql(
        """INSERT INTO files (id, job_id, n, variant, key, mime, bytes, sha256, width, height)
           SELECT id, id, 0, 'original', id::text, 'image/webp', 1, '', 8, 8 FROM jobs"""
    )
    with pubsub.batch_job_changes():
        for row in engine.sql("SELECT id, state, event_seq FROM jobs"):
            pubsub.publish_job_change(row.id, row.state, row.event_seq)


def test_concurrent_requests_share_reads_and_get_their_own_results(
    engine: Engine, url: str, statements: Counter[str]
) -> None:
    keys = [add_key(name)[1] for name in ("alice", "bob")]

    async def work() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            requests = [
                client.post(
                    IMAGES, json={"prompt": f"prompt {n}", "n": 1}, headers={"Authorization": f"Bearer {keys[n % 2]}"}
                )
                for n in range(CALLERS)
            ]
            waiting = [asyncio.create_task(request) for request in requests]
            queued = "SELECT 1 FROM jobs"
            await asyncio.to_thread(eventually, lambda: len(engine.sql(queued)) == CALLERS)
            await asyncio.to_thread(finish_all, engine)
            return list(await asyncio.gather(*waiting))

    responses = asyncio.run(work())
    assert {response.status_code for response in responses} == {200}
    by_prompt = {row.prompt: row.id for row in engine.sql("SELECT id, params #>> '{order,prompt}' AS prompt FROM jobs")}
    for n, response in enumerate(responses):
        job_id = by_prompt[f"prompt {n}"]
        assert response.headers["x-job-id"] == public_id("job", job_id)
        assert public_id("file", job_id) in response.json()["data"][0]["url"]
    assert statements["accept"] <= CALLERS / 2
    assert statements["find_keys"] <= CALLERS / 2
    assert statements["files"] <= CALLERS / 2


def test_revoked_key_is_refused_at_once_and_alone(engine: Engine, url: str) -> None:
    (key_id, revoked), (_, valid) = add_key("alice"), add_key("bob")

    async def work() -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:

            async def send(key: str) -> int:
                response = await client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
                return response.status_code

            assert (
                await asyncio.gather(*(send(key) for key in [revoked, valid, "sk-dreamery-unknown"] * 5))
                == [
                    200,
                    200,
                    401,
                ]
                * 5
            )
            with transaction() as tx:
                api_keys.revoke_key(tx, key_id)
            return list(await asyncio.gather(*(send(key) for key in [revoked, valid] * 5)))

    assert asyncio.run(work()) == [401, 200] * 5
