"""The fair queue: shares by weight, new users, priorities, order of an owner's jobs, and state only in rows."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.scheduling.test_claim import run_in_threads
from tests.support import factories
from tests.support.engine import Engine
from worker.db.accounts import management
from worker.db.accounts.accounts import PresentedToken
from worker.db.engine import transaction
from worker.db.jobs import claims, queries, state_machine
from worker.db.scheduling import fair_queue
from worker.db.users import users
from worker.tasks import dispatch

pytestmark = pytest.mark.usefixtures("each_provider")


def user(name: str, *, weight: float = 1.0, priority: int = 0) -> UUID:
    with transaction() as tx:
        row = users.add_user(tx, name=name, role="member", weight=weight, priority=priority)
    assert row is not None
    user_id: UUID = row.id
    return user_id


def add_jobs(
    user_id: UUID | None, number: int = 1, *, accounts: list[UUID] | None = None, **changes: Any
) -> list[UUID]:
    """Accept one request for a number of jobs, of a user (pool) or of session ids (`owner`)."""
    identity = {"owner": f"user:{user_id}", "user_id": user_id} if user_id else {}
    made = [factories.new_job(accounts or [], **{**identity, **changes}) for _ in range(number)]
    with transaction() as tx:
        state_machine.accept(tx, made)
    return [job.id for job in made]


class PoolQueue:
    """A pool account without limits, and the jobs claimed on it, in order."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.account = engine.add_account(pool=True, max_images=10_000, max_videos=10_000, submits_per_minute=10**9)
        self.order: list[UUID] = []
        self.owners: dict[str, str] = {}

    def claim(self, number: int = 1) -> list[str]:
        """Claim the next jobs and return their owners."""
        taken = []
        for _ in range(number):
            with transaction() as tx:
                got = claims.claim_next(tx, account_id=self.account)
            if got is None:
                break
            self.order.append(got.id)
            taken.append(str(got.id))
        rows = self.engine.sql("SELECT id, owner FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]))", ids=taken)
        self.owners |= {str(row.id): row.owner for row in rows}
        return [self.owners[one] for one in taken]


@pytest.fixture
def queue(engine: Engine) -> PoolQueue:
    return PoolQueue(engine)


def owner(user_id: UUID) -> str:
    return f"user:{user_id}"


def test_shares_match_the_weights_within_ten_percent(queue: PoolQueue) -> None:
    """Three users of weights 3, 2 and 1 with 500, 200 and 50 jobs; measured while all of them wait."""
    ann, ben, cleo = user("ann", weight=3), user("ben", weight=2), user("cleo", weight=1)
    for user_id, number in ((ann, 500), (ben, 200), (cleo, 50)):
        add_jobs(user_id, number)
    taken = queue.claim(240)
    for start in (0, 120):
        counts = Counter(taken[start : start + 120])
        for user_id, weight in ((ann, 3), (ben, 2), (cleo, 1)):
            assert counts[owner(user_id)] == pytest.approx(20 * weight, rel=0.1)


@pytest.mark.parametrize("weight", [0.1, 1, 10])
def test_new_user_waits_only_for_running_jobs(queue: PoolQueue, weight: float) -> None:
    ann, ben, new = user("ann", weight=3), user("ben"), user("new", weight=weight)
    add_jobs(ann, 500)
    add_jobs(ben, 100)
    queue.claim(61)
    add_jobs(new, 3)
    assert queue.claim(1) == [owner(new)]
    # Of two new owners the first one is served first, and the batches continue after them.
    add_jobs(None, owner="tokens:early", accounts=[queue.account])
    add_jobs(user("late"))
    assert queue.claim(2) == ["tokens:early", owner(user_id_of("late"))]
    assert owner(ann) in queue.claim(20)


def user_id_of(name: str) -> UUID:
    with transaction() as tx:
        row = users.find_user(tx, name=name)
    assert row is not None
    user_id: UUID = row.id
    return user_id


def test_idle_user_does_not_accumulate_credit(queue: PoolQueue) -> None:
    ann, ben = user("ann"), user("ben")
    add_jobs(ben, 2)
    add_jobs(ann, 200)
    queue.claim(102)  # ben has had no waiting job for a hundred turns
    add_jobs(ben, 60)
    counts = Counter(queue.claim(60))
    assert counts[owner(ben)] == pytest.approx(30, abs=2)


