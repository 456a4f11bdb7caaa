"""Orders of the official API through the real engine: images within the call, sets, files within the order."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.responses import Response

from api.app import create_app
from tests.integration.worker.tasks.test_upload_references import RED, input_in_request
from tests.support.ark_jobs import CREATE, IMAGES, ArkJobs
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import running_app
from tests.support.uploads import MediaHost, make_image
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, transaction
from worker.db.jobs import inputs
from worker.db.jobs.claims import claim_next
from worker.db.jobs.inputs import NewInput
from worker.providers.ark import client, orders
from worker.tasks import submit as submit_task
from worker.tasks.stages.orders import build_order, immediate_images


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


@pytest.fixture
def host(engine: Engine) -> Iterator[MediaHost]:
    host = MediaHost()
    with running_app(host) as url:
        host.url = url
        engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{url.removeprefix('http://')}")
        yield host


def test_image_is_made_within_the_call_and_copied(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.holds_slot) == ("saving", False)
    assert engine.state_history(job) == ["queued", "submitting", "running", "saving"]
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert [(file.width, file.height) for file in engine.files(job)] == [(1024, 1024)]
    assert ark.ledger()["totals"] == {"image_calls": 1, "images": 1, "tokens": 0}


def test_video_is_a_task(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_video(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert row.state == "running"
    [task] = ark.tasks()
    assert task.id == row.upstream_id
    ark.finish()
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(ark.tasks()) == 1


def add_set(engine: Engine, ark: ArkJobs, account: UUID, prompt: str, count: int = 4) -> UUID:
    """Accept a set of images of a model that streams."""
    job = ark.add_image(account, prompt=prompt, series=True)
    order = {"count": count, "width": 2048, "height": 2048, "resolution": "2k"}
    engine.sql(
        """UPDATE jobs SET model = 'seedream-4.5', params = params || jsonb_build_object('n', CAST(:n AS int), 'order',
               params->'order' || CAST(:order AS jsonb)) WHERE id = :id""",
        id=job,
        n=count,
        order=json.dumps(order),
    )
    return job


def totals(ark: ArkJobs) -> dict[str, int]:
    return {name: ark.ledger()["totals"].get(name, 0) for name in ("image_calls", "images")}


def test_set_may_miss_refused_items(engine: Engine, ark: ArkJobs) -> None:
    job = add_set(engine, ark, ark.add_account(), "[[refused:1]] a boat", count=3)
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(engine.files(job)) == 2
    assert totals(ark) == {"image_calls": 1, "images": 2}


def test_refusal_of_all_items_is_a_refusal(engine: Engine, ark: ArkJobs) -> None:
    job = add_set(engine, ark, ark.add_account(), "[[refused:3]] a boat", count=3)
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "content_policy_violation"
    assert (totals(ark)["images"], engine.job_row(job).charged) == (0, 0)


def test_cut_stream_keeps_what_came(engine: Engine, ark: ArkJobs) -> None:
    job = add_set(engine, ark, ark.add_account(), "[[cut:2]] a boat")
    assert engine.run_until_final(job) == ["succeeded"]
    assert engine.job_row(job).result_count == 2
    assert totals(ark)["image_calls"] == 1


@pytest.mark.parametrize("prompt", ["[[cut:0]] a boat", "[[reset:after]] a boat", "[[seconds:5]] a boat"])
def test_lost_images_are_never_ordered_again(engine: Engine, ark: ArkJobs, prompt: str) -> None:
    engine.configure(CALL_TIMEOUT_SECONDS="1")
    job = (
        add_set(engine, ark, ark.add_account(), prompt)
        if "cut" in prompt
        else ark.add_image(ark.add_account(), prompt=prompt)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "IMAGE_SECONDS", 1.0)
        assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "submit_unclear"
    assert totals(ark)["image_calls"] == 1


def test_killed_worker_keeps_the_images_that_had_come(engine: Engine, ark: ArkJobs) -> None:
    job = add_set(engine, ark, ark.add_account(), "[[seconds:40]] a boat")
    process = engine.start_process("submit", job_id=job)
    eventually(lambda: engine.job_row(job).ready_items == 1, what="the first image is there")
    process.kill()
    process.join(10)
    assert engine.job_row(job).state == "submitting"
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(engine.files(job)) == 1
    assert totals(ark)["image_calls"] == 1


def test_worker_that_is_killed_before_the_first_image_loses_it(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_image(ark.add_account(), prompt="[[seconds:40]] a boat")
    process = engine.start_process("submit", job_id=job)
    eventually(lambda: totals(ark)["image_calls"] == 1, what="the call has come")
    process.kill()
    process.join(10)
    assert engine.run_until_final(job) == ["failed"]
    assert engine.job_row(job).error_code == "submit_unclear"
    assert totals(ark)["image_calls"] == 1


def test_worker_that_is_killed_before_the_call_costs_nothing(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job = ark.add_image(account)
    engine.make_due()
    with transaction() as tx:
        assert claim_next(tx, account_id=account) is not None
    assert engine.run_until_final(job) == ["succeeded"]
    assert totals(ark)["image_calls"] == 1
    assert "its process died before the order" in [row.note.get("reason") for row in engine.job_events(job)]


def test_cancel_between_claim_and_call_costs_nothing(
    engine: Engine, ark: ArkJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ark.add_image(ark.add_account())
    build = build_order.build_image_order

    def cancelled(*args: Any) -> Any:
        engine.sql("UPDATE jobs SET cancel_requested_at = now()")
        return build(*args)

    monkeypatch.setattr(build_order, "build_image_order", cancelled)
    engine.submit(job)
    assert engine.job_row(job).state == "cancelled"
    assert totals(ark)["image_calls"] == 0


def test_answer_waits_for_the_database(engine: Engine, ark: ArkJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ark.add_image(ark.add_account())
    write, tries = submit_task._running._write, []

    def away_twice(items: list[Any]) -> list[bool]:
        tries.append(len(items))
        if len(tries) < 3:
            raise DATABASE_UNAVAILABLE_ERRORS[0]("away", None, Exception())
        return write(items)

    monkeypatch.setattr(submit_task._running, "_write", away_twice)
    monkeypatch.setattr(submit_task, "_RECORD_PAUSE_SECONDS", 0.01)
    engine.submit(job)
    assert (engine.job_row(job).state, tries) == ("saving", [1, 1, 1])


def test_claim_is_kept_while_the_call_goes_on(engine: Engine, ark: ArkJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(immediate_images, "LEASE_EVERY_SECONDS", 0.05)
    job = ark.add_image(ark.add_account())

    def hook(_path: str, _body: bytes) -> None:
        engine.sql("UPDATE jobs SET due_at = now() + interval '1 second', cancel_requested_at = now()")
        eventually(lambda: engine.lease_seconds(job) > 30, what="the lease is renewed, also after a cancel")

    engine.interceptor.before[IMAGES] = hook
    assert engine.run_until_final(job) == ["succeeded"]
    assert totals(ark) == {"image_calls": 1, "images": 1}


def test_result_of_a_call_that_lost_its_claim_is_not_lost_silently(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_image(ark.add_account())

    def hook(_path: str, _body: bytes) -> None:
        engine.expire_leases()
        engine.poll(engine.job_row(job).account_id)

    engine.interceptor.before[IMAGES] = hook
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "submit_unclear")
    assert totals(ark)["image_calls"] == 1


# ---- files within the order


def bodies_of(engine: Engine, path: str) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = []
    engine.interceptor.before[path] = lambda _path, body: bodies.append(json.loads(body))
    return bodies


def add_input(engine: Engine, job: UUID, data: bytes = RED, **changes: Any) -> None:
    with transaction() as tx:
        inputs.add_inputs(tx, [job], [replace(input_in_request(data, f"inputs/{job.hex}/0.png"), **changes)])


def test_picture_goes_within_the_order(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_image(ark.add_account())
    add_input(engine, job)
    bodies = bodies_of(engine, IMAGES)
    assert engine.run_until_final(job) == ["succeeded"]
    [body] = bodies
    assert body["image"] == "data:image/png;base64," + base64.b64encode(RED).decode()
    assert engine.sql("SELECT * FROM input_uploads") == []


def test_frames_have_their_roles(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account(), mode="first")
    add_input(engine, job, role="first_frame")
    bodies = bodies_of(engine, CREATE)
    engine.submit(job)
    assert engine.job_row(job).state == "running"
    [body] = bodies
    assert [(item["type"], item.get("role")) for item in body["content"]] == [
        ("text", None),
        ("image_url", "first_frame"),
    ]


def test_large_picture_goes_by_link_and_then_within_the_order(
    engine: Engine, ark: ArkJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "LARGEST_IN_BODY", 10)
    engine.configure(PUBLIC_URL="http://dreamery.test")
    job = ark.add_image(ark.add_account())
    add_input(engine, job)
    sent: list[str] = []

    def hook(_path: str, body: bytes) -> Response | None:
        sent.append(json.loads(body)["image"])
        error = {"error": {"code": "InvalidImageURL.InvalidFormat", "message": "cannot open"}}
        return Response(json.dumps(error), 400, media_type="application/json") if len(sent) == 1 else None

    engine.interceptor.before[IMAGES] = hook
    assert engine.run_until_final(job) == ["succeeded"]
    link, data = sent
    assert data.startswith("data:image/png;base64,")
    assert link.startswith(f"http://dreamery.test/v1/inputs/{job.hex}-0?")
    with running_app(create_app()) as url:
        there = httpx.get(link.replace("http://dreamery.test", url))
        assert (there.status_code, there.content) == (200, RED)
        assert there.headers["content-type"] == "image/png"
        for wrong in (link.replace("-0?", "-1?"), link.partition("?")[0], link.replace("expires=1", "expires=2")):
            assert httpx.get(wrong.replace("http://dreamery.test", url)).status_code == 403


def test_video_reference_without_a_public_address_is_refused_before_the_order(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account(), mode="reference", model="seedance-2.0")
    add_input(engine, job, media="video")
    engine.sql("UPDATE job_inputs SET milliseconds = 5000, mime = 'video/mp4'")
    assert engine.run_until_final(job) == ["failed"]
    row = engine.job_row(job)
    assert (row.error_code, "PUBLIC_URL" in row.error_message) == ("invalid_video", True)
    assert [call for call in engine.interceptor.calls if CREATE in call] == []


def test_link_of_a_picture_is_fetched_before_the_claim(engine: Engine, ark: ArkJobs, host: MediaHost) -> None:
    account = ark.add_account()
    job = ark.add_image(account)
    with transaction() as tx:
        inputs.add_inputs(tx, [job], [NewInput(url=host.add_file("/red", make_image("red", side=64)))])
    bodies = bodies_of(engine, IMAGES)
    assert engine.run_until_final(job) == ["succeeded"], engine.job_row(job).error_message
    assert bodies[0]["image"].startswith("data:image/")
    assert totals(ark)["image_calls"] == 1


def test_flags_of_the_vendor_do_not_reach_it(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account(), prompt="waves --dur 15 --rs 1080p at night --wm true")
    bodies = bodies_of(engine, CREATE)
    engine.submit(job)
    assert bodies[0]["content"] == [{"type": "text", "text": "waves at night"}]
    assert (bodies[0]["duration"], bodies[0]["resolution"], bodies[0]["watermark"]) == (4, "480p", False)
