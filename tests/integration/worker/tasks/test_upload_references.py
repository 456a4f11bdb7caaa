"""Reference images in the engine: each is fetched once, uploaded once per account, and nothing is charged before."""

import hashlib
import io
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest
from PIL import Image
from starlette.responses import RedirectResponse, Response

from tests.support import factories
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.http_servers import RequestPause, running_app
from tests.support.uploads import MediaHost, make_image, run_submit, use_upload_provider
from worker import storage
from worker.db.engine import get_engine, transaction
from worker.db.jobs import inputs, state_machine
from worker.db.jobs.inputs import NewInput, StoredInput
from worker.tasks.stages import lease_renewal
from worker.tasks.stages.files import fetch_references
from worker.tasks.submit import submit

RED, BLUE = make_image("red"), make_image("blue", kind="JPEG")


@pytest.fixture
def host(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[MediaHost]:
    media_host = MediaHost()
    with running_app(media_host) as url:
        media_host.url = url
        engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{url.removeprefix('http://')}")
        providers = use_upload_provider(url, monkeypatch)
        yield media_host
        for provider in providers:
            provider.close()


def input_in_request(data: bytes, key: str = "inputs/test/0.png") -> NewInput:
    storage.put_file(key, io.BytesIO(data))
    digest = hashlib.sha256(data).hexdigest()
    return NewInput(stored=StoredInput(key=key, mime="image/png", bytes=len(data), width=8, height=8, sha256=digest))


def job_from(engine: Engine, accounts: list[UUID], *inputs_of_job: str | NewInput) -> UUID:
    """Add a job with references: URLs, or files of the request."""
    with transaction() as tx:
        job = factories.new_job(accounts)
        state_machine.accept(tx, [job])
        inputs.add_inputs(tx, [job.id], [NewInput(url=g) if isinstance(g, str) else g for g in inputs_of_job])
    return job.id


def uploaded(engine: Engine, job_id: UUID) -> list[str]:
    rows = engine.sql("SELECT uri FROM input_uploads WHERE job_id = :id ORDER BY created_at, n", id=job_id)
    return [row.uri for row in rows]


def failed_without_charge(engine: Engine, job_id: UUID, code: str) -> str:
    row = engine.job_row(job_id)
    assert (row.state, row.error_code, row.holds_slot) == ("failed", code, False)
    assert (engine.charge_count(), engine.submits()) == (0, [])
    return str(row.error_message)


def test_references_keep_their_order(engine: Engine, host: MediaHost) -> None:
    account = engine.add_account()
    job = job_from(engine, [account], host.add_file("/a", BLUE), input_in_request(RED), host.add_file("/c", RED))
    assert engine.run_until_final(job) == ["succeeded"]
    assert [data for _, data in host.uploads] == [BLUE, RED, RED]
    [order] = host.orders
    assert order["uris"] == uploaded(engine, job)
    assert len(set(uploaded(engine, job))) == 3
    assert host.gets == ["/a", "/c"]
    stored = engine.sql("SELECT * FROM job_inputs WHERE job_id = :id ORDER BY n", id=job)
    # The type comes from the bytes, not from the host's text/plain.
    assert [(r.mime, r.width, r.bytes) for r in stored] == [
        ("image/jpeg", 8, len(BLUE)), ("image/png", 8, len(RED)), ("image/png", 8, len(RED)),
    ]  # fmt: skip
    assert [storage.read_file(r.key) for r in stored] == [BLUE, RED, RED]
    assert engine.charge_count() == 1


def test_fetched_photo_is_uploaded_upright_and_without_its_position(engine: Engine, host: MediaHost) -> None:
    tags, photo = Image.Exif(), io.BytesIO()
    tags[0x0112], tags[0x010E] = 6, "51.5007 secret place"
    tags.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (160, 90), "red").save(photo, "JPEG", exif=tags)
    account = engine.add_account()
    links = [host.add_file("/photo", photo.getvalue()), host.add_file("/plain", RED)]
    with transaction() as tx:
        job = factories.new_job([account])
        job = replace(job, params={**job.params, "images": list(links)})
        state_machine.accept(tx, [job])
        inputs.add_inputs(tx, [job.id], [NewInput(url=link) for link in links])
    assert engine.run_until_final(job.id) == ["succeeded"]
    [(_, first), (_, second)] = host.uploads
    with Image.open(io.BytesIO(first)) as sent:
        assert (sent.size, dict(sent.getexif())) == ((90, 160), {})
    assert b"secret" not in first
    assert second == RED
    row = engine.sql("SELECT * FROM job_inputs WHERE job_id = :id ORDER BY n", id=job.id)[0]
    assert (row.width, row.height, row.bytes, row.sha256) == (90, 160, len(first), hashlib.sha256(first).hexdigest())
    assert engine.job_row(job.id).params["images"] == [
        {"url": links[0], "adjusted": {"turned": "upright (EXIF orientation 6)", "metadata": "removed"}},
        links[1],
    ]


