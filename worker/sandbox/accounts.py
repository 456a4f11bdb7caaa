"""Accounts: created when a session id is first seen, with credits, running jobs and the credit history."""

import hashlib
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.models.hosts import cluster_of
from worker.sandbox.scripts import AccountBehaviour, read_behaviour

GIFT = 60
_HISTORY = 500
_CHINA_SECONDS = 8 * 3600
_DAY = 86_400


def _china_day(now: float) -> int:
    return int((now + _CHINA_SECONDS) // _DAY)


@dataclass
class Account:
    name: str
    uid: str
    digest: str  # hash of the session id
    behaviour: AccountBehaviour
    cluster: str | None
    purchased: int
    gifted: int = 0
    submits: int = 0
    charged: int = 0
    max_in_flight: int = 0
    polls: int = 0
    max_ids: int = 0
    min_poll_gap: float | None = None
    max_poll_gap: float = 0.0
    min_submit_gap: float | None = None
    _first_poll: float | None = None
    _last_poll: float | None = None
    _last_submit: float | None = None
    gift_day: int = -1
    _finish_times: list[float] = field(default_factory=list)
    _video_finish_times: list[float] = field(default_factory=list)
    refunds: list[tuple[float, int, str]] = field(default_factory=list)
    spent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    @property
    def credits(self) -> int:
        return self.purchased + self.gifted

    def in_flight(self, now: float) -> int:
        return _count_running(self._finish_times, now)

    def videos_in_flight(self, now: float) -> int:
        return _count_running(self._video_finish_times, now)

    def start_job(self, now: float, end: float, *, video: bool) -> None:
        running = self.in_flight(now) + 1
        self.continue_job(end, video=video)
        self.max_in_flight = max(self.max_in_flight, running)

    def continue_job(self, end: float, *, video: bool) -> None:
        """Occupy a slot until `end`."""
        heapq.heappush(self._finish_times, end)
        if video:
            heapq.heappush(self._video_finish_times, end)

    def slots(self, default: int) -> int:
        """Return the number of concurrent jobs; 0 = unlimited."""
        return 1 if self.behaviour.busy else default

    def charge(self, amount: int, submit_id: str, now: float, *, title: str) -> None:
        """Charge credits. Gifted credits are used first because they expire."""
        from_gift = min(self.gifted, amount)
        self.gifted -= from_gift
        self.purchased -= amount - from_gift
        self.charged += amount
        self._record(amount, submit_id, now, title)

    def schedule_refund(self, at: float, amount: int, submit_id: str) -> None:
        heapq.heappush(self.refunds, (at, amount, submit_id))

    def pay_refunds(self, now: float) -> bool:
        """Pay the refunds that are due, and return whether there were any."""
        count = len(self.refunds)
        while self.refunds and self.refunds[0][0] <= now:
            at, amount, submit_id = heapq.heappop(self.refunds)
            self.purchased += amount
            self.charged -= amount
            self._record(-amount, submit_id, at, "refund")
        return len(self.refunds) < count

    def _record(self, amount: int, submit_id: str, at: float, title: str) -> None:
        line = {"amount": amount, "create_time": int(at), "title": title, "submit_id": submit_id, "status": 1}
        self.spent.appendleft(line)

    def receive_gift(self, now: float) -> dict[str, Any]:
        today = _china_day(now)
        gained = GIFT if self.behaviour.gift and self.gift_day != today else 0
        if gained:
            self.gift_day = today
            self.gifted += gained
        return {
            "cur_total_credits": self.credits,
            "receive_quota": gained,
            "is_first_receive": bool(gained),
            "has_popup": bool(gained),
        }

    def credit_view(self, now: float) -> dict[str, Any]:
        midnight = (_china_day(now) + 1) * _DAY - _CHINA_SECONDS - 1
        gifts = [self.gifted] if self.gifted else []
        return {
            "credit": {"vip_credit": 0, "gift_credit": self.gifted, "purchase_credit": self.purchased},
            "expiring_credits": [{"credit_amount": amount, "expire_time": midnight} for amount in gifts],
            "credits_detail": {
                "gift_credits": [{"residual_credits": amount, "credits_life_end": midnight} for amount in gifts]
            },
        }

    def history_view(self, cursor: int, count: int) -> dict[str, Any]:
        rows = list(self.spent)
        page = rows[cursor : cursor + count]
        return {
            "total_credit": self.credits,
            "records": page,
            "new_cursor": str(cursor + len(page)),
            "has_more": cursor + len(page) < len(rows),
        }

    def record_submit(self, now: float) -> None:
        self.submits += 1
        if self._last_submit is not None:
            self.min_submit_gap = _minimum(self.min_submit_gap, now - self._last_submit)
        self._last_submit = now

    def record_poll(self, now: float, ids: int) -> None:
        self.polls += 1
        self.max_ids = max(self.max_ids, ids)
        if self._last_poll is not None:
            self.min_poll_gap = _minimum(self.min_poll_gap, now - self._last_poll)
            self.max_poll_gap = max(self.max_poll_gap, now - self._last_poll)
        else:
            self._first_poll = now
        self._last_poll = now

    @property
    def mean_poll_gap(self) -> float:
        """Average seconds between two polls."""
        if self._first_poll is None or self._last_poll is None or self.polls < 2:
            return 0.0
        return (self._last_poll - self._first_poll) / (self.polls - 1)


def _count_running(finish_times: list[float], now: float) -> int:
    while finish_times and finish_times[0] <= now:
        heapq.heappop(finish_times)
    return len(finish_times)


def _minimum(previous: float | None, new: float) -> float:
    return new if previous is None else min(previous, new)


def digest_of(session: str) -> str:
    """Return the hash that accounts are found by: a session id is a secret, and the state can be in a file."""
    return hashlib.sha256(session.encode()).hexdigest()


def create_account(session: str, default_credits: int) -> Account:
    """Create the account of a session id. Its public name is a hash of the id."""
    digest = digest_of(session)
    behaviour = read_behaviour(session)
    return Account(
        name=digest[:12],
        digest=digest,
        uid="7" + str(int(digest[12:28], 16) % 10**18).zfill(18),
        behaviour=behaviour,
        cluster=cluster_of(session),
        purchased=0 if behaviour.broke or behaviour.gift else default_credits,
    )
