"""Fair shares of what waits for third parties: nobody can hold so much of a lane that others find nothing free.

A lane has a number of turns, for example one for each connection of a pool. An owner may hold as many turns as are
free, so a single owner gets half of an idle lane, and there is always room for the next owner. An account may hold a
fixed number. Waiting owners are served by how few turns they hold, and their accounts in rotation.

Tasks name the owner and the account with `acting_for`; what they call takes its turns in their name.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Party(NamedTuple):
    """Whom a turn counts for: the owner of a job, and an upstream account. "" = the platform itself, no account."""

    owner: str = ""
    account: str = ""


_NOBODY = Party()
_party: ContextVar[Party] = ContextVar("party", default=_NOBODY)


@contextmanager
def acting_for(owner: str, account: object = "") -> Iterator[None]:
    """Count the turns of this context, and of tasks and threads that it starts, for this owner and account."""
    token = _party.set(Party(owner, str(account)))
    try:
        yield
    finally:
        _party.reset(token)


def acting_owner() -> str:
    """Return the owner named with `acting_for`; "" = none."""
    return _party.get().owner


class Lane:
    """The turns of one lane of this process. Use it on one event loop."""

    def __init__(self, turns: int, *, per_account: int | None = None) -> None:
        self.turns = self._free = turns
        self._per_account = per_account or turns
        self._owners: Counter[str] = Counter()
        self._accounts: Counter[str] = Counter()
        # Owner -> account -> its waiters. Both levels are served in rotation.
        self._waiting: dict[str, dict[str, deque[asyncio.Future[None]]]] = {}
        self._holds: ContextVar[bool] = ContextVar("holds_turn", default=False)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Inside a turn of the same lane this does nothing."""
        if self._holds.get():
            yield
            return
        party = await self.take()
        token = self._holds.set(True)
        try:
            yield
        finally:
            self._holds.reset(token)
            self.give_back(party)

    async def take(self) -> Party:
        """Wait for a turn of the party of this context. Return the party, for `give_back`."""
        party = _party.get()
        if self._may_enter(party) and party.account not in self._waiting.get(party.owner, {}):
            self._count(party)
            return party
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(party.owner, {}).setdefault(party.account, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give_back(party)
            raise
        return party

    def give_back(self, party: Party) -> None:
        """End a turn: the next ones begin."""
        self._free += 1
        for counts, name in ((self._owners, party.owner), (self._accounts, party.account)):
            counts[name] -= 1
            if not counts[name]:
                del counts[name]
        while self._free and (waiter := self._next()) is not None:
            waiter.set_result(None)

    def _may_enter(self, party: Party) -> bool:
        fits = not party.account or self._accounts[party.account] < self._per_account
        return fits and self._owners[party.owner] < self._free

    def _count(self, party: Party) -> None:
        self._free -= 1
        self._owners[party.owner] += 1
        self._accounts[party.account] += 1

    def _next(self) -> "asyncio.Future[None] | None":
        """Remove and return the waiter whose turn it is, and count its turn."""
        for owner in sorted(self._waiting, key=lambda name: self._owners[name]):
            accounts = self._waiting[owner]
            for account in list(accounts):
                waiters = accounts[account]
                while waiters and waiters[0].done():  # cancelled
                    waiters.popleft()
                party = Party(owner, account)
                waiter = waiters.popleft() if waiters and self._may_enter(party) else None
                if waiter is not None:
                    accounts[account] = accounts.pop(account)
                    self._count(party)
                if not waiters:
                    del accounts[account]
                if waiter is not None:
                    self._rotate(owner)
                    return waiter
            if not accounts:
                del self._waiting[owner]
        return None

    def _rotate(self, owner: str) -> None:
        accounts = self._waiting.pop(owner)
        if accounts:
            self._waiting[owner] = accounts


# Calls to upstream without a proxy share the connections of one transport. A call through a proxy has connections of
# its own, but needs sockets and memory.
CALLS, PROXIED_CALLS = Lane(128, per_account=48), Lane(256, per_account=16)
# Calls that answer with their results after minutes. They need no thread, only a connection.
LONG_CALLS = Lane(256, per_account=128)
# Files on their way to upstream.
UPLOADS = Lane(32, per_account=8)
# Links of callers, and results.
REFERENCES, RESULTS = Lane(32), Lane(40)
# Look-ups of host names that callers chose: each needs a thread, which only its name server can free.
NAMES = Lane(48)


def of_calls(*, proxied: bool) -> Lane:
    """Return the lane of a call to upstream."""
    return PROXIED_CALLS if proxied else CALLS
