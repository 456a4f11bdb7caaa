"""A light stand-in of the upstream for the benchmark: `python -m tests.bench.stand_in --port 9000`.

It answers what a session of region `sandbox` needs, checks little, and costs far less CPU than the sandbox. Its ledger
(`/_ledger`) holds each submit with the moment its result was ready, the most jobs in flight, and the calls by path.
`POST /_reset` with `{"seconds", "spread", "video_seconds", "video_spread", "seed"}` forgets everything.
"""

import argparse
import asyncio
import hashlib
import heapq
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.bench.stand_in import media
from tests.bench.stand_in.records import DONE, Job

GENERATE = "/mweb/v1/aigc_draft/generate"
POLL = "/mweb/v1/get_history_by_ids"
ITEMS = "/mweb/v1/get_local_item_list"
MEDIA = "/_media"
CONFIGS = ("/mweb/v1/get_common_config", "/mweb/v1/video_generate/get_common_config")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HOST = re.compile(rb"\r\nhost: *([^\r\n]+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_SESSION = re.compile(rb"\r\ncookie:[^\r\n]*?[ ;]sessionid=([^;\r\n]+)", re.IGNORECASE)
_CREDITS = 10**7
_PRICE = 2
_DEFAULT_COUNT = 4
_US = {
    "code": "US",
    "web_idc": "useast5",
    "domain": {
        "web_domain": "https://edit-api-us.capcut.com",
        "commerce_domain": "https://commerce.us.capcut.com",
        "frontier_domain": "wss://frontier.us.capcut.com",
        "tts_domain": "wss://web-edit.us.capcut.com",
    },
}


@dataclass
class Account:
    """What one session did. `open` = ends of its jobs by kind."""

    name: str
    polls: int = 0
    most: Counter[str] = field(default_factory=Counter)
    open: dict[str, list[float]] = field(default_factory=lambda: {"image": [], "video": []})
    spent: list[dict[str, Any]] = field(default_factory=list)

    def start(self, kind: str, now: float, finish_at: float) -> None:
        """Count a job that is in flight from now on."""
        ends = self.open[kind]
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        heapq.heappush(ends, finish_at)
        self.most[kind] = max(self.most[kind], len(ends))


@dataclass
class State:
    """Jobs and ledger since the last reset."""

    size: int
    latency: float = 0.0
    durations: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"image": (5.0, 0.0), "video": (60.0, 0.0)}
    )
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    accounts: dict[str, Account] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    by_submit: dict[str, Job] = field(default_factory=dict)
    by_history: dict[str, Job] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0

    def reset(self, options: dict[str, Any]) -> None:
        """Forget everything and take new durations."""
        self.durations = {
            "image": (float(options.get("seconds", 5.0)), float(options.get("spread", 0.0))),
            "video": (float(options.get("video_seconds", 60.0)), float(options.get("video_spread", 0.0))),
        }
        self.rng = random.Random(options.get("seed", 7))
        self.accounts.clear()
        self.jobs.clear()
        self.by_submit.clear()
        self.by_history.clear()
        self.calls.clear()
        self.duplicates = 0

    def account(self, session: bytes) -> Account:
        """Return the account of a session; its public name is a hash."""
        key = session.decode("latin-1")
        found = self.accounts.get(key)
        if found is None:
            found = self.accounts[key] = Account(hashlib.sha256(session).hexdigest()[:12])
        return found

    def view(self) -> dict[str, Any]:
        """Return the ledger."""
        return {
            "totals": {"accepted": len(self.jobs), "duplicate_submit_ids": self.duplicates},
            "accounts": {
                account.name: {
                    "polls": account.polls,
                    "max_images": account.most["image"],
                    "max_videos": account.most["video"],
                }
                for account in self.accounts.values()
            },
            "calls": dict(self.calls),
            "submits": [
                {
                    "account": job.account,
                    "submit_id": job.submit_id,
                    "prompt": job.prompt,
                    "kind": job.kind,
                    "at": job.at,
                    "finish_at": job.finish_at,
                }
                for job in self.jobs
            ],
        }

    # ---- calls of clients; each returns the JSON text of the answer

    def generate(self, account: Account, body: dict[str, Any], base: str, now: float) -> bytes:
        """Accept every readable submit."""
        try:
            prompt, model, kind, count = read_order(body)
            submit_id = str(body["submit_id"])
        except (LookupError, TypeError, ValueError):
            return _refusal("1000", now)
        if submit_id in self.by_submit:
            self.duplicates += 1
        seconds, spread = self.durations[kind]
        finish_at = now + max(seconds + self.rng.uniform(-spread, spread), 0.0)
        job = Job(
            account.name, submit_id, prompt, model, kind, count, len(self.jobs) + 1, now, finish_at, base, self.size
        )
        account.start(kind, now, finish_at)
        account.spent.append(
            {"amount": _PRICE * count, "create_time": int(now), "title": kind, "submit_id": submit_id, "status": 1}
        )
        self.jobs.append(job)
        self.by_submit[submit_id] = self.by_history[job.history_id] = job
        return _mweb(b'{"aigc_data":' + job.text(20) + b"}", now)

    def poll(self, account: Account, body: dict[str, Any], _base: str, now: float) -> bytes:
        """Answer by submit ids and history ids; other accounts' jobs are omitted."""
        account.polls += 1
        found = [(key, self.by_submit.get(key)) for key in body.get("submit_ids") or ()]
        found += [(key, self.by_history.get(key)) for key in body.get("history_ids") or ()]
        records = [
            b'"' + key.encode() + b'":' + job.text(job.status(now))
            for key, job in found
            if job is not None and job.account == account.name
        ]
        return _mweb(b"{" + b",".join(records) + b"}", now)

    def items(self, account: Account, body: dict[str, Any], _base: str, now: float) -> bytes:
        """Return finished results by item id."""
        wanted = {str(key) for key in body.get("item_id_list") or ()}
        jobs = [job for job in self.jobs if job.account == account.name and job.status(now) == DONE]
        items = [item for job in jobs for item in job.items() if item["common_attr"]["id"] in wanted]
        return _mweb(orjson.dumps({"item_list": items}), now)

    def user_info(self, account: Account, _body: dict[str, Any], _base: str, now: float) -> bytes:
        """Every session lives in the United States."""
        return _mweb(orjson.dumps({"user_id": account.name, "name": "stand-in", "location": _US}), now)

    def account_info(self, _account: Account, _body: dict[str, Any], _base: str, _now: float) -> bytes:
        """The Chinese site's account call."""
        return orjson.dumps(
            {"message": "success", "data": {"user_id": 1, "user_id_str": "1", "screen_name": "stand-in"}}
        )

    def credit(self, account: Account, _body: dict[str, Any], _base: str, now: float) -> bytes:
        """Balance."""
        left = _CREDITS - sum(line["amount"] for line in account.spent)
        return _commerce({"credit": {"vip_credit": 0, "gift_credit": 0, "purchase_credit": left}}, now)

    def receive(self, _account: Account, _body: dict[str, Any], _base: str, now: float) -> bytes:
        """The daily gift was taken already."""
        data = {"cur_total_credits": _CREDITS, "receive_quota": 0, "is_first_receive": False, "has_popup": False}
        return _commerce(data, now)

    def credit_history(self, account: Account, body: dict[str, Any], _base: str, now: float) -> bytes:
        """Charges, newest first."""
        cursor, count = int(body.get("cursor") or 0), int(body.get("count") or 20)
        rows = account.spent[::-1][cursor : cursor + count]
        more = cursor + len(rows) < len(account.spent)
        data = {"total_credit": _CREDITS, "records": rows, "new_cursor": str(cursor + len(rows)), "has_more": more}
        return _commerce(data, now)

    def unknown(self, _account: Account, _body: dict[str, Any], _base: str, now: float) -> bytes:
        """The model lists: the client falls back on its own."""
        return _refusal("1002", now)


