"""The webhook outbox: which deliveries are written in the transaction of a state change."""

import json
import threading
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support import factories
from tests.support.engine import Engine
from worker.core.webhook_policy import WEBHOOK_EVENTS
from worker.db.engine import transaction
from worker.db.jobs import queries, state_machine
from worker.db.users import api_keys, users
from worker.db.webhooks import endpoints, outbox
from worker.tasks.converse import converse
from worker.tasks.deliver_webhooks import event_body
from worker.tasks.dispatch import sweep

URL = "https://example.com/hook"


def add_endpoint(engine: Engine, **changes: Any) -> UUID:
    with transaction() as tx:
        return factories.make_endpoint(tx, changes.pop("url", URL), **changes)[0]


def deliveries(engine: Engine) -> list[tuple[UUID | None, str]]:
    rows = engine.sql("SELECT endpoint_id, event FROM webhook_deliveries ORDER BY event, endpoint_id")
    return [(row.endpoint_id, row.event) for row in rows]


def fail_job(job_id: UUID) -> Any:
    with transaction() as tx:
        return state_machine.mark_failed(
            tx, job_id=job_id, attempt=None, code="upstream_error", message="x", actor="test"
        )


def key_of(name: str, key: str) -> api_keys.KeyOwner:
    with transaction() as tx:
        api_keys.ensure_bootstrap_key(tx, users.ensure_admin(tx), key)
        found = api_keys.find_key(tx, key)
    assert found is not None, name
    return found


def test_outbox_has_one_row_per_endpoint_and_one_for_the_jobs_own_webhook(engine: Engine) -> None:
    first, second = add_endpoint(engine), add_endpoint(engine, url="https://example.org/other")
    job = engine.add_succeeded_job(engine.add_account(), webhook_url="http://place.example:8080/a?b=c")
    rows = engine.sql("SELECT *, xmin::text AS x FROM webhook_deliveries")
    [change] = engine.sql("SELECT xmin::text AS x FROM jobs WHERE id = :id", id=job)
    assert {row.x for row in rows} == {change.x}, "written by the transaction that changed the state"
    assert {(row.endpoint_id, row.url, row.lane) for row in rows} == {
        (first, URL, f"endpoint:{first}"),
        (second, "https://example.org/other", f"endpoint:{second}"),
        (None, "http://place.example:8080/a?b=c", "place:tokens:test:http://place.example:8080"),
    }
    assert {(row.event, row.job_id, row.tries, row.owner) for row in rows} == {("job.completed", job, 0, "tokens:test")}
    assert all(row.due_at for row in rows)


@pytest.mark.parametrize("wanted", [event for event in WEBHOOK_EVENTS if event.startswith("job.")])
def test_endpoint_receives_only_subscribed_events(engine: Engine, wanted: str) -> None:
    endpoint = add_endpoint(engine, events=(wanted,))
    engine.add_succeeded_job(engine.add_account())
    fail_job(engine.add_job(engine.add_account()))
    with transaction() as tx:
        state_machine.cancel(tx, factories.make_job(tx, []))
    assert deliveries(engine) == [(endpoint, wanted)]


def test_started_event_goes_only_to_subscribed_endpoints(engine: Engine) -> None:
    add_endpoint(engine)
    subscribed = add_endpoint(engine, events=("job.started", "job.completed"))
    running = engine.add_running_job(engine.add_account(), webhook_url=URL)
    assert deliveries(engine) == [(subscribed, "job.started")]
    assert engine.job_row(running).state == "running"


