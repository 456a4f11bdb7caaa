"""Lists of tasks: what one call asks for, all pages of a search, what tasks mean for jobs, and what a list proves."""

import asyncio
import time
from typing import Any, cast
from uuid import uuid4

import pytest

from worker.core.errors import DreameryError
from worker.providers.ark.client import ArkClient
from worker.providers.ark.recovery_keys import keys_of
from worker.providers.ark.responses import ApiError, Task, TaskPage, TaskStatus
from worker.providers.ark.task_records import record_of
from worker.providers.ark.tasks import ArkTasks
from worker.providers.base import Account, Found, OpenOrder, RecordState

MODEL, SENT = "seedance-2.0-mini", "dreamina-seedance-2-0-mini-260615"
PROVED = {"echo_proved": True}


class Client:
    """Answers from a list of tasks, with pages of two, and counts the calls."""

    def __init__(self, tasks: list[Task], *, total: int | None = None, denied: bool = False) -> None:
        self.tasks, self.total, self.denied = tasks, total, denied
        self.calls: list[Any] = []

    async def list_tasks(
        self, _: Account, ids: list[str], *, flex: bool = False, model: str | None = None
    ) -> list[Task]:
        self.calls.append(("list", len(ids), flex, model))
        if self.denied:
            raise DreameryError("upstream_permission_denied", detail="HTTP 403 AccessDenied no")
        return [task for task in self.tasks if task.id in ids]

    async def list_recent(self, _: Account, model: str, *, page: int = 1, flex: bool = False) -> TaskPage:
        self.calls.append(("page", page, flex, model))
        if self.denied:
            raise DreameryError("upstream_permission_denied", detail="HTTP 403 AccessDenied no")
        total = len(self.tasks) if self.total is None else self.total
        return TaskPage(tuple(self.tasks[2 * (page - 1) : 2 * page]), total)

    async def get_task(self, _: Account, name: str) -> Task:
        self.calls.append(("get", name))
        found = next((task for task in self.tasks if task.id == name), None)
        if found is None:
            raise DreameryError("upstream_error", detail="HTTP 404 NotFound.TaskNotFound no")
        return found


def run(client: Client, call: Any) -> Any:
    return asyncio.run(call(ArkTasks(cast(ArkClient, client))))


def account(**facts: Any) -> Account:
    return Account("a1", "intl", "key", provider="ark", facts=facts)


def task(name: str, status: TaskStatus = TaskStatus.RUNNING, **values: Any) -> Task:
    return Task(name, SENT, status, **values)


def order(upstream_id: str | None = None, *, flex: bool = False, hint: str | None = None) -> OpenOrder:
    options = {"service_tier": "flex"} if flex else {}
    wanted = {"resolution": "480p", "ratio": "16:9", "seconds": 4, "options": options}
    return OpenOrder(str(uuid4()), upstream_id, "video", MODEL, time.time(), wanted, hint)


def keyed(one: OpenOrder, name: str, **values: Any) -> Task:
    keys = keys_of(one.submit_key, "ab" * 20)
    known = {
        "safety_identifier": keys.safety_identifier,
        "expires_after": keys.expires_after,
        "created_at": time.time(),
    }
    return task(name, **{**known, **values})


def test_two_hundred_tasks_take_two_lists() -> None:
    orders = [order(f"t{n}") for n in range(200)]
    client = Client([task(f"t{n}") for n in range(200)])
    records = run(client, lambda tasks: tasks.fetch_records(account(), orders))
    assert client.calls == [("list", 100, False, None)] * 2
    assert len(records) == 200


def test_lanes_and_models_have_lists_of_their_own() -> None:
    orders = [order("a"), order("b", flex=True)]
    client = Client([task("a"), task("b")])
    run(client, lambda tasks: tasks.fetch_records(account(scope="custom"), orders))
    assert client.calls == [("list", 1, False, SENT), ("list", 1, True, SENT)]


def test_orders_without_an_id_are_not_asked_for() -> None:
    client = Client([])
    assert run(client, lambda tasks: tasks.fetch_records(account(), [order()])) == {}
    assert client.calls == []


def test_unknown_id_is_absent() -> None:
    client = Client([])
    assert run(client, lambda tasks: tasks.fetch_records(account(), [order("gone")])) == {}
    assert client.calls == [("list", 1, False, None), ("get", "gone")]


