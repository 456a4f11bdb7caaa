"""How an upstream's open orders are asked for. The defaults are those of an upstream that finds orders by our key."""

from dataclasses import dataclass

from worker.core.polling import SparsePolling


@dataclass(frozen=True, slots=True)
class PollRules:
    """Rules of one upstream. Times in seconds."""

    sparse: SparsePolling | None = None  # instead of the times that `core.polling` computes
    # Between two lists for one customer (`Account.list_turn`); 0 = there is no such limit.
    list_seconds: float = 0.0
    # When to look for an order whose answer was lost, counted from then. Empty = every poll asks for it by its key, and
    # it counts as lost after the grace period of the settings.
    look_up_after: tuple[float, ...] = ()
    # An accepted order that is absent from upstream for so long has failed, with this code.
    absent_seconds: float = 300.0
    absent_code: str = "history_unavailable"

    @property
    def needs_orders(self) -> bool:
        """Whether a poll needs the orders themselves, not only their keys."""
        return bool(self.look_up_after)
