"""The ledger: submits, charges, polls and protocol violations. It is public, so it never contains session ids."""

from collections import Counter, OrderedDict, deque
from typing import Any

from worker.sandbox.accounts import Account
from worker.sandbox.jobs import Job

KEEP = 20_000
_KEEP_DETAILS = 20
# Control calls (/_ledger, /_faults ...) are not counted; unknown paths share one counter.
MEDIA = "/_media"


class Ledger:
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._violations: Counter[str] = Counter()
        self._details: deque[dict[str, Any]] = deque(maxlen=_KEEP_DETAILS)
        self._submits: deque[tuple[dict[str, Any], Job | None]] = deque(maxlen=KEEP)
        self._charges: deque[dict[str, Any]] = deque(maxlen=KEEP)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._conversations: deque[dict[str, Any]] = deque(maxlen=KEEP)

    def record_violation(self, code: str, *, path: str, account: str, detail: str, now: float) -> None:
        self._violations[code] += 1
        self._details.append({"code": code, "path": path, "account": account, "detail": detail, "at": now})

    def record_accepted(self, job: Job) -> None:
        order = job.order
        self._totals.update(accepted=1, charges=1, credits=order.price)
        name = job.account.name
        self._charges.append(
            {"account": name, "submit_id": order.submit_id, "amount": order.price, "at": job.accepted_at}
        )
        line = {
            "submit_id": order.submit_id,
            "account": name,
            "at": job.accepted_at,
            "prompt": order.prompt,
            "model": order.model.key,
            "count": order.count,
            "accepted": True,
            "ret": "0",
            "charged": order.price,
        }
        self._record(line, job)

    def record_conversation(self, conversation_id: str, account: str, prompt: str, now: float) -> dict[str, Any]:
        """Add and return an entry for an agent conversation; the caller sets its `ended`."""
        line = {"conversation_id": conversation_id, "account": account, "prompt": prompt, "at": now, "ended": ""}
        self._conversations.append(line)
        return line

    def record_refused(self, account: Account, ret: str, now: float, *, fields: dict[str, Any]) -> None:
        """Record a refused submit; `fields` are those that could be read from its body."""
        self._totals["refused"] += 1
        line = {
            "submit_id": fields.get("submit_id"),
            "account": account.name,
            "at": now,
            "prompt": fields.get("prompt"),
            "model": fields.get("model"),
            "count": fields.get("count"),
            "accepted": False,
            "ret": ret,
            "charged": 0,
        }
        self._record(line, None)

    def _record(self, line: dict[str, Any], job: Job | None) -> None:
        self._totals["submits_seen"] += 1
        self._submits.append((line, job))
        submit_id = line["submit_id"]
        if submit_id is None:
            return
        if submit_id in self._seen:
            self._totals["duplicate_submit_ids"] += 1
        self._seen[submit_id] = None
        if len(self._seen) > 2 * KEEP:
            self._seen.popitem(last=False)

    def view(self, accounts: list[Account], now: float, *, with_lists: bool) -> dict[str, Any]:
        names = ("submits_seen", "accepted", "refused", "charges", "credits", "duplicate_submit_ids")
        answer: dict[str, Any] = {
            "totals": {name: self._totals[name] for name in names},
            "accounts": {
                account.name: {
                    "credits": account.credits,
                    "in_flight": account.in_flight(now),
                    "max_in_flight": account.max_in_flight,
                    "submits": account.submits,
                    "charged": account.charged,
                }
                for account in accounts
            },
            "calls": dict(self.calls),
            "violations": {**self._violations, **({"details": list(self._details)} if self._details else {})},
            "polls": {
                account.name: {
                    "count": account.polls,
                    "min_gap_seconds": account.min_poll_gap,
                    "max_gap_seconds": account.max_poll_gap,
                    "mean_gap_seconds": account.mean_poll_gap,
                    "max_ids": account.max_ids,
                }
                for account in accounts
                if account.polls
            },
            "submit_gaps": {account.name: account.min_submit_gap for account in accounts if account.submits},
        }
        if with_lists:
            answer["submits"] = [_line(line, job, now) for line, job in self._submits]
            answer["charges"] = list(self._charges)
            answer["conversations"] = [dict(line) for line in self._conversations]
        return answer


def _line(line: dict[str, Any], job: Job | None, now: float) -> dict[str, Any]:
    if job is None:
        return {**line, "finish_at": None, "status": None}
    finish_at = None if job.script.hang else job.finish_at
    return {**line, "finish_at": finish_at, "status": job.status(now)}
