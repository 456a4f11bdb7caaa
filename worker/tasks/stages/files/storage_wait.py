"""What this process knows about a storage that takes no results. Part of save.

A result that could not be stored waits and is tried again. Until one is stored, each try first asks whether there is
room, once for all jobs of the process: nothing is downloaded in vain. All processes see the problem in the database,
and the first stored result wakes the jobs that wait.
"""

import io
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, cast
from urllib.parse import parse_qs, urlsplit

from worker import storage
from worker.core.observability.logging import get_logger
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.db.jobs import progress_and_leases
from worker.db.platform import state as platform_state
from worker.tasks.stages.fail_job import announce
from worker.tasks.stages.lease_renewal import RenewingFile

log = get_logger("storage_wait")

# Growing pauses. The last is short, because a try that only asks for room is cheap.
_PAUSES = (1.0, 3.0, 10.0, 30.0, 60.0)
# For so long, an answer counts for the other jobs of this process, and a report to the database.
_ANSWER_SECONDS = 2.0
# Larger files are stored in parts.
_ONE_PIECE_BYTES = 4 * 1024 * 1024


class _Knowledge:
    def __init__(self) -> None:
        self.problem: storage.StorageError | None = None  # why the last result could not be stored
        self.blocked = False  # whether there was no room when this process last asked
        self.needed = 0  # size of the largest result that found no room
        self.asked_at = self.reported_at = float("-inf")
        self.asking = threading.Lock()


_known = _Knowledge()


def is_in_doubt() -> bool:
    """Whether the last result could not be stored, so that `check` may make a request."""
    return _known.problem is not None


def check() -> None:
    """Raise StorageError if results could not be stored and still cannot. Makes a request at most every few seconds."""
    known, problem = _known, _known.problem
    if problem is None:
        return
    # Who asks may wait for seconds; the others go by what was known before.
    if time.monotonic() - known.asked_at >= _ANSWER_SECONDS and known.asking.acquire(blocking=False):
        try:
            storage.check_room(known.needed)
            known.blocked = False
        except storage.StorageError as error:
            problem, known.blocked = error, True
        finally:
            known.asked_at = time.monotonic()
            known.asking.release()
    if known.blocked:
        raise storage.StorageError(problem.reason, problem.problem)


def put_file(key: str, content: IO[bytes], size: int, *, renew: Callable[[], object]) -> None:
    """Store a result of `size` bytes and remember whether that works. Raises StorageError."""
    try:
        if isinstance(content, io.BytesIO) and size <= _ONE_PIECE_BYTES:
            # One request, which has a time limit of its own.
            storage.put_bytes(key, content.getvalue())
        else:
            storage.put_file(key, cast("IO[bytes]", RenewingFile(content, renew)))
    except storage.StorageError as error:
        _not_stored(error, size)
        raise
    _stored(size)


def temporary_files_error(error: OSError) -> storage.StorageError:
    """Return the error of a full disk of temporary files as that of a storage. Raises any other error again."""
    if storage.problem_of(error) not in {"full", "read_only"}:
        raise error
    reason = f"the worker has no room for temporary files in {tempfile.gettempdir()}"
    return storage.StorageError(reason, "temporary_files")


def _not_stored(error: storage.StorageError, size: int) -> None:
    _known.needed = max(_known.needed, size) if error.problem == "full" else 0
    _known.problem, _known.blocked = error, True


def _stored(size: int) -> None:
    """Wake the jobs that wait, if that a result of `size` bytes was stored ends the problem."""
    problem = _known.problem
    if problem is None:
        return
    if problem.problem == "full" and size < _known.needed:
        free = storage.free_bytes()
        if free is None or free < _known.needed:
            return
    _known.problem, _known.blocked, _known.needed = None, False, 0
    _known.reported_at = float("-inf")
    log.info("storage_works_again", woken=_wake(), place=storage.describe_location())


@retry_when_database_unavailable
def _wake() -> int:
    with transaction() as tx:
        platform_state.delete(tx, "storage_problem")
        return progress_and_leases.wake_deferred_saves(tx)


def pause(tries: int) -> float:
    """Return the seconds until the next try."""
    return _PAUSES[min(tries, len(_PAUSES)) - 1]


def have_links_ended(refs: Sequence[dict[str, Any]], now: float) -> bool:
    """Return whether a link says that it has expired (`x-expires`, unix seconds)."""
    ends = [end for ref in refs for end in parse_qs(urlsplit(ref["url"]).query).get("x-expires", [])]
    return any(end.isdecimal() and int(end) <= now for end in ends)


@retry_when_database_unavailable
def wait(
    claim: Row[Any],
    error: storage.StorageError,
    *,
    delay: float,
    more_seconds: float,
    refs: list[dict[str, Any]] | None,
) -> None:
    """Let the job wait for the storage; see `progress_and_leases.wait_for_storage`."""
    reports = time.monotonic() - _known.reported_at >= _ANSWER_SECONDS
    problem = platform_state.StorageProblem(error.problem, storage.describe_location(), error.reason)
    with transaction() as tx:
        row = progress_and_leases.wait_for_storage(
            tx,
            job_id=claim.id,
            save_tries=claim.save_tries,
            delay=delay,
            more_seconds=more_seconds,
            refs=refs,
            problem=error.problem,
            detail=error.reason,
        )
        if row is not None:
            announce(tx, row)
        if reports:
            platform_state.set_storage_problem(tx, problem)
    if reports:
        _known.reported_at = time.monotonic()
    log.warning("result_waits_for_storage", job_id=str(claim.id), reason=error.reason, seconds=delay)
