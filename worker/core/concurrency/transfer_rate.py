"""The lowest rate of a transfer: who sends or takes a byte now and then does not hold it for long."""

import time
from collections import deque

# The rate is that of the last so many seconds, so a pause is no fault, and a trickle is found at their end.
WINDOW_SECONDS = 10.0


class SlowTransferError(Exception):
    """The transfer is slower than allowed."""


class TransferRate:
    """Measures one transfer. Call `add` for each piece, and also when nothing arrived in a while."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._window = WINDOW_SECONDS
        self._pieces: deque[tuple[float, int]] = deque()
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, size: int) -> None:
        """Count a piece. Raises SlowTransferError if the last seconds brought too few bytes."""
        now = time.monotonic()
        self._pieces.append((now, size))
        self._bytes += size
        while self._pieces[0][0] <= now - self._window:
            self._bytes -= self._pieces.popleft()[1]
        if now - self._since >= self._window and self._bytes < self._least * self._window:
            raise SlowTransferError(
                f"fewer than {self._least} bytes per second arrived in the last {self._window:.0f} seconds"
            )
