"""Videos from order to files, with the real tasks against the sandbox: text, frames, omni, and failures."""

import io
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from PIL import Image, PngImagePlugin
from starlette.responses import Response

from tests.integration.worker.tasks.test_cleanup import move_jobs_back
from tests.integration.worker.tasks.test_upload_references import input_in_request
from tests.support import factories
from tests.support.engine import GENERATE, HISTORY, MEDIA, Engine
from tests.support.media_files import make_audio, make_video, pixel_color
from tests.support.platform import eventually
from tests.support.servers.http_servers import Hook, RequestPause, running_app
from tests.support.uploads import MediaHost, make_image
from worker import storage
from worker.core.concurrency import event_loop
from worker.db.engine import transaction
from worker.db.jobs import inputs, state_machine
from worker.db.jobs.files import NewFile
from worker.db.jobs.inputs import NewInput
from worker.tasks.cleanup import clean_up
from worker.tasks.stages import lease_renewal, save_video
from worker.tasks.submit import submit_batch, upload_and_submit

RED, BLUE, GREEN = make_image("red", side=96), make_image("blue", side=96), make_image("lime", side=96)
OMNI = "jimeng-video-seedance-2.0"
ITEMS = "/get_local_item_list"
CHECK = "/algo_proxy"
STORE = "/upload/v1"


@pytest.fixture
def host(engine: Engine) -> Iterator[MediaHost]:
    """A host with images and videos that the fetcher may reach."""
    media_host = MediaHost()
    with running_app(media_host) as url:
        media_host.url = url
        engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{url.removeprefix('http://')}")
        yield media_host


def add_video_job(engine: Engine, accounts: list[UUID], *job_inputs: NewInput, **changes: Any) -> UUID:
    """Add an accepted job with inputs, a video by default."""
    with transaction() as tx:
        job = factories.new_job(accounts, **{"kind": "video", **changes})
        state_machine.accept(tx, [job])
        inputs.add_inputs(tx, [job.id], list(job_inputs))
    return job.id


def during_call(engine: Engine, statement: str) -> Hook:
    """Run an action on the rows during a call."""

    def hook(_path: str, _body: bytes) -> None:
        engine.sql(statement)

    return hook


def is_close_colour(colour: tuple[int, int, int], expected: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 60 for a, b in zip(colour, expected, strict=True))


def stored(engine: Engine, job: UUID) -> dict[str, Any]:
    """Return the files of the only result by variant; checks their rows against their bytes."""
    by_variant = {row.variant: row for row in engine.files(job)}
    for row in by_variant.values():
        assert (row.n, row.bytes) == (0, len(storage.read_file(row.key)))
    return by_variant


def saved_files(engine: Engine, job: UUID) -> dict[str, Any]:
    assert engine.run_until_final(job) == ["succeeded"], engine.job_row(job).error_message
    assert engine.ledger()["violations"] == {}
    assert engine.charge_count() == 1
    return stored(engine, job)


def draft(engine: Engine, request: bytes) -> dict[str, Any]:
    body = json.loads(request)
    component = json.loads(body["draft_content"])["component_list"][0]
    return component["abilities"]["gen_video"]["text_to_video_params"]


def record_orders(engine: Engine) -> list[dict[str, Any]]:
    """Record the parameters of every video submit from now on."""
    submits: list[dict[str, Any]] = []
    engine.interceptor.before[GENERATE] = lambda _path, body: submits.append(draft(engine, body))
    return submits


# --- from order to files ---