def test_job_without_references_uploads_nothing(engine: Engine, host: MediaHost) -> None:
    job = engine.add_job(engine.add_account())
    assert engine.run_until_final(job) == ["succeeded"]
    assert (host.uploads, host.orders[0]["uris"]) == ([], [])


@pytest.mark.parametrize("at", [1, 2, 3])
def test_submit_killed_between_uploads_continues_where_it_stopped(engine: Engine, host: MediaHost, at: int) -> None:
    inputs_of_job = [host.add_file("/a", RED), host.add_file("/b", BLUE), host.add_file("/c", make_image("green"))]
    job = job_from(engine, [engine.add_account()], *inputs_of_job)
    stop = RequestPause(nth=at)

    def hold(account: str, data: bytes) -> int:
        stop(account, data)
        return 503 if stop.reached.is_set() else 200

    host.upload_status = hold
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=run_submit, args=(dict(engine.env), host.url, {"job_id": job}), daemon=True)
    process.start()
    stop.wait()
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    stop.release()
    host.upload_status = lambda _account, _data: 200
    row = engine.job_row(job)
    assert (row.state, row.holds_slot, len(uploaded(engine, job))) == ("submitting", True, at - 1)
    assert engine.run_until_final(job) == ["succeeded"]
    # Over both runs of the task, each URL was fetched once and each image was uploaded once.
    assert sorted(host.gets) == ["/a", "/b", "/c"]
    assert [data for _, data in host.uploads] == [RED, BLUE, make_image("green")]
    assert host.orders == [{"account": engine.job_row(job).account_id.hex, "uris": uploaded(engine, job)}]
    assert engine.charge_count() == 1


def test_submit_killed_between_fetches_fetches_what_it_stored_once(engine: Engine, host: MediaHost) -> None:
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED), host.add_file("/b", BLUE))
    stop, real = RequestPause(), host.pages["/b"]

    def hold() -> Response:
        stop("/b", b"")
        return real()

    host.pages["/b"] = hold
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=run_submit, args=(dict(engine.env), host.url, {"job_id": job}), daemon=True)
    process.start()
    stop.wait()
    process.kill()
    process.join(10)
    stop.release()
    host.pages["/b"] = real
    row = engine.job_row(job)
    assert (row.state, row.holds_slot, row.account_id) == ("queued", False, None)
    assert engine.run_until_final(job) == ["succeeded"]
    assert (host.gets, engine.charge_count()) == (["/a", "/b", "/b"], 1)


def test_failover_uploads_again_only_to_the_new_account(engine: Engine, host: MediaHost) -> None:
    dead, good = engine.add_account(session="dead-with-pictures"), engine.add_account()
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=good)  # the dead one is tried first
    job = job_from(engine, [dead, good], host.add_file("/a", RED), input_in_request(BLUE))
    assert engine.run_until_final(job) == ["succeeded"]
    assert [account for account, _ in host.uploads] == [dead.hex, dead.hex, good.hex, good.hex]
    assert host.gets == ["/a"]
    assert [order["account"] for order in host.orders] == [dead.hex, good.hex]
    assert all(f"/{good.hex}/" in uri for uri in host.orders[1]["uris"])
    assert engine.charge_count() == 1