_HANDLERS = {
    GENERATE: State.generate,
    POLL: State.poll,
    ITEMS: State.items,
    "/lv/v1/user/web/user_info": State.user_info,
    "/passport/account/info/v2": State.account_info,
    "/commerce/v1/benefits/user_credit": State.credit,
    "/commerce/v1/benefits/credit_receive": State.receive,
    "/commerce/v1/benefits/user_credit_history": State.credit_history,
    **dict.fromkeys(CONFIGS, State.unknown),
}


def read_order(body: dict[str, Any]) -> tuple[str, str, str, int]:
    """Return prompt, model, kind and count of a submit. Raises LookupError, TypeError or ValueError."""
    component = orjson.loads(body["draft_content"])["component_list"][0]
    abilities = component["abilities"]
    if "gen_video" in abilities:
        params = abilities["gen_video"]["text_to_video_params"]
        inputs = params["video_gen_inputs"][0]
        return str(inputs.get("prompt", "")), str(params.get("model_req_key")), "video", 1
    ability = abilities["blend" if "blend" in abilities else "generate"]
    core = ability["core_param"]
    option = abilities.get("gen_option") or ability.get("gen_option") or {}
    return str(core["prompt"]), str(core["model"]), "image", int(option.get("gen_count") or _DEFAULT_COUNT)