def test_video_from_text(engine: Engine) -> None:
    submits = record_orders(engine)
    order = {"ratio": "16:9", "resolution": "720p", "seconds": 10, "seed": 99}
    job = add_video_job(engine, [engine.add_account()], prompt="the boat drifts", order=order)
    files = saved_files(engine, job)
    assert files.keys() == {"original", "thumbnail", "spritesheet"}
    video_file, poster, sheet = files["original"], files["thumbnail"], files["spritesheet"]
    assert (video_file.mime, video_file.width, video_file.height, round(video_file.seconds)) == (
        "video/mp4",
        1280,
        720,
        10,
    )
    assert video_file.key == f"jobs/{job.hex}/0.mp4"
    for row, size in ((poster, (1280, 720)), (sheet, (960, 544))):
        with Image.open(io.BytesIO(storage.read_file(row.key))) as shown:
            assert (shown.size, shown.format, row.mime, row.seconds) == (size, "JPEG", "image/jpeg", None)
        assert (row.width, row.height) == size
    [params] = submits
    [video_input] = params["video_gen_inputs"]
    assert (video_input["prompt"], video_input["duration_ms"], video_input["fps"]) == ("the boat drifts", 10_000, 24)
    assert (params["video_aspect_ratio"], params["seed"]) == ("16:9", 99)


def test_first_and_last_frame_appear_in_the_video(engine: Engine, host: MediaHost) -> None:
    job_inputs = [
        NewInput(url=host.add_file("/first", RED), role="first_frame"),
        NewInput(stored=input_in_request(BLUE).stored, role="end_frame"),
    ]
    files = saved_files(engine, add_video_job(engine, [engine.add_account()], *job_inputs))
    assert is_close_colour(pixel_color(storage.read_file(files["thumbnail"].key), at=(0.05, 0.05)), (255, 0, 0))
    sheet = storage.read_file(files["spritesheet"].key)
    assert is_close_colour(pixel_color(sheet, at=(0.01, 0.01)), (255, 0, 0))
    assert is_close_colour(pixel_color(sheet, at=(0.76, 0.76)), (0, 0, 255))


def test_video_with_first_frame_only(engine: Engine) -> None:
    submits = record_orders(engine)
    frame = NewInput(stored=input_in_request(GREEN).stored, role="first_frame")
    files = saved_files(engine, add_video_job(engine, [engine.add_account()], frame))
    assert is_close_colour(pixel_color(storage.read_file(files["thumbnail"].key), at=(0.05, 0.05)), (0, 255, 0))
    assert "end_frame_image" not in submits[0]["video_gen_inputs"][0]


def test_omni_video_from_image_video_and_audio(engine: Engine, host: MediaHost) -> None:
    submits = record_orders(engine)
    video = make_video("red", "blue", seconds=3, side=96)
    job_inputs = [
        NewInput(url=host.add_file("/clip", video), media="video", name="clip.mp4"),
        NewInput(stored=input_in_request(RED).stored),
        NewInput(url=host.add_file("/tone", make_audio(seconds=2)), media="audio", name="tone.mp3"),
    ]
    parts = [{"material": 1}, {"text": " moves like "}, {"material": 0}, {"text": " to "}, {"material": 2}]
    job = add_video_job(engine, [engine.add_account()], *job_inputs, model=OMNI, order={"parts": parts})
    assert saved_files(engine, job).keys() == {"original", "thumbnail", "spritesheet"}
    [given_input] = submits[0]["video_gen_inputs"]
    edit = given_input["unified_edit_input"]
    assert [one["material_type"] for one in edit["material_list"]] == ["video", "image", "audio"]
    video_info, audio_info = edit["material_list"][0]["video_info"], edit["material_list"][2]["audio_info"]
    assert (video_info["width"], video_info["duration"], video_info["name"]) == (96, 3000, "clip.mp4")
    assert abs(audio_info["duration"] - 2000) < 100
    prompt_parts = [(one["meta_type"], one["text"]) for one in edit["meta_list"]]
    assert prompt_parts == [("image", ""), ("text", " moves like "), ("video", ""), ("text", " to "), ("audio", "")]
    rows = engine.sql("SELECT * FROM job_inputs WHERE job_id = :id ORDER BY n", id=job)
    assert [row.mime for row in rows] == ["video/mp4", "image/png", "audio/mpeg"]
    assert [row.milliseconds for row in rows][:2] == [3000, None]
    assert storage.read_file(rows[0].key) == video


