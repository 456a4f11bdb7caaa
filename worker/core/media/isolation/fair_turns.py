"""Decides whose file is read next: few at a time, owners in turn, and for no owner more than its share of the places.

Callers with session ids are one group, which has the share of one owner: a session id can be invented, so many of them
may be one caller. Threads and coroutines wait in the same line: both wait for the future of their turn.
"""

import threading
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field

_SESSIONS = "tokens:"  # how the owner of a caller with session ids begins


def group_of(owner: str) -> str:
    """Return who shares a share: a user alone, callers with session ids together."""
    return _SESSIONS if owner.startswith(_SESSIONS) else owner


@dataclass(eq=False, slots=True)
class Turn:
    """A place in the line. `ready` gets its result when the turn has come; `weight` = the places that it takes."""

    owner: str
    weight: int
    ready: "Future[None]" = field(default_factory=Future)


class FairTurns:
    """Places for files that are read at the same time. Thread-safe."""

    def __init__(self, places: int, places_per_owner: int) -> None:
        self._places, self._places_per_owner = places, places_per_owner
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._groups: Counter[str] = Counter()  # places that groups hold
        self._waiting: dict[str, deque[Turn]] = {}
        # When an owner that runs or waits got its last place, as a number that grows; and the group of one.
        self._served: dict[str, int] = {}
        self._group_served: dict[str, int] = {}
        self._turns_given = 0

    def enter(self, owner: str, weight: int) -> Turn:
        """Join the line. Every turn must be given to `leave` in the end, whether it has come or not."""
        turn = Turn(owner, min(weight, self._places_per_owner))
        with self._lock:
            self._waiting.setdefault(owner, deque()).append(turn)
            self._admit()
        return turn

    def leave(self, turn: Turn) -> None:
        """Give the places back, or leave the line."""
        with self._lock:
            line = self._waiting.get(turn.owner)
            if line is not None and turn in line:
                line.remove(turn)
                if not line:
                    del self._waiting[turn.owner]
            elif turn.ready.done():
                for held, name in ((self._running, turn.owner), (self._groups, group_of(turn.owner))):
                    held[name] -= turn.weight
                    if held[name] <= 0:
                        del held[name]
            self._admit()
            if turn.owner not in self._running and turn.owner not in self._waiting:
                self._served.pop(turn.owner, None)
            group = group_of(turn.owner)
            if group not in self._groups and not any(group_of(owner) == group for owner in self._waiting):
                self._group_served.pop(group, None)

    def waiting(self) -> int:
        """Return the number of turns that have not come yet."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def _admit(self) -> None:
        while (turn := self._next()) is not None:
            line = self._waiting[turn.owner]
            line.popleft()
            if not line:
                del self._waiting[turn.owner]
            self._running[turn.owner] += turn.weight
            self._groups[group_of(turn.owner)] += turn.weight
            self._turns_given += 1
            self._served[turn.owner] = self._group_served[group_of(turn.owner)] = self._turns_given
            turn.ready.set_result(None)

    def _next(self) -> Turn | None:
        """Return the next turn: that of the group, and in it of the owner, who has least and waited longest for it.

        None if it does not fit yet: nobody may pass it.
        """
        free = self._places - self._running.total()
        for owner in sorted(self._waiting, key=self._rank):
            line = self._waiting[owner]
            # A group holds at least what each of its owners holds.
            if self._groups[group_of(owner)] + line[0].weight <= self._places_per_owner:
                return line[0] if line[0].weight <= free else None
        return None

    def _rank(self, owner: str) -> tuple[int, int, int, int]:
        group = group_of(owner)
        served = self._group_served.get(group, 0), self._served.get(owner, 0)
        return self._groups[group], served[0], self._running[owner], served[1]
