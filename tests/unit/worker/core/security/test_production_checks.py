"""Production checks: weak secrets are refused, risky settings give warnings."""

import pytest

from worker.core.security.production_checks import find_problems, find_warnings, require_flower_login
from worker.core.settings import Settings

MASTER = "q8Zt0sJ1nVw4Xc7Lr2Hy6Kd9Gm3Bf5Pa"
ADMIN = "sk-dreamery-u7Re2Wn9Yk4Td1Vs6Qj3Xb8Zm5Lg0HcE"


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **{"env": "production", "master_key": MASTER, "admin_key": ADMIN} | values)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"master_key": ""}, "DREAMERY_MASTER_KEY is not set"),
        ({"master_key": "short"}, "DREAMERY_MASTER_KEY must have at least 32"),
        ({"master_key": "abab" * 10}, "DREAMERY_MASTER_KEY is easy to guess"),
        ({"master_key": "changeme-q8Zt0sJ1nVw4Xc7Lr2Hy6Kd9"}, "DREAMERY_MASTER_KEY is easy to guess"),
        ({"admin_key": ""}, "DREAMERY_ADMIN_KEY must have at least 32"),
        ({"admin_key": "sk-dreamery-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "DREAMERY_ADMIN_KEY is easy to guess"),
        ({"admin_key": MASTER}, "must differ"),
    ],
)
def test_weak_secrets_are_refused_without_revealing_them(wrong: dict[str, str], message: str) -> None:
    [text] = find_problems(settings(**wrong))
    assert message in text
    assert "token_urlsafe" in text, "the message explains how to create a key"
    assert not any(value and value in text for value in wrong.values())


def test_strong_secrets_pass_even_with_a_weak_older_master_key() -> None:
    assert find_problems(settings()) == []
    assert find_problems(settings(master_key=f"{MASTER},short")) == []


def test_development_needs_only_a_master_key() -> None:
    assert find_problems(settings(env="development", master_key="short", admin_key="")) == []
    assert find_problems(settings(env="development", master_key="")) != []


def test_risky_settings_give_warnings() -> None:
    assert find_warnings(settings(public_url="https://x")) == []
    found = " ".join(find_warnings(settings(public_url="http://x", session_tokens=True, sandbox_url="http://s")))
    for name in ("PUBLIC_URL", "SESSION_TOKENS", "SANDBOX_URL"):
        assert name in found
    assert find_warnings(settings(env="development", public_url="http://x")) == []


def test_flower_without_login_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWER_BASIC_AUTH", raising=False)
    command = ["celery", "-A", "worker.celery_tasks:app", "flower"]
    with pytest.raises(SystemExit, match="FLOWER_BASIC_AUTH"):
        require_flower_login(settings(), command)
    require_flower_login(settings(), [*command, "--basic-auth=admin:secret"])
    require_flower_login(settings(), ["celery", "-A", "worker.celery_tasks:app", "worker"])
    require_flower_login(settings(env="development"), command)
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "admin:secret")
    require_flower_login(settings(), command)