def test_jobs_sent_one_by_one_get_no_more_than_a_batch(queue: PoolQueue) -> None:
    """Ten users who send their next job after each claim must not reduce the share of a batch."""
    batch = user("batch")
    eager = [user(f"eager{n}") for n in range(10)]
    add_jobs(batch, 100)
    for user_id in eager:
        add_jobs(user_id)
    counts: Counter[str] = Counter()
    for _ in range(110):
        [taken] = queue.claim(1)
        counts[taken] += 1
        if taken != owner(batch):
            add_jobs(UUID(taken.removeprefix("user:")))
    assert counts[owner(batch)] == pytest.approx(10, abs=1)
    assert all(counts[owner(user_id)] == pytest.approx(10, abs=1) for user_id in eager)


def test_jobs_of_an_owner_keep_their_order_per_kind(queue: PoolQueue) -> None:
    ann, ben = user("ann", weight=2.5), user("ben")
    jobs_by_kind: dict[tuple[UUID, str], list[UUID]] = {}
    dice = random.Random(4)
    for _ in range(40):
        user_id, kind = dice.choice([ann, ben]), dice.choice(["image", "video"])
        jobs_by_kind.setdefault((user_id, kind), []).extend(add_jobs(user_id, dice.randint(1, 3), kind=kind))
    queue.claim(200)
    for jobs_of_one in jobs_by_kind.values():
        place = [queue.order.index(one) for one in jobs_of_one]
        assert place == sorted(place)


def test_slow_pace_serves_every_kind(queue: PoolQueue) -> None:
    """Images that are older than all videos get every second submit, not all of them."""
    ann, ben = user("ann"), user("ben")
    add_jobs(ann, 30)
    add_jobs(ben, 10, kind="video")
    counts = Counter(queue.claim(20))
    assert counts[owner(ben)] == 10


def test_priority_is_a_limited_head_start(queue: PoolQueue) -> None:
    usual, urgent, patient = user("usual"), user("urgent", priority=1), user("patient", priority=-1)
    add_jobs(patient, 10)
    add_jobs(usual, 100)
    queue.claim(5)
    add_jobs(urgent, 60)
    assert set(queue.claim(20)) == {owner(urgent)}, "a head start of twenty turns"
    after = Counter(queue.claim(20))
    assert after[owner(usual)] == pytest.approx(10, abs=1)
    taken = queue.claim(60)
    assert owner(patient) in taken, "a waiting job is overtaken by a limited number of jobs"
    assert taken.index(owner(patient)) > 5


@pytest.mark.parametrize("others", [1, 4])
def test_low_priority_job_does_not_starve(queue: PoolQueue, others: int) -> None:
    patient = user("patient", priority=-2)
    busy = [user(f"busy{n}") for n in range(others)]
    for user_id in busy:
        add_jobs(user_id, 5)
    queue.claim(2)
    add_jobs(patient)
    for n in range(60 * others):
        if owner(patient) in queue.claim(1):
            break
        add_jobs(busy[n % others])
    else:
        pytest.fail("it starved")
    assert n <= 41 * others + 5 * others


def test_cancelling_a_queued_job_releases_its_position(queue: PoolQueue) -> None:
    ann, ben = user("ann"), user("ben")
    add_jobs(ben, 50)
    batch = add_jobs(ann, 50)
    queue.claim(10)
    with transaction() as tx:
        for job in batch:
            state_machine.cancel(tx, job)
    add_jobs(ann, 1)
    assert owner(ann) in queue.claim(2)


def test_requeued_job_keeps_its_position(queue: PoolQueue) -> None:
    ann, ben = user("ann"), user("ben")
    add_jobs(ann, 20)
    add_jobs(ben, 20)
    queue.claim(1)
    first = queue.order[0]
    queue.claim(10)
    row = queue.engine.job_row(first)
    with transaction() as tx:
        assert state_machine.requeue(tx, job_id=first, attempt=row.attempt, actor="test", reason="x", delay=0)
    queue.claim(1)
    assert queue.order[-1] == first
    assert queue.engine.job_row(first).turn == row.turn


