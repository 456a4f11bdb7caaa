"""Decides whose file is read next: few at a time, owners in turn, and for no owner more than its share of the places.

Threads and coroutines wait in the same line: both wait for the future of their turn.
"""

import threading
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field


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
        self._waiting: dict[str, deque[Turn]] = {}
        # When an owner that runs or waits got its last place, as a number that grows.
        self._served: dict[str, int] = {}
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
                self._running[turn.owner] -= turn.weight
                if self._running[turn.owner] <= 0:
                    del self._running[turn.owner]
            self._admit()
            if turn.owner not in self._running and turn.owner not in self._waiting:
                self._served.pop(turn.owner, None)

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
            self._turns_given += 1
            self._served[turn.owner] = self._turns_given
            turn.ready.set_result(None)

    def _next(self) -> Turn | None:
        """Return the next turn: that of the owner who has least, and waited longest for it, if it may have more.

        None if it does not fit yet: nobody may pass it.
        """
        free = self._places - self._running.total()
        order = sorted(self._waiting, key=lambda owner: (self._running[owner], self._served.get(owner, 0)))
        for owner in order:
            line = self._waiting[owner]
            if self._running[owner] + line[0].weight <= self._places_per_owner:
                return line[0] if line[0].weight <= free else None
        return None
