"""The converse task against the sandbox's agent: text, started jobs, refusals, broken streams, killed workers."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.engine import Engine
from tests.support.platform import eventually, free_port
from tests.support.servers.http_servers import RequestPause
from worker import celery_tasks
from worker.db.accounts import polling
from worker.db.engine import Row, transaction
from worker.db.jobs import claims, state_machine
from worker.messaging.conversation_permits import conversation_permits
from worker.messaging.pubsub import AGENT_TEXT_CHANNEL
from worker.tasks.converse import converse
from worker.tasks.dispatch import sweep
from worker.tasks.poll import poll
from worker.tasks.save import save
from worker.tasks.submit import submit

TALK = "/creation_agent/v2/conversation"
CREDIT = "/benefits/user_credit"


def params(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "text": text} for n, text in enumerate(texts)]
    return {"order": {"messages": turns}, "n": 0, "flags": {}, "asked_model": "agent", "images": []}


def chat(engine: Engine, *account_ids: UUID, prompt: str = "hi", **changes: Any) -> UUID:
    """Add a conversation to the queue."""
    values = {"kind": "chat", "model": "agent", "params": params(prompt), **changes}
    return engine.add_job(*account_ids, **values)


def run_converse(engine: Engine, job_id: UUID) -> str:
    """Run the converse task for a job that is due."""
    engine.make_due()
    return converse(job_id=job_id)


def conversation_row(engine: Engine, job_id: UUID) -> Row[Any]:
    return engine.sql("SELECT * FROM conversations WHERE job_id = :id", id=job_id)[0]


def children(engine: Engine, job_id: UUID) -> list[Row[Any]]:
    return engine.sql("SELECT * FROM jobs WHERE parent_id = :id ORDER BY id", id=job_id)


def sent_conversations(engine: Engine) -> list[dict[str, Any]]:
    """Return the conversations that upstream received."""
    return list(engine.ledger()["conversations"])


def finish_agent_jobs(engine: Engine, job_id: UUID) -> None:
    """Let upstream finish the jobs of the agent, and save them."""
    for child in children(engine, job_id):
        engine.finish_upstream()
        engine.make_due()
        poll(account_id=child.account_id)
    for child in children(engine, job_id):
        if child.state == "saving":
            save(job_id=child.id)
    sweep()


def expire_lease(engine: Engine, job_id: UUID) -> None:
    """Expire the lease of a conversation."""
    engine.sql("UPDATE jobs SET due_at = now() - interval '1 second' WHERE id = :id", id=job_id)


@contextmanager
def subscribe_text(engine: Engine) -> Iterator[Callable[[], list[tuple[str, int, str]]]]:
    """Subscribe to all published text. Yield a function that returns what has arrived."""
    received: list[tuple[str, int, str]] = []
    with engine.redis.pubsub(ignore_subscribe_messages=True) as line:
        line.subscribe(AGENT_TEXT_CHANNEL)
        line.get_message(timeout=5)

        def read() -> list[tuple[str, int, str]]:
            while (message := line.get_message(timeout=0.2)) is not None:
                received.append(tuple(json.loads(message["data"])))
            return received

        yield read


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[None]:
    """Run the task in a thread beside the test."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result(30)


# --- text ---


def test_conversation_is_published_stored_and_ends(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account, prompt="tell me 一个笑话")
    with subscribe_text(engine) as published_text:
        run_converse(engine, job)
        published = published_text()
    row, talk = engine.job_row(job), conversation_row(engine, job)
    assert talk.said == "You said: “tell me 一个笑话” — 好的 🙂"
    assert (talk.finish, talk.calls) == ("stop", 0)
    assert len(published) > 3
    offset = 0
    for name, start, text in published:
        assert (name, start) == (job.hex, offset)
        offset += len(text)
    assert "".join(text for *_, text in published) == talk.said
    assert engine.state_history(job) == ["queued", "submitting", "running", "saving", "succeeded"]
    assert (row.state, row.progress, row.holds_slot) == ("succeeded", 100, False)
    (line,) = sent_conversations(engine)
    assert line["conversation_id"] == str(row.submit_key) == row.upstream_id
    assert engine.ledger()["violations"] == {}


def test_all_messages_are_sent_and_the_last_one_is_answered(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), params=params("my name is Bo", "Hello Bo", "what is my name?"))
    run_converse(engine, job)
    assert "what is my name?" in conversation_row(engine, job).said