def test_media_in_the_request_is_measured_before_upload(engine: Engine) -> None:
    data = make_video("red", seconds=2)
    stored_input = input_in_request(data, "inputs/test/0.mp4").stored
    job = add_video_job(engine, [engine.add_account()], NewInput(stored=stored_input, media="video"), model=OMNI)
    saved_files(engine, job)
    [row] = engine.sql("SELECT * FROM job_inputs")
    assert (row.mime, row.milliseconds, row.width) == ("video/mp4", 2000, 64)


def test_image_series_has_the_length_in_its_prompt(engine: Engine) -> None:
    job = engine.add_job(engine.add_account(), prompt="连续故事，生成6张", order={"count": None})
    assert engine.run_until_final(job) == ["succeeded"]
    assert [row.n for row in engine.files(job)] == list(range(6))
    assert engine.ledger()["violations"] == {}


# --- unusable references ---


def refused(engine: Engine, job: UUID, code: str) -> str:
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code, engine.charge_count(), engine.submits()) == ("failed", code, 0, [])
    return str(row.error_message)


@pytest.mark.parametrize(
    ("media", "data", "code"),
    [
        ("video", b"<html>", "invalid_video"),
        ("video", b"#EXTM3U\nhttp://169.254.169.254/\n", "invalid_video"),
        ("video", make_audio(), "invalid_video"),
        ("audio", make_video("red"), "invalid_audio"),
        ("audio", b"", "invalid_audio"),
        ("image", make_video("red"), "invalid_image"),
    ],
)
def test_reference_of_wrong_type_is_refused(
    engine: Engine, host: MediaHost, media: str, data: bytes, code: str
) -> None:
    job = add_video_job(
        engine, [engine.add_account()], NewInput(url=host.add_file("/x", data), media=media), model=OMNI
    )
    assert "cannot be used" in refused(engine, job, code)


def test_reference_videos_over_fifteen_seconds_are_refused_before_upload(engine: Engine, host: MediaHost) -> None:
    long = host.add_file("/a", make_video("red", seconds=8))
    job_inputs = [
        NewInput(url=long, media="video"),
        NewInput(url=host.add_file("/b", make_video("blue", seconds=8)), media="video"),
    ]
    message = refused(engine, add_video_job(engine, [engine.add_account()], *job_inputs, model=OMNI), "invalid_video")
    assert "16.0 s" in message
    assert "the maximum is 15 s" in message
    assert STORE not in engine.ledger()["calls"]


# --- queues ---


def test_fast_queue_leaves_job_with_references_to_bulk_queue(engine: Engine, host: MediaHost) -> None:
    account = engine.add_account(max_images=2)
    with_references = add_video_job(engine, [account], NewInput(url=host.add_file("/a", RED)), kind="image")
    without_references = engine.add_job(account, kind="video", prompt="a boat [[hang]]")
    engine.make_due()
    engine.take_messages()
    # A kind whose oldest job needs no uploads is not blocked by a job that does.
    assert "submitted" in submit_batch(account_id=account)
    engine.make_due()
    assert submit_batch(job_id=with_references) == f"{with_references} waits for its references"
    assert (engine.states([with_references, without_references]), host.gets) == (["queued", "running"], [])
    [message] = engine.take_messages("dreamery.bring")[:1]
    engine.make_due()
    assert f"fetched the references of {with_references}" in message.execute()
    if engine.job_row(with_references).state == "queued":  # the fetch took longer than the next claim
        engine.make_due()
        upload_and_submit(account_id=account)
    assert engine.job_row(with_references).state == "running"
    assert host.gets == ["/a"]
    # The job behind it was enqueued during the upload.
    assert {"account_id": account.hex} in [m.ids for m in engine.take_messages("dreamery.submit")]


def test_job_with_uploaded_references_uses_the_fast_queue(engine: Engine) -> None:
    account = engine.add_account()
    job = add_video_job(engine, [account], input_in_request(RED), kind="image", prompt="a boat [[http:503]]")
    engine.submit(job)
    engine.expire_leases()
    engine.poll(account)
    assert engine.job_row(job).state == "queued"
    engine.make_due()
    assert submit_batch(job_id=job).startswith("submitted")


