"""Keys of both regions, whose hosts are reached through one address (`UPSTREAM_ORIGIN`)."""

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.api.protocols.ark.test_ark_images import PATH as IMAGES
from tests.integration.api.protocols.ark.test_ark_tasks import TASKS, finished
from tests.support.api_client import ApiClient

MODELS = {"cn": "doubao-seedream-5-0-flash-260915", "intl": "dola-seedream-5-0-flash-260915"}


@pytest.fixture
def client(multi_region_platform) -> Iterator[ApiClient]:
    """A new user with accounts of its own."""
    platform = multi_region_platform
    admin = {"Authorization": f"Bearer {platform.admin_key}"}
    with httpx.Client(base_url=platform.url, headers=admin, timeout=30, trust_env=False) as http:
        name = f"ark-{secrets.token_hex(4)}"
        http.post("/admin/v1/users", json={"name": name}).raise_for_status()
        key = http.post("/admin/v1/keys", json={"user": name}).raise_for_status().json()["key"]
    with ApiClient(platform, key) as client:
        yield client


def ledger(client: ApiClient) -> dict[str, Any]:
    url = f"{client.platform.sandbox_url}/_ark/ledger"
    response = httpx.get(url, headers=client.platform.sandbox_control_headers, timeout=30, trust_env=False)
    return dict(response.raise_for_status().json())


@pytest.mark.parametrize("region", MODELS)
def test_region_gets_its_own_names_of_models(client, region):
    key = f"ark-{secrets.token_hex(8)}"
    added = client.http.post("/v1/accounts", json={"token": key, "provider": "ark", "region": region})
    assert added.status_code in {200, 201}, added.text
    # The vendor's name of the other region means the same model.
    for model in MODELS.values():
        body = {"model": model, "prompt": f"a boat {key}", "size": "1024x1024"}
        answer = client.http.post(IMAGES, json=body, headers={"X-Accounts": "own"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == model
    content = [{"type": "text", "text": f"waves {key}"}]
    body = {"model": "seedance-2.0-mini", "content": content, "resolution": "480p", "duration": 4}
    created = client.http.post(TASKS, json=body, headers={"X-Accounts": "own"})
    assert finished(client, created.json()["id"])["status"] == "succeeded"
    found = ledger(client)
    images = [one for one in found["images"] if one["account"] == key]
    assert [one["model"] for one in images] == [MODELS[region]] * 2
    (video,) = [one for one in found["videos"] if one["account"] == key]
    assert video["currency"] == {"cn": "CNY", "intl": "USD"}[region]
    assert video["tokens"] > 0
