"""Money of jobs on the official API: our books are those of the upstream, whatever happens to the jobs."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.tasks.test_upload_references import RED, input_in_request
from tests.support.ark_jobs import ArkJobs
from tests.support.engine import Engine
from worker.db.credits import money
from worker.db.engine import transaction
from worker.db.jobs import inputs
from worker.tasks import sync_credits

FAILED, REFUSED = "[[fail:OutputVideoSensitiveContentDetected]]", "[[refuse:InputTextSensitiveContentDetected]]"


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    return ArkJobs(engine)


def change(engine: Engine, job: UUID, model: str | None = None, **order: Any) -> UUID:
    engine.sql(
        """UPDATE jobs SET model = coalesce(:model, model),
               params = jsonb_set(params, '{order}', params -> 'order' || CAST(:order AS jsonb)) WHERE id = :id""",
        id=job,
        model=model,
        order=json.dumps(order),
    )
    return job


def image(
    ark: ArkJobs, account: UUID, model: str, *size: int, prompt: str = "a boat", count: int = 1, **more: Any
) -> UUID:
    resolution = {1024: "1k", 2048: "2k"}[size[0]]
    job = ark.add_image(account, prompt=prompt, **more)
    return change(ark.engine, job, model, width=size[0], height=size[1], resolution=resolution, count=count)


def video(
    ark: ArkJobs, account: UUID, model: str, *, prompt: str = "waves", options: dict[str, Any], **order: Any
) -> UUID:
    return change(ark.engine, ark.add_video(account, prompt=prompt, model=model, **options), **order)


def add_inputs(engine: Engine, job: UUID, count: int) -> UUID:
    """Give an image job this many reference images."""
    new = [input_in_request(RED, f"inputs/{job.hex}/{n}.png") for n in range(count)]
    with transaction() as tx:
        inputs.add_inputs(tx, [job], new)
    engine.sql(
        "UPDATE jobs SET params = jsonb_set(params, '{images}', CAST(:images AS jsonb)) WHERE id = :id",
        id=job,
        images=json.dumps([""] * count),
    )
    return job


def cost_row(engine: Engine, job: UUID) -> tuple[Any, ...]:
    row = engine.job_row(job)
    return row.state, row.charged, row.settled_at is not None


def upstream_costs(ark: ArkJobs) -> dict[str, int]:
    """Return what the upstream has charged for each prompt."""
    found: dict[str, int] = {}
    for entry in (*ark.ledger()["images"], *ark.ledger()["videos"]):
        found[entry["prompt"]] = found.get(entry["prompt"], 0) + round(entry["cost"])
    return found


def test_our_books_are_those_of_the_upstream(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account(max_images=50, max_videos=50, submits_per_minute=60_000)
    jobs: dict[str, UUID] = {}

    def add(name: str, job: UUID) -> None:
        engine.sql(
            "UPDATE jobs SET metadata = jsonb_build_object('name', CAST(:n AS text)) WHERE id = :id", n=name, id=job
        )
        jobs[name] = job

    for number, model in enumerate(("seedream-5.0-flash", "seedream-5.0-pro", "seedream-5.5")):
        add(f"small-{number}", image(ark, account, model, 1024, 1024, prompt=f"small {number}"))
        add(f"large-{number}", image(ark, account, model, 2048, 2048, prompt=f"large {number}"))
    add("set", image(ark, account, "seedream-4.5", 2048, 2048, prompt="set", count=3, series=True))
    add("gaps", image(ark, account, "seedream-4.0", 2048, 2048, prompt="[[refused:2]] gaps", count=4, series=True))
    layers = image(ark, account, "seedream-5.0-pro", 1024, 1024, prompt="layers", layers=True)
    add("layers", add_inputs(engine, layers, 1))
    add("inputs", add_inputs(engine, image(ark, account, "seedream-5.0-pro", 1024, 1024, prompt="inputs"), 3))
    add("input", add_inputs(engine, image(ark, account, "seedream-5.5", 1024, 1024, prompt="input"), 2))
    add("refused", image(ark, account, "seedream-5.0-pro", 1024, 1024, prompt=f"{REFUSED} image"))
    for number, model in enumerate(("seedance-2.5", "seedance-2.0", "seedance-2.0-fast", "seedance-2.0-mini")):
        for seconds in (4, 7):
            prompt = f"video {number} {seconds}"
            add(prompt, video(ark, account, model, prompt=prompt, options={}, seconds=seconds, resolution="720p"))
    add("4k", video(ark, account, "seedance-2.0", prompt="4k", options={}, resolution="4k", ratio="9:16"))
    add("silent", video(ark, account, "seedance-2.0", prompt="silent", options={"generate_audio": False}))
    add("flex", video(ark, account, "seedance-1.0-pro", prompt="flex", options={"service_tier": "flex"}))
    add("failed", video(ark, account, "seedance-2.0", prompt=f"{FAILED} video", options={}))
    add("refused video", video(ark, account, "seedance-2.0", prompt=f"{REFUSED} video", options={}))

    for job in jobs.values():
        engine.submit(job)
    ark.finish()
    states = dict(zip(jobs, engine.run_until_final(*jobs.values()), strict=True))
    assert {name for name, state in states.items() if state != "succeeded"} == {"refused", "failed", "refused video"}

    upstream = upstream_costs(ark)
    for name, job in jobs.items():
        row = engine.job_row(job)
        assert row.charged == upstream.get(row.params["order"]["prompt"], 0), name
        assert row.settled_at is not None, name
        assert row.charged <= row.price, f"{name}: the hold covers the cost"
    total = engine.sql("SELECT sum(charged) AS total FROM jobs WHERE currency = 'USD'")[0].total
    assert total == sum(upstream.values()) > 0
    assert not ark.ledger()["violations"]


def test_unit_prices_of_the_submission_settle_the_job(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    engine.sql('UPDATE accounts SET prices = \'{"*": {"factor": 0.5}}\' WHERE id = :id', id=account)
    job = ark.add_video(account)
    engine.submit(job)
    row = engine.job_row(job)
    assert row.rates == {"currency": "USD", "per_million": "1.75"}
    # The price changes while the video is made.
    engine.sql("UPDATE accounts SET prices = '{}' WHERE id = :id", id=account)
    ark.finish()
    assert engine.run_until_final(job) == ["succeeded"]
    [cost] = upstream_costs(ark).values()
    assert abs(engine.job_row(job).charged - cost / 2) <= 0.5


def test_cancelled_while_queued_costs_nothing(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account(), prompt="[[queue:900]] waves")
    engine.submit(job)
    engine.sql("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
    assert engine.run_until_final(job) == ["cancelled"]
    assert cost_row(engine, job) == ("cancelled", 0, True)


def test_cancelled_too_late_is_charged_when_upstream_has_ended(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account(), prompt="[[seconds:600]] waves")
    engine.submit(job)
    engine.sql("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
    engine.poll(engine.job_row(job).account_id)
    ark.finish()
    engine.run_until_final(job)
    engine.sql("DELETE FROM list_paces")
    for main in ark.state.mains.values():
        main.listed_at = 0.0
    engine.poll(engine.job_row(job).account_id)
    row = engine.job_row(job)
    assert row.charged == sum(upstream_costs(ark).values()) > 0
    assert row.settled_at is not None


def test_unknown_cost_holds_the_price_for_a_week_and_is_booked(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    job, other = (
        ark.add_image(account, prompt="[[reset:after]] a boat"),
        ark.add_video(account, prompt="[[hang]] waves"),
    )
    engine.submit(job)
    engine.submit(other)
    engine.run_until_final(job)
    engine.pass_deadline(other)
    engine.run_until_final(other)
    assert (engine.job_row(job).error_code, engine.job_row(job).settled_at) == ("submit_unclear", None)
    assert engine.job_row(other).settled_at is None
    sync_credits.sync_credits()
    assert engine.job_row(job).settled_at is None, "upstream may still report it"
    engine.sql("UPDATE jobs SET finished_at = finished_at - interval '7 days 1 second'")
    sync_credits.sync_credits()
    for one, mark in ((job, "submit_unclear"), (other, "never_reported")):
        row = engine.job_row(one)
        assert (row.charged, row.charge_doubt, row.settled_at is not None) == (row.price, mark, True)
        assert row.price > 0


def test_report_of_an_earlier_attempt_settles_nothing(engine: Engine, ark: ArkJobs) -> None:
    job = ark.add_video(ark.add_account())
    engine.submit(job)
    row = engine.job_row(job)
    with transaction() as tx:
        money.settle_reported(tx, [money.Reported(job, row.attempt + 1, {"tokens": 10})])
        money.settle_reported(tx, [money.Reported(job, row.attempt - 1, credits=0)])
    assert engine.job_row(job).settled_at is None
    with transaction() as tx:
        money.settle_reported(tx, [money.Reported(job, row.attempt, {})])
    assert engine.job_row(job).settled_at is None, "nothing was reported"
    with transaction() as tx:
        money.settle_reported(tx, [money.Reported(job, row.attempt, {"tokens": 1_000_000})])
        money.settle_reported(tx, [money.Reported(job, row.attempt, credits=0)])
    assert engine.job_row(job).charged == 3500, "the first report counts"


def test_reference_videos_count_at_their_own_price(engine: Engine, ark: ArkJobs) -> None:
    engine.configure(PUBLIC_URL="https://dreamery.test")
    job = video(ark, ark.add_account(), "seedance-2.0", options={"mode": "reference"}, resolution="720p", seconds=5)
    with transaction() as tx:
        inputs.add_inputs(tx, [job], [replace(input_in_request(RED, f"inputs/{job.hex}/0.mp4"), media="video")])
    engine.sql("UPDATE job_inputs SET milliseconds = 5000, mime = 'video/mp4'")
    engine.sql("UPDATE jobs SET params = params || '{\"clips\": [5.0]}' WHERE id = :id", id=job)
    engine.submit(job)
    row = engine.job_row(job)
    assert row.rates == {"currency": "USD", "per_million": "4.3"}
    assert row.price == 937, "output at least twice"
    ark.finish()
    assert engine.run_until_final(job) == ["succeeded"]
    [cost] = upstream_costs(ark).values()
    assert engine.job_row(job).charged == cost > 762, "more than without the reference"