def test_order_is_kept_across_queues(engine: Engine) -> None:
    account = engine.add_account(max_images=1)
    with_references = add_video_job(engine, [account], input_in_request(RED), kind="image")
    without_references = engine.add_job(account)
    engine.make_due()
    assert submit_batch(job_id=without_references) == f"{with_references} waits for its references"
    engine.make_due()
    assert upload_and_submit(account_id=account).startswith(f"submitted {with_references}")
    assert engine.states([with_references, without_references]) == ["running", "queued"]


def test_mixed_queue_with_references_is_processed_by_messages_alone(engine: Engine, host: MediaHost) -> None:
    import random

    account = engine.add_account(max_images=2, max_videos=1)
    link = host.add_file("/a", RED)
    job_ids = [add_video_job(engine, [account], NewInput(url=link), kind="image") for _ in range(2)]
    job_ids += [engine.add_job(account), add_video_job(engine, [account], NewInput(url=link, role="first_frame"))]
    engine.run_worker(*job_ids, rng=random.Random(3), loss=0.2, duplication=0.2)
    assert engine.states(job_ids) == ["succeeded"] * 4
    assert (engine.charge_count(), engine.ledger()["violations"]) == (4, {})


# --- the Chinese content check ---


def image_with_text(words: str) -> NewInput:
    """Return an image with embedded text, which the sandbox reads as a script."""
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", words)
    Image.new("RGB", (32, 32), "red").save(out, "PNG", pnginfo=info)
    return input_in_request(out.getvalue())


def test_image_refused_by_the_check_fails_the_job_without_charge_or_failover(engine: Engine) -> None:
    first, second = engine.add_account(region="cn"), engine.add_account(region="cn")
    job = add_video_job(engine, [first, second], image_with_text("[[refuse:2003]]"), kind="image")
    message = refused(engine, job, "content_policy_violation")
    assert "reference image 1" in message
    assert engine.ledger()["calls"]["/mweb/v1/algo_proxy"] == 1
    assert engine.job_row(job).attempt == 1
    assert [engine.account_row(one).rest_until for one in (first, second)] == [None, None]


@pytest.mark.parametrize("words", ["", "[[refuse:1002]]", "[[refuse:-6]]"])
def test_other_responses_of_the_check_are_ignored(engine: Engine, words: str) -> None:
    saved_files(engine, add_video_job(engine, [engine.add_account(region="cn")], image_with_text(words), kind="image"))
    assert engine.ledger()["calls"]["/mweb/v1/algo_proxy"] == 1


def test_failing_check_is_ignored(engine: Engine) -> None:
    engine.interceptor.before[CHECK] = lambda *_: Response(status_code=502)
    saved_files(engine, add_video_job(engine, [engine.add_account(region="cn")], image_with_text(""), kind="image"))


def test_risk_text_is_a_refusal_with_any_code(engine: Engine) -> None:
    engine.interceptor.before[CHECK] = lambda *_: Response(b'{"ret":"9999","errmsg":"Detected Risk","data":null}')
    refused(
        engine,
        add_video_job(engine, [engine.add_account(region="cn")], image_with_text(""), kind="image"),
        "content_policy_violation",
    )


def test_other_regions_have_no_content_check(engine: Engine) -> None:
    saved_files(engine, add_video_job(engine, [engine.add_account()], image_with_text("[[refuse:2003]]"), kind="image"))
    assert "/mweb/v1/algo_proxy" not in engine.ledger()["calls"]


# --- during the generation ---


def test_video_deadline_is_hours_and_image_deadline_half_an_hour(engine: Engine) -> None:
    account = engine.add_account()
    for kind, seconds in (("video", 14_400), ("image", 1800)):
        job = engine.add_running_job(account, kind=kind)
        [row] = engine.sql(
            "SELECT extract(epoch FROM deadline_at - submitted_at) AS s FROM jobs WHERE id = :id", id=job
        )
        assert abs(float(row.s) - seconds) < 1


