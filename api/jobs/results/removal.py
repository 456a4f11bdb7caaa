"""Delete the bytes of files whose rows say that they are removed, outside of any transaction."""

import contextlib
import time
from collections.abc import Iterable
from typing import Any

from worker import storage
from worker.db.engine import transaction
from worker.db.jobs import files

# A slow storage does not hold up the answer: the clean-up deletes the rest.
_MAX_SECONDS = 10.0


def erase_files(rows: Iterable[Any]) -> None:
    """Delete the bytes of these files (`id`, `key`). What a crash or a failing storage leaves, the clean-up deletes."""
    erased, until = [], time.monotonic() + _MAX_SECONDS
    with contextlib.suppress(storage.StorageError):
        for row in rows:
            storage.delete_file(row.key)
            erased.append(row.id)
            if time.monotonic() > until:
                break
    if erased:
        with transaction() as tx:
            files.mark_removed(tx, erased)