def test_retry_on_the_same_account_reuses_uploads(engine: Engine, host: MediaHost) -> None:
    account = engine.add_account()
    job = job_from(engine, [account], input_in_request(RED), input_in_request(BLUE, "inputs/test/1.jpeg"))
    answers = iter([200, 429, 200])
    host.upload_status = lambda _account, _data: next(answers)
    engine.submit(job)
    assert (engine.job_row(job).state, len(uploaded(engine, job))) == ("queued", 1)
    assert engine.account_row(account).rest_code == "rate_limit_exceeded"
    engine.end_cooldowns()
    assert engine.run_until_final(job) == ["succeeded"]
    assert [data for _, data in host.uploads] == [RED, BLUE]


@pytest.mark.parametrize(("status", "code"), [(400, "content_policy_violation"), (401, "upstream_session_expired")])
def test_refused_upload_is_handled_like_any_refusal(engine: Engine, host: MediaHost, status: int, code: str) -> None:
    job = job_from(engine, [engine.add_account()], input_in_request(RED))
    host.upload_status = lambda _account, _data: status
    engine.submit(job)
    failed_without_charge(engine, job, code)


def test_unreachable_upload_is_retried_and_never_unclear(engine: Engine, host: MediaHost) -> None:
    engine.configure(MAX_ATTEMPTS="2")
    job = job_from(engine, [engine.add_account()], input_in_request(RED))
    host.upload_status = lambda _account, _data: 502
    assert engine.run_until_final(job) == ["failed"]
    failed_without_charge(engine, job, "upstream_unreachable")
    assert engine.state_history(job) == ["queued", "submitting", "queued", "submitting", "failed"]


@pytest.mark.parametrize("status", [404, 403, 410])
def test_dead_url_fails_the_job_without_charge(engine: Engine, host: MediaHost, status: int) -> None:
    host.pages["/missing"] = lambda: Response(status_code=status)
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED), f"{host.url}/missing")
    engine.submit(job)
    message = failed_without_charge(engine, job, "input_unavailable")
    assert message.startswith(
        f"Reference image 2 could not be fetched: the server answered with HTTP status {status} ("
    )
    assert host.uploads == []
    assert engine.job_row(job).attempt == 0, "no account was claimed for it"


def test_temporary_fetch_failure_is_retried(engine: Engine, host: MediaHost) -> None:
    answers = [Response(status_code=503), Response(RED)]
    host.pages["/a"] = lambda: answers.pop(0)
    job = job_from(engine, [engine.add_account()], f"{host.url}/a")
    assert engine.run_until_final(job) == ["succeeded"]
    assert (host.gets, engine.job_row(job).attempt, engine.charge_count()) == (["/a", "/a"], 2, 1)


def test_repeated_fetch_failure_fails_the_job_without_charge(engine: Engine, host: MediaHost) -> None:
    host.pages["/a"] = lambda: Response(status_code=503)
    job = job_from(engine, [engine.add_account()], f"{host.url}/a")
    assert engine.run_until_final(job) == ["failed"]
    failed_without_charge(engine, job, "input_unavailable")
    assert len(host.gets) == 3


@pytest.mark.parametrize("data", [b"<html>", b"", RED[:40], b"GIF89a"])
def test_url_without_image_is_refused(engine: Engine, host: MediaHost, data: bytes) -> None:
    job = job_from(engine, [engine.add_account()], host.add_file("/a", data))
    engine.submit(job)
    failed_without_charge(engine, job, "invalid_image")


def test_too_large_reference_is_refused(engine: Engine, host: MediaHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_references, "MAX_INPUT_BYTES", 1000)
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED + b"x" * 2000))
    engine.submit(job)
    failed_without_charge(engine, job, "input_unavailable")


def test_private_urls_are_refused_also_after_a_redirect(engine: Engine, host: MediaHost) -> None:
    inside = MediaHost()
    with running_app(inside) as url:
        secret = f"{url}/secret"
        host.pages["/moved"] = lambda: RedirectResponse(secret)
        for link in (secret, f"{host.url}/moved", "http://169.254.169.254/latest", "http://[::1]:1/", "http://0x7f.1/"):
            job = job_from(engine, [engine.add_account()], link)
            engine.submit(job)
            assert "private address" in failed_without_charge(engine, job, "input_unavailable")
    assert inside.gets == []


