"""Works on items side by side on the event loop, few of each owner, so that one owner's stalling proxies do not
delay the items of others.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from worker.core.concurrency.event_loop import in_thread, log_error, spawn
from worker.core.concurrency.lanes import acting_for
from worker.core.concurrency.shutdown import stopping

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# Gets the shares that have enough work in progress, and how many items of each share were claimed before. Returns an
# item and its share.
Claim = Callable[[Sequence[str], Mapping[str, int]], tuple[Item, str] | None]

MOST_AT_ONCE = 16
MOST_PER_SHARE = 3


async def work_in_shares(
    claim: Claim[Item], work: Callable[[Item], Coroutine[Any, Any, Outcome]], *, until: float, most: int
) -> list[Outcome]:
    """Claim items while there are any, at most `most` and until the monotonic time `until`. Return their outcomes.

    After an error the work in progress is completed and the error is raised; errors after it are logged.
    """
    running: dict[asyncio.Task[Outcome], str] = {}
    taken: Counter[str] = Counter()
    outcomes: list[Outcome] = []
    errors: list[BaseException] = []
    while True:
        while _may_claim(running, taken, most, until) and not errors:
            busy = [share for share, number in Counter(running.values()).items() if number >= MOST_PER_SHARE]
            try:
                claimed = await in_thread(claim, busy, taken)
            except Exception as error:  # noqa: BLE001 - raised below, after what is in progress
                errors.append(error)
                break
            if claimed is None:
                break
            item, share = claimed
            taken[share] += 1
            with acting_for(share):
                running[spawn(work(item))] = share
        if not running:
            break
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del running[task]
            failure = task.exception()
            if failure is None:
                outcomes.append(task.result())
            else:
                errors.append(failure)
    for another in errors[1:]:
        log_error(another)
    if errors:
        raise errors[0]
    return outcomes


def _may_claim(running: Mapping[Any, str], taken: Counter[str], most: int, until: float) -> bool:
    in_time = time.monotonic() < until and not stopping.requested
    return in_time and len(running) < MOST_AT_ONCE and taken.total() < most
