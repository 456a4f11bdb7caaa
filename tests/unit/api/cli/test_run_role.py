"""The processes that `dreamery run ROLE` becomes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.operator.run_role import run_worker
from worker.core.settings import get_settings


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands that would replace this process."""
    found: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda _program, command: found.append(command))
    monkeypatch.delenv("DREAMERY_WORKER_WITH_SCHEDULER", raising=False)
    monkeypatch.setenv("DREAMERY_WORKER_CONCURRENCY", "5")
    monkeypatch.setenv("DREAMERY_CONVERSATION_CONCURRENCY", "3")
    get_settings.cache_clear()
    yield found
    get_settings.cache_clear()


def options(command: list[str]) -> tuple[str, str]:
    return command[command.index("-c") + 1], command[command.index("-Q") + 1]


def test_worker_leaves_conversations_and_schedule_to_other_roles(commands: list[list[str]]) -> None:
    run_worker(queues="", name="worker", everything=False)
    assert options(commands[0]) == ("5", "fast,bulk,outbox")
    assert "DREAMERY_WORKER_WITH_SCHEDULER" not in os.environ


def test_worker_for_everything_has_threads_for_conversations_and_the_scheduler(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMERY_WORKER_WITH_SCHEDULER", "false")  # restored afterwards
    run_worker(queues="", name="worker", everything=True)
    assert options(commands[0]) == ("8", "fast,bulk,outbox,talk")
    assert os.environ["DREAMERY_WORKER_WITH_SCHEDULER"] == "true"