def test_webhook_is_due_once_when_all_jobs_ended(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw a boat", webhook_url="https://hook.test/x")
    run_converse(engine, job)
    assert engine.job_row(job).state == "saving"
    assert engine.sql("SELECT * FROM webhook_deliveries") == []
    finish_agent_jobs(engine, job)
    assert engine.job_row(job).state == "succeeded"
    (hook,) = engine.sql("SELECT * FROM webhook_deliveries")
    assert (hook.job_id, hook.event) == (job, "job.completed")


# --- jobs of the agent ---


@pytest.mark.parametrize("form", ["", "[[replace]]", "[[complete]]", "[[repeat]] [[leak]]", "[[replace]] [[complete]]"])
def test_agent_images_become_jobs_that_poll_and_save_finish(engine: Engine, form: str) -> None:
    account = engine.add_account()
    job = chat(engine, account, prompt=f"draw two huskies, 16:9 [[image:2]] {form}", owner="tokens:alice")
    run_converse(engine, job)
    child_rows = children(engine, job)
    assert engine.job_row(job).state == "saving"
    assert [child.state for child in child_rows] == ["running", "running"]
    assert engine.charge_count() == 2
    for child in child_rows:
        assert (child.kind, child.owner, child.account_id, child.attempt) == ("image", "tokens:alice", account, 1)
        assert child.account_ids == [account]
        assert child.group_id == child.id
        assert child.params["order"]["prompt"].startswith("draw two huskies")
        assert child.params["order"]["ratio"] == "16:9"
        assert child.holds_slot
    finish_agent_jobs(engine, job)
    assert engine.states([child.id for child in child_rows]) == ["succeeded", "succeeded"]
    assert [len(engine.files(child.id)) for child in child_rows] == [1, 1]
    assert engine.job_row(job).state == "succeeded"
    talk = conversation_row(engine, job)
    assert "submit_id" not in talk.said
    assert talk.said.endswith("Done — 完成 ✅")
    assert talk.calls == 2
    started = [event.note["started"] for event in engine.job_events(job) if "started" in event.note]
    assert started == [child.id.hex for child in child_rows]
    assert engine.ledger()["violations"] == {}


def test_agent_video_is_adopted_as_a_video(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="[[image:0]] a video of a boat")
    run_converse(engine, job)
    (child,) = children(engine, job)
    assert (child.kind, child.state) == ("video", "running")
    assert str(child.submit_key) in {charge["submit_id"] for charge in engine.ledger()["charges"]}


def test_tool_call_without_job_is_counted(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw [[image:3]] [[lost]]")
    run_converse(engine, job)
    assert len(children(engine, job)) == 2
    assert conversation_row(engine, job).calls == 3


def test_failed_agent_job_still_ends_the_conversation(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw a boat [[fail:2004]]")
    run_converse(engine, job)
    finish_agent_jobs(engine, job)
    (child,) = children(engine, job)
    assert (child.state, child.error_code) == ("failed", "content_policy_violation")
    assert engine.job_row(job).state == "succeeded"


def test_adopting_twice_creates_one_job(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw a boat")
    run_converse(engine, job)
    (child,) = children(engine, job)
    with transaction() as tx:
        again = state_machine.adopt_child(
            tx, parent_id=job, kind="image", submit_key=child.submit_key, upstream_id="x", params={"order": {}}
        )
    assert again is None
    assert len(children(engine, job)) == 1
    assert engine.job_row(job).event_seq == len(engine.job_events(job))


def test_only_a_conversation_adopts_jobs(engine: Engine) -> None:
    image = engine.add_running_job(engine.add_account())
    with transaction() as tx:
        assert (
            state_machine.adopt_child(tx, parent_id=image, kind="image", submit_key=uuid4(), upstream_id="", params={})
            is None
        )


def test_daily_credits_are_claimed_before_a_conversation_without_credits(engine: Engine) -> None:
    account = engine.add_account(session=f"gift{uuid4().int}")
    job = chat(engine, account, prompt="draw a boat")
    run_converse(engine, job)
    assert len(children(engine, job)) == 1
    assert engine.account_row(account).credits == 60


def test_credits_are_not_read_for_each_conversation(engine: Engine) -> None:
    account = engine.add_account()
    for _ in range(3):
        run_converse(engine, chat(engine, account))
    assert engine.ledger()["calls"]["/commerce/v1/benefits/user_credit"] == 1


def set_credits(engine: Engine, account: UUID, left: int) -> UUID:
    engine.sql("UPDATE accounts SET credits = :n, credits_at = now() WHERE id = :id", id=account, n=left)
    return account


def test_account_without_credits_gets_no_conversation_while_another_has_some(engine: Engine) -> None:
    engine.configure(DAILY_RECEIVE="off")
    empty = set_credits(engine, engine.add_account(session=f"broke{uuid4().int}"), 0)
    full = set_credits(engine, engine.add_account(), 9000)
    jobs = [chat(engine, empty, full, prompt="draw a boat") for _ in range(4)]
    for job in jobs:
        run_converse(engine, job)
    assert {engine.job_row(job).account_id for job in jobs} == {full}
    # Its message of the queue finds nothing either.
    waiting = chat(engine, empty, full, prompt="draw a boat")
    engine.make_due()
    engine.sql("UPDATE accounts SET next_submit_at = now() + interval '20 seconds' WHERE id = :id", id=full)
    assert converse(job_id=waiting) == "waits for a slot"
    engine.sql("UPDATE jobs SET created_at = now() - interval '31 seconds' WHERE id = :id", id=waiting)
    converse(job_id=waiting)
    assert engine.job_row(waiting).account_id == empty, "the last resort"


def test_answer_that_credits_are_missing_is_no_success(engine: Engine) -> None:
    engine.configure(DAILY_RECEIVE="off")
    account = set_credits(engine, engine.add_account(session=f"broke{uuid4().int}"), 0)
    job = chat(engine, account, prompt="draw a boat")
    run_converse(engine, job)
    row, talk = engine.job_row(job), conversation_row(engine, job)
    assert (row.state, row.error_code, talk.finish) == ("failed", "insufficient_quota", "stop")
    assert "积分不足" in talk.said, "the answer is kept"
    (marks,) = engine.sql("SELECT good, bad FROM account_marks WHERE account_id = :id", id=account)
    assert (marks.good, marks.bad) == (0, 1)


def test_talk_about_credits_is_an_answer(engine: Engine) -> None:
    account = set_credits(engine, engine.add_account(), 9000)
    job = chat(engine, account, prompt="what does “not enough credits” mean?")
    run_converse(engine, job)
    assert engine.job_row(job).state == "succeeded"


# --- limits ---


def test_conversations_have_separate_slots(engine: Engine) -> None:
    engine.configure(ACCOUNT_MAX_CHATS="1", ACCOUNT_MAX_IMAGES="1")
    account = engine.add_account()
    first, second = (chat(engine, account, prompt="[[words:5]] [[silent]]") for _ in range(2))
    engine.configure(CONVERSATION_IDLE_TIMEOUT_SECONDS="2")
    with in_thread(lambda: run_converse(engine, first)):
        eventually(lambda: engine.job_row(first).state == "running")
        assert run_converse(engine, second) == "waits for a slot"
        image = engine.add_running_job(account)
        assert engine.job_row(image).holds_slot
    run_converse(engine, second)
    assert engine.job_row(second).submit_key is not None


def test_concurrent_claims_respect_the_limit(engine: Engine) -> None:
    engine.configure(ACCOUNT_MAX_CHATS="3")
    account = engine.add_account()
    for _ in range(12):
        chat(engine, account)

    def claim_one(_: int) -> Any:
        with transaction() as tx:
            return claims.claim_next(tx, account_id=account, kinds=("chat",), actor="converse")

    with ThreadPoolExecutor(8) as pool:
        taken = [claim for claim in pool.map(claim_one, range(24)) if claim is not None]
    assert len(taken) == 3


def test_account_pace_applies_to_conversations(engine: Engine) -> None:
    account = engine.add_account(submits_per_minute=1)
    first, second = chat(engine, account), chat(engine, account)
    assert "characters" in converse(job_id=first)
    assert converse(job_id=second) == "waits for a slot"
    assert engine.job_row(second).state == "queued"


def test_polls_ignore_conversations(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account)
    with transaction() as tx:
        claims.claim_next(tx, account_id=account, kinds=("chat",), actor="converse")
        polling.schedule_poll(tx, account)
    assert engine.poll(account) == "nothing open"
    assert engine.account_row(account).poll_due_at is None
    assert (engine.poll_count(), engine.job_row(job).state) == (0, "submitting")
    sweep()
    assert engine.account_row(account).poll_due_at is None


def test_image_tasks_ignore_conversations(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account)
    engine.make_due()
    assert submit(account_id=account) == "nothing to submit"
    assert submit(job_id=job) == "waits for a slot"
    assert engine.job_row(job).state == "queued"


def test_tick_enqueues_conversations_on_their_own_queue(engine: Engine) -> None:
    account = engine.add_account()
    job_ids = [chat(engine, account) for _ in range(5)]
    engine.make_due()
    celery_tasks.tick()
    messages = engine.take_messages("dreamery.converse")
    assert [UUID(hex=message.ids["job_id"]) for message in messages] == job_ids[:2]
    for message in messages:
        message.execute()
    assert engine.states(job_ids[:2]) == ["succeeded", "succeeded"]


# --- refusals before the first text ---


def test_expired_session_fails_over_to_the_next_account(engine: Engine) -> None:
    expired, good = engine.add_account(session=f"dead{uuid4().int}"), engine.add_account()
    job = chat(engine, expired, good)
    converse(account_id=expired)
    assert engine.job_row(job).state == "queued"
    assert expired in engine.job_row(job).avoid_accounts
    assert engine.account_row(expired).rest_code == "upstream_session_expired"
    run_converse(engine, job)
    assert engine.job_row(job).state == "succeeded"
    assert engine.job_row(job).account_id == good
    assert conversation_row(engine, job).said


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("[[reject]]", "upstream_permission_denied"),
        ("[[json:2038]]", "content_policy_violation"),
        ("[[json:1015]]", "upstream_session_expired"),
        ("[[json:4242]]", "upstream_error"),
    ],
)
def test_refusal_fails_the_job_with_its_code(engine: Engine, script: str, code: str) -> None:
    job = chat(engine, engine.add_account(), prompt=f"hi {script}")
    run_converse(engine, job)
    sweep()
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", code)
    assert not row.holds_slot


def test_busy_upstream_requeues_the_job(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account, prompt="hi [[json:1310]]")
    run_converse(engine, job)
    row = engine.job_row(job)
    assert (row.state, row.avoid_accounts, row.attempt) == ("queued", [], 1)
    # Only its conversations cool down: upstream still accepts images.
    assert set(engine.account_row(account).kind_rests) == {"chat"}
    assert engine.account_row(account).rest_code is None


def test_unreachable_upstream_is_retried(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account)
    unreachable = f"http://127.0.0.1:{free_port()}"
    engine.configure(SANDBOX_URL=unreachable, UPSTREAM_ORIGIN=unreachable, DAILY_RECEIVE="false")
    run_converse(engine, job)
    assert engine.job_row(job).state == "queued"
    engine.configure(SANDBOX_URL=engine.url, UPSTREAM_ORIGIN=engine.url)
    run_converse(engine, job)
    assert engine.job_row(job).state == "succeeded"
    assert len(sent_conversations(engine)) == 1


@pytest.mark.parametrize(
    "script", ["[[reset]]", "[[reset:after]]", "[[empty:after]]", "[[html:after]]", "[[http:500]]"]
)
def test_conversation_without_response_is_never_sent_again(engine: Engine, script: str) -> None:
    job = chat(engine, engine.add_account(), prompt=f"draw a boat {script}")
    run_converse(engine, job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "stream_broken")
    assert engine.ledger()["calls"]["/mweb/v1/creation_agent/v2/conversation"] == 1


# --- broken streams ---


def test_broken_connection_keeps_the_text(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="one two three [[cut]]")
    run_converse(engine, job)
    row, talk = engine.job_row(job), conversation_row(engine, job)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", "stream_broken", False)
    assert talk.said.startswith("You said")
    assert talk.finish is None
    sweep()
    assert len(sent_conversations(engine)) == 1


def test_jobs_started_before_the_break_still_finish(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw [[image:2]] [[cut:tools]]")
    run_converse(engine, job)
    assert engine.job_row(job).error_code == "stream_broken"
    finish_agent_jobs(engine, job)
    assert [child.state for child in children(engine, job)] == ["succeeded", "succeeded"]
    assert engine.charge_count() == 2


def test_stream_without_end_marker_finishes_with_length(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="one two three [[truncate]]")
    run_converse(engine, job)
    assert (engine.job_row(job).state, conversation_row(engine, job).finish) == ("succeeded", "length")


def test_truncated_stream_keeps_its_jobs(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw [[image:2]] [[truncate:tools]]")
    run_converse(engine, job)
    finish_agent_jobs(engine, job)
    assert (engine.job_row(job).state, conversation_row(engine, job).finish) == ("succeeded", "length")
    assert [child.state for child in children(engine, job)] == ["succeeded", "succeeded"]


def test_silent_stream_times_out(engine: Engine) -> None:
    engine.configure(CONVERSATION_IDLE_TIMEOUT_SECONDS="0.5")
    job = chat(engine, engine.add_account(), prompt="one two [[silent]]")
    run_converse(engine, job)
    assert engine.job_row(job).error_code == "stream_broken"


def test_conversation_has_a_time_limit(engine: Engine) -> None:
    engine.configure(CONVERSATION_TIMEOUT_SECONDS="1")
    job = chat(engine, engine.add_account(), prompt="[[words:5000]] [[pause:0.02]]")
    began = time.monotonic()
    run_converse(engine, job)
    assert time.monotonic() - began < 30
    assert engine.job_row(job).error_code == "stream_broken"
    assert len(conversation_row(engine, job).said) > 20


# --- cancelling ---


def test_cancel_request_closes_the_stream(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account, prompt="[[words:2000]] [[pause:0.02]]")
    with in_thread(lambda: run_converse(engine, job)):
        eventually(lambda: engine.job_row(job).state == "running")
        with transaction() as tx:
            assert state_machine.cancel(tx, job) is None
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("cancelled", False)
    eventually(lambda: sent_conversations(engine)[0]["ended"] == "hung up")


def test_conversation_cancelled_before_sending_is_not_sent(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account)
    stop = engine.interceptor.before[CREDIT] = RequestPause()
    with in_thread(lambda: run_converse(engine, job)):
        stop.wait()
        with transaction() as tx:
            state_machine.cancel(tx, job)
        stop.release()
    assert engine.job_row(job).state == "cancelled"
    assert sent_conversations(engine) == []


# --- killed workers ---


def test_conversation_killed_before_sending_is_sent_by_another_worker(engine: Engine) -> None:
    job = chat(engine, engine.add_account())
    stop = engine.interceptor.before[CREDIT] = RequestPause()
    worker = engine.start_process("converse", job_id=job)
    stop.wait()
    worker.kill()
    stop.release()
    assert engine.job_row(job).state == "submitting"
    sweep()
    assert engine.job_row(job).state == "submitting", "its lease has not expired"
    expire_lease(engine, job)
    sweep()
    assert engine.job_row(job).state == "queued"
    run_converse(engine, job)
    assert engine.job_row(job).state == "succeeded"
    assert len(sent_conversations(engine)) == 1


def test_conversation_killed_during_the_call_is_never_sent_again(engine: Engine) -> None:
    job = chat(engine, engine.add_account())
    stop = engine.interceptor.before[TALK] = RequestPause()
    worker = engine.start_process("converse", job_id=job)
    stop.wait()
    worker.kill()
    stop.release()
    assert engine.job_row(job).state == "submitting"
    expire_lease(engine, job)
    sweep()
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "stream_broken")
    assert len(sent_conversations(engine)) <= 1


def test_conversation_killed_after_the_first_text_keeps_the_text(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="[[words:3000]] [[pause:0.02]]")
    worker = engine.start_process("converse", job_id=job)
    eventually(
        lambda: len(conversation_row(engine, job).said) > 10 if engine.job_row(job).state == "running" else False
    )
    worker.kill()
    worker.join()
    text = conversation_row(engine, job).said
    sweep()
    assert engine.job_row(job).state == "running", "its lease has not expired"
    expire_lease(engine, job)
    sweep()
    row = engine.job_row(job)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", "stream_broken", False)
    assert conversation_row(engine, job).said == text
    assert len(sent_conversations(engine)) == 1


def test_jobs_of_a_killed_conversation_still_finish(engine: Engine) -> None:
    job = chat(engine, engine.add_account(), prompt="draw [[image:2]] [[silent:tools]]")
    worker = engine.start_process("converse", job_id=job)
    eventually(lambda: len(children(engine, job)) == 2)
    worker.kill()
    worker.join()
    expire_lease(engine, job)
    sweep()
    assert engine.job_row(job).error_code == "stream_broken"
    finish_agent_jobs(engine, job)
    assert [child.state for child in children(engine, job)] == ["succeeded", "succeeded"]
    assert engine.charge_count() == len(engine.sql("SELECT id FROM files")) == 2
    assert len(sent_conversations(engine)) == 1


def test_silent_agent_keeps_its_lease(engine: Engine) -> None:
    engine.configure(CONVERSATION_LEASE_SECONDS="2.1", CONVERSATION_IDLE_TIMEOUT_SECONDS="4")
    job = chat(engine, engine.add_account(), prompt="one two [[silent]]")
    with in_thread(lambda: run_converse(engine, job)):
        eventually(lambda: engine.job_row(job).state == "running")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            sweep()
            assert engine.job_row(job).state == "running"
            threading.Event().wait(0.1)
    assert engine.job_row(job).error_code == "stream_broken"


def test_i8_conversation_does_not_reveal_session_id(engine: Engine, tmp_path: Path) -> None:
    mark = "5eCr3t"
    log = tmp_path / "worker.log"
    for word, script in (("dead", ""), ("plain", "[[cut]]"), ("plain2", "[[reset]]"), ("plain3", "[[reject]]")):
        job = chat(engine, engine.add_account(session=f"{word}-{mark}-0123456789"), prompt=f"hi {script}")
        process = engine.start_process("converse", env={"DREAMERY_LOG_LEVEL": "debug"}, log=log, job_id=job)
        process.join(20)
        assert process.exitcode == 0
        assert mark not in str(engine.job_events(job)) + str(engine.job_row(job))
    text = log.read_text(encoding="utf-8")
    assert "conversation_broke" in text
    assert mark not in text


def test_overdue_conversation_fails(engine: Engine) -> None:
    account = engine.add_account()
    job = chat(engine, account)
    with transaction() as tx:
        claim = claims.claim_next(tx, account_id=account, kinds=("chat",), actor="converse")
        assert claim is not None
        state_machine.mark_running(tx, job_id=job, attempt=claim.attempt, upstream_id="x", actor="converse", deadline=1)
    engine.pass_deadline(job)
    sweep()
    assert engine.job_row(job).error_code == "generation_timeout"


def test_lost_and_repeated_messages_change_only_the_timing(engine: Engine) -> None:
    """With lost, repeated and reordered messages each conversation is sent once and each image is made once."""
    import random

    account = engine.add_account(max_images=50)
    engine.configure(ACCOUNT_MAX_CHATS="4")
    job_ids = [chat(engine, account, prompt=f"draw boat {n}") for n in range(6)]
    engine.run_worker(*job_ids, rng=random.Random(7), loss=0.3, duplication=0.3, rounds=80)
    assert set(engine.states(job_ids)) == {"succeeded"}
    assert sorted(line["prompt"] for line in sent_conversations(engine)) == sorted(f"draw boat {n}" for n in range(6))
    assert engine.charge_count() == 6
    assert len(engine.sql("SELECT id FROM files")) == 6
    assert engine.ledger()["violations"] == {}


def test_thirty_concurrent_conversations_with_images(engine: Engine) -> None:
    """All of them end, and images do not wait for slow conversations."""
    engine.configure(ACCOUNT_MAX_CHATS="30", ACCOUNT_MAX_IMAGES="100")
    account = engine.add_account()
    talks = [chat(engine, account, prompt=f"draw boat {n} [[pause:0.2]]") for n in range(30)]
    with ThreadPoolExecutor(30) as pool:
        held = [pool.submit(converse, job_id=job) for job in talks]
        eventually(lambda: sum(state == "running" for state in engine.states(talks)) >= 10)
        image = engine.add_job(account)
        submit(job_id=image)
        assert engine.job_row(image).state == "running"
        assert not all(line.done() for line in held)
        for line in held:
            line.result(60)
        while "queued" in engine.states(talks):  # some found the account paced
            run_converse(engine, talks[engine.states(talks).index("queued")])
    for _ in range(20):
        engine.finish_upstream()
        engine.make_due()
        poll(account_id=account)
        for row in engine.sql("SELECT id FROM jobs WHERE state = 'saving' AND kind <> 'chat'"):
            save(job_id=row.id)
        sweep()
        if set(engine.states(talks)) == {"succeeded"}:
            break
    assert set(engine.states(talks)) == {"succeeded"}
    assert len(sent_conversations(engine)) == 30
    assert engine.charge_count() == 31
    assert engine.ledger()["violations"] == {}


def test_conversations_through_own_proxies_leave_threads_to_others(engine: Engine) -> None:
    account = engine.add_account()
    engine.sql("UPDATE accounts SET proxy = 'enc', user_id = NULL WHERE id = :id", id=account)
    job = chat(engine, account)
    owner = engine.job_row(job).owner
    with ExitStack() as held:
        while held.enter_context(conversation_permits().hold_proxied(owner)):
            pass
        assert run_converse(engine, job) == f"requeued {job}: waits for its turn"
    row = engine.job_row(job)
    assert (row.state, row.max_attempts - row.attempt, sent_conversations(engine)) == ("queued", 3, [])
    assert engine.lease_seconds(job) > 3
