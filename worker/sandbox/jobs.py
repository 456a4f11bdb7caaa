"""A generation job and its status at a given time."""

import math
from dataclasses import dataclass, field

from worker.sandbox.accounts import Account
from worker.sandbox.requests.order import Order
from worker.sandbox.scripts import Script

QUEUE_POSITION_SECONDS = 0.5
# In recorded runs about the last third has status 45 with an empty list.
_EARLY_SHARE = 0.6
_EARLY_ITEMS_SECONDS = 0.6
_FIRST_HISTORY = 9_000_000_000_000
_FIRST_ITEM = 7_600_000_000_000_000_000
_ITEMS_PER_JOB = 10


def history_of_item(item_id: str) -> str:
    """Return the history id of the job that an item belongs to, or an empty string for an invalid item id."""
    if not item_id.isascii() or not item_id.isdigit() or len(item_id) != len(str(_FIRST_ITEM)):
        return ""
    return str(_FIRST_HISTORY + (int(item_id) - _FIRST_ITEM) // _ITEMS_PER_JOB)


@dataclass
class Job:
    account: Account
    order: Order
    script: Script
    number: int
    accepted_at: float
    start_at: float
    finish_at: float
    generate_id: str
    # Every third job shows its items for a moment while its status is still 45.
    shows_items_early: bool = False
    polls: int = field(default=0)

    @property
    def history_id(self) -> str:
        return str(_FIRST_HISTORY + self.number)

    def item_id(self, index: int) -> str:
        return str(_FIRST_ITEM + self.number * _ITEMS_PER_JOB + index)

    @property
    def result_count(self) -> int:
        partial = self.script.partial
        return self.order.count if partial is None else min(partial, self.order.count)

    def is_hidden_from_poll(self) -> bool:
        """Count a poll for this job. Returns true as long as its script hides it."""
        self.polls += 1
        return self.polls <= self.script.absent

    def status(self, now: float) -> int:
        if now < self.start_at:
            return 20
        if now < self.finish_at:
            share = (now - self.start_at) / (self.finish_at - self.start_at)
            return 42 if math.isinf(self.finish_at) or share < _EARLY_SHARE else 45
        if self.script.ending == "50" and self.shows_items_early and now < self.finish_at + _EARLY_ITEMS_SECONDS:
            return 45
        return int(self.script.ending)
