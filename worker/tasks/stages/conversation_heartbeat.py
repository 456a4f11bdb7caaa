"""The pulse of conversations: while a process holds their streams it renews their leases, also in silence.

Part of the converse step. One thread and one statement for all; a process that dies or stands still is missed within
one lease.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.engine import AWAY_ERRORS, transaction
from worker.db.jobs import conversations

log = get_logger("pulse")

_BEATS_PER_LEASE = 6


class Pulse:
    """Knows which conversations this process holds."""

    def __init__(self) -> None:
        self._held: dict[UUID, int] = {}
        self._lock = threading.Lock()
        self._began = threading.Event()
        self._newcomer = threading.Event()
        self._started = False

    @contextmanager
    def holding(self, job_id: UUID, attempt: int) -> Iterator[None]:
        """Show life for this conversation until the block ends."""
        with self._lock:
            self._held[job_id] = attempt
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="pulse", daemon=True).start()
        self._newcomer.set()
        self._began.set()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(job_id, None)
                if not self._held:
                    self._began.clear()

    def _run(self) -> None:
        while self._began.wait():
            # A newcomer need not wait out a pause that began before it.
            self._newcomer.wait(get_settings().talk_lease_seconds / _BEATS_PER_LEASE)
            self._newcomer.clear()
            with self._lock:
                held = dict(self._held)
            if not held:
                continue
            try:
                with transaction() as tx:
                    conversations.show_life(tx, held)
            except AWAY_ERRORS as error:
                log.warning("pulse_missed", conversations=len(held), reason=type(error).__name__)


pulse = Pulse()