def test_conversation_webhook_is_sent_once_and_endpoints_receive_each_job_with_its_parent(
    engine: Engine,
) -> None:
    endpoint = add_endpoint(engine)
    order = {"messages": [{"role": "user", "text": "draw a boat"}]}
    params = {"order": order, "n": 0, "flags": {}, "asked_model": "agent", "images": []}
    chat = engine.add_job(engine.add_account(), kind="chat", model="agent", params=params, webhook_url=URL)
    engine.make_due()
    converse(job_id=chat)
    [child] = engine.sql("SELECT * FROM jobs WHERE parent_id = :id", id=chat)
    assert deliveries(engine) == [], "the conversation ends with its jobs"
    engine.finish_upstream()
    engine.make_due()
    engine.poll(child.account_id)
    engine.save(child.id)
    sweep()
    rows = engine.sql("SELECT * FROM webhook_deliveries")
    assert sorted((row.endpoint_id is not None, row.event, row.job_id == chat) for row in rows) == [
        (False, "job.completed", True),
        (True, "job.completed", False),
        (True, "job.completed", True),
    ]
    assert {row.endpoint_id for row in rows} == {None, endpoint}
    with transaction() as tx:
        views = {row.job_id: queries.group_views(tx, [row.job_id])[0] for row in rows}
    parents = {row.job_id: json.loads(event_body(row, views[row.job_id]))["data"]["parent"] for row in rows}
    assert parents == {chat: None, child.id: f"job_{chat.hex}"}


def test_other_users_and_disabled_endpoints_receive_nothing(engine: Engine) -> None:
    add_endpoint(engine, owner="tokens:somebody-else")
    disabled = add_endpoint(engine)
    with transaction() as tx:
        assert endpoints.disable_endpoint(tx, disabled, reason="test")
        assert not endpoints.disable_endpoint(tx, disabled, reason="again")
    fail_job(engine.add_job(engine.add_account()))
    assert deliveries(engine) == []


def test_endpoint_of_a_key_receives_only_events_of_that_keys_jobs(engine: Engine) -> None:
    old = key_of("old", "sk-dreamery-first-0123456789")
    new = key_of("new", "sk-dreamery-second-0123456789")
    assert old.user_id == new.user_id
    owner = f"user:{old.user_id}"
    whole: dict[str, Any] = {"owner": owner, "user_id": old.user_id}
    of_user, of_key = add_endpoint(engine, **whole), add_endpoint(engine, **whole, api_key_id=new.api_key_id)
    account = engine.add_account(pool=True)
    fail_job(engine.add_job(account, **whole, api_key_id=old.api_key_id))
    assert deliveries(engine) == [(of_user, "job.failed")]
    fail_job(engine.add_job(account, **whole, api_key_id=new.api_key_id))
    assert sorted(deliveries(engine)) == sorted([(of_user, "job.failed")] * 2 + [(of_key, "job.failed")])
    engine.sql("DELETE FROM api_keys WHERE id = :id", id=new.api_key_id)
    assert engine.sql("SELECT id FROM webhook_endpoints")[0].id == of_user


def test_crash_before_commit_leaves_neither_state_nor_event(engine: Engine) -> None:
    add_endpoint(engine)
    job = engine.add_job(engine.add_account(), webhook_url=URL)

    def crash() -> None:
        with transaction() as tx:
            assert state_machine.mark_failed(
                tx, job_id=job, attempt=None, code="upstream_error", message="x", actor="test"
            )
            assert tx.all(state_machine.text("SELECT 1 FROM webhook_deliveries"))
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash()
    assert engine.job_row(job).state == "queued"
    assert deliveries(engine) == []


def test_duplicate_end_creates_one_delivery(engine: Engine) -> None:
    endpoint = add_endpoint(engine)
    job = engine.add_job(engine.add_account(), webhook_url=URL)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(fail_job(job))) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sum(row is not None for row in results) == 1
    assert deliveries(engine) == [(endpoint, "job.failed"), (None, "job.failed")]
    for endpoint_id in (endpoint, None):
        with pytest.raises(psycopg.errors.UniqueViolation), engine.connect() as other:
            other.execute(
                """INSERT INTO webhook_deliveries (id, job_id, endpoint_id, event, url, owner, lane)
                   VALUES (gen_random_uuid(), %s, %s, 'job.failed', 'x', 'x', 'x')""",
                [job, endpoint_id],
            )


def test_job_ends_while_its_endpoint_is_being_removed(engine: Engine) -> None:
    leaving, staying = add_endpoint(engine), add_endpoint(engine)
    job = engine.add_job(engine.add_account())
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(fail_job(job)))
    with engine.connect() as other:
        other.execute("DELETE FROM webhook_endpoints WHERE id = %s", [leaving])
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "it waits for the removal"
    thread.join(10)
    assert done[0] is not None
    assert deliveries(engine) == [(staying, "job.failed")]