def test_result_ref_is_stored_until_the_save(engine: Engine) -> None:
    [ref] = engine.job_row(engine.add_saving_job(engine.add_account(), kind="video")).result_refs
    assert (ref["format"], ref["seconds"]) == ("mp4", 5.0)
    assert ref["item_id"]
    assert ref["poster_url"].startswith(engine.url)


def test_account_failure_after_acceptance_cools_down_without_failover(engine: Engine) -> None:
    account, other = engine.add_account(), engine.add_account()
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=other)
    job = engine.add_running_job(account, other)
    row = engine.job_row(job)
    failed = {"status": 30, "fail_code": "4013", "history_record_id": "1", "task": {"submit_id": str(row.submit_key)}}
    answer = {"ret": "0", "errmsg": "success", "data": {str(row.submit_key): failed}}
    engine.interceptor.before[HISTORY] = lambda *_: Response(json.dumps(answer).encode())
    engine.poll(account)
    assert (engine.job_row(job).state, engine.job_row(job).error_code) == ("failed", "upstream_risk_control")
    rested = engine.account_row(account)
    assert (rested.rest_code, rested.rests.total_seconds() > 7000) == ("upstream_risk_control", True)
    assert engine.account_row(other).rest_until is None
    assert (engine.charge_count(), len(engine.submits())) == (1, 1)


# --- the timeline ---


def test_timeline_names_refusing_and_skipped_accounts(engine: Engine) -> None:
    tired, off, broke, good = (
        engine.add_account(session=f"{word}-session-of-many") for word in ("a", "b", "broke", "c")
    )
    engine.sql(
        "UPDATE accounts SET rest_until = now() + interval '1 hour', rest_code = 'daily_limit_reached' WHERE id = :id",
        id=tired,
    )
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=off)
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=good)
    job = engine.add_job(tired, off, broke, good)
    assert engine.run_until_final(job) == ["succeeded"]
    label = {one: engine.account_row(one).label for one in (tired, off, broke, good)}
    events = engine.job_events(job)
    [back] = [e.note for e in events if e.to_state == "queued" and e.actor == "submit"]
    assert (back["account"], back["code"]) == (label[broke], "insufficient_quota")
    assert "1006" in back["detail"]
    first, second = (e.note for e in events if e.to_state == "submitting")
    assert first["account"] == label[broke]
    assert {one["account"]: one["why"] for one in second["passed_over"]} == {
        label[tired]: "resting",
        label[off]: "paused",
        label[broke]: "refused this job",
    }
    [resting] = [one for one in second["passed_over"] if one["why"] == "resting"]
    assert resting["code"] == "daily_limit_reached"
    assert resting["until"].endswith("Z")


def test_claim_without_alternatives_logs_no_selection(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())
    [note] = [e.note for e in engine.job_events(job) if e.to_state == "submitting"]
    assert note.keys() == {"account"}


# --- saving ---


