"""Fields of images and videos in a chat: each is passed on, or refused; none is dropped."""

import asyncio
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from api.auth.caller import Caller
from api.chat.planning import plan_chat
from api.chat.schemas import ChatRequest
from worker.core.catalog.models import get_catalog
from worker.core.catalog.upstream_models import AccountGroup, UpstreamModels
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

OLD, NEW, PICTURE = "seedance-1-0-pro-250528", "dreamina-seedance-2-5-260628", "seedream-5.0-flash"
OFFER = UpstreamModels(accounts=[AccountGroup("ark", "intl", "USD")])


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMERY_MASTER_KEY", "a key for tests only")

    async def offer_of_keys(caller: Caller) -> UpstreamModels:
        return OFFER

    for planning in ("images", "videos"):
        monkeypatch.setattr(f"api.{planning}.planning.read_offer", offer_of_keys)
    for cached in (get_settings, get_catalog):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog):
        cached.cache_clear()


def params(model: str, **fields: Any) -> dict[str, Any]:
    body = ChatRequest.model_validate({"model": model, "messages": [{"role": "user", "content": "a cat"}], **fields})
    (job,) = asyncio.run(plan_chat("/v1/chat/completions", body, Caller(owner="user:x"))).generation.jobs
    return dict(job.params)


def test_fields_are_passed_on() -> None:
    assert params(OLD, service_tier="flex")["order"]["options"]["service_tier"] == "flex"
    assert params(NEW, output_format="mov")["order"]["options"]["output_format"] == "mov"
    found = params(PICTURE, output_format="webp", output_compression=40, n=1)
    assert found["output"] == {"format": "webp", "compression": 40}


@pytest.mark.parametrize("tier", ["auto", "default", None])
@pytest.mark.parametrize("model", [OLD, NEW, PICTURE])
def test_plain_tier_asks_for_nothing(model: str, tier: str | None) -> None:
    assert "service_tier" not in params(model, service_tier=tier, n=1)["order"].get("options", {})


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (NEW, {"service_tier": "flex"}),
        (PICTURE, {"service_tier": "flex"}),
        (OLD, {"output_format": "mov"}),
        (OLD, {"output_compression": 40}),
    ],
)
def test_fields_that_the_model_lacks_are_refused(model: str, fields: dict[str, Any]) -> None:
    with pytest.raises(DreameryError) as caught:
        params(model, **fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", *fields)


def test_other_tiers_are_refused() -> None:
    with pytest.raises(RequestValidationError):
        params(OLD, service_tier="priority")
