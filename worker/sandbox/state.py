"""Everything one running sandbox remembers, and the handlers that read and change it. No HTTP here but the answers."""

import random
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response

from worker.sandbox import responses as sandbox_responses
from worker.sandbox.accounts import Account, open_account
from worker.sandbox.jobs import QUEUE_STEP, Job, history_of_item
from worker.sandbox.ledger import KEEP, Ledger
from worker.sandbox.models import hosts, model_lists
from worker.sandbox.options import Options
from worker.sandbox.requests.content_check import read_check
from worker.sandbox.requests.fields import Belongings, RefusedError
from worker.sandbox.requests.order import Order
from worker.sandbox.requests.submit import glimpse, read_order
from worker.sandbox.results.image_items import show_items
from worker.sandbox.results.media import Gallery
from worker.sandbox.results.records import record
from worker.sandbox.scripts import Faults, Script, read_script
from worker.sandbox.uploads.store import Vault


@dataclass
class Call:
    """One request, as the handlers need it."""

    path: str
    headers: Headers
    cookies: dict[str, str]
    aid: str
    body: bytes
    base: str
    now: float
    account: Account
    host: hosts.Host | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    # Set by a handler: how long the answer is held back after its effect.
    hold: float = field(default=0.0)

    @property
    def family(self) -> str:
        return hosts.family_of(self.path)


