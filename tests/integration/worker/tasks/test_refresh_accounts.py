"""Background checks: live model lists in `/v1/models` and in requests, and checks of sessions in cooldown."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from api.app import create_app
from api.generation import model_availability
from tests.support.api_client import assert_error
from tests.support.engine import GENERATE, Engine
from worker.core.catalog.models import get_catalog
from worker.core.catalog.upstream_models import listed_video
from worker.core.ids import parse_public_id
from worker.db.accounts.model_listings import every_session_expired, upstream_models
from worker.db.engine import transaction
from worker.db.jobs import claims
from worker.providers.dreamina.wire_models import wire_video
from worker.tasks.refresh_accounts import refresh_accounts

PICTURES = "/mweb/v1/get_common_config"
NEW_KEY = "high_aes_general_v77"


@pytest.fixture(autouse=True)
def expire_model_lists() -> Iterator[None]:
    model_availability.forget()
    yield
    model_availability.forget()


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        engine.sql("DELETE FROM accounts")  # the demo account of the pool
        yield client


def auth(session: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {session}"}


def models(http: TestClient, key: str) -> dict[str, dict[str, Any]]:
    model_availability.forget()
    return {row["id"]: row for row in http.get("/v1/models", headers=auth(key)).json()["data"]}


def checks_made(engine: Engine) -> int:
    return sum(path == PICTURES for path in engine.interceptor.calls)


def listing(*rows: dict[str, Any]) -> Response:
    """Return a response of `get_common_config`."""
    return Response(json.dumps({"ret": "0", "data": {"model_list": list(rows)}}), media_type="application/json")


def row(key: str, **more: Any) -> dict[str, Any]:
    bucket = {"image_ratio_sizes": [{"ratio_type": 1, "width": 2048, "height": 2048}]}
    return {
        "model_name": f"Name of {key}",
        "model_req_key": key,
        "model_tip": "Upstream's own tip",
        "generate_count_options": [1, 2],
        "input_image_limit": [{"max_image_num": 3, "ability_name": "byte_edit"}],
        "resolution_map": {"2k": bucket, "4k": bucket, "64k": bucket},
        **more,
    }


def test_pool_and_recently_used_accounts_are_checked_once_per_period(engine: Engine) -> None:
    pooled, worked = engine.add_account(pool=True), engine.add_account()
    idle, expired = engine.add_account(), engine.add_account(session="dead-list-00001", pool=True)
    long_ago = engine.add_account()
    engine.add_succeeded_job(worked), engine.add_succeeded_job(long_ago)
    engine.sql("UPDATE accounts SET last_submit_at = now() - interval '8 days' WHERE id = :id", id=long_ago)
    assert "checked 3 accounts" in refresh_accounts()
    for account in (pooled, worked):
        row_now = engine.account_row(account)
        assert {image["key"] for image in row_now.models["images"]} >= {"high_aes_general_v40"}
        assert row_now.models["videos"][0]["own"]["benefit"]
        due_in = engine.sql(
            "SELECT extract(epoch FROM refresh_due_at - now()) AS s FROM accounts WHERE id = :i", i=account
        )
        assert 0.79 * 21600 < due_in[0].s < 1.21 * 21600
    assert [engine.account_row(a).models for a in (idle, expired, long_ago)] == [None, None, None]
    assert checks_made(engine) == 2, "the free call had shown that the third session is expired"
    assert engine.account_row(expired).rest_code == "upstream_session_expired"
    assert "checked 0 accounts" in refresh_accounts()
    engine.sql("UPDATE accounts SET refresh_due_at = now()")
    assert "checked 2 accounts" in refresh_accounts()
    assert checks_made(engine) == 2, "model lists are valid for longer"
    engine.sql("UPDATE accounts SET refresh_due_at = now(), models_at = now() - interval '6 hours'")
    assert "checked 2 accounts" in refresh_accounts()
    assert checks_made(engine) == 4


def test_kind_missing_from_response_keeps_its_last_list(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    refresh_accounts()
    engine.sql("UPDATE accounts SET refresh_due_at = now(), models_at = now() - interval '1 day'")
    engine.interceptor.before[PICTURES] = lambda *_: Response(status_code=502)
    refresh_accounts()
    assert engine.account_row(account).models["images"]


def test_model_list_shows_upstream_names_and_new_models(engine: Engine, http: TestClient) -> None:
    engine.add_account(session="plain-lists-models-1", pool=True)
    key = engine.env["DREAMERY_ADMIN_KEY"]
    before = models(http, key)
    assert NEW_KEY not in before
    engine.interceptor.before[PICTURES] = lambda *_: listing(
        row(NEW_KEY), row("high_aes_general_v40"), row("odd", resolution_map={})
    )
    refresh_accounts()
    after = models(http, key)
    assert (after[NEW_KEY]["model_name"], after[NEW_KEY]["kind"]) == (f"Name of {NEW_KEY}", "image")
    assert after[NEW_KEY]["model_req_key"] == NEW_KEY
    assert after[NEW_KEY]["resolutions"] == ["2k", "4k"], "only sizes with known pixels"
    assert (after[NEW_KEY]["counts"], after[NEW_KEY]["references"]) == ([1, 2], 3)
    assert "odd" not in after, "it cannot be requested"
    known_model = after["jimeng-4.0"]
    assert (known_model["model_name"], known_model["model_tip"]) == (
        "Name of high_aes_general_v40",
        "Upstream's own tip",
    )
    assert (known_model["counts"], known_model["references"], known_model["resolutions"]) == (
        [1, 2],
        3,
        ["1k", "2k", "4k"],
    )
    assert set(after) - {NEW_KEY} == set(before), "a short list removes nothing"
    assert http.get(f"/v1/models/{NEW_KEY}", headers=auth(key)).json() == after[NEW_KEY]


def test_new_model_runs_on_an_account_that_lists_it(engine: Engine, http: TestClient) -> None:
    # The sandbox supports this model, the catalog does not know it.
    key = "gemini_3_image_pro"
    has, has_not = (
        engine.add_account(session="plain-has-model-0001"),
        engine.add_account(session="plain-has-not-000001"),
    )
    engine.add_succeeded_job(has), engine.add_succeeded_job(has_not)
    refresh_accounts()
    engine.sql('UPDATE accounts SET models = \'{"images": [], "videos": []}\' WHERE id = :id', id=has_not)
    model_availability.forget()
    tokens = "plain-has-not-000001:sandbox,plain-has-model-0001:sandbox"
    body = {"model": key, "prompt": "a new boat", "async": True, "n": 1, "resolution": "2k"}
    answer = http.post("/v1/images/generations", json=body, headers=auth(tokens))
    assert answer.status_code == 202, answer.text
    job = parse_public_id("job", answer.json()["id"])
    assert isinstance(job, UUID)
    assert engine.job_row(job).account_ids == [has]
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.submits("a new boat")[0]["model"] == key
    assert answer.json()["model"] == key
    # Callers whose accounts do not list it get an error.
    model_availability.forget()
    refused = http.post("/v1/images/generations", json=body, headers=auth("plain-has-not-000001:sandbox"))
    assert_error(refused, 404, "model_not_found", "model")
    model_availability.forget()
    refused = http.post("/v1/images/generations", json=body, headers=auth("plain-never-seen-001:sandbox"))
    assert_error(refused, 404, "model_not_found", "model")
    assert not engine.ledger()["violations"]


def test_pool_job_of_new_model_runs_where_it_is_listed(engine: Engine, http: TestClient) -> None:
    has, other = engine.add_account(pool=True), engine.add_account(pool=True)
    refresh_accounts()
    engine.sql("UPDATE accounts SET models = NULL WHERE id = :id", id=other)
    model_availability.forget()
    body = {"model": "gemini_3_image_pro", "prompt": "a boat", "async": True, "n": 1}
    answer = http.post("/v1/images/generations", json=body, headers=auth(engine.env["DREAMERY_ADMIN_KEY"]))
    assert answer.status_code == 202, answer.text
    job = parse_public_id("job", answer.json()["id"])
    assert isinstance(job, UUID)
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).account_id == has
    assert not http.get("/v1/jobs", headers=auth("plain:sandbox")).json()["data"], (
        "an account of the pool is not a caller"
    )


def test_model_of_another_region_runs_on_the_session_that_lists_it(engine: Engine, http: TestClient) -> None:
    body = {"model": "jimeng-4.7", "prompt": "a boat", "async": True, "n": 1}
    answer = http.post("/v1/images/generations", json=body, headers=auth("us-plain-two-places,sg-plain-two-places"))
    job = parse_public_id("job", answer.json()["id"])
    assert isinstance(job, UUID)
    [account] = engine.job_row(job).account_ids
    assert engine.account_row(account).region == "sg"
    assert engine.run_until_final(job) == ["succeeded"]
    # Upstream's list overrides the catalog's regions.
    assert_error(
        http.post("/v1/images/generations", json=body, headers=auth("us-plain-two-places")),
        404,
        "model_not_found",
        "model",
    )
    engine.sql("""UPDATE accounts SET models = '{"images": [{"key": "high_aes_general_v43", "name": "", "tip": "",
                  "resolutions": [], "counts": [], "references": 0}]}' WHERE region = 'us'""")
    model_availability.forget()
    assert http.post("/v1/images/generations", json=body, headers=auth("us-plain-two-places")).status_code == 202


