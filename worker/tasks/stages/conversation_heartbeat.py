"""Renews the leases of the conversations that this process runs, also while their streams are silent.

Part of the converse task. One thread and one statement renew all leases. If the process dies or hangs, its
conversations are found within one lease.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, transaction
from worker.db.jobs import conversations

log = get_logger("conversation_heartbeat")

_RENEWALS_PER_LEASE = 6


class ConversationHeartbeat:
    """Keeps the leases of all open conversations of this process."""

    def __init__(self) -> None:
        self._attempts: dict[UUID, int] = {}
        self._lock = threading.Lock()
        self._any_open = threading.Event()
        self._added = threading.Event()
        self._started = False

    @contextmanager
    def keep_lease(self, job_id: UUID, attempt: int) -> Iterator[None]:
        """Renew the lease of this conversation until the block ends."""
        with self._lock:
            self._attempts[job_id] = attempt
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="conversation-heartbeat", daemon=True).start()
        self._added.set()
        self._any_open.set()
        try:
            yield
        finally:
            with self._lock:
                self._attempts.pop(job_id, None)
                if not self._attempts:
                    self._any_open.clear()

    def _run(self) -> None:
        while self._any_open.wait():
            # A new conversation is renewed at once, not after a pause that began before it.
            self._added.wait(get_settings().conversation_lease_seconds / _RENEWALS_PER_LEASE)
            self._added.clear()
            with self._lock:
                attempts = dict(self._attempts)
            if not attempts:
                continue
            try:
                with transaction() as tx:
                    conversations.renew_leases(tx, attempts)
            except DATABASE_UNAVAILABLE_ERRORS as error:
                log.warning("pulse_missed", conversations=len(attempts), reason=type(error).__name__)
            except BaseException as error:  # noqa: BLE001 - without this thread every conversation would be lost
                fault = UnexpectedError(error)
                log.error("pulse_missed", conversations=len(attempts), reason=fault.detail, trace=fault.frames)  # noqa: TRY400


heartbeat = ConversationHeartbeat()