class World:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.gallery = Gallery()
        self.reset()

    def reset(self) -> None:
        self.ledger = Ledger()
        self.vault = Vault()
        self.faults = Faults(seed=self.options.seed, dice=random.Random(self.options.seed))
        self.accounts: OrderedDict[str, Account] = OrderedDict()
        self._by_submit: OrderedDict[tuple[str, str], Job] = OrderedDict()
        self._by_history: OrderedDict[str, Job] = OrderedDict()
        self._fired: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._dice = random.Random(self.options.seed)
        self._count = 0
        self._lists = 0
        self.gallery.forget()

    def account(self, session: str) -> Account:
        account = self.accounts.get(session)
        if account is None:
            account = self.accounts[session] = open_account(session, self.options.credits)
            _bound(self.accounts)
        account.pay_refunds(time.time())
        return account

    def user_info(self, call: Call) -> Response:
        home = call.account.home
        if home == "cn" or not hosts.probe_succeeds(home, call.cookies.get("cc-target-idc", "")):
            return sandbox_responses.refusal("lv", "1015", call.now)
        data = {"user_id": call.account.uid, "name": "sandbox-user", "location": hosts.location_of(home)}
        return sandbox_responses.mweb(data, call.now)

    def account_info(self, call: Call) -> Response:
        uid = call.account.uid
        data = {"user_id": int(uid), "user_id_str": uid, "screen_name": "sandbox-user", "has_password": 1}
        return sandbox_responses.passport(data)

    def user_credit(self, call: Call) -> Response:
        return sandbox_responses.commerce(call.account.credit_view(call.now), call.now)

    def credit_receive(self, call: Call) -> Response:
        if call.account.role.shark:
            return sandbox_responses.refusal("commerce", "-6", call.now)
        return sandbox_responses.commerce(call.account.receive_gift(call.now), call.now)

    def user_credit_history(self, call: Call) -> Response:
        body = _body(call.body)
        cursor, count = _whole(body.get("cursor"), 0), _whole(body.get("count"), 20)
        return sandbox_responses.commerce(call.account.history_view(cursor, min(count, 100)), call.now)

    def upload_token(self, call: Call) -> Response:
        """A credential for pictures (scene 2) or for videos and sounds (scene 1)."""
        scene = _body(call.body).get("scene")
        if scene not in {1, 2}:
            self.violation(call, "1000", f"scene {str(scene)[:20]!r} is neither 1 nor 2")
            return sandbox_responses.refusal("mweb", "1000", call.now)
        place = call.host.place if call.host else hosts.place_of(call.account.home, call.aid)
        own = None if call.host else call.base.partition("://")[2]
        data = self.vault.grant(call.account.name, video=scene == 1, place=place, own=own, now=call.now)
        return sandbox_responses.mweb(data, call.now)

    def check_upload(self, call: Call) -> Response:
        """The content check of an uploaded picture. A picture whose comment says `[[refuse:CODE]]` gets that code."""
        try:
            contents = read_check(call.body, call.query, Belongings(self.vault, call.account.name))
        except RefusedError as problem:
            self.violation(call, problem.code, problem.detail)
            return sandbox_responses.refusal("mweb", problem.code, call.now)
        code = read_script(contents.words).refuse
        return sandbox_responses.refusal("mweb", code, call.now) if code else sandbox_responses.mweb({}, call.now)

    def poll(self, call: Call) -> Response:
        """Batch and mixed; what is unknown, hidden or somebody else's is simply not in the answer."""
        body = _body(call.body)
        submit_ids, history_ids = _ids(body.get("submit_ids")), _ids(body.get("history_ids"))
        if not submit_ids and not history_ids:
            self.violation(call, "1000", "neither submit_ids nor history_ids")
            return sandbox_responses.refusal("mweb", "1000", call.now)
        account = call.account
        account.note_poll(call.now, len(submit_ids) + len(history_ids))
        found = [(key, self._by_submit.get((account.name, key))) for key in submit_ids]
        found += [(key, self._by_history.get(key)) for key in history_ids]
        data = {
            key: record(job, call.now, gallery=self.gallery, base=call.base)
            for key, job in found
            if job is not None and job.account is account and not job.hidden()
        }
        return sandbox_responses.mweb(data, call.now)

    def local_items(self, call: Call) -> Response:
        """Finished results by item id; unknown, unfinished or somebody else's are left out."""
        asked = _ids(_body(call.body).get("item_id_list"))
        if not asked:
            self.violation(call, "1000", "item_id_list is missing or empty")
            return sandbox_responses.refusal("mweb", "1000", call.now)
        found = []
        for item_id in asked:
            job = self._by_history.get(history_of_item(item_id))
            if job is None or job.account is not call.account or job.status(call.now) != 50:
                continue
            items = show_items(job, call.now, self.gallery, call.base, download=True)
            found += [item for item in items if item["common_attr"]["id"] == item_id]
        # Clients look under both names; nobody knows when upstream uses which.
        self._lists += 1
        return sandbox_responses.mweb({"local_item_list" if self._lists % 3 == 0 else "item_list": found}, call.now)

    def picture_config(self, call: Call) -> Response:
        return sandbox_responses.mweb(model_lists.pictures(_place(call)), call.now)

    def video_config(self, call: Call) -> Response:
        return sandbox_responses.mweb(model_lists.videos(_place(call)), call.now)

    def generate(self, call: Call) -> Response:
        if call.account.role.shark:
            return self._refuse(call, "-6", glimpse(call.body))
        place = _place(call)
        try:
            owner = Belongings(self.vault, call.account.name)
            order = read_order(call.body, aid=call.aid, place=place, owner=owner)
        except RefusedError as problem:
            self.violation(call, problem.code, problem.detail)
            return self._refuse(call, problem.code, glimpse(call.body))
        script = read_script(order.prompt)
        call.hold = script.latency
        fault = self.fire("before", script.before, order.prompt)
        if fault:
            return sandbox_responses.broken(fault)
        code = self._objection(call, order, script)
        if code:
            known = {
                "submit_id": order.submit_id,
                "prompt": order.prompt,
                "model": order.model.key,
                "count": order.count,
            }
            return self._refuse(call, code, known)
        call.account.note_submit(call.now)
        job = self.accept(call, order, script, at=call.now)
        fault = self.fire("after", script.after, order.prompt)
        if fault:
            return sandbox_responses.broken(fault)
        fresh = record(job, call.now, gallery=self.gallery, base=call.base, fresh=True)
        return sandbox_responses.mweb({"aigc_data": fresh}, call.now)

    def _refuse(self, call: Call, code: str, known: dict[str, Any]) -> Response:
        call.account.note_submit(call.now)
        self.ledger.refused(call.account, code, call.now, known=known)
        return sandbox_responses.refusal("mweb", code, call.now)

    def _objection(self, call: Call, order: Order, script: Script) -> str:
        """The code an otherwise good submit is refused with; empty = it is taken."""
        account = call.account
        if script.refuse:
            return script.refuse
        if account.role.limited:
            return "1018"
        slots = account.slots(self.options.slots)
        if slots and account.in_flight(call.now) >= slots:
            return "1310"
        most = self.options.video_slots
        if most and order.kind == "video" and account.videos_in_flight(call.now) >= most:
            return "1310"
        return "1006" if account.credits < order.price else ""

    def accept(self, call: Call, order: Order, script: Script, *, at: float) -> Job:
        """Start a job for the account of the call and charge it."""
        now, account = at, call.account
        seconds = script.seconds
        if seconds is None:
            spread = self.options.spread
            seconds = max(0.0, self.options.seconds + self._dice.uniform(-spread, spread))
        start_at = now + script.queue * QUEUE_STEP
        self._count += 1
        job = Job(
            account=account,
            order=order,
            script=script,
            number=self._count,
            accepted_at=now,
            start_at=start_at,
            finish_at=float("inf") if script.hang else start_at + seconds,
            generate_id=sandbox_responses.log_id(now),
            lingers=self._count % 3 == 0 and script.partial is None,
        )
        video = order.kind == "video"
        account.start_job(now, job.finish_at, video=video)
        title = "video generation" if video else "image generation"
        account.charge(order.price, order.submit_id, now, title=title)
        if script.refund and script.ending != "50":
            account.promise_refund(job.finish_at, order.price, order.submit_id)
        self._by_submit[account.name, order.submit_id] = job
        self._by_history[job.history_id] = job
        _bound(self._by_submit)
        _bound(self._by_history)
        self.ledger.accepted(job)
        return job

    def fire(self, moment: str, kinds: tuple[str, ...], prompt: str) -> str:
        """The next fault of this prompt that has not happened yet."""
        for kind in kinds:
            shot = (moment, kind, prompt)
            if shot not in self._fired:
                self._fired[shot] = None
                _bound(self._fired)
                return kind
        return ""

    def violation(self, call: Call, code: str, detail: str) -> None:
        self.ledger.violation(code, path=call.path, account=call.account.name, detail=detail, now=call.now)

    def ledger_view(self, *, with_lists: bool) -> dict[str, Any]:
        return self.ledger.view(list(self.accounts.values()), time.time(), with_lists=with_lists)


def _bound(table: OrderedDict[Any, Any]) -> None:
    while len(table) > KEEP:
        table.popitem(last=False)


def _place(call: Call) -> str | None:
    """Where a caller is who named its host; the others see everything."""
    return call.host.place if call.host else None


def _body(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _ids(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _whole(value: object, default: int) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
