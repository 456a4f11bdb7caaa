"""The generated submit against the recorded browser requests (fixtures generate.image.request.*)."""

import json
import re
import uuid
from typing import Any

import pytest

from tests.unit.providers.upstream import KEY, Script, account, load, order
from worker.providers.dreamina.drafts import _uuids

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def opened(body: dict[str, Any]) -> dict[str, Any]:
    """A body with its JSON strings opened and what differs per run replaced; the key order stays visible."""
    metrics = json.loads(body["metrics_extra"])
    if "sceneOptions" in metrics:
        metrics["sceneOptions"] = json.loads(metrics["sceneOptions"])
    body = {**body, "metrics_extra": metrics, "draft_content": json.loads(body["draft_content"])}
    body["draft_content"]["component_list"][0]["metadata"]["created_time_in_ms"] = "NOW"
    kept = json.dumps(body).replace(KEY, "THE-KEY")
    return json.loads(UUID.sub("UUID", kept))


def sent(script: Script, region: str, **changes: Any) -> dict[str, Any]:
    script.provider.submit_image(account(region), order(**changes), submit_key=KEY)
    return json.loads(script.last.content)


@pytest.mark.parametrize(("region", "model"), [("cn", "jimeng-5.0"), ("us", "jimeng-4.0")])
def test_body_and_query_equal_the_browsers(region, model):
    fixture = load(f"generate.image.request.{region}.json")
    script = Script("generate.image.response.json")
    body = sent(script, region, model=model)
    assert json.dumps(opened(body)) == json.dumps(opened(fixture["body"]))
    url = script.last.url
    assert f"{url.scheme}://{url.host}{url.path}" == fixture["url"]
    query = dict(url.params)
    web_id = "webId" if region == "cn" else "web_id"
    assert re.fullmatch(r"[1-9]\d{18}", query[web_id])
    assert query == {**fixture["query"], web_id: query[web_id]}


def test_an_exact_count_equals_the_browsers_draft_and_declares_its_price():
    fixture = opened(load("generate.image.request.gen_count.json")["body"])
    script = Script("generate.image.response.json", upstream_da_version="3.3.20")
    changes = {"model": "jimeng-5.0", "count": 2, "width": 2048, "height": 2048, "ratio": "1:1"}
    body = opened(sent(script, "cn", **changes))
    ours, theirs = body.pop("metrics_extra"), fixture.pop("metrics_extra")
    assert body == fixture
    # That recording is of another page: it sends a templateId and no sceneOptions; ours must declare the charge.
    assert theirs.pop("templateId") == "0"
    assert theirs.items() <= ours.items()
    assert ours["sceneOptions"][0]["benefitCount"] == 2


def test_a_model_that_cannot_be_told_a_count_is_not_told_one():
    script = Script("generate.image.response.json")
    body = opened(sent(script, "sg", model="jimeng-3.1", count=2))
    abilities = body["draft_content"]["component_list"][0]["abilities"]
    assert "gen_count" not in abilities["gen_option"]
    assert body["metrics_extra"]["sceneOptions"][0]["benefitCount"] == 4


def test_the_key_of_a_model_follows_the_region():
    script = Script("generate.image.response.json")
    assert "fangzhou" in sent(script, "cn", model="jimeng-3.1")["extend"]["root_model"]
    assert "fangzhou" not in sent(script, "us", model="jimeng-3.1")["extend"]["root_model"]


def test_the_forced_size_of_a_model_in_the_us_only():
    script = Script("generate.image.response.json")
    asked = {"model": "jimeng-nano-banana", "width": 1664, "height": 936, "resolution": "1k"}
    cluster = {"country": "US", "idc": "useast5", "mweb": "https://m.capcut.com", "commerce": "https://c.capcut.com"}
    for region, expected in (
        ("us", [1024, 1024, "2k", 1]),
        ("sg", [1664, 936, "1k", 3]),
        ("sandbox", [1664, 936, "1k", 3]),
    ):
        core = opened(sent(script, region, **asked))["draft_content"]["component_list"][0]["abilities"]["generate"][
            "core_param"
        ]
        info = core["large_image_info"]
        assert [info["width"], info["height"], info["resolution_type"], core["image_ratio"]] == expected
    script.provider.submit_image(account("auto", cluster=cluster), order(**asked), submit_key=KEY)
    assert '\\"width\\":1024' in script.last.content.decode()


def test_the_cheap_ids_are_version_4_uuids():
    ids = _uuids(50)
    assert len(set(ids)) == 50
    assert all(uuid.UUID(text).version == 4 and uuid.UUID(text).variant == uuid.RFC_4122 for text in ids)