@pytest.mark.parametrize("denied", [False, True])
def test_search_reads_all_pages(denied: bool) -> None:
    wanted = order()
    others = [task(f"t{n}", safety_identifier="x.y") for n in range(5)]
    client = Client([*others, keyed(wanted, "ours")], denied=denied)
    found = run(client, lambda tasks: tasks.look_up(account(**PROVED), wanted))
    if denied:
        assert (found.found, found.record) == (Found.UNKNOWN, None)
    else:
        assert found.record.upstream_id == "ours"
        assert [page for _, page, *_ in client.calls] == [1, 2, 3]


@pytest.mark.parametrize(
    ("facts", "total", "result"),
    [
        (PROVED, None, Found.ABSENT),
        ({}, None, Found.UNKNOWN),
        ({"echo_proved": False}, None, Found.UNKNOWN),
        (PROVED, 9, Found.UNKNOWN),
    ],
)
def test_absence_is_proved_by_whole_lists_of_accounts_that_show_keys(
    facts: dict[str, Any], total: int | None, result: Found
) -> None:
    client = Client([task("t", safety_identifier="x.y")], total=total)
    assert run(client, lambda tasks: tasks.look_up(account(**facts), order())).found is result


def test_several_searches_share_a_list() -> None:
    first, second = order(), order()
    client = Client([keyed(first, "a"), keyed(second, "b")])

    async def both(tasks: ArkTasks) -> list[Any]:
        return [(await tasks.look_up(account(), one)).record for one in (first, second)]

    assert [record.upstream_id for record in run(client, both)] == ["a", "b"]
    assert len(client.calls) == 1


def test_hint_counts_only_for_the_task_that_shows_our_key() -> None:
    wanted = order(hint="other")
    client = Client([task("other", safety_identifier=f"x.{'a' * 20}", created_at=time.time())])
    assert run(client, lambda tasks: tasks.look_up(account(), wanted)).found is Found.UNKNOWN
    assert run(client, lambda tasks: tasks.look_up(account(), wanted, owned={"other"})).found is Found.UNKNOWN


def test_images_are_never_found() -> None:
    tasks = ArkTasks(cast(ArkClient, Client([])))
    assert not tasks.can_look_up("image")
    assert tasks.can_look_up("video")


# ---- records


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        (TaskStatus.QUEUED, RecordState.QUEUED, None),
        (TaskStatus.RUNNING, RecordState.RUNNING, None),
        (TaskStatus.OTHER, RecordState.RUNNING, None),
        (TaskStatus.SUCCEEDED, RecordState.DONE, None),
        (TaskStatus.CANCELLED, RecordState.FAILED, "job_cancelled"),
        (TaskStatus.EXPIRED, RecordState.FAILED, "generation_timeout"),
        (TaskStatus.FAILED, RecordState.FAILED, "generation_failed"),
    ],
)
def test_states(status: TaskStatus, state: RecordState, code: str | None) -> None:
    record = record_of(order("t"), task("t", status, video_url="http://x/v", tokens=7))
    assert (record.state, record.error_code) == (state, code)
    assert (record.usage, len(record.results)) == (({"tokens": 7}, 1) if state is RecordState.DONE else ({}, 0))
    assert record.charged == (0 if state is RecordState.FAILED else None)


@pytest.mark.parametrize(
    ("code", "ours", "again"),
    [
        ("OutputVideoSensitiveContentDetected", "content_policy_violation", False),
        ("InvalidParameter.TaskTypeMismatch", "invalid_parameters", False),
        ("InternalServiceError", "upstream_error", True),
        ("NobodyKnowsThis", "upstream_error", True),
    ],
)
def test_failures(code: str, ours: str, again: bool) -> None:
    failed = task("t", TaskStatus.FAILED, error=ApiError(code, "why. Request id: 0217"))
    record = record_of(order("t"), failed)
    assert (record.error_code, record.may_repeat, record.charged) == (ours, again, 0)
    assert "Request id" not in (record.error_message or "")


def test_last_frame_is_a_result_with_a_role() -> None:
    done = task("t", TaskStatus.SUCCEEDED, video_url="http://x/v", last_frame_url="http://x/f")
    assert [ref.role for ref in record_of(order("t"), done).results] == ["", "last_frame"]