def test_better_video_is_requested_once_and_optional(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    engine.save(job)
    assert engine.ledger()["calls"]["/mweb/v1/get_local_item_list"] == 1
    engine.interceptor.before[ITEMS] = lambda *_: Response(status_code=500)
    again = engine.add_saving_job(engine.add_account(), kind="video")
    engine.save(again)
    assert engine.states([job, again]) == ["succeeded", "succeeded"]


def test_error_page_is_not_saved_as_video_and_retried(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    engine.interceptor.before[MEDIA] = lambda *_: Response(b"<html>", media_type="video/mp4")
    assert "again in 1 s" in engine.save(job)
    assert engine.files(job) == []
    engine.interceptor.clear()
    engine.save(job)
    assert stored(engine, job).keys() == {"original", "thumbnail", "spritesheet"}


def test_too_large_video_fails_at_once(engine: Engine) -> None:
    engine.configure(MAX_VIDEO_BYTES="1000000")
    job = engine.add_saving_job(engine.add_account(), kind="video")
    engine.interceptor.before[MEDIA] = lambda *_: Response(b"\x00" * 1_500_000, media_type="video/mp4")
    engine.save(job)
    assert (engine.job_row(job).state, engine.job_row(job).error_code) == ("failed", "result_unavailable")


def test_expired_video_urls_are_replaced_by_fresh_ones(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    engine.sandbox.results.clear()
    engine.interceptor.before[ITEMS] = lambda *_: Response(status_code=500)
    assert "again in" in engine.save(job)
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"


def test_i10_saving_twice_leaves_the_same_bytes_and_rows(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    refs = engine.job_row(job).result_refs
    engine.save(job)
    before = [(tuple(row), storage.read_file(row.key)) for row in engine.files(job)]
    engine.sql(
        """UPDATE jobs SET state = 'saving', finished_at = NULL, result_refs = CAST(:refs AS jsonb) WHERE id = :id""",
        refs=json.dumps(refs),
        id=job,
    )
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert [(tuple(row), storage.read_file(row.key)) for row in engine.files(job)] == before
    assert len(before) == 3


def test_copy_renews_its_lease(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_renewal, "LEASE_EVERY_SECONDS", 0.05)
    job = engine.add_saving_job(engine.add_account(), kind="video")

    def use_up_the_lease(_path: str, _body: bytes) -> None:
        engine.sql("UPDATE jobs SET due_at = now() + interval '1 second' WHERE id = :id", id=job)
        eventually(lambda: engine.lease_seconds(job) > 30, within=10, what="a renewed lease")

    engine.interceptor.before[MEDIA] = use_up_the_lease
    assert engine.save(job) == f"saved 1 of {job}"


def test_save_taken_over_stops_in_the_middle_of_a_file(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_renewal, "LEASE_EVERY_SECONDS", 0.05)
    job = engine.add_saving_job(engine.add_account(), kind="video")
    stop = RequestPause()

    def hold(path: str, body: bytes) -> None:
        engine.sql("UPDATE jobs SET save_tries = save_tries + 1 WHERE id = :id", id=job)
        stop(path, body)

    engine.interceptor.before[MEDIA] = hold
    assert engine.save(job) == f"lost {job} to another worker"
    stop.release()
    assert engine.files(job) == []


def test_video_without_thumbnails_is_saved_with_a_remark(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), kind="video")
    [ref] = engine.job_row(job).result_refs
    video_file = NewFile(n=0, key="k", mime="video/mp4", bytes=1, sha256="x", width=1, height=1)

    def with_images(poster_url: str) -> save_video.CopiedVideo:
        return event_loop.run(save_video._with_images(job, video_file, io.BytesIO(b"not a video"), poster_url))

    copied = with_images(ref["poster_url"])
    [video_row, poster] = copied.files
    assert (video_row, poster.variant, poster.mime) == (video_file, "thumbnail", "image/jpeg")
    with Image.open(io.BytesIO(storage.read_file(poster.key))) as shown:
        assert shown.size == (poster.width, poster.height)
    assert [remark.partition(" ")[0] for remark in copied.remarks] == ["thumbnail", "spritesheet"]
    without_poster = with_images(f"{engine.url}/_media/none")
    assert without_poster.files == [video_file]
    assert len(without_poster.remarks) == 3
    with transaction() as tx:
        from worker.db.jobs import files

        files.add_files(tx, [(job, one) for one in copied.files])
        state_machine.mark_succeeded(tx, job_id=job, attempt=1, stored=1, expected=1, remarks=copied.remarks)
    assert engine.job_events(job)[-1].note["remarks"] == copied.remarks


def test_retention_deletes_every_variant_of_a_result(engine: Engine) -> None:
    engine.configure(RETENTION_DAYS="1")
    job = engine.add_succeeded_job(engine.add_account(), kind="video")
    keys = [row.key for row in engine.files(job)]
    move_jobs_back(engine, 2, job)
    assert "removed 3 files" in clean_up()
    for key in keys:
        with pytest.raises(storage.MissingFileError):
            storage.read_file(key)
