"""Which provider runs a request: the caller's accounts, `X-Accounts`, currencies; and what the job and lists say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from api.app import create_app
from api.generation import model_availability
from tests.integration.worker.providers.test_ark_submits import host as host  # noqa: PLC0414 - a fixture
from tests.support.api_client import assert_error
from tests.support.ark_jobs import ArkJobs
from tests.support.engine import Engine
from tests.support.uploads import MediaHost, make_image
from worker.core.catalog.models import get_catalog
from worker.core.ids import parse_public_id

IMAGES, VIDEOS, CHAT = "/v1/images/generations", "/v1/videos/generations", "/v1/chat/completions"
FLASH = "seedream-5.0-flash"


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        engine.sql("DELETE FROM accounts")  # the accounts of the sandbox that a new platform gets
        yield client


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def ask(http: TestClient, path: str = IMAGES, *, accounts: str = "any", **fields: Any) -> Any:
    model_availability.forget()
    body = {"prompt": "a boat", "async": True, "n": 1, **fields}
    return http.post(path, json=body, headers={"X-Accounts": accounts})


def listed(http: TestClient) -> dict[str, Any]:
    model_availability.forget()
    rows = http.get("/v1/models").json()["data"]
    assert len({row["id"] for row in rows}) == len(rows), "each name once"
    return {row["id"]: row for row in rows}


def row_of(engine: Engine, answer: Any) -> Any:
    assert answer.status_code == 202, answer.text
    job_id = parse_public_id("job", answer.json()["id"])
    assert job_id is not None
    return engine.job_row(job_id)


def test_model_is_offered_if_there_is_an_account_for_it(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    assert FLASH not in listed(http)
    assert listed(http)["gpt-image-1"]["alias_of"] == "jimeng-4.0", "a new platform shows the first provider's"
    engine.add_account(pool=True)
    message = assert_error(ask(http, model=FLASH), 503, "no_account_available")
    assert "runs on accounts of ark" in message
    ark.add_account(pool=True)
    rows = listed(http)
    assert {row["provider"] for row in rows.values()} == {"dreamina", "ark"}
    assert rows["seedance-2.0"]["alias_of"] == "jimeng-video-seedance-2.0", "what it means for this caller"
    assert rows["doubao-seedance-2-0-260128"]["alias_of"] == "seedance-2.0"
    names = {field["name"] for field in rows["seedream-5.5"]["fields"]}
    assert names == {"layers", "background"}
    engine.sql("UPDATE accounts SET state = 'retired' WHERE provider = 'dreamina'")
    rows = listed(http)
    assert {row["provider"] for row in rows.values()} == {"ark"}
    assert (rows["gpt-image-1"]["alias_of"], "agent" in rows) == (FLASH, False)
    assert rows["seedance-2.0"]["alias_of"] is None


def test_job_has_its_provider_currency_and_price(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    ark.add_account(pool=True, region="cn", currency="CNY")
    row = row_of(engine, ask(http, VIDEOS, model="seedance-2.0", duration=5, prompt="waves"))
    assert (row.model, row.providers, row.currency, row.price) == ("seedance-2.0", ["ark"], "CNY", 5010)
    assert row.params["order"]["options"] == {"mode": "text", "generate_audio": True}
    # Sold abroad only.
    assert_error(ask(http, model="seedream-4.5"), 503, "no_account_available", "model")


def test_currency_is_that_of_an_account_that_can_work(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    china = ark.add_account(pool=True, region="cn", currency="CNY")
    abroad = ark.add_account(pool=True, region="intl", currency="USD")
    assert row_of(engine, ask(http, model=FLASH)).currency == "USD", "the first of the order"
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 minute' WHERE id = :id", id=abroad)
    assert row_of(engine, ask(http, model=FLASH, prompt="b")).currency == "CNY"
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 minute' WHERE id = :id", id=china)
    assert row_of(engine, ask(http, model=FLASH, prompt="c")).currency == "USD"


def test_name_of_several_providers_and_the_choice_of_accounts(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    engine.add_account(pool=True)
    ark.add_account(pool=True)
    answer = ask(http, VIDEOS, model="seedance-2.0", prompt="waves")
    row, job = row_of(engine, answer), answer.json()
    assert (row.model, row.providers, row.currency) == ("jimeng-video-seedance-2.0", ["dreamina"], None)
    assert (job["provider"], job["route"]["rule"], job["route"]["requested"]) == ("dreamina", "default", "seedance-2.0")
    assert [one["provider"] for one in job["route"]["options"]] == ["dreamina", "ark"]
    timeline = http.get(f"/v1/jobs/{job['id']}/timeline").json()
    assert (timeline["provider"], timeline["route"]) == ("dreamina", job["route"])
    answer = ask(http, VIDEOS, model="seedance-2.0", prompt="waves", accounts="pool, provider=ark")
    row = row_of(engine, answer)
    assert (row.model, row.providers, row.account_choice) == ("seedance-2.0", ["ark"], "pool")
    assert answer.json()["route"] is None, "the caller left one model"
    found = http.get("/v1/jobs", params={"model": "seedance-2.0"}).json()["data"]
    assert {job["provider"] for job in found} == {"dreamina", "ark"}, "all models with the name"
    key = http.post("/v1/keys", json={"name": "narrow", "models": ["seedance-2.0"]}).json()
    assert key["models"] == ["jimeng-video-seedance-2.0", "seedance-2.0"]
    assert_error(ask(http, model="jimeng-4.0", accounts="provider=ark"), 404, "model_not_found", "model")
    assert_error(ask(http, model=FLASH, accounts="provider=mars"), 400, "invalid_value", "x-accounts")
    assert_error(ask(http, model=FLASH, accounts="own, pool"), 400, "invalid_value", "x-accounts")
    chat = {"model": "agent", "messages": [{"role": "user", "content": "hello"}]}
    refused = http.post(CHAT, json=chat, headers={"X-Accounts": "provider=ark"})
    assert "no agent" in assert_error(refused, 404, "model_not_found", "model")


def test_there_is_no_failover_without_a_route(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    web = engine.add_account(pool=True)
    ark.add_account(pool=True)
    engine.sql("UPDATE accounts SET rest_until = now() + interval '30 seconds' WHERE id = :id", id=web)
    row = row_of(engine, ask(http, VIDEOS, model="seedance-2.0", prompt="waves"))
    assert row.providers == ["dreamina"], "it waits"
    engine.submit(row.id)
    assert engine.job_row(row.id).state == "queued"
    # An account that cannot work at all is no reason to spend money at another provider.
    engine.sql("UPDATE accounts SET state = 'needs_login' WHERE id = :id", id=web)
    assert_error(ask(http, VIDEOS, model="seedance-2.0", prompt="b"), 503, "accounts_need_login")


@pytest.fixture
def routed(engine: Engine, tmp_path: Path) -> Iterator[None]:
    path = tmp_path / "own.toml"
    path.write_text('[routes]\n"seedance-2.0" = ["ark", "dreamina"]\n')
    engine.configure(CATALOG_FILE=str(path))
    get_catalog.cache_clear()
    yield
    engine.configure(CATALOG_FILE="")
    get_catalog.cache_clear()


@pytest.mark.usefixtures("routed")
def test_route_of_the_operator_moves_on(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    engine.add_account(pool=True)
    paid = ark.add_account(pool=True)
    row = row_of(engine, ask(http, VIDEOS, model="seedance-2.0", prompt="waves"))
    assert (row.providers, row.params["route"]["rule"]) == (["ark"], "operator")
    # The model is closed on the only account that pays per use.
    rest = '{"seedance-2.0": {"until": "Infinity", "code": "ModelNotOpen"}}'
    engine.sql("UPDATE accounts SET model_rests = CAST(:rest AS jsonb) WHERE id = :id", rest=rest, id=paid)
    answer = ask(http, VIDEOS, model="seedance-2.0", prompt="b")
    assert (row_of(engine, answer).providers, answer.json()["route"]["rule"]) == (["dreamina"], "operator")
    assert row_of(engine, ask(http, VIDEOS, model="seedance-2.0-mini", prompt="c", accounts="provider=ark")).currency


def test_image_runs_to_its_end_and_again(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    engine.add_account(pool=True)
    ark.add_account(pool=True)
    row = row_of(engine, ask(http, model=FLASH, size="1280x720", output_format="webp"))
    engine.run_until_final(row.id)
    job = http.get(f"/v1/jobs/job_{row.id.hex}").json()
    assert (job["status"], job["provider"]) == ("completed", "ark"), job["error"]
    assert (job["output"][0]["width"], job["output"][0]["height"]) == (1280, 720)
    assert job["input"]["seed"] is None
    again = http.post(f"/v1/jobs/job_{row.id.hex}/retry", json={"seed": "new"})
    retried = row_of(engine, again)
    assert (retried.providers, retried.currency, retried.params["order"]["seed"]) == (["ark"], "USD", -1)
    assert_error(http.post(f"/v1/jobs/job_{row.id.hex}/retry", json={"seed": 7}), 400, "unsupported_parameter", "seed")


def test_draft_and_its_final(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    ark.add_account(pool=True)
    maker = ark.add_account(pool=True)
    draft = row_of(engine, ask(http, VIDEOS, model="seedance-2.5", prompt="waves", draft=True))
    assert draft.params["order"]["resolution"] == "480p"
    name = f"job_{draft.id.hex}"
    assert_error(http.post(VIDEOS, json={"draft_of": name, "async": True}), 400, "invalid_value", "draft_of")
    engine.sql(
        """UPDATE jobs SET state = 'succeeded', finished_at = now(), account_id = :a, upstream_id = 'cgt-1', attempt = 1,
               holds_slot = false WHERE id = :id""",
        a=maker, id=draft.id,
    )  # fmt: skip
    assert_error(ask(http, VIDEOS, draft_of=name), 400, "invalid_value", "prompt")
    answer = http.post(VIDEOS, json={"draft_of": name, "async": True})
    final = row_of(engine, answer)
    order = final.params["order"]
    assert (order["resolution"], order["prompt"], final.account_ids) == ("1080p", "waves", [maker])
    assert order["options"] == {"mode": "final", "draft_of": "cgt-1"}
    assert answer.json()["input"]["draft_of"] == name
    for fields, param in (
        ({"duration": 5}, "duration"),
        ({"ratio": "1:1"}, "ratio"),
        ({"resolution": "720p"}, "resolution"),
    ):
        refused = http.post(VIDEOS, json={"draft_of": name, "async": True, **fields})
        assert_error(refused, 400, "invalid_value", param)
    engine.sql("UPDATE jobs SET finished_at = now() - interval '8 days' WHERE id = :id", id=draft.id)
    refused = http.post(VIDEOS, json={"draft_of": name, "async": True, "return_last_frame": True})
    assert "older than 7 days" in assert_error(refused, 400, "invalid_value", "draft_of")


def test_fetched_input_is_checked_by_the_limits_of_the_model(
    engine: Engine, http: TestClient, ark: ArkJobs, host: MediaHost
) -> None:
    ark.add_account(pool=True)
    host.pages["/small.png"] = lambda: Response(make_image(side=64), media_type="image/png")
    body = {"model": "seedance-2.0-mini", "prompt": "waves", "image": f"{host.url}/small.png"}
    row = row_of(engine, ask(http, VIDEOS, **body))
    assert engine.run_until_final(row.id) == ["failed"]
    failed = engine.job_row(row.id)
    assert (failed.error_code, failed.submitted_at) == ("invalid_image", None)
    assert "each side must have 300 to 6000" in failed.error_message
    assert ark.tasks() == []


def test_remix_and_estimate_stay_with_the_model(engine: Engine, http: TestClient, ark: ArkJobs) -> None:
    ark.add_account(pool=True)
    fields = {"model": "seedance-2.5", "prompt": "waves", "duration": 6, "generate_audio": False}
    row = row_of(engine, ask(http, VIDEOS, **fields))
    engine.sql(
        "UPDATE jobs SET state = 'succeeded', finished_at = now(), attempt = 1, holds_slot = false WHERE id = :id",
        id=row.id,
    )
    # By now the name means another model to the caller.
    engine.add_account(pool=True)
    model_availability.forget()
    answer = http.post(f"/v1/videos/video_{row.id.hex}/remix", json={"prompt": "the same at night"})
    assert answer.status_code == 200, answer.text
    remixed = engine.job_row(parse_public_id("video", answer.json()["id"]))
    assert (remixed.model, remixed.providers, remixed.currency) == ("seedance-2.5", ["ark"], "USD")
    expected = {**row.params["order"], "prompt": "the same at night"}
    assert remixed.params["order"] == expected
    estimate = {"endpoint": VIDEOS, "body": {**fields, "model": "doubao-seedance-2-5-260628"}}
    found = http.post("/v1/estimate", json=estimate).json()
    assert (found["model"], found["currency"], found["refusals"]) == ("seedance-2.5", "USD", [])
    assert found["credits"] == row.price
