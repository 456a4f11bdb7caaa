"""The state of one sandbox, and the handlers that read and change it. HTTP is limited to the responses."""

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
from worker.sandbox.accounts import Account, create_account, digest_of
from worker.sandbox.jobs import QUEUE_POSITION_SECONDS, Job, history_of_item
from worker.sandbox.kept.state_file import StateFile
from worker.sandbox.ledger import KEEP, Ledger
from worker.sandbox.models import hosts, model_lists
from worker.sandbox.options import Options
from worker.sandbox.requests.content_check import read_check
from worker.sandbox.requests.fields import AccountUploads, RefusedError
from worker.sandbox.requests.order import Order
from worker.sandbox.requests.submit import peek, read_order
from worker.sandbox.results.image_items import list_items
from worker.sandbox.results.media import ResultStore
from worker.sandbox.results.records import record
from worker.sandbox.scripts import Faults, Script, read_script
from worker.sandbox.uploads.store import UploadStore


@dataclass
class Call:
    """One request with the data that handlers need."""

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
    # Set by a handler: seconds to delay the response after its effect.
    delay: float = field(default=0.0)

    @property
    def family(self) -> str:
        return hosts.family_of(self.path)


class SandboxState:
    """Accounts, jobs, uploads, results, ledger and faults of one sandbox."""

    def __init__(self, options: Options, kept: StateFile | None = None) -> None:
        self.options = options
        self.results = ResultStore(options.control_token)
        self._kept = kept
        self._begin()
        if kept is not None:
            self._continue(kept)

    def reset(self) -> None:
        """Forget everything. Earlier links to results become invalid."""
        self._begin()
        self.results.clear()
        if self._kept is not None:
            self._kept.clear("accounts", "orders", "uploads", "pictures")

    def _begin(self) -> None:
        self.ledger = Ledger()
        self.uploads = UploadStore(self._kept)
        self.faults = Faults(seed=self.options.seed, rng=random.Random(self.options.seed))
        self.accounts: OrderedDict[str, Account] = OrderedDict()
        self._by_submit: OrderedDict[tuple[str, str], Job] = OrderedDict()
        self._by_history: OrderedDict[str, Job] = OrderedDict()
        self._taken_faults: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._rng = random.Random(self.options.seed)
        self._count = 0
        self._list_calls = 0

    def _continue(self, kept: StateFile) -> None:
        """Continue with the orders, accounts and uploads of an earlier process. Its ledger begins with the orders."""
        now, pictures = time.time(), kept.load_pictures()
        self.accounts.update(kept.load_accounts())
        self.uploads.load(kept.load_uploads(pictures))
        for job in kept.load_orders(self.accounts, pictures):
            self._count = job.number
            if job.finish_at > now:
                job.account.continue_job(job.finish_at, video=job.order.kind == "video")
            elif job.status(now) == 50:
                list_items(job, now, self.results, "")  # so that earlier links lead to the results again
            self._add(job)

    def get_account(self, session: str) -> Account:
        digest = digest_of(session)
        account = self.accounts.get(digest)
        if account is None:
            account = self.accounts[digest] = create_account(session, self.options.credits)
            _evict_oldest(self.accounts)
        if account.pay_refunds(time.time()) and self._kept is not None:
            self._kept.save_account(account)
        return account

    def user_info(self, call: Call) -> Response:
        cluster = call.account.cluster
        if cluster == "cn" or not hosts.probe_succeeds(cluster, call.cookies.get("cc-target-idc", "")):
            return sandbox_responses.refusal("lv", "1015", call.now)
        data = {"user_id": call.account.uid, "name": "sandbox-user", "location": hosts.location_of(cluster)}
        return sandbox_responses.mweb(data, call.now)

    def account_info(self, call: Call) -> Response:
        uid = call.account.uid
        data = {"user_id": int(uid), "user_id_str": uid, "screen_name": "sandbox-user", "has_password": 1}
        return sandbox_responses.passport(data)

    def user_credit(self, call: Call) -> Response:
        return sandbox_responses.commerce(call.account.credit_view(call.now), call.now)

    def credit_receive(self, call: Call) -> Response:
        if call.account.behaviour.shark:
            return sandbox_responses.refusal("commerce", "-6", call.now)
        answer = call.account.receive_gift(call.now)
        if self._kept is not None and answer["receive_quota"]:
            self._kept.save_account(call.account)
        return sandbox_responses.commerce(answer, call.now)

    def user_credit_history(self, call: Call) -> Response:
        body = _body(call.body)
        cursor, count = _parse_count(body.get("cursor"), 0), _parse_count(body.get("count"), 20)
        return sandbox_responses.commerce(call.account.history_view(cursor, min(count, 100)), call.now)

    def upload_token(self, call: Call) -> Response:
        """Issue an upload credential for images (scene 2) or for video and audio (scene 1)."""
        scene = _body(call.body).get("scene")
        if scene not in {1, 2}:
            self.record_violation(call, "1000", f"scene {str(scene)[:20]!r} is neither 1 nor 2")
            return sandbox_responses.refusal("mweb", "1000", call.now)
        site = call.host.site if call.host else hosts.site_of(call.account.cluster, call.aid)
        own_host = None if call.host else call.base.partition("://")[2]
        data = self.uploads.issue_credential(
            call.account.name,
            video=scene == 1,
            site=site,
            own_host=own_host,
            now=call.now,
            singular=call.account.behaviour.singular,
        )
        return sandbox_responses.mweb(data, call.now)

    def check_upload(self, call: Call) -> Response:
        """Check the content of an uploaded image. `[[refuse:CODE]]` in its comment refuses it with that code."""
        try:
            file_info = read_check(call.body, call.query, AccountUploads(self.uploads, call.account.name))
        except RefusedError as error:
            self.record_violation(call, error.code, error.detail)
            return sandbox_responses.refusal("mweb", error.code, call.now)
        code = read_script(file_info.embedded_text).refuse
        return sandbox_responses.refusal("mweb", code, call.now) if code else sandbox_responses.mweb({}, call.now)

    def poll(self, call: Call) -> Response:
        """Poll by submit ids and history ids. Unknown, hidden and other accounts' jobs are omitted."""
        body = _body(call.body)
        submit_ids, history_ids = _ids(body.get("submit_ids")), _ids(body.get("history_ids"))
        if not submit_ids and not history_ids:
            self.record_violation(call, "1000", "neither submit_ids nor history_ids")
            return sandbox_responses.refusal("mweb", "1000", call.now)
        account = call.account
        account.record_poll(call.now, len(submit_ids) + len(history_ids))
        jobs = [(key, self._by_submit.get((account.name, key))) for key in submit_ids]
        jobs += [(key, self._by_history.get(key)) for key in history_ids]
        data = {
            key: record(job, call.now, results=self.results, base=call.base)
            for key, job in jobs
            if job is not None and job.account is account and not job.is_hidden_from_poll()
        }
        return sandbox_responses.mweb(data, call.now)

    def local_items(self, call: Call) -> Response:
        """Return finished results by item id. Unknown, unfinished and other accounts' items are omitted."""
        item_ids = _ids(_body(call.body).get("item_id_list"))
        if not item_ids:
            self.record_violation(call, "1000", "item_id_list is missing or empty")
            return sandbox_responses.refusal("mweb", "1000", call.now)
        found = []
        for item_id in item_ids:
            job = self._by_history.get(history_of_item(item_id))
            if job is None or job.account is not call.account or job.status(call.now) != 50:
                continue
            items = list_items(job, call.now, self.results, call.base, download=True)
            found += [item for item in items if item["common_attr"]["id"] == item_id]
        # Upstream uses both names; when it uses which is unknown, so clients must accept both.
        self._list_calls += 1
        return sandbox_responses.mweb(
            {"local_item_list" if self._list_calls % 3 == 0 else "item_list": found}, call.now
        )

    def image_config(self, call: Call) -> Response:
        return sandbox_responses.mweb(model_lists.image_models(_site(call)), call.now)

    def video_config(self, call: Call) -> Response:
        return sandbox_responses.mweb(model_lists.video_models(_site(call)), call.now)

    def generate(self, call: Call) -> Response:
        if call.account.behaviour.shark:
            return self._refuse(call, "-6", peek(call.body))
        site = _site(call)
        try:
            uploads = AccountUploads(self.uploads, call.account.name)
            order = read_order(call.body, aid=call.aid, site=site, uploads=uploads)
        except RefusedError as error:
            self.record_violation(call, error.code, error.detail)
            return self._refuse(call, error.code, peek(call.body))
        script = read_script(order.prompt)
        call.delay = script.latency
        fault = self.take_fault("before", script.before, order.prompt)
        if fault:
            return sandbox_responses.fault_response(fault)
        code = self._refusal_code(call, order, script)
        if code:
            fields = {
                "submit_id": order.submit_id,
                "prompt": order.prompt,
                "model": order.model.key,
                "count": order.count,
            }
            return self._refuse(call, code, fields)
        call.account.record_submit(call.now)
        job = self.accept(call, order, script, at=call.now)
        fault = self.take_fault("after", script.after, order.prompt)
        if fault:
            return sandbox_responses.fault_response(fault)
        fresh = record(job, call.now, results=self.results, base=call.base, fresh=True)
        return sandbox_responses.mweb({"aigc_data": fresh}, call.now)

    def _refuse(self, call: Call, code: str, fields: dict[str, Any]) -> Response:
        call.account.record_submit(call.now)
        self.ledger.record_refused(call.account, code, call.now, fields=fields)
        return sandbox_responses.refusal("mweb", code, call.now)

    def _refusal_code(self, call: Call, order: Order, script: Script) -> str:
        """Return the code that refuses a valid submit, or an empty string."""
        account = call.account
        if script.refuse:
            return script.refuse
        if account.behaviour.limited:
            return "1018"
        slots = account.slots(self.options.slots)
        if slots and account.in_flight(call.now) >= slots:
            return "1310"
        video_slots = self.options.video_slots
        if video_slots and order.kind == "video" and account.videos_in_flight(call.now) >= video_slots:
            return "1310"
        return "1006" if account.credits < order.price else ""

    def accept(self, call: Call, order: Order, script: Script, *, at: float) -> Job:
        """Start a job for the account of the call and charge its price."""
        now, account = at, call.account
        seconds = self.draw_seconds() if script.seconds is None else script.seconds
        start_at = now + script.queue * QUEUE_POSITION_SECONDS
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
            shows_items_early=self._count % 3 == 0 and script.partial is None,
        )
        video = order.kind == "video"
        account.start_job(now, job.finish_at, video=video)
        title = "video generation" if video else "image generation"
        account.charge(order.price, order.submit_id, now, title=title)
        if script.refund and script.ending != "50":
            account.schedule_refund(job.finish_at, order.price, order.submit_id)
        self._add(job)
        if self._kept is not None:
            self._kept.save_order(job)
        return job

    def _add(self, job: Job) -> None:
        self._by_submit[job.account.name, job.order.submit_id] = job
        self._by_history[job.history_id] = job
        _evict_oldest(self._by_submit)
        _evict_oldest(self._by_history)
        self.ledger.record_accepted(job)

    def draw_seconds(self) -> float:
        """Return the duration of the next generation without a script: uniform around `--seconds`."""
        spread = self.options.spread
        return max(0.0, self.options.seconds + self._rng.uniform(-spread, spread))

    def take_fault(self, moment: str, kinds: tuple[str, ...], prompt: str) -> str:
        """Return the next fault of this prompt that has not happened yet, or an empty string."""
        for kind in kinds:
            fault = (moment, kind, prompt)
            if fault not in self._taken_faults:
                self._taken_faults[fault] = None
                _evict_oldest(self._taken_faults)
                return kind
        return ""

    def record_violation(self, call: Call, code: str, detail: str) -> None:
        self.ledger.record_violation(code, path=call.path, account=call.account.name, detail=detail, now=call.now)

    def ledger_view(self, *, with_lists: bool) -> dict[str, Any]:
        return self.ledger.view(list(self.accounts.values()), time.time(), with_lists=with_lists)


def _evict_oldest(table: OrderedDict[Any, Any]) -> None:
    while len(table) > KEEP:
        table.popitem(last=False)


def _site(call: Call) -> str | None:
    """Return the site of the upstream host, or None (all sites) when the client addressed the sandbox itself."""
    return call.host.site if call.host else None


def _body(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _ids(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _parse_count(value: object, default: int) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