def test_concurrent_requests_get_distinct_positions(queue: PoolQueue) -> None:
    """Otherwise a caller with a hundred connections would get a hundred first positions."""
    queue.engine.configure(DB_POOL_SIZE="16")
    ann = user("ann", weight=2)
    run_in_threads(12, lambda _n: [add_jobs(ann, 2) for _ in range(3)])
    rows = queue.engine.sql("SELECT turn FROM jobs ORDER BY turn")
    gaps = {round(b.turn - a.turn, 6) for a, b in pairwise(rows)}
    assert (len(rows), gaps) == (72, {0.5})


def test_new_weight_applies_to_queued_jobs(queue: PoolQueue) -> None:
    ann, ben = user("ann"), user("ben")
    add_jobs(ann, 100)
    add_jobs(ben, 100)
    queue.claim(10)
    with transaction() as tx:
        fair_queue.set_weight_and_priority(tx, ann, weight=4, priority=None)
    assert Counter(queue.claim(50))[owner(ann)] == pytest.approx(40, abs=2)
    with transaction() as tx:
        fair_queue.set_weight_and_priority(tx, ben, weight=None, priority=2)
    assert Counter(queue.claim(20))[owner(ben)] == 20


def test_session_id_owners_have_weight_one_and_independent_queues(queue: PoolQueue) -> None:
    private = queue.engine.add_account(max_images=1000, submits_per_minute=10**9)
    add_jobs(None, 300, owner="tokens:fast", accounts=[private])
    ann = user("ann")
    add_jobs(ann, 50)
    for _ in range(200):
        with transaction() as tx:
            claims.claim_next(tx, account_id=private)
    queue.claim(10)
    add_jobs(None, 30, owner="tokens:new", accounts=[queue.account])
    taken = queue.claim(20)
    assert taken[0] == "tokens:new"
    assert Counter(taken)["tokens:new"] == pytest.approx(10, abs=1)


def test_account_that_joins_the_pool_gives_no_owner_an_advantage(queue: PoolQueue) -> None:
    """The old accounts are removed and the new one has no history: new jobs still start at the position of the queue."""
    ann, ben = user("ann"), user("ben")
    add_jobs(ann, 100)
    queue.claim(50)
    queue.engine.sql("UPDATE accounts SET pool = false")
    queue.account = queue.engine.add_account(pool=True, max_images=1000, submits_per_minute=10**9)
    add_jobs(ben, 40)
    assert Counter(queue.claim(20))[owner(ben)] == pytest.approx(10, abs=2)


def test_reported_queue_position_is_the_order_of_claims(queue: PoolQueue) -> None:
    ann, ben, cleo = user("ann", weight=3), user("ben"), user("cleo", priority=1)
    waiting = [*add_jobs(ann, 8), *add_jobs(ben, 5), *add_jobs(cleo, 2)]
    with transaction() as tx:
        positions = {view.job.id: view.position for view in queries.group_views(tx, waiting)}
    queue.claim(15)
    assert [positions[job] for job in queue.order] == list(range(1, 16))


def claim_jobs(account_id: UUID, number: int) -> int:
    """Claim up to `number` jobs for an account; return how many it got."""
    taken = 0
    for _ in range(number):
        with transaction() as tx:
            taken += claims.claim_next(tx, account_id=account_id) is not None
    return taken


def add_unlimited_account(engine: Engine, **changes: Any) -> UUID:
    return engine.add_account(max_images=10_000, max_videos=10_000, submits_per_minute=10**9, **changes)


def test_jobs_on_own_accounts_do_not_count_in_the_pool_queue(queue: PoolQueue) -> None:
    """Ann's own account ran far more jobs than the pool. Then she uses the pool and shares it with Ben's batch."""
    ann, ben = user("ann"), user("ben")
    own = add_unlimited_account(queue.engine)
    queue.engine.sql("UPDATE accounts SET user_id = :ann WHERE id = :id", ann=ann, id=own)
    add_jobs(ben, 100)
    queue.claim(20)
    add_jobs(ann, 60)
    assert claim_jobs(own, 60) == 60
    add_jobs(ann, 20, account_choice="pool")
    taken = queue.claim(20)
    assert owner(ann) in taken[:2]
    assert Counter(taken)[owner(ann)] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("before", [True, False], ids=["already queued", "sent afterwards"])