def test_transfers_renew_their_lease(engine: Engine, host: MediaHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job does not count as lost during its transfers, however long they take in total."""
    monkeypatch.setattr(lease_renewal, "LEASE_EVERY_SECONDS", 0.05)
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED))

    def use_up_the_lease() -> None:
        engine.sql("UPDATE jobs SET due_at = now() + interval '1 second' WHERE id = :id", id=job)
        eventually(lambda: engine.lease_seconds(job) > 30, within=10, what="a renewed lease")

    def slow() -> Response:
        use_up_the_lease()
        return Response(RED)

    host.pages["/a"] = slow
    host.upload_status = lambda _account, _data: use_up_the_lease() or 200
    engine.submit(job)
    assert engine.job_row(job).state == "running"


def test_slow_link_holds_no_slot(engine: Engine, host: MediaHost) -> None:
    """While the references of a job are fetched, its account serves the other jobs."""
    account = engine.add_account()
    engine.sql("UPDATE accounts SET max_images = 1 WHERE id = :id", id=account)
    job = job_from(engine, [account], host.add_file("/a", RED))
    others: list[str] = []

    def slow() -> Response:
        other = engine.add_job(account)
        submit(job_id=other)
        others.append(engine.job_row(other).state)
        row = engine.job_row(job)
        assert (row.state, row.holds_slot, row.account_id) == ("queued", False, None)
        return Response(RED)

    host.pages["/a"] = slow
    engine.submit(job)
    assert others == ["running"]


def test_i2_no_database_connection_is_held_during_transfers(engine: Engine, host: MediaHost) -> None:
    held: list[int] = []

    def counted(data: bytes) -> bytes:
        held.append(get_engine().pool.checkedout())  # type: ignore[attr-defined]
        return data

    host.pages["/a"] = lambda: Response(counted(RED))
    host.upload_status = lambda _account, data: len(counted(data)) and 200
    job = job_from(engine, [engine.add_account()], f"{host.url}/a", input_in_request(BLUE))
    engine.submit(job)
    assert engine.job_row(job).state == "running"
    assert held == [0, 0, 0]


def test_job_that_is_not_queued_any_more_is_left_alone(engine: Engine, host: MediaHost) -> None:
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED), host.add_file("/b", RED))

    def taken_over() -> Response:
        engine.sql("UPDATE jobs SET attempt = attempt + 1 WHERE id = :id", id=job)
        return Response(RED)

    host.pages["/a"] = taken_over
    assert "left" in engine.submit(job)
    assert (engine.job_row(job).state, engine.submits(), host.gets) == ("queued", [], ["/a"])


def test_lost_claim_orders_nothing(engine: Engine, host: MediaHost) -> None:
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED))

    def taken_over(_account: str, _data: bytes) -> int:
        engine.sql("UPDATE jobs SET attempt = attempt + 1 WHERE id = :id", id=job)
        return 200

    host.upload_status = taken_over
    engine.submit(job)
    assert (engine.job_row(job).state, engine.submits(), host.orders) == ("submitting", [], [])


def test_cancel_request_ends_the_job_before_the_order(engine: Engine, host: MediaHost) -> None:
    job = job_from(engine, [engine.add_account()], host.add_file("/a", RED), host.add_file("/b", RED))

    def cancel_and_serve() -> Response:
        with transaction() as tx:
            state_machine.cancel(tx, job)
        return Response(RED)

    host.pages["/a"] = cancel_and_serve
    engine.submit(job)
    assert (engine.job_row(job).state, host.gets, engine.charge_count()) == ("cancelled", ["/a"], 0)


def test_missing_input_file_fails_the_job_without_charge(engine: Engine, host: MediaHost) -> None:
    reference = input_in_request(RED)
    job = job_from(engine, [engine.add_account()], reference)
    storage.delete_file("inputs/test/0.png")
    engine.submit(job)
    failed_without_charge(engine, job, "input_unavailable")
