"""What a creating call would cost and how long it would take: planned like the real one, without making anything."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.chat.agent_planning import plan_conversation
from api.chat.client_probes import read_agent_housekeeping, read_housekeeping
from api.chat.planning import model_name, plan_chat
from api.chat.schemas import ChatRequest
from api.estimates.schemas import EstimateRequest
from api.generation import quotas
from api.generation.acceptance import Planned, model_of, refuse_while_draining, unfit_accounts, usable_regions
from api.generation.reference_images import drop_pictures
from api.generation.request_checks import AGENT
from api.http.body_parsing import checked
from api.http.errors import error_body
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.jobs.eta import Forecast, forecast_new
from api.videos.planning import one_only, plan_videos
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import get_catalog
from worker.core.catalog.pricing import Price, shape_of
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.credits.learned_prices import PriceList
from worker.db.engine import Transaction, transaction
from worker.db.jobs import durations
from worker.db.jobs.queries import Line
from worker.db.jobs.state_machine import NewJob
from worker.db.scheduling import availability_estimate, fair_queue
from worker.db.scheduling.availability_estimate import Prospect, Wish
from worker.db.scheduling.unschedulable import PATIENCE_SECONDS

_NOBODY = Prospect(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, None, None)
Fields = dict[str, Any]


async def estimate(wish: EstimateRequest, caller: Caller) -> Fields:
    """The answer. Raises what the real call would raise about the request itself."""
    planned = await _PLANS[wish.endpoint](wish.endpoint, wish.body, caller)
    if planned is None:
        return _answer(wish.endpoint, str(wish.body.get("model") or AGENT), [])
    try:
        return await run_in_threadpool(partial(_estimate, wish.endpoint, planned, caller))
    finally:
        # The plan stored what it was sent, as the real call does before it is accepted.
        await run_in_threadpool(drop_pictures, planned.inputs)


async def _plan_images(path: str, body: Fields, caller: Caller) -> Planned:
    request = checked(body, ImageGenerationRequest)
    return await plan_images(path, request, caller, required=path != "/v1/images/generations")


async def _plan_videos(path: str, body: Fields, caller: Caller) -> Planned:
    request = checked(body, VideoGenerationRequest)
    return await plan_videos(path, request if path == "/v1/videos/generations" else one_only(request), caller)


async def _plan_chat(path: str, body: Fields, caller: Caller) -> Planned | None:
    """None = a front end's own call, which is answered without a job."""
    request = checked(body, ChatRequest)
    agent = request.model == AGENT
    if not agent:
        model_name(request)
    if get_settings().housekeeping_replies and not request.run_async:
        read = read_agent_housekeeping if agent else read_housekeeping
        if read(request) is not None:
            return None
    return plan_conversation(path, request, caller) if agent else (await plan_chat(path, request, caller)).planned


