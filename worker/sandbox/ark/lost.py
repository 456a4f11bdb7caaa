"""Random loss of answers, set through `/_ark/lost`: the work is done and charged, and the answer does not arrive."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from worker.sandbox.responses import fault_response

KINDS = ("creates", "images", "lists", "gets")
_HOW = ("reset", "empty", "html", "500")


@dataclass
class LostAnswers:
    """The share of answers that are lost, by kind of call, and of calls that fail before they have an effect.

    `late` = an answer may take up to so many seconds. It has its own generator, so a seed repeats a run.
    """

    shares: dict[str, float] = field(default_factory=dict)
    before: float = 0.0
    late: float = 0.0
    how: tuple[str, ...] = _HOW
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    @staticmethod
    def parse(body: dict[str, Any]) -> "LostAnswers":
        """Read the settings of a control call. Raises ValueError."""
        unknown = set(body) - {*KINDS, "before", "late", "how", "seed"}
        how = body.get("how", list(_HOW))
        if unknown or not isinstance(how, list) or not how or not set(how) <= set(_HOW):
            raise ValueError(f"known are {', '.join(KINDS)}, before, late, seed and how (of {', '.join(_HOW)})")
        return LostAnswers(
            shares={kind: float(body.get(kind) or 0.0) for kind in KINDS},
            before=float(body.get("before") or 0.0),
            late=float(body.get("late") or 0.0),
            how=tuple(how),
            rng=random.Random(int(body.get("seed", 1))),
        )

    def fails_before(self) -> str:
        """Return the fault of a call that has no effect; "" = none."""
        return self.rng.choice(self.how) if self.before and self.rng.random() < self.before else ""

    def loses(self, kind: str) -> str:
        """Return how the answer of this call is lost; "" = it arrives."""
        share = self.shares.get(kind, 0.0)
        return self.rng.choice(self.how) if share and self.rng.random() < share else ""

    async def deliver(self, kind: str, response: Response) -> tuple[Response, bool]:
        """Return the answer, or what arrives instead, and whether it was lost."""
        if self.late:
            await asyncio.sleep(self.rng.uniform(0.0, self.late))
        how = self.loses(kind)
        return (fault_response(how), True) if how else (response, False)
