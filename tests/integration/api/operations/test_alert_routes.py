"""Rules, channels and alerts over the API, and messages that reach a webhook and a real mail server."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.operations.monitoring.history_routes import MetricsHistory
from api.operations.monitoring.schemas import AlertRule, Channel
from tests.support.api_client import ApiClient, assert_error
from worker.core.observability.alert_rules import RULES

PATH = "/admin/v1/alerts"
MAIL = {
    "host": "127.0.0.1",
    "port": 2525,
    "security": "none",
    "sender": "d@example.com",
    "recipients": ["o@example.com"],
}


@pytest.fixture
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client
        for channel in client.http.get(f"{PATH}/channels").json()["data"]:
            client.http.delete(f"{PATH}/channels/{channel['id']}")


def create(client: ApiClient, **body: Any) -> Any:
    return client.http.post(f"{PATH}/channels", json={"name": "ops", **body})


def test_rules_are_listed_and_changed(admin) -> None:
    rules = [AlertRule.model_validate(rule) for rule in admin.http.get(f"{PATH}/rules").json()["data"]]
    assert [rule.name for rule in rules] == list(RULES)
    until = int(time.time()) + 600
    changed = admin.http.patch(f"{PATH}/rules/storage_low", json={"threshold": 5, "muted_until": until})
    assert changed.status_code == 200, changed.text
    rule = AlertRule.model_validate(changed.json())
    assert (rule.threshold, rule.muted_until, rule.enabled, rule.default_threshold) == (5, until, True, 10)
    # What is not sent stays; null ends the mute.
    rule = AlertRule.model_validate(
        admin.http.patch(f"{PATH}/rules/storage_low", json={"enabled": False, "muted_until": None}).json()
    )
    assert (rule.threshold, rule.muted_until, rule.enabled) == (5, None, False)
    assert_error(
        admin.http.patch(f"{PATH}/rules/storage_low", json={"threshold": 100}), 400, "invalid_value", "threshold"
    )
    assert_error(admin.http.patch(f"{PATH}/rules/weather", json={}), 404, "alert_not_found")
    admin.http.patch(f"{PATH}/rules/storage_low", json={"enabled": True, "threshold": 10})


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "webhook"},
        {"kind": "webhook", "url": "ftp://example.com"},
        {"kind": "webhook", "url": "https://169.254.169.254/x"},
        {"kind": "webhook", "url": "https://example.com", "password": "x"},
        {"kind": "email"},
        {"kind": "email", "mail": MAIL | {"username": "u"}, "password": "secret"},
        {"kind": "email", "mail": MAIL | {"security": "tls", "username": "u"}},
        {"kind": "email", "mail": MAIL | {"recipients": []}},
        {"kind": "email", "mail": MAIL | {"recipients": ["a@b.c\r\nBcc: x@example.com"]}},
        {"kind": "email", "mail": MAIL | {"host": "a b"}},
        {"kind": "webhook", "url": "https://example.com", "rules": ["weather"]},
        {"kind": "webhook", "url": "https://example.com", "language": "fr"},
    ],
    ids=range(12),
)
def test_invalid_channels_are_refused(admin, body) -> None:
    answer = create(admin, **body)
    assert answer.status_code == 400, answer.text
    assert admin.http.get(f"{PATH}/channels").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "email"}, "A webhook channel needs `url`, a mail channel needs `mail`"),
        ({"kind": "webhook", "url": "https://example.com", "password": "x"}, "has no `password`"),
        ({"kind": "email", "mail": MAIL | {"username": "u"}, "password": "x"}, "needs `security` `starttls` or `tls`"),
        ({"kind": "email", "mail": MAIL | {"username": "u"}}, "Send `mail.username` and `password` together"),
    ],
    ids=range(4),
)
def test_fields_that_do_not_fit_together_are_named(admin, body, said) -> None:
    assert said in assert_error(create(admin, **body), 400, "invalid_value")
    headers = {"Accept-Language": "zh"}
    chinese = admin.http.post(f"{PATH}/channels", json={"name": "ops", **body}, headers=headers).json()["error"][
        "message"
    ]
    assert any("\u4e00" <= char <= "\u9fff" for char in chinese), chinese


def test_password_is_never_shown_and_stays_with_its_server(admin) -> None:
    mail = MAIL | {"security": "starttls", "username": "dreamery"}
    made = create(admin, kind="email", mail=mail, password="hunter2-secret")
    assert made.status_code == 201, made.text
    channel = Channel.model_validate(made.json())
    path = f"{PATH}/channels/{channel.id}"
    assert admin.http.patch(path, json={"name": "night", "language": "zh"}).status_code == 200
    kept = admin.http.patch(path, json={"mail": mail | {"recipients": ["new@example.com"]}})
    assert kept.status_code == 200, kept.text
    assert kept.json()["mail"]["recipients"] == ["new@example.com"]
    # Another server would learn the password.
    assert_error(
        admin.http.patch(path, json={"mail": mail | {"host": "evil.example"}}), 400, "invalid_value", "password"
    )
    shown = admin.http.get(f"{PATH}/channels").text + admin.http.get("/admin/v1/audit").text
    assert "hunter2-secret" not in shown
    assert "night" in shown
    assert_error(admin.http.patch(path, json={"url": "https://example.com"}), 400, "invalid_value")
    assert admin.http.delete(path).json()["deleted"] is True
    assert_error(admin.http.delete(path), 404, "alert_not_found")
    assert_error(admin.http.post(f"{path}/test"), 404, "alert_not_found")


def test_alerts_of_nobody(admin) -> None:
    assert_error(admin.http.patch(f"{PATH}/alert_{'0' * 32}", json={"muted_until": 1}), 404, "alert_not_found")
    assert_error(admin.http.get(PATH, params={"after": f"alert_{'0' * 32}"}), 400, "invalid_value", "after")
    assert_error(admin.http.get(PATH, params={"status": "red"}), 400, "invalid_value", "status")


def test_history_has_limits(admin) -> None:
    found = admin.http.get("/admin/v1/metrics/history")
    assert found.status_code == 200, found.text
    history = MetricsHistory.model_validate(found.json())
    assert (history.step, history.to - history.first) == (600, 86_400)
    assert_error(admin.http.get("/admin/v1/metrics/history", params={"from": 9, "to": 9}), 400, "invalid_value", "from")
    long = {"from": 0, "to": 1_796_000_000, "step": 60}
    assert_error(admin.http.get("/admin/v1/metrics/history", params=long), 400, "invalid_value", "step")
    assert_error(admin.http.get("/admin/v1/metrics/history", params={"step": 7}), 400, "invalid_value", "step")
