"""The save task copies upstream's results to our storage exactly once."""

import hashlib
import io
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from starlette.responses import Response

from tests.support.engine import HISTORY, MEDIA, Engine
from tests.support.factories import SIDE
from tests.support.servers.http_servers import RequestPause
from worker import storage
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.tasks import save as save_step
from worker.tasks.dispatch import sweep
from worker.tasks.save import save


def error_page(*_):
    """An error page with status 200, as an overloaded CDN sends it."""
    return Response("<html>please wait</html>", media_type="text/html")


def test_saved_file_equals_upstream(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), count=3)
    links = [ref["url"] for ref in engine.job_row(job).result_refs]
    engine.save(job)
    row, files = engine.job_row(job), engine.files(job)
    assert (row.state, row.progress, row.result_refs) == ("succeeded", 100, None)
    assert [f.n for f in files] == [0, 1, 2]
    for link, stored in zip(links, files, strict=True):
        content = storage.read_file(stored.key)
        assert content == httpx.get(link, trust_env=False).content
        assert stored.key == f"jobs/{job.hex}/{stored.n}.png"
        assert (stored.bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (stored.width, stored.height) == Image.open(io.BytesIO(content)).size
        assert stored.mime == "image/png"
    assert max(files[0].width, files[0].height) >= SIDE


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_mime_type_comes_from_the_bytes(engine: Engine, form: str) -> None:
    job = engine.add_succeeded_job(engine.add_account(), prompt=f"a boat [[format:{form}]]")
    [stored] = engine.files(job)
    assert (stored.mime, stored.key.rpartition(".")[2]) == (f"image/{form}", form)


def request_format(engine: Engine, form: str, compression: int | None = None) -> None:
    """Make every job request its images in that format."""
    engine.sql(
        "UPDATE jobs SET params = params || CAST(:output AS jsonb)",
        output=json.dumps({"output": {"format": form, "compression": compression}}),
    )


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_image_is_stored_once_in_the_requested_format(engine: Engine, form: str) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    request_format(engine, form)
    links = [ref["url"] for ref in engine.job_row(job).result_refs]
    engine.save(job)
    files = engine.files(job)
    assert [f.key for f in files] == [f"jobs/{job.hex}/{n}.{form}" for n in range(2)]
    folder = Path(storage._store().prefix)
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [f"0.{form}", f"1.{form}"]
    for link, stored in zip(links, files, strict=True):
        content = storage.read_file(stored.key)
        assert (stored.mime, stored.bytes) == (f"image/{form}", len(content))
        assert stored.sha256 == hashlib.sha256(content).hexdigest()
        drawn = Image.open(io.BytesIO(httpx.get(link, trust_env=False).content))
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.size) == (form.upper(), (stored.width, stored.height))
        if form == "png":
            assert image.tobytes() == drawn.tobytes()


def test_image_in_requested_format_is_unchanged_unless_quality_is_requested(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), prompt="a boat [[format:jpeg]]")
    request_format(engine, "jpeg")
    original = httpx.get(engine.job_row(job).result_refs[0]["url"], trust_env=False).content
    engine.save(job)
    assert storage.read_file(engine.files(job)[0].key) == original
    small = engine.add_saving_job(engine.add_account(), prompt="a boat [[format:jpeg]]")
    request_format(engine, "jpeg", 10)
    original = httpx.get(engine.job_row(small).result_refs[0]["url"], trust_env=False).content
    engine.save(small)
    assert len(storage.read_file(engine.files(small)[0].key)) < len(original)