def test_video_benefit_comes_from_the_model_list_of_the_account(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    with transaction() as tx:
        assert upstream_models(tx, account) is None
    refresh_accounts()
    with transaction() as tx:
        models_found = upstream_models(tx, account)
    assert models_found is not None
    catalog = get_catalog()
    plain, fast = catalog.video_model("jimeng-video-3.0"), catalog.video_model("jimeng-video-3.0-fast")
    for video in models_found["videos"]:
        video["own"] = {"benefit": f"live_{video['key']}"}
    assert listed_video(None, plain) == {}

    def benefit(model: Any, *, resolution: str = "720p", omni: bool = False) -> str:
        listed = listed_video(models_found, model)
        return wire_video(model).benefit_for(seconds=5, resolution=resolution, omni=omni, listed=listed)

    assert benefit(plain) == f"live_{plain.key}"
    # Exceptions of our own data apply to cases that the list does not cover.
    assert benefit(fast, resolution="1080p") == "basic_video_operation_vgfm_v_three_1080"
    assert benefit(fast) == f"live_{fast.key}"
    omni = catalog.video_model("jimeng-video-seedance-2.0")
    assert benefit(omni, omni=True) == "dreamina_video_seedance_20_video_add"


# --- expired sessions ---


def expire_session(engine: Engine, account: UUID, seconds: int = 30) -> None:
    engine.sql(
        """UPDATE accounts SET rest_code = 'upstream_session_expired', refresh_due_at = now() + interval '1 hour',
               rest_until = now() + make_interval(secs => :s) WHERE id = :id""",
        id=account, s=seconds,
    )  # fmt: skip


def test_expired_session_is_checked_before_its_cooldown_ends(engine: Engine) -> None:
    back, expired = engine.add_account(pool=True), engine.add_account(session="dead-for-good-001", pool=True)
    later, unused = engine.add_account(pool=True), engine.add_account()
    for account, seconds in ((back, 30), (expired, 30), (later, 200), (unused, 30)):
        expire_session(engine, account, seconds)
    assert "tested 2 expired sessions, 1 work again" in refresh_accounts()
    assert engine.account_row(back).rest_until is None
    assert engine.account_row(back).credits > 0
    assert engine.account_row(expired).rests.total_seconds() > 1000
    assert engine.account_row(later).rest_code == "upstream_session_expired"
    assert [message.ids for message in engine.take_messages("dreamery.submit")] == [{"account_id": back.hex}]
    assert "tested 0 expired sessions" in refresh_accounts()


def test_unreachable_upstream_does_not_change_cooldowns(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    expire_session(engine, account)
    engine.interceptor.before["/user_credit"] = lambda *_: Response(status_code=502)
    assert "tested 1 expired sessions, 0 work again" in refresh_accounts()
    assert engine.account_row(account).rests.total_seconds() < 31


def test_all_sessions_expired_at_once_logs_address_warning(engine: Engine) -> None:
    accounts = [engine.add_account(session=f"dead-all-{n}-000000", region="us", pool=True) for n in range(2)]
    expire_session(engine, accounts[0])
    engine.sql("UPDATE accounts SET refresh_due_at = now() + interval '1 hour'")
    refresh_accounts()
    with transaction() as tx:
        assert every_session_expired(tx) == 0
    expire_session(engine, accounts[0])
    expire_session(engine, accounts[1])
    refresh_accounts()
    with transaction() as tx:
        assert every_session_expired(tx) == 2
    from api.cli.operator.doctor import _check_database

    findings = {finding.check: finding for finding in _check_database()}
    assert not findings["exit address"].ok
    assert "address" in findings["exit address"].hint


def test_video_is_charged_as_the_list_says(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    seen: list[dict[str, Any]] = []
    engine.interceptor.before[GENERATE] = lambda _path, body: seen.append(json.loads(body))
    engine.add_running_job(account, kind="video")
    listed = {"videos": [{"key": get_catalog().video_model("jimeng-video-3.0").key, "benefit": "live_benefit"}]}
    engine.sql("UPDATE accounts SET max_videos = 2, models = CAST(:m AS jsonb)", m=json.dumps(listed))
    second = engine.add_job(account, kind="video")
    engine.make_due()
    engine.submit(second)
    declared = [body["extend"]["m_video_commerce_info"]["benefit_type"] for body in seen]
    assert declared == ["basic_video_operation_vgfm_v_three", "live_benefit"]


def pool_job(http: TestClient, engine: Engine, model: str) -> Any:
    model_availability.forget()
    body = {"model": model, "prompt": "a boat", "async": True, "n": 1}
    return http.post("/v1/images/generations", json=body, headers=auth(engine.env["DREAMERY_ADMIN_KEY"]))


def test_mixed_region_pool_assigns_job_to_accounts_with_its_model(engine: Engine, http: TestClient) -> None:
    here, there = engine.add_account(pool=True, region="sg"), engine.add_account(pool=True, region="us")
    job = parse_public_id("job", pool_job(http, engine, "jimeng-4.7").json()["id"])
    assert isinstance(job, UUID)
    assert (engine.job_row(job).account_ids, engine.job_row(job).avoid_accounts) == ([], [there])
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=there) is None
        claim = claims.claim_next(tx, account_id=here)
    assert claim is not None
    assert claim.id == job
    [note] = [event.note for event in engine.job_events(job) if event.to_state == "submitting"]
    assert [skipped["why"] for skipped in note["passed_over"]] == ["has not this model"]


def test_pool_without_the_region_of_the_model_fails_at_once(engine: Engine, http: TestClient) -> None:
    there = engine.add_account(pool=True, region="us")
    assert "asia" in assert_error(pool_job(http, engine, "jimeng-4.7"), 503, "no_account_available", "model")
    # Upstream's list overrides the catalog's regions; an account with an unknown region is tried.
    key = get_catalog().image_model("jimeng-4.7").key
    models_found = {"images": [{"key": key, "name": "", "tip": "", "resolutions": [], "counts": [], "references": 0}]}
    engine.sql(
        "UPDATE accounts SET models = CAST(:m AS jsonb), models_at = now() WHERE id = :id",
        m=json.dumps(models_found),
        id=there,
    )
    other = engine.add_account(pool=True, region="us")
    job = parse_public_id("job", pool_job(http, engine, "jimeng-4.7").json()["id"])
    assert isinstance(job, UUID)
    assert engine.job_row(job).avoid_accounts == [other]
    engine.add_account(pool=True, region="auto")
    assert pool_job(http, engine, "jimeng-4.7").status_code == 202


def pool_video(http: TestClient, engine: Engine, model: str, key: str | None = None) -> Any:
    model_availability.forget()
    body = {"model": model, "prompt": "waves", "async": True}
    return http.post("/v1/videos/generations", json=body, headers=auth(key or engine.env["DREAMERY_ADMIN_KEY"]))


def list_videos(engine: Engine, account: UUID, *models: str) -> None:
    keys = [get_catalog().video_model(model).key for model in models]
    rows = [{"key": key, "name": key, "tip": ""} for key in keys]
    listed = json.dumps({"videos": rows})
    engine.sql("UPDATE accounts SET models = CAST(:m AS jsonb), models_at = now() WHERE id = :id", m=listed, id=account)


def test_model_that_sources_disagree_about_is_tried_until_the_account_lists_its_models(
    engine: Engine, http: TestClient
) -> None:
    account = engine.add_account(pool=True, region="us")
    name = "jimeng-video-3.0-pro"
    assert pool_video(http, engine, name).status_code == 202
    list_videos(engine, account, "jimeng-video-3.0")
    assert_error(pool_video(http, engine, name), 503, "no_account_available", "model")
    list_videos(engine, account, "jimeng-video-3.0", name)
    assert pool_video(http, engine, name).status_code == 202


def test_own_list_of_a_session_decides_about_a_disputed_model(engine: Engine, http: TestClient) -> None:
    name, key = "jimeng-video-3.0-pro", "us-session0123456789"
    assert pool_video(http, engine, name, key).status_code == 202
    (account,) = [row.id for row in engine.sql("SELECT id FROM accounts WHERE region = 'us'")]
    list_videos(engine, account, "jimeng-video-3.0")
    assert "jimeng-video-3.0" in assert_error(pool_video(http, engine, name, key), 404, "model_not_found", "model")
    listed = {row["id"] for row in http.get("/v1/models", headers=auth(key)).json()["data"]}
    assert name not in listed
    list_videos(engine, account, name)
    assert pool_video(http, engine, name, key).status_code == 202
    model_availability.forget()
    assert name in {row["id"] for row in http.get("/v1/models", headers=auth(key)).json()["data"]}
