"""A worker whose master key is wrong: it gives its jobs back and ends. Its start then says why.

The key is checked at the start (`worker/db/platform/startup.py`). It becomes wrong later when `rotate-master-key` ran
with a key that this worker does not have.
"""

import os
import signal
import threading

from worker.core.observability.logging import get_logger
from worker.db.platform import root_key

log = get_logger("worker_keys")

REASON = "a worker lacks the key of this account"
_stopping = threading.Event()


def stop_if_wrong(*, account: str) -> bool:
    """After a secret of `account` could not be decrypted: whether none can. Then this worker takes no more jobs."""
    if root_key.matches_database():
        # Only this secret has another key; `dreamery doctor` counts those.
        log.error("secret_locked", account=account, remedy="append its key to DREAMERY_MASTER_KEY of every worker")
        return False
    if not _stopping.is_set():
        _stopping.set()
        log.error("master_key_wrong", reason=root_key.WRONG_KEY)
        # A warm shutdown: running tasks are completed, and no further message is consumed.
        os.kill(os.getpid(), signal.SIGTERM)
    return True