def test_image_that_cannot_be_converted_keeps_its_format(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    request_format(engine, "webp")
    data = httpx.get(engine.job_row(job).result_refs[0]["url"], trust_env=False).content
    cut = data[: len(data) // 2]
    engine.interceptor.before[MEDIA] = lambda *_: Response(cut, media_type="image/png")
    engine.save(job)
    [stored] = engine.files(job)
    assert (stored.mime, storage.read_file(stored.key)) == ("image/png", cut)


def test_save_that_is_not_due_does_nothing(engine: Engine) -> None:
    job = engine.add_running_job(engine.add_account())
    assert save(job_id=job) == "not due"
    done = engine.add_succeeded_job(engine.add_account())
    assert engine.save(done) == "not due"


def test_expired_urls_are_replaced_by_fresh_ones(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    old = engine.job_row(job).result_refs
    engine.sandbox.results.clear()
    asked = engine.poll_count()
    assert "again in" in engine.save(job)
    assert engine.poll_count() == asked + 1
    assert engine.job_row(job).result_refs != old
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert engine.charge_count() == 1


@pytest.mark.parametrize("expired", [0, 1])
def test_one_expired_url_among_other_failures_is_replaced(engine: Engine, expired: int) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    link = urlsplit(engine.job_row(job).result_refs[expired]["url"]).path
    engine.interceptor.before[MEDIA] = lambda path, _: Response(status_code=403 if path == link else 503)
    asked = engine.poll_count()
    assert "again in" in engine.save(job)
    assert engine.poll_count() == asked + 1


def test_record_with_fewer_results_replaces_no_urls(engine: Engine) -> None:
    """They are paid for: the old links may work again, or a later record is complete."""
    job = engine.add_saving_job(engine.add_account(), count=2)
    old = engine.job_row(job).result_refs
    item = {"image": {"large_images": [{"image_url": f"{engine.url}{MEDIA}/one.png"}]}}

    def one_item(_path: str, body: bytes) -> Response:
        [key] = json.loads(body)["submit_ids"]
        return Response(json.dumps({"ret": "0", "data": {key: {"status": 50, "item_list": [item]}}}))

    engine.interceptor.before |= {HISTORY: one_item, MEDIA: lambda *_: Response(status_code=403)}
    assert "again in" in engine.save(job)
    assert engine.job_row(job).result_refs == old
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["succeeded"]
    assert len(engine.files(job)) == 2


def test_always_expired_urls_fail_at_the_deadline(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), prompt="a boat [[expires:0]]")
    engine.save(job)
    assert engine.job_row(job).state == "saving"
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '2 seconds'")
    engine.save(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "result_unavailable")
    assert engine.files(job) == []


def test_missing_fresh_urls_do_not_end_the_save(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    old = engine.job_row(job).result_refs
    engine.interceptor.before[MEDIA] = lambda *_: Response(status_code=403)
    engine.interceptor.before[HISTORY] = lambda *_: Response(status_code=500)
    assert "again in" in engine.save(job)
    assert engine.job_row(job).result_refs == old
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["succeeded"]


def test_error_page_is_not_saved_and_retried(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.interceptor.before[MEDIA] = error_page
    asked = engine.poll_count()
    assert "again in 1 s" in engine.save(job)
    assert "again in 3 s" in engine.save(job)
    assert engine.poll_count() == asked, "an error page does not trigger a request for fresh URLs"
    assert engine.files(job) == []
    engine.interceptor.clear()
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_server_error_is_retried(engine: Engine, status: int) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.interceptor.before[MEDIA] = lambda *_: Response(status_code=status)
    engine.save(job)
    row = engine.job_row(job)
    assert (row.state, row.due_at > row.created_at) == ("saving", True)
    engine.interceptor.clear()
    assert engine.run_until_final(job) == ["succeeded"]


def test_too_large_result_fails_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_step, "MAX_FILE_BYTES", 100)
    job = engine.add_saving_job(engine.add_account())
    engine.save(job)
    row = engine.job_row(job)
    assert (row.state, row.error_code) == ("failed", "result_unavailable")
    [failed] = [e for e in engine.job_events(job) if e.to_state == "failed"]
    assert "larger than 100 bytes" in failed.note["detail"]


@pytest.mark.parametrize("too_large", [0, 1])
def test_too_large_result_does_not_end_the_tries_for_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, too_large: int
) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    links = [ref["url"] for ref in engine.job_row(job).result_refs]
    large, fails = (urlsplit(links[n]).path for n in (too_large, 1 - too_large))
    size = max(len(httpx.get(link, trust_env=False).content) for link in links)
    monkeypatch.setattr(save_step, "MAX_FILE_BYTES", size)
    answers = {large: [Response(bytes(size + 1))] * 2, fails: [Response(status_code=503)]}
    engine.interceptor.before[MEDIA] = lambda path, _: answers[path].pop() if answers[path] else None
    assert "again" in engine.save(job)
    assert engine.job_row(job).state == "saving"
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert [f.n for f in engine.files(job)] == [1 - too_large]


def test_results_keep_the_order_of_upstream(engine: Engine) -> None:
    widths = [40, 20, 30, 10]
    items = [{"image": {"large_images": [{"image_url": f"{engine.url}{MEDIA}/{width}.png"}]}} for width in widths]

    def history(_path: str, body: bytes) -> Response:
        [key] = json.loads(body)["submit_ids"]
        return Response(json.dumps({"ret": "0", "data": {key: {"status": 50, "item_list": items}}}))

    def picture(path: str, _body: bytes) -> Response:
        content = io.BytesIO()
        Image.new("RGB", (int(path.rpartition("/")[2].removesuffix(".png")), 8)).save(content, "png")
        return Response(content.getvalue(), media_type="image/png")

    engine.interceptor.before |= {HISTORY: history, MEDIA: picture}
    job = engine.add_succeeded_job(engine.add_account(), count=len(widths))
    assert [(f.n, f.width) for f in engine.files(job)] == list(enumerate(widths))
    with transaction() as tx:
        [view] = queries.group_views(tx, [job])
    assert [f.width for f in view.files] == widths


def test_missing_result_at_deadline_is_partial_success(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), count=3)
    count = iter(range(100))
    engine.interceptor.before[MEDIA] = lambda *_: error_page() if next(count) % 3 == 1 else None
    assert "again" in engine.save(job)
    assert engine.files(job) == []
    engine.sql("UPDATE jobs SET deadline_at = now() + interval '2 seconds'")
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    assert [f.n for f in engine.files(job)] == [0, 2]
    [done] = [e for e in engine.job_events(job) if e.to_state == "succeeded"]
    assert done.note == {"files": 2, "wanted": 3}


def test_overdue_save_is_failed_by_the_sweep(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.pass_deadline(job)
    sweep()
    assert engine.job_row(job).error_code == "result_unavailable"


def test_concurrent_saves_copy_once(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account())
    engine.make_due()
    before = engine.ledger()["calls"].get(MEDIA, 0)
    barrier, answers = threading.Barrier(4), []

    def run():
        barrier.wait()
        answers.append(save(job_id=job))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("not due") == 3
    assert engine.ledger()["calls"][MEDIA] - before == 1


def test_save_with_expired_lease_stops(engine: Engine) -> None:
    job = engine.add_saving_job(engine.add_account(), count=2)
    engine.make_due()
    stop, answers = RequestPause(), []
    engine.interceptor.before[MEDIA] = stop
    slow = threading.Thread(target=lambda: answers.append(save(job_id=job)))
    slow.start()
    stop.wait()
    engine.save(job)
    assert engine.job_row(job).state == "succeeded"
    saved = [tuple(row) for row in engine.files(job)]
    stop.release()
    slow.join(20)
    assert answers == [f"lost {job} to another worker"]
    assert [tuple(row) for row in engine.files(job)] == saved
    assert engine.job_row(job).state == "succeeded"