def test_deleting_job_or_endpoint_deletes_deliveries_and_attempts(engine: Engine, receiver) -> None:
    kept, removed = add_endpoint(engine, url=receiver.url), add_endpoint(engine, url=receiver.url)
    fail_job(engine.add_job(engine.add_account()))
    other = engine.add_job(engine.add_account())
    fail_job(other)
    for row in engine.sql("SELECT id FROM webhook_deliveries"):
        with transaction() as tx:
            lane = outbox.lane_of(tx, row.id)
            assert outbox.claim_delivery(tx, owner=lane.owner, lane=lane.lane, delivery_id=row.id)
    assert engine.sql("SELECT count(*) AS n FROM webhook_attempts")[0].n == 4
    with transaction() as tx:
        assert endpoints.remove_endpoint(tx, removed, "tokens:test")
        assert not endpoints.remove_endpoint(tx, removed, "tokens:test")
        assert not endpoints.remove_endpoint(tx, kept, "tokens:somebody-else")
    assert {endpoint for endpoint, _ in deliveries(engine)} == {kept}
    engine.sql("DELETE FROM jobs WHERE id = :id", id=other)
    assert deliveries(engine) == [(kept, "job.failed")]
    assert engine.sql("SELECT count(*) AS n FROM webhook_attempts")[0].n == 1


def test_sweep_takes_a_few_due_deliveries_of_each_lane(engine: Engine) -> None:
    busy, paused, off, quiet = (add_endpoint(engine, url=f"https://example.com/{n}") for n in range(4))
    for _ in range(6):
        fail_job(engine.add_job(engine.add_account()))
    engine.sql("DELETE FROM webhook_deliveries WHERE endpoint_id = :id", id=quiet)
    fail_job(engine.add_job(engine.add_account(), webhook_url="https://Example.net/x"))
    engine.sql("UPDATE webhook_endpoints SET slow_until = now() + interval '1 minute' WHERE id = :id", id=paused)
    engine.sql("UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'x' WHERE id = :id", id=off)
    engine.make_due()
    engine.sql("UPDATE webhook_deliveries SET due_at = now() + interval '1 hour' WHERE endpoint_id IS NULL")
    engine.take_messages()
    assert sweep().endswith("4 webhooks")
    enqueued = {UUID(hex=m.ids["delivery_id"]) for m in engine.take_messages("dreamery.notify")}
    by_id = {row.id: row.endpoint_id for row in engine.sql("SELECT id, endpoint_id FROM webhook_deliveries")}
    assert sorted(str(by_id[item]) for item in enqueued) == sorted([str(busy)] * 3 + [str(quiet)])
    engine.make_due()
    sweep()
    lanes = {engine.sql("SELECT lane FROM webhook_deliveries WHERE id = :id", id=UUID(hex=m.ids["delivery_id"]))[0].lane
             for m in engine.take_messages("dreamery.notify")}  # fmt: skip
    assert "place:tokens:test:https://example.net" in lanes


def test_sweep_takes_the_deliveries_of_owners_in_turn(engine: Engine) -> None:
    """Hundreds of receivers of one owner, all due before, do not hide the delivery of another owner."""
    account = engine.add_account()
    for number in range(40):
        fail_job(engine.add_job(account, webhook_url=f"https://{number}.example/x"))
    fail_job(engine.add_job(account, owner="tokens:other", webhook_url="https://0.example/x"))
    engine.make_due()
    engine.sql("UPDATE webhook_deliveries SET due_at = now() - interval '1 hour' WHERE owner <> 'tokens:other'")
    with transaction() as tx:
        found = outbox.due_deliveries(tx, limit=2)
        assert len(outbox.due_deliveries(tx, limit=300)) == outbox.MAX_PER_OWNER + 1
    owners = {row.id: row.owner for row in engine.sql("SELECT id, owner FROM webhook_deliveries")}
    assert [owners[one] for one in found] == ["tokens:test", "tokens:other"]
    with transaction() as tx:
        place = outbox.lane_of(tx, found[0])
        assert place is not None
        assert outbox.claim_delivery(tx, owner=place.owner, lane=place.lane) is not None
    with transaction() as tx:
        assert len(outbox.due_deliveries(tx, limit=300)) == outbox.MAX_PER_OWNER, "one is in progress"
