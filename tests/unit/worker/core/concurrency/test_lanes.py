"""Fair shares of a lane: by owner, by account, in rotation, and after cancelled waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from worker.core.concurrency.lanes import Lane, Party, acting_for, acting_owner


class Visits:
    """Tasks that take a turn and hold it until the test lets them leave."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.inside: list[Party] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.leave: dict[asyncio.Task[None], asyncio.Event] = {}

    async def start(self, owner: str, number: int = 1, account: str = "") -> list[asyncio.Task[None]]:
        """Start so many visits of this owner, and let them come as far as they can."""
        with acting_for(owner, account):
            started = [asyncio.create_task(self._visit()) for _ in range(number)]
        self.tasks += started
        await settle()
        return started

    async def _visit(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        over = self.leave[task] = asyncio.Event()
        async with self.lane.turn():
            party = Party(acting_owner(), "")
            self.inside.append(party)
            await over.wait()
            self.inside.remove(party)

    def count(self, owner: str) -> int:
        return self.inside.count(Party(owner, ""))

    async def end_all(self) -> None:
        async with asyncio.timeout(10):
            while not all(task.done() for task in self.tasks):
                for over in self.leave.values():
                    over.set()
                await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_one_owner_gets_half_of_an_idle_lane_and_the_next_one_the_same_share_of_the_rest() -> None:
    async def check() -> None:
        visits = Visits(Lane(16))
        await visits.start("anna", 100)
        assert visits.count("anna") == 8
        await visits.start("ben", 100)
        assert visits.count("ben") == 4
        await visits.start("cleo", 1)
        assert visits.count("cleo") == 1, "there is always room for somebody new"
        await visits.end_all()

    run(check())


def test_an_account_gets_no_more_than_its_number() -> None:
    async def check() -> None:
        visits = Visits(Lane(16, per_account=2))
        await visits.start("anna", 10, account="first")
        assert visits.count("anna") == 2
        await visits.start("anna", 10, account="second")
        assert visits.count("anna") == 4, "the account that waits does not hold up the other one"
        await visits.end_all()

    run(check())


def test_a_free_turn_goes_to_the_owner_with_the_fewest() -> None:
    async def check() -> None:
        lane = Lane(4)
        visits = Visits(lane)
        held = [await visits.start(owner) for owner in ("anna", "anna", "ben", "cleo")]
        await visits.start("anna", 5)
        await visits.start("dora", 1)
        assert (visits.count("anna"), visits.count("dora")) == (2, 0)
        visits.leave[held[3][0]].set()
        await settle()
        assert (visits.count("anna"), visits.count("dora"), visits.count("cleo")) == (2, 1, 0)
        await visits.end_all()

    run(check())


def test_every_waiting_visit_gets_its_turn() -> None:
    async def check() -> None:
        lane = Lane(4, per_account=1)
        done: list[str] = []

        async def visit() -> None:
            async with lane.turn():
                await asyncio.sleep(0)
                done.append(acting_owner())

        tasks = []
        for n in range(200):
            with acting_for(f"owner{n % 7}", f"account{n % 13}"):
                tasks.append(asyncio.create_task(visit()))
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        assert len(done) == 200
        assert (lane._free, lane._owners, lane._accounts, lane._waiting) == (4, {}, {}, {})

    run(check())


def test_cancelled_waits_leave_no_trace() -> None:
    async def check() -> None:
        lane = Lane(2)
        visits = Visits(lane)
        [first] = await visits.start("anna")
        waiting = await visits.start("anna", 3)
        waiting[0].cancel()
        await settle()
        # Cancelled in the moment in which it gets its turn.
        visits.leave[first].set()
        await asyncio.sleep(0)
        waiting[1].cancel()
        await settle()
        assert visits.count("anna") == 1
        await visits.end_all()
        assert (lane._free, lane._owners, lane._waiting) == (2, {}, {})

    run(check())


def test_a_turn_within_a_turn_is_the_same() -> None:
    async def check() -> None:
        lane = Lane(1)
        async with asyncio.timeout(5), lane.turn(), lane.turn():
            assert lane._free == 0
        assert lane._free == 1

    run(check())


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_small_lane_has_room_for_one_owner(turns: int) -> None:
    async def check() -> None:
        visits = Visits(Lane(turns))
        await visits.start("anna")
        assert visits.count("anna") == 1
        await visits.end_all()

    run(check())
