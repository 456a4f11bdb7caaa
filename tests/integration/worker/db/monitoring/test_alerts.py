"""Alerts fire once, repeat after their time, resolve, and are quiet while muted; messages go through the outbox."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from tests.support.engine import Engine
from tests.support.servers.http_servers import WebhookReceiver
from worker.core.ids import new_id
from worker.core.observability.alert_rules import RULES
from worker.core.security.encryption import encrypt_secret, new_webhook_secret
from worker.db.engine import transaction
from worker.db.monitoring import alerts, channels, conditions
from worker.db.monitoring.alerts import Changes
from worker.db.monitoring.channels import NewChannel
from worker.db.monitoring.conditions import Readings
from worker.db.webhooks.endpoints import secret_context
from worker.tasks.deliver_webhooks import deliver
from worker.tasks.monitor import monitor

HEALTHY = Readings(free_percent=50.0, queues_without_worker={})


def evaluate(readings: Readings = HEALTHY) -> Changes:
    with transaction() as tx:
        alerts.lock(tx)
        rules = alerts.list_rules(tx)
        return alerts.apply(tx, rules, conditions.evaluate(tx, rules, readings))


def add_channel(url: str, *, language: str = "en", rules: list[str] | None = None) -> tuple[UUID, str]:
    channel_id, secret = new_id(), new_webhook_secret()
    encrypted = encrypt_secret(secret, context=secret_context(channel_id))
    with transaction() as tx:
        assert channels.add_channel(tx, NewChannel(channel_id, "webhook", "ops", language, rules, url, None, encrypted))
    return channel_id, secret


def add_poor_account(engine: Engine, left: int = 3) -> UUID:
    account = engine.add_account(pool=True)
    engine.sql("UPDATE accounts SET credits = :credits WHERE id = :id", credits=left, id=account)
    return account


def messages(engine: Engine) -> list[tuple[str, str]]:
    rows = engine.sql("SELECT event, data ->> 'rule' AS rule FROM webhook_deliveries ORDER BY created_at, event, rule")
    return [(row.event, row.rule) for row in rows]


def hours_pass(engine: Engine, hours: float) -> None:
    engine.sql("UPDATE alerts SET notified_at = notified_at - make_interval(secs => :s)", s=3600 * hours)


def test_alert_fires_once_repeats_after_its_time_and_resolves(engine: Engine, receiver: WebhookReceiver) -> None:
    add_channel(receiver.url, rules=["account_credits_low"])
    account = add_poor_account(engine)
    assert evaluate().fired == 2, "the account, and all accounts together"
    assert messages(engine) == [("alert.firing", "account_credits_low")]
    assert evaluate() == Changes()
    hours_pass(engine, 11.9)
    assert evaluate() == Changes()
    hours_pass(engine, 0.2)
    assert len(evaluate().messages) == 1
    assert messages(engine)[-1] == ("alert.repeated", "account_credits_low")
    engine.sql("UPDATE accounts SET credits = 9000 WHERE id = :id", id=account)
    assert evaluate().resolved == 2
    assert [event for event, _ in messages(engine)] == ["alert.firing", "alert.repeated", "alert.resolved"]
    assert evaluate() == Changes()


def test_what_comes_and_goes_sends_no_more_than_its_repeats(engine: Engine, receiver: WebhookReceiver) -> None:
    add_channel(receiver.url)
    full = Readings(free_percent=2.0, queues_without_worker={})
    for _ in range(3):
        evaluate(full)
        evaluate()
    # One message that it began and one that it ended.
    assert messages(engine) == [("alert.firing", "storage_low"), ("alert.resolved", "storage_low")]
    hours_pass(engine, 13)
    evaluate(full)
    assert messages(engine)[-1] == ("alert.firing", "storage_low")
    assert len(engine.sql("SELECT 1 FROM alerts WHERE rule = 'storage_low'")) == 4


def test_muted_alerts_and_rules_are_quiet_until_the_mute_ends(engine: Engine, receiver: WebhookReceiver) -> None:
    add_channel(receiver.url)
    full = Readings(free_percent=2.0, queues_without_worker={})
    with transaction() as tx:
        rule = alerts.list_rules(tx)["storage_low"]
        alerts.change_rule(
            tx, type(rule)(rule.name, rule.enabled, rule.threshold, rule.repeat_hours, time.time() + 3600)
        )
    assert evaluate(full) == Changes(fired=1)
    engine.sql("UPDATE alert_rules SET muted_until = now() - interval '1 s'")
    assert len(evaluate(full).messages) == 1
    [row] = engine.sql("SELECT id FROM alerts")
    with transaction() as tx:
        assert alerts.mute(tx, row.id, int(time.time()) + 3600)
    hours_pass(engine, 100)
    assert evaluate(full) == Changes()
    assert evaluate() == Changes(resolved=1)


def test_disabled_rules_and_unknown_facts(engine: Engine) -> None:
    assert evaluate(Readings(free_percent=1.0, queues_without_worker={"talk": 600.0})).fired == 2
    # Without an answer of Redis and of the storage nothing resolves.
    assert evaluate(Readings()) == Changes()
    with transaction() as tx:
        rule = alerts.list_rules(tx)["workers_away"]
        alerts.change_rule(tx, type(rule)(rule.name, enabled=False, threshold=3, repeat_hours=12))
    assert evaluate(Readings()) == Changes(resolved=1)


def test_messages_are_signed_in_the_language_of_their_channel_and_sent_again(
    engine: Engine, receiver: WebhookReceiver
) -> None:
    channel_id, secret = add_channel(receiver.url, language="zh", rules=["account_credits_low"])
    for _ in range(25):
        add_poor_account(engine, 3)
    [message] = evaluate().messages
    receiver.answers = [503]
    assert "not delivered" in deliver(delivery_id=message)
    engine.sql("UPDATE webhook_endpoints SET slow_until = NULL")
    engine.make_due()
    assert deliver(delivery_id=message).startswith("delivered")
    body = Webhook(secret).verify(receiver.received[-1].body, receiver.received[-1].headers)
    assert body["type"] == "alert.firing"
    data = body["data"]
    assert (data["rule"], data["total"], len(data["alerts"])) == ("account_credits_low", 25, 20)
    assert data["title"] == "告警：积分不足"
    assert "剩余 3 积分" in data["text"]
    assert "另有 5 条" in data["text"]
    assert receiver.received[0].body == receiver.received[1].body
    with transaction() as tx:
        [shown] = channels.list_channels(tx)
    assert (shown.id, shown.last_event, shown.last_attempts) == (channel_id, "alert.firing", 2)
    assert shown.last_delivered_at is not None


def test_two_monitors_send_one_message(engine: Engine, receiver: WebhookReceiver) -> None:
    add_channel(receiver.url, rules=["account_credits_low"])
    add_poor_account(engine)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: evaluate(), range(4)))
    monitor()
    assert messages(engine) == [("alert.firing", "account_credits_low")]


def test_accounts_that_need_a_login_and_jobs_that_wait_in_vain(engine: Engine) -> None:
    lost = engine.add_account(pool=True)
    engine.sql("UPDATE accounts SET state = 'needs_login', state_at = now() - interval '5 min'")
    free = engine.add_account()
    job = engine.add_job(free)
    evaluate()
    found = {(row.rule, row.subject) for row in engine.sql("SELECT rule, subject FROM alerts")}
    assert found == {("session_expired", lost.hex)}
    # The job has waited, and its account could have taken it a minute ago.
    engine.sql("UPDATE jobs SET created_at = now() - interval '20 min', due_at = now() - interval '20 min'")
    engine.sql("UPDATE accounts SET next_submit_at = now() - interval '20 min' WHERE id = :id", id=free)
    assert evaluate().fired == 1
    [row] = engine.sql("SELECT subject, value FROM alerts WHERE rule = 'queue_stuck'")
    assert row.subject == "image"
    assert 19 < row.value < 22
    # An account that rests is not free.
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 h' WHERE id = :id", id=free)
    assert evaluate().resolved == 1
    engine.sql("UPDATE jobs SET deadline_at = now() - interval '7 min' WHERE id = :id", id=job)
    assert evaluate().fired == 1
    assert engine.sql("SELECT rule FROM alerts WHERE resolved_at IS NULL AND rule = 'jobs_overdue'")


def test_failures_of_the_last_minutes_and_charges_in_doubt(engine: Engine) -> None:
    engine.sql(
        """INSERT INTO metric_samples (step, at, measures)
           VALUES (60, now() - interval '3 min', '{"jobs_succeeded": 5, "jobs_failed": 9, "jobs_failed_by_us": 5}')"""
    )
    job = engine.add_succeeded_job(engine.add_account())
    engine.sql("UPDATE jobs SET charge_doubt = 'submit_unclear' WHERE id = :id", id=job)
    evaluate()
    values = {row.rule: row.value for row in engine.sql("SELECT rule, value FROM alerts")}
    assert values == {"failure_rate_high": 50.0, "charges_in_doubt": 1.0}


def test_time_without_any_worker_fires_afterwards(engine: Engine) -> None:
    assert evaluate(Readings(queues_without_worker={}, gap_seconds=600.0)).fired == 1
    assert evaluate(HEALTHY).resolved == 1


def test_alerts_that_ended_long_ago_are_deleted(engine: Engine) -> None:
    evaluate(Readings(free_percent=1.0, queues_without_worker={}))
    engine.sql("UPDATE alerts SET started_at = now() - interval '200 days'")
    with transaction() as tx:
        assert alerts.delete_old(tx) == 0
    evaluate()
    engine.sql("UPDATE alerts SET resolved_at = now() - interval '100 days'")
    with transaction() as tx:
        assert alerts.delete_old(tx) == 1


@pytest.mark.parametrize("name", sorted(RULES))
def test_each_rule_has_texts_in_both_languages(name: str) -> None:
    from worker.core.messages.alert_texts import alert_line, rule_title

    for language in ("en", "zh"):
        assert rule_title(name, language, 10)
        assert "{" not in alert_line({"rule": name, "label": "x", "value": 1.0, "threshold": 2.0}, language)


def test_texts_of_alerts_name_the_threshold_and_group_digits() -> None:
    from worker.core.messages.alert_texts import alert_line, rule_title

    assert rule_title("storage_low", "en", 20.0) == "Storage is 80 % full"
    assert rule_title("storage_low", "zh", 20.0) == "存储空间已用 80 %"
    alert = {"rule": "pool_credits_low", "label": "", "value": 1234.0, "threshold": 50000.0}
    assert alert_line(alert, "en") == "All platform accounts have 1,234 credits; the limit is 50,000."
