"""Plans of image requests: names built into tools, sizes in words, and stable ids of the operations."""

from typing import Any

import pytest

from api.app import create_app
from api.auth.caller import Caller
from api.images.planning import plan_image_jobs
from api.images.schemas import ImageGenerationRequest
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.security.session_tokens import parse_tokens
from worker.core.settings import get_settings


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMERY_MASTER_KEY", "a key for tests only")
    for cached in (get_settings, get_catalog):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog):
        cached.cache_clear()


def params(caller: Caller | None = None, **fields: Any) -> dict[str, Any]:
    body = ImageGenerationRequest.model_validate({"prompt": "a boat", **fields})
    return plan_image_jobs(body, caller or Caller(owner="user:x"))[0][0].params


@pytest.mark.parametrize("name", ["gpt-image-2-2026-04-21", "gpt-image-1", "flux-pro", "imagen-4"])
def test_name_built_into_a_tool_means_one_image(name):
    assert (params(model=name)["n"], params(model=name, n=3)["n"]) == (1, 3)
    assert params(model="jimeng-4.0")["n"] == 4


def test_only_names_that_are_not_listed_are_reported_as_adjusted():
    assert params(model="flux-pro")["adjusted"] == {"model": "flux-pro"}
    assert "adjusted" not in params(model="gpt-image-1")
    assert "adjusted" not in params()


@pytest.mark.parametrize(
    ("fields", "code", "param", "message"),
    [
        ({"model": "jimeng-video-3.0"}, "model_not_found", "model", "use /v1/videos"),
        ({"model": "agent"}, "model_not_found", "model", "use /v1/chat/completions"),
        ({"model": "sora-2-2025-12-08"}, "model_not_found", "model", "use /v1/videos"),
        ({"size": "large"}, "invalid_value", "size", "`2K`"),
        ({"resolution": "9k"}, "invalid_value", "resolution", "1k, 2k, 4k"),
        ({"ratio": "5:7"}, "invalid_value", "ratio", "16:9"),
    ],
)
def test_invalid_request_names_the_field_and_what_works(fields, code, param, message):
    with pytest.raises(DreameryError) as caught:
        params(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert message in caught.value.message


def test_model_that_sources_disagree_about_is_tried():
    caller = Caller(owner="tokens:x", tokens=tuple(("h", token) for token in parse_tokens("abc:cn", "us")))
    assert params(caller, model="jimeng-nano-banana")
    with pytest.raises(DreameryError, match="not offered in region cn"):
        params(caller, model="dreamina-gpt-image-2")


def test_ids_of_operations_stay_for_generated_clients():
    document = create_app().openapi()
    ids = {path: document["paths"][f"/v1/images/{path}"]["post"]["operationId"] for path in ("compositions", "edits")}
    assert ids == {
        "compositions": "create_images_from_pictures_v1_images_compositions_post",
        "edits": "create_images_from_pictures_v1_images_edits_post",
    }
