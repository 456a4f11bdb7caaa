"""`/v1/models`: fields, models of each region, and ids with slashes and colons."""

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.generation.models.schemas import Model, ModelList
from tests.support.api_client import assert_error
from worker.core import catalog_overrides
from worker.core.catalog import provider_overrides
from worker.core.catalog.models import get_catalog
from worker.core.settings import get_settings

SLASHED = """
[[image]]
id = "studio/own:1"
name = "Own"
key = "own_key"
key_cn = "own_key_cn"
where = ["cn"]
resolutions = ["2k"]
counts = []
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "own.toml").write_text(SLASHED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in {
            "MASTER_KEY": "a key for tests only",
            "SESSION_TOKENS": "on",
            "SANDBOX_URL": "http://127.0.0.1:1",
            "CATALOG_FILE": str(folder / "own.toml"),
            "LOG_LEVEL": "error",
        }.items():
            patch.setenv(f"DREAMERY_{name}", value)
        for cached in (get_settings, get_catalog, provider_overrides.hosts):
            cached.cache_clear()
        # There is no database that could have keys of accounts.
        patch.setattr("api.auth.known_keys._keys_exist", lambda: False)
        yield TestClient(create_app())
    for cached in (get_settings, get_catalog, provider_overrides.hosts):
        cached.cache_clear()


def list_models(client, token):
    answer = client.get("/v1/models", headers={"Authorization": f"Bearer {token}"}).json()
    ModelList.model_validate(answer)
    return {row["id"]: row for row in answer["data"]}


def test_model_has_fields_of_other_gateways(client):
    row = list_models(client, "me:sandbox")["jimeng-4.0"]
    assert {"id", "object", "owned_by", "model_name", "model_tip", "model_req_key"} <= set(row)
    assert row["model_tip"] == "Image 4.0: 1k, 2k, 4k; 1 to 8 images per job"
    assert (row["object"], row["model_req_key"], row["alias_of"]) == ("model", "high_aes_general_v40", None)


def test_models_and_aliases_are_listed(client):
    rows = list_models(client, "me:sandbox")
    assert {*catalog_overrides.HARD_CODED_IMAGE_MODELS, "jimeng-image-4.0", "studio/own:1"} <= set(rows)
    assert rows["dall-e-3"]["alias_of"] == "jimeng-4.0"


@pytest.mark.parametrize(
    ("token", "listed", "not_listed"),
    [
        ("me:cn", "jimeng-5.0-flash", "dreamina-gpt-image-2"),
        ("us-me", "dreamina-gpt-image-2", "jimeng-4.7"),
        ("sg-me", "jimeng-4.7", "dreamina-gpt-image-2"),
        ("me", "dreamina-gpt-image-2", "jimeng-5.0-flash"),
        ("me", "jimeng-4.7", "jimeng-aesthetic-8.2"),
        ("me:cn,us-me", "dreamina-gpt-image-2", "jimeng-nothing"),
        ("me:sandbox", "jimeng-5.0-flash", "jimeng-nothing"),
        ("me:cn", "jimeng-video-seedance-2.0", "jimeng-video-sora2"),
        ("us-me", "jimeng-video-sora2", "jimeng-video-3.0-pro"),
        ("us-me", "agent", "jimeng-video-seedance-2.0"),
    ],
)
def test_session_lists_models_of_its_region(client, token, listed, not_listed):
    ids = list_models(client, token)
    assert listed in ids
    assert not_listed not in ids


def test_video_model_lists_its_capabilities(client):
    rows = list_models(client, "me:sandbox")
    row = rows["jimeng-video-seedance-2.0"]
    assert row["model_tip"] == "Seedance 2.0: 720p; 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 s"
    assert (row["kind"], row["durations"][0], row["omni"], row["end_frame"]) == ("video", 5, True, True)
    assert (row["references"], row["fps"], row["ratios"][0]) == (9, [24], "16:9")
    assert (row["frame_decides_ratio"], row["reference_videos"], row["reference_audios"]) == (True, 3, 3)
    assert rows["sora-2"]["alias_of"] == "jimeng-video-3.0"
    assert (rows["jimeng-video-veo3"]["references"], rows["jimeng-video-3.0"]["references"]) == (1, 2)


@pytest.mark.parametrize("name", ["jimeng-video-3.0", "sora-2", "agent"])
def test_get_model_of_each_kind(client, name):
    row = client.get(f"/v1/models/{name}", headers={"Authorization": "Bearer me:sandbox"}).json()
    Model.model_validate(row)
    assert row == list_models(client, "me:sandbox")[name]


def test_model_key_depends_on_region(client):
    assert list_models(client, "me:cn")["studio/own:1"]["model_req_key"] == "own_key_cn"
    assert "fangzhou" in list_models(client, "me:cn")["jimeng-3.1"]["model_req_key"]
    assert "fangzhou" not in list_models(client, "us-me")["jimeng-3.1"]["model_req_key"]


@pytest.mark.parametrize("path", ["studio/own:1", "studio%2Fown%3A1"])
def test_ids_may_contain_slashes_and_colons(client, path):
    headers = {"Authorization": "Bearer me:sandbox"}
    row = client.get(f"/v1/models/{path}", headers=headers).json()
    Model.model_validate(row)
    assert row["id"] == "studio/own:1"
    assert_error(client.get("/v1/models/studio/other:1", headers=headers), 404, "model_not_found", "model")