def test_jobs_of_a_group_are_rebased_when_its_account_stops(queue: PoolQueue, *, before: bool) -> None:
    """The group's account ran many jobs. When it is blocked, the group's jobs join the queue of the other accounts."""
    ann, ben = user("ann"), user("ben")
    queue.engine.sql("UPDATE users SET groups = '{lab}' WHERE id = :id", id=ann)
    group_account = add_unlimited_account(queue.engine, pool=True)
    queue.engine.sql("UPDATE accounts SET groups = '{lab}' WHERE id = :id", id=group_account)
    add_jobs(ben, 100)
    queue.claim(5)
    add_jobs(ann, 150)
    assert claim_jobs(group_account, 130) == 130
    if not before:
        queue.engine.sql("DELETE FROM jobs WHERE state = 'queued' AND owner = :owner", owner=owner(ann))
    queue.engine.sql("UPDATE accounts SET state = 'blocked' WHERE id = :id", id=group_account)
    if not before:
        add_jobs(ann, 20)
    assert set(queue.claim(5)) == {owner(ben)}
    dispatch.sweep()
    assert Counter(queue.claim(20))[owner(ann)] == pytest.approx(10, abs=1)
    # No other owner was moved, and nothing is left to move.
    with transaction() as tx:
        assert fair_queue.find_owners_to_rebase(tx, limit=10) == []


def test_sweeps_do_not_move_normal_queues(queue: PoolQueue) -> None:
    ann, ben, cleo = user("ann", weight=0.1), user("ben", priority=5), user("cleo", priority=-5)
    for user_id in (ann, ben, cleo):
        add_jobs(user_id, 40)
    for _ in range(12):
        queue.claim(5)
        with transaction() as tx:
            assert fair_queue.find_owners_to_rebase(tx, limit=10) == []


def test_session_added_to_the_pool_gives_no_owner_an_advantage(queue: PoolQueue) -> None:
    """The account ran more jobs than the pool: new jobs must not start at its position."""
    engine, ann, ben = queue.engine, user("ann"), user("ben")
    private = add_unlimited_account(engine)
    add_jobs(None, 60, owner="tokens:fast", accounts=[private])
    assert claim_jobs(private, 60) == 60
    add_jobs(ann, 100)
    queue.claim(10)
    row = engine.sql("SELECT * FROM accounts WHERE id = :id", id=private)[0]
    token = PresentedToken(label=row.label, region=row.region, lookup_hash=row.lookup_hash, secret=row.secret)
    with transaction() as tx:
        assert management.register_account(tx, token, user_id=None, groups=[]) == (private, "returned")
    add_jobs(ben, 40)
    assert Counter(queue.claim(20))[owner(ben)] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_load_keeps_the_fair_queueing_bound(queue: PoolQueue, seed: int) -> None:
    """For any two owners who both wait all the time, the served turns differ by at most one of each."""
    dice = random.Random(seed)
    weights = {owner(user(f"u{n}", weight=w)): w for n, w in enumerate([0.5, 1, 1, 2, 4])}
    waits: Counter[str] = Counter()
    served: dict[tuple[str, str], tuple[int, int]] = {}
    for _ in range(160):
        if dice.random() < 0.25:
            name = dice.choice(list(weights))
            number = dice.randint(1, 12)
            add_jobs(UUID(name.removeprefix("user:")), number)
            waits[name] += number
        for name in queue.claim(1):
            waits[name] -= 1
            both = [(a, b) for a in weights for b in weights if a < b]
            for a, b in both:
                had_a, had_b = served.get((a, b), (0, 0))
                served[a, b] = (had_a + (name == a), had_b + (name == b))
        for a in weights:
            for b in weights:
                if a < b and not (waits[a] and waits[b]):
                    served.pop((a, b), None)
        for (a, b), (had_a, had_b) in served.items():
            lag = abs(had_a / weights[a] - had_b / weights[b])
            assert lag <= 1 / weights[a] + 1 / weights[b] + 0.01
