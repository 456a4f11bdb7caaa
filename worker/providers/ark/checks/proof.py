"""Proves with a real key what the vendor's documents only say: `dreamery accounts prove`. Cheapest first.

The whole costs less than a dollar. Each step makes its calls once; what comes back is a finding, never an error.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from worker.core.catalog.money import find_cost
from worker.core.errors import DreameryError
from worker.core.security.callback_tokens import callback_url
from worker.providers.ark.checks.proof_calls import (
    FINAL,
    FLEX_MODEL,
    IMAGE_MODEL,
    RATIO,
    RESOLUTION,
    SECONDS,
    SIDE,
    VIDEO_MODEL,
    Calls,
    failed,
    named,
    pricing,
    rate_headers,
    read_task,
    read_tasks,
    refused,
)
from worker.providers.ark.client import MODELS
from worker.providers.ark.http import ArkHttp
from worker.providers.ark.models import PROVIDER, built_in_models
from worker.providers.ark.recovery_keys import echoes_keys, keys_of
from worker.providers.base import Account
from worker.providers.proofs import Finding, ProofResult, ProofStep

_Known = Mapping[str, Any]
_Run = Callable[[Calls, _Known], Awaitable[ProofResult]]
_LISTED_SECONDS, _RUNNING_SECONDS, _DONE_SECONDS = 60.0, 240.0, 900.0
_MANY, _TOO_FAST = 100, 4
_REFUSED_PROMPT = "a very graphic photo of a beheading with gore"
_NOT_MADE = ProofResult((Finding("skipped: the task that it needs was not made"),))


class ArkProof:
    """The steps. `public_url` = the address of this server, for callbacks; "" = it has none."""

    def __init__(self, http: ArkHttp, public_url: str) -> None:
        self._http, self._public_url = http, public_url
        self._runs: dict[str, tuple[str, _Run]] = {
            "list": ("List tasks (free)", _list),
            "models": ("List models (free)", _models),
            "image": (f"One image of {IMAGE_MODEL}", _image),
            "fields": ("The same with seed, n and negative_prompt: each should be refused", _fields),
            "refusal": ("A prompt that should be refused", _refusal),
            "echo": (f"A video of {VIDEO_MODEL}, {RESOLUTION}, {SECONDS} s: are our keys echoed?", self._echo),
            "delete": ("Delete a video while it is queued and the first one while it runs", _delete),
            "lost": ("A video whose answer is cut off: is it found again?", _lost),
            "many": (f"List {_MANY} ids at once (free)", _many),
            "limits": ("Headers of an answer to calls that are too fast (free)", _limits),
            "links": ("Is the link of a result signed again? (free)", _links),
            "clip": ("A video from a clip by its link", _clip),
            "expiry": (f"A video of {FLEX_MODEL} that expires after an hour", _expiry),
        }

    def proof_steps(self, account: Account) -> tuple[ProofStep, ...]:
        """Return the steps with their costs."""
        image = _image_cost(account)
        video, clip = _video_cost(account, VIDEO_MODEL), _video_cost(account, VIDEO_MODEL, clips=[SECONDS])
        costs = {
            "image": image, "fields": 3 * image, "refusal": image, "echo": video, "delete": video, "lost": video,
            "clip": clip, "expiry": _video_cost(account, FLEX_MODEL, tier="flex"),
        }  # fmt: skip
        return tuple(ProofStep(name, title, costs.get(name, 0)) for name, (title, _) in self._runs.items())

    async def prove(self, account: Account, step: str, known: _Known) -> ProofResult:
        """Run one step. Raises `invalid_value` for an unknown one."""
        if step not in self._runs:
            raise DreameryError("invalid_value", f"`step` must be one of {', '.join(self._runs)}.", param="step")
        try:
            return await self._runs[step][1](Calls(self._http, account), known)
        except DreameryError as error:
            return ProofResult((Finding(f"no usable answer: {error.detail or error.code}", ok=False),))

    async def _echo(self, calls: Calls, _: _Known) -> ProofResult:
        """Send all keys, and look where they come back."""
        key = secrets.token_hex(16)
        keys, fields = keys_of(key), dict[str, Any]()
        if self._public_url.startswith("https://"):
            fields["callback_url"] = callback_url(self._public_url, key, provider=PROVIDER)
        answer = await calls.video(keys, **fields)
        task_id = answer.body.get("id") if isinstance(answer.body, dict) else None
        if answer.status >= 300 or not task_id:
            return ProofResult((failed(answer),))
        found = [Finding(f"created {task_id}", ok=True)]
        echoed = str(answer.body.get("safety_identifier", "")).endswith(keys.token)
        found.append(Finding(f"the answer to the create call {_echoes(echoed=echoed)} safety_identifier", ok=echoed))
        task = await calls.task(task_id)
        single = task is not None and echoes_keys(keys, task)
        found.append(Finding(f"a single call {_echoes(echoed=single)} both keys", ok=single))
        listed, took = await calls.listed(lambda one: one.id == task_id, seconds=_LISTED_SECONDS)
        found.append(Finding(f"a list shows the task after {took:.1f} s", ok=listed is not None))
        proved = listed is not None and echoes_keys(keys, listed)
        found.append(Finding(f"a list {_echoes(echoed=proved)} both keys", ok=proved))
        sent = (
            "sent: its arrival is in the log as callback" if fields else "not sent: DREAMERY_PUBLIC_URL is no https://"
        )
        found.append(Finding(f"callback_url was {sent}"))
        return ProofResult(tuple(found), {"task": task_id}, {"echo_proved": proved})


def _echoes(*, echoed: bool) -> str:
    return "echoes" if echoed else "does not echo"


async def _list(calls: Calls, _: _Known) -> ProofResult:
    answer = await calls.list([("page_num", "1"), ("page_size", "1")])
    if answer.status >= 300:
        scope = " (limited to some models: lists need filter.model)" if "AccessDenied" in named(answer) else ""
        return ProofResult(
            (Finding(f"{named(answer)}{scope}", ok=bool(scope)),), facts={"scope": "custom"} if scope else {}
        )
    total = answer.body.get("total") if isinstance(answer.body, dict) else None
    limits = Finding(f"headers of limits: {rate_headers(answer.headers)}")
    return ProofResult(
        (Finding(f"200, {total} tasks in seven days", ok=total is not None), limits), facts={"scope": "all"}
    )


async def _models(calls: Calls, _: _Known) -> ProofResult:
    answer = await calls.get(MODELS)
    rows = answer.body.get("data") if isinstance(answer.body, dict) else None
    if answer.status >= 300 or not isinstance(rows, list):
        return ProofResult((failed(answer),))
    ids = [str(row.get("id")) for row in rows if isinstance(row, dict)]
    models = built_in_models()
    ours = sorted({one.id for name in ids if (one := models.find_image(name) or models.find_video(name)) is not None})
    missing = sorted({*models.images, *models.videos} - set(ours))
    return ProofResult((
        Finding(f"{len(ids)} models, of which we know {len(ours)}: {', '.join(ours)}", ok=bool(ours)),
        Finding(f"not listed: {', '.join(missing) or 'none of ours'}"),
    ))  # fmt: skip


async def _image(calls: Calls, _: _Known) -> ProofResult:
    started = time.monotonic()
    answer = await calls.image()
    took = time.monotonic() - started
    if answer.status >= 300:
        return ProofResult((failed(answer),))
    body = answer.body if isinstance(answer.body, dict) else {}
    [item] = (body.get("data") or [{}])[:1]
    usage = body.get("usage") or {}
    stamp = next((name for name in ("created", "created_at") if name in body), "no time")
    return ProofResult((
        Finding(f"made in {took:.1f} s, {item.get('size')}", ok=item.get("size") == f"{SIDE}x{SIDE}"),
        Finding(f"charged images: {usage.get('generated_images')}", ok=usage.get("generated_images") == 1),
        Finding(f"the answer has a link: {bool(item.get('url'))}", ok=bool(item.get("url"))),
        Finding(f"the time of the answer is called `{stamp}`"),
    ))  # fmt: skip


async def _fields(calls: Calls, _: _Known) -> ProofResult:
    seed = await calls.image(seed=7)
    # Obeyed by this model in one report and promised nowhere, so both answers are fine.
    found = [Finding("seed: accepted, and charged") if seed.status < 300 else refused(seed, "seed")]
    found.append(refused(await calls.image(n=2), "n"))
    found.append(refused(await calls.image(negative_prompt="people"), "negative_prompt"))
    return ProofResult(tuple(found))


async def _refusal(calls: Calls, _: _Known) -> ProofResult:
    words = calls.script("[[refuse:InputTextSensitiveContentDetected]]")
    answer = await calls.image(f"{_REFUSED_PROMPT}{words}")
    if answer.status < 300:
        return ProofResult((Finding("not refused: the prompt was accepted, and an image was charged"),))
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    fields = sorted(error) if isinstance(error, dict) else []
    return ProofResult(
        (refused(answer, "refusal"), Finding(f"fields of the error: {', '.join(fields)}", ok="code" in fields))
    )


async def _delete(calls: Calls, known: _Known) -> ProofResult:
    found = []
    answer = await calls.video(keys_of(secrets.token_hex(16)), words=calls.script("[[queue:20]]"))
    task = read_task(answer.body) if answer.status < 300 else None
    if task is None:
        found.append(failed(answer))
    else:
        before = await calls.task(task.id)
        deleted = await calls.delete(task.id)
        after = await calls.task(task.id)
        was, now = (str(one.status) if one else "gone" for one in (before, after))
        found.append(
            Finding(f"DELETE while {was}: {named(deleted)}, then {now}", ok=was != "queued" or now == "cancelled")
        )
    if running := known.get("task"):
        task = await calls.wait(running, lambda one: one.status == "running", seconds=_RUNNING_SECONDS)
        if task is None or task.status != "running":
            found.append(Finding(f"the first video was not seen running: {task.status if task else 'gone'}"))
        else:
            deleted = await calls.delete(running)
            found.append(Finding(f"DELETE while running: {named(deleted)}", ok=deleted.status >= 300))
    return ProofResult(tuple(found))


async def _lost(calls: Calls, _: _Known) -> ProofResult:
    keys = keys_of(secrets.token_hex(16))
    if not await calls.lost_video(keys):
        return ProofResult((Finding("the answer came before it could be cut off; nothing was learned"),))
    task, took = await calls.listed(lambda one: echoes_keys(keys, one), seconds=_LISTED_SECONDS)
    if task is None:
        return ProofResult(
            (Finding(f"not in a list after {took:.0f} s: not created, or keys are not echoed", ok=False),)
        )
    deleted = named(await calls.delete(task.id)) if task.status == "queued" else f"not tried, it is {task.status}"
    return ProofResult((
        Finding(f"found again after {took:.1f} s as {task.id}", ok=True), Finding(f"DELETE of it: {deleted}"),
    ))  # fmt: skip


async def _many(calls: Calls, known: _Known) -> ProofResult:
    real = [str(known["task"])] if known.get("task") else []
    ids = [*real, *(f"cgt-20260101000000-{number:05d}" for number in range(_MANY - len(real)))]
    started = time.monotonic()
    answer = await calls.list([("page_size", str(_MANY)), *(("filter.task_ids", one) for one in ids)])
    if answer.status >= 300:
        return ProofResult((failed(answer),))
    shown = {task.id for task in read_tasks(answer.body)}
    return ProofResult((
        Finding(f"200 in {time.monotonic() - started:.1f} s", ok=True),
        Finding(f"it shows {len(shown)} tasks, asked for {len(real)} real ones", ok=shown == set(real)),
    ))  # fmt: skip


async def _limits(calls: Calls, _: _Known) -> ProofResult:
    for _number in range(3 * _TOO_FAST):
        answer = await calls.list([("page_size", "1")], paced=False)
        if answer.status == 429:
            headers = rate_headers(answer.headers)
            return ProofResult((Finding(named(answer), ok=True), Finding(f"headers of limits: {headers}")))
    return ProofResult((Finding(f"no 429 for {3 * _TOO_FAST} lists in a row: lists are not limited as described"),))


async def _links(calls: Calls, known: _Known) -> ProofResult:
    if not known.get("task"):
        return _NOT_MADE
    task = await calls.wait(str(known["task"]), lambda _: False, seconds=_DONE_SECONDS)
    if task is None or task.video_url is None:
        return ProofResult((Finding(f"the first video has no result: {task.status if task else 'gone'}", ok=False),))
    again = await calls.task(task.id)
    same = again is not None and again.video_url == task.video_url
    return ProofResult((
        Finding(f"finished, {task.tokens} tokens", ok=task.tokens is not None),
        Finding(f"a later call has {'the same link' if same else 'another link'}"),
    ), {"link": task.video_url})  # fmt: skip


async def _clip(calls: Calls, known: _Known) -> ProofResult:
    link = known.get("clip") or known.get("link")
    if not link:
        return _NOT_MADE
    origin = (
        "the link that was given" if known.get("clip") else "the link of the first video (a link of ours: --clip URL)"
    )
    answer = await calls.video(keys_of(secrets.token_hex(16)), clip=str(link))
    if answer.status >= 300:
        return ProofResult((Finding(f"with {origin}", ok=None), failed(answer)))
    task = await calls.wait(str(answer.body.get("id")), lambda _: False, seconds=_DONE_SECONDS)
    end = str(task.status) if task else "gone"
    return ProofResult((
        Finding(f"with {origin}: {end}", ok=end == "succeeded"), Finding(f"tokens: {task.tokens if task else None}"),
    ))  # fmt: skip


async def _expiry(calls: Calls, known: _Known) -> ProofResult:
    if task_id := known.get("expiry"):
        task = await calls.task(str(task_id))
        end = str(task.status) if task else "gone"
        return ProofResult((Finding(f"{task_id} is {end}", ok=None if end not in FINAL else True),))
    key = keys_of(secrets.token_hex(16))
    answer = await calls.video(key, model=FLEX_MODEL, service_tier="flex", execution_expires_after=3600)
    if answer.status >= 300:
        return ProofResult((failed(answer),))
    task_id = str(answer.body.get("id"))
    text = f"created {task_id}; look again after an hour with --only expiry --task {task_id}"
    return ProofResult((Finding(text),), {"expiry": task_id})


def _image_cost(account: Account) -> int:
    order = {"width": SIDE, "height": SIDE, "resolution": "1k", "count": 1}
    return _cost(account, IMAGE_MODEL, order)


def _video_cost(account: Account, model: str, *, clips: Sequence[float] = (), tier: str = "default") -> int:
    shape = {"resolution": RESOLUTION, "ratio": RATIO, "seconds": SECONDS}
    return _cost(account, model, {**shape, "options": {"service_tier": tier}}, clips=list(clips))


def _cost(account: Account, model: str, order: dict[str, Any], **more: Any) -> int:
    if (priced := pricing(model)) is None:
        return 0
    found = find_cost(priced, {"order": order, **more}, account.currency or "", {})
    return found[1] if found is not None else 0
