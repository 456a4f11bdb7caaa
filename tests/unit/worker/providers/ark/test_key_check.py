"""What the free check concludes from each answer of upstream."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from worker.core.settings import get_settings
from worker.providers.ark.checks.key_check import KeyCheck, meaning_of
from worker.providers.ark.client import ArkClient
from worker.providers.ark.http import ArkHttp
from worker.providers.base import Account
from worker.providers.refusals import RefusedError
from worker.tasks.stages.account_check import recognised

MODELS = {"data": [{"id": "doubao-seedance-2-0-260128"}, {"id": "doubao-chat-1"}, {"id": "seedance-2-0-260128"}]}
Answer = tuple[int, Any]


def read_facts(answer: Callable[[httpx.Request], Answer], **account: Any) -> dict[str, Any]:
    def respond(request: httpx.Request) -> httpx.Response:
        status, body = answer(request)
        return httpx.Response(status, json=body)

    check = KeyCheck(ArkClient(ArkHttp(get_settings(), httpx.MockTransport(respond))))
    return asyncio.run(check.read_facts(Account("a", "cn", "S3CR3T", provider="ark", **account)))


def error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"refused S3CR3T Request id: 02{code}"}}


def by_path(lists: Answer, models: Answer) -> Callable[[httpx.Request], Answer]:
    return lambda request: models if request.url.path.endswith("/models") else lists


def test_good_key() -> None:
    facts = read_facts(by_path((200, {"items": [], "total": 7}), (200, MODELS)))
    assert (facts["scope"], facts["tasks"], facts["listed"], facts["unlisted"]) == ("all", 7, ["seedance-2.0"], 2)


def test_list_of_models_is_no_condition() -> None:
    facts = read_facts(by_path((200, {"items": [], "total": 1}), (404, error("NotFound"))))
    assert facts["scope"] == "all"
    assert "listed" not in facts


def test_limited_key_is_proved_by_the_models() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> Answer:
        if request.url.path.endswith("/models"):
            return 200, MODELS
        model = request.url.params.get("filter.model")
        seen.append(model)
        return (200, {"items": [], "total": 3}) if model else (403, error("AccessDenied"))

    facts = read_facts(answer, model_ids={"seedream-5.0-pro": "ep-1", "seedance-2.0": "ep-2"})
    assert (facts["scope"], facts["tasks"]) == ("custom", 3)
    assert seen == [None, "ep-2"], "tasks are videos"


@pytest.mark.parametrize(
    ("status", "code", "live", "stops", "words"),
    [
        (401, "AuthenticationError", False, "needs_login", "does not accept this API key"),
        (401, "InvalidAccountStatus", True, "blocked", "not in order"),
        (403, "AccountOverdueError", True, "blocked", "overdue balance"),
        (403, "OperationDenied.ServiceOverdue", True, "blocked", "unpaid"),
        (403, "OperationDenied.ServiceNotOpen", True, "", "not activated this service"),
        (400, "InvalidSubscription", True, "", "subscription plan"),
        (404, "NotFound.Path", None, "", "Check the region"),
        (429, "RateLimitExceeded.EndpointRPMExceeded", True, "", ""),
    ],
)
def test_refusal_is_explained(status: int, code: str, live: bool | None, stops: str, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_facts(by_path((status, error(code)), (200, MODELS)))
    refused = caught.value
    assert (recognised(refused.verdict), refused.verdict.stops, refused.name) == (live, stops, code)
    assert words in refused.message
    assert "S3CR3T" not in f"{refused.message}{refused.detail}"


def test_wrong_key_counts_although_lists_are_denied() -> None:
    with pytest.raises(RefusedError, match="does not accept"):
        read_facts(by_path((403, error("AccessDenied")), (401, error("AuthenticationError"))))


def test_each_meaning_is_of_a_known_code() -> None:
    assert meaning_of("ModelNotOpen")
    assert meaning_of("InternalServiceError") is None