_PLANS: dict[str, Callable[[str, Fields, Caller], Awaitable[Planned | None]]] = {
    "/v1/images/generations": _plan_images,
    "/v1/images/edits": _plan_images,
    "/v1/images/compositions": _plan_images,
    "/v1/videos": _plan_videos,
    "/v1/videos/generations": _plan_videos,
    "/v1/video/generations": _plan_videos,
    "/v1/chat/completions": _plan_chat,
}


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The accounts that a job may use."""

    account_ids: list[UUID]  # empty without strangers = the pool
    avoid: list[UUID]
    strangers: int  # session ids that have no row yet
    places: list[str]


def _estimate(endpoint: str, planned: Planned, caller: Caller) -> Fields:
    first = planned.jobs[0]
    with transaction() as tx:
        prices = PriceList(tx, user_id=caller.user_id, choice=caller.account_choice)
        candidates, nowhere = _candidates_or_why(tx, first, caller, prices)
        jobs = _priced(planned, prices, candidates.places)
        refusals = _refusals(tx, caller, jobs)
        if nowhere is not None:
            return _answer(endpoint, first.model, jobs, refusals=(*refusals, nowhere))
        found = availability_estimate.prospect(tx, _wish(tx, first, caller, candidates, jobs))
        usual = durations.usual(tx, first.kind, first.model, first.params)
    line = Line(found.slots, found.busy, found.submits_per_minute, found.free_seconds)
    eta = forecast_new(first.kind, usual, line, found.ahead + len(planned.jobs) - 1)
    if (hopeless := _hopeless(found)) is not None:
        refusals.append(hopeless)
    elif found.left is not None and found.left < sum(price.credits for _, price in jobs if price):
        message = "The accounts have not the credits for all jobs of this call; some would fail."
        refusals.append(DreameryError("insufficient_quota", message))
    told = eta if hopeless is None else None
    return _answer(endpoint, first.model, jobs, eta=told, found=found, refusals=tuple(refusals))


def _refusals(tx: Transaction, caller: Caller, jobs: list[tuple[NewJob, Price | None]]) -> list[DreameryError]:
    """What the accepting of these jobs would be refused with, whatever accounts there are."""
    found = quotas.refusals(tx, caller, [price.credits if price else None for _, price in jobs])
    try:
        refuse_while_draining(tx)
    except DreameryError as refusal:
        found.insert(0, refusal)
    return found


def _candidates_or_why(
    tx: Transaction, job: NewJob, caller: Caller, prices: PriceList
) -> tuple[_Candidates, DreameryError | None]:
    try:
        return _candidates(tx, job, caller, prices), None
    except DreameryError as refusal:
        return _Candidates([], [], 0, []), refusal


def _wish(
    tx: Transaction, first: NewJob, caller: Caller, candidates: _Candidates, jobs: list[tuple[NewJob, Price | None]]
) -> Wish:
    wanted = fair_queue.Wanted(first.kind, candidates.account_ids, candidates.avoid, first.account_choice)
    turn = fair_queue.would_be(tx, caller.owner, caller.user_id, wanted)
    return Wish(
        kind=first.kind,
        price=max((price.credits for _, price in jobs if price), default=None),
        user_id=caller.user_id,
        account_choice=caller.account_choice,
        account_ids=candidates.account_ids,
        avoid=candidates.avoid,
        place=turn.place,
        strangers=candidates.strangers,
    )


def _candidates(tx: Transaction, job: NewJob, caller: Caller, prices: PriceList) -> _Candidates:
    """Like the accepting of a job, but unknown session ids get no row. Raises `no_account_available`."""
    if not caller.tokens:
        avoid = unfit_accounts(tx, job, caller, usable_regions(tx, caller))
        return _Candidates(job.account_ids, avoid, 0, prices.places(job.account_ids, avoid=avoid))
    known, model = accounts.find_tokens(tx, [digest for digest, _ in caller.tokens]), model_of(job)
    tokens = [(h, t) for h, t in caller.tokens if model is None or model.offered_in(t.region)] or list(caller.tokens)
    if job.account_ids:
        tokens = [(h, t) for h, t in tokens if known.get(h) in job.account_ids]
    ids = [known[h] for h, _ in tokens if h in known]
    regions = {token.region for h, token in tokens if h not in known}
    places = sorted({*regions, *(prices.places(ids, avoid=[]) if ids else [])})
    return _Candidates(ids, [], len(tokens) - len(ids), places)


def _priced(planned: Planned, prices: PriceList, places: list[str]) -> list[tuple[NewJob, Price | None]]:
    return [
        (job, prices.price_of(kind=job.kind, model=job.model, params=job.params, places=places)) for job in planned.jobs
    ]


def _hopeless(found: Prospect) -> DreameryError | None:
    """Why no account would take the job, if none would."""
    if found.at_all == 0:
        return DreameryError("insufficient_quota" if found.broke else "no_account_available")
    if found.rest_seconds > PATIENCE_SECONDS:
        return DreameryError(found.rest_code or "no_account_available")
    return None


def _answer(
    endpoint: str,
    model: str,
    jobs: list[tuple[NewJob, Price | None]],
    *,
    eta: Forecast | None = None,
    found: Prospect = _NOBODY,
    refusals: tuple[DreameryError, ...] = (),
) -> Fields:
    told = [_job(job, price) for job, price in jobs]
    known = all(price is not None for _, price in jobs)
    return {
        "object": "estimate",
        "endpoint": endpoint,
        "model": model,
        "jobs": told,
        "credits": sum(price.credits for _, price in jobs if price) if known else None,
        "known": known,
        "eta": {"p50": eta.p50, "p90": eta.p90} if eta is not None else None,
        "accounts": {"candidates": found.accounts, "at_all": found.at_all, "now": found.now},
        "refusals": [
            {**error_body(error.kind, error.message, error.param)["error"], "status": error.kind.status}
            for error in refusals
        ],
    }


def _job(job: NewJob, price: Price | None) -> Fields:
    shape = shape_of(job.kind, job.model, job.params, get_catalog())
    return {
        "kind": job.kind,
        "model": job.model,
        "resolution": shape.size if shape else None,
        "pictures": shape.units if shape and job.kind == "image" else None,
        "seconds": shape.units if shape and job.kind == "video" else None,
        "credits": price.credits if price else None,
        "source": price.source if price else "unknown",
        "learned_at": int(price.at.timestamp()) if price and price.at else None,
    }