def _mweb(data: bytes, now: float) -> bytes:
    head = f'{{"ret":"0","errmsg":"success","systime":"{int(now)}","logid":"{int(now * 1000)}STANDIN","data":'
    return head.encode() + data + b"}"


def _commerce(data: dict[str, Any], now: float) -> bytes:
    text = orjson.dumps(data).decode()
    answer = {
        "ret": "0",
        "errmsg": "success",
        "svr_time": int(now),
        "log_id": "STANDIN",
        "response": text,
        "data": data,
    }
    return orjson.dumps(answer)


def _refusal(code: str, now: float) -> bytes:
    return orjson.dumps(
        {"ret": code, "errmsg": "invalid parameter", "systime": str(int(now)), "logid": "", "data": None}
    )


class Connection(asyncio.Protocol):
    """One connection: HTTP/1.1 with keep-alive, requests with a Content-Length."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[: end + 2])
            match = _LENGTH.search(head)
            total = end + 4 + (int(match[1]) if match else 0)
            if len(self.buffer) < total:
                return
            body = bytes(self.buffer[end + 4 : total])
            del self.buffer[:total]
            self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        method, _, rest = head.partition(b" ")
        target = rest.partition(b" ")[0].decode("latin-1")
        status, kind, content = self._handle(head, urlsplit(target).path, body)
        lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        closing = _CLOSE.search(head) is not None
        prefix = (lines + ("Connection: close\r\n\r\n" if closing else "\r\n")).encode()
        answer = prefix + (b"" if method == b"HEAD" else content)
        if self.state.latency and not target.startswith("/_"):
            asyncio.get_running_loop().call_later(self.state.latency, self._write, answer, closing)
        else:
            self._write(answer, closing)

    def _write(self, answer: bytes, closing: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(answer)
            if closing:
                self.transport.close()

    def _handle(self, head: bytes, path: str, body: bytes) -> tuple[str, str, bytes]:
        state = self.state
        if path.startswith(MEDIA):
            state.calls[MEDIA] += 1
            if path.endswith(".mp4"):
                return "200 OK", "video/mp4", media.video()
            return "200 OK", "image/webp", media.picture(state.size)
        if path == "/_ledger":
            return "200 OK", "application/json", orjson.dumps(state.view())
        if path == "/_reset":
            state.reset(orjson.loads(body or b"{}"))
            return "200 OK", "application/json", b'{"status":"ok"}'
        if path == "/_health":
            return "200 OK", "application/json", b'{"status":"ok"}'
        handler = _HANDLERS.get(path)
        session = _SESSION.search(head)
        state.calls[path if handler else "unknown"] += 1
        if handler is None or session is None:
            return "404 Not Found", "text/html", b"<html><body>stand-in: no such path</body></html>"
        host = _HOST.search(head)
        base = f"http://{host[1].decode('latin-1') if host else '127.0.0.1'}"
        fields = orjson.loads(body) if body else {}
        return "200 OK", "application/json", handler(state, state.account(session[1]), fields, base, time.time())


async def serve(state: State, port: int) -> None:
    """Serve on the loopback until the process ends."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def main() -> int:
    """Run the stand-in."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stand_in", description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--size", type=int, default=2048, help="pixels of a side of the pictures")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer of the API")
    args = parser.parse_args()
    media.picture(args.size)
    asyncio.run(serve(State(size=args.size, latency=args.latency), args.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
