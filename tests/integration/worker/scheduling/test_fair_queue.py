"""Whose turn it is: shares by weight, newcomers, priorities that age, own order, and that only rows decide it."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.scheduling.test_claim import many
from tests.support import factories
from tests.support.engine import Engine
from worker.db.accounts import management
from worker.db.accounts.accounts import PresentedToken
from worker.db.engine import transaction
from worker.db.jobs import queries, state_machine
from worker.db.scheduling import fair_queue
from worker.db.users import users
from worker.tasks import dispatch as steps_tick


def user(name: str, *, weight: float = 1.0, priority: int = 0) -> UUID:
    with transaction() as tx:
        row = users.add_user(tx, name=name, role="member", weight=weight, priority=priority)
    assert row is not None
    user_id: UUID = row.id
    return user_id


def send(user_id: UUID | None, number: int = 1, *, accounts: list[UUID] | None = None, **changes: Any) -> list[UUID]:
    """One request for so many jobs; of a user (pool), or of session ids (`owner`)."""
    who = {"owner": f"user:{user_id}", "user_id": user_id} if user_id else {}
    made = [factories.new_job(accounts or [], **{**who, **changes}) for _ in range(number)]
    with transaction() as tx:
        state_machine.accept(tx, made)
    return [job.id for job in made]


class Line:
    """One account of the pool with room for everything, and who was claimed on it, in order."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.account = engine.add_account(pool=True, max_images=10_000, max_videos=10_000, submits_per_minute=10**9)
        self.order: list[UUID] = []
        self.owners: dict[str, str] = {}

    def claim(self, number: int = 1) -> list[str]:
        """The owners of the next jobs."""
        taken = []
        for _ in range(number):
            with transaction() as tx:
                got = state_machine.claim_next(tx, account_id=self.account)
            if got is None:
                break
            self.order.append(got.id)
            taken.append(str(got.id))
        rows = self.engine.sql("SELECT id, owner FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]))", ids=taken)
        self.owners |= {str(row.id): row.owner for row in rows}
        return [self.owners[one] for one in taken]


@pytest.fixture
def line(engine: Engine) -> Line:
    return Line(engine)


def owner(user_id: UUID) -> str:
    return f"user:{user_id}"


def test_shares_are_within_a_tenth_of_the_weights_whatever_the_appetite(line: Line) -> None:
    """Three users of weights 3, 2 and 1 with 500, 200 and 50 jobs; looked at while all of them wait."""
    ann, ben, cleo = user("ann", weight=3), user("ben", weight=2), user("cleo", weight=1)
    for who, number in ((ann, 500), (ben, 200), (cleo, 50)):
        send(who, number)
    taken = line.claim(240)
    for start in (0, 120):
        counts = Counter(taken[start : start + 120])
        for who, weight in ((ann, 3), (ben, 2), (cleo, 1)):
            assert counts[owner(who)] == pytest.approx(20 * weight, rel=0.1)


@pytest.mark.parametrize("weight", [0.1, 1, 10])
def test_a_newcomer_waits_for_running_jobs_only(line: Line, weight: float) -> None:
    ann, ben, new = user("ann", weight=3), user("ben"), user("new", weight=weight)
    send(ann, 500)
    send(ben, 100)
    line.claim(61)
    send(new, 3)
    assert line.claim(1) == [owner(new)]
    # Of two who come together the first to come is the first, and the batches go on after them.
    send(None, owner="tokens:early", accounts=[line.account])
    send(user("late"))
    assert line.claim(2) == ["tokens:early", owner(people_id("late"))]
    assert owner(ann) in line.claim(20)


def people_id(name: str) -> UUID:
    with transaction() as tx:
        row = users.find_user(tx, name=name)
    assert row is not None
    user_id: UUID = row.id
    return user_id


def test_who_was_away_has_saved_nothing(line: Line) -> None:
    ann, ben = user("ann"), user("ben")
    send(ben, 2)
    send(ann, 200)
    line.claim(102)  # ben has had nothing waiting for a hundred turns
    send(ben, 60)
    counts = Counter(line.claim(60))
    assert counts[owner(ben)] == pytest.approx(30, abs=2)


def test_jobs_sent_one_by_one_get_no_more_than_a_batch(line: Line) -> None:
    """Ten users who send the next job when their last was taken must not keep a batch from its share."""
    batch = user("batch")
    eager = [user(f"eager{n}") for n in range(10)]
    send(batch, 100)
    for who in eager:
        send(who)
    counts: Counter[str] = Counter()
    for _ in range(110):
        [taken] = line.claim(1)
        counts[taken] += 1
        if taken != owner(batch):
            send(UUID(taken.removeprefix("user:")))
    assert counts[owner(batch)] == pytest.approx(10, abs=1)
    assert all(counts[owner(who)] == pytest.approx(10, abs=1) for who in eager)


def test_an_owners_jobs_keep_their_order_and_kinds_do_not_mix(line: Line) -> None:
    ann, ben = user("ann", weight=2.5), user("ben")
    mine: dict[tuple[UUID, str], list[UUID]] = {}
    dice = random.Random(4)
    for _ in range(40):
        who, kind = dice.choice([ann, ben]), dice.choice(["image", "video"])
        mine.setdefault((who, kind), []).extend(send(who, dice.randint(1, 3), kind=kind))
    line.claim(200)
    for jobs_of_one in mine.values():
        place = [line.order.index(one) for one in jobs_of_one]
        assert place == sorted(place)


def test_a_slow_pace_serves_every_kind(line: Line) -> None:
    """A queue of pictures that is older than all videos takes every second submit, not all."""
    ann, ben = user("ann"), user("ben")
    send(ann, 30)
    send(ben, 10, kind="video")
    counts = Counter(line.claim(20))
    assert counts[owner(ben)] == 10


def test_a_priority_goes_first_but_only_for_so_many_turns(line: Line) -> None:
    usual, urgent, patient = user("usual"), user("urgent", priority=1), user("patient", priority=-1)
    send(patient, 10)
    send(usual, 100)
    line.claim(5)
    send(urgent, 60)
    assert set(line.claim(20)) == {owner(urgent)}, "a head start of twenty turns"
    after = Counter(line.claim(20))
    assert after[owner(usual)] == pytest.approx(10, abs=1)
    taken = line.claim(60)
    assert owner(patient) in taken, "what waits is passed by a limited number of jobs"
    assert taken.index(owner(patient)) > 5


@pytest.mark.parametrize("others", [1, 4])
def test_a_low_priority_gets_its_turn_while_others_never_stop(line: Line, others: int) -> None:
    patient = user("patient", priority=-2)
    busy = [user(f"busy{n}") for n in range(others)]
    for who in busy:
        send(who, 5)
    line.claim(2)
    send(patient)
    for n in range(60 * others):
        if owner(patient) in line.claim(1):
            break
        send(busy[n % others])
    else:
        pytest.fail("it starved")
    assert n <= 41 * others + 5 * others


def test_what_is_cancelled_while_it_waits_gives_its_turn_back(line: Line) -> None:
    ann, ben = user("ann"), user("ben")
    send(ben, 50)
    batch = send(ann, 50)
    line.claim(10)
    with transaction() as tx:
        for job in batch:
            state_machine.cancel(tx, job)
    send(ann, 1)
    assert owner(ann) in line.claim(2)


def test_what_is_queued_again_keeps_its_turn(line: Line) -> None:
    ann, ben = user("ann"), user("ben")
    send(ann, 20)
    send(ben, 20)
    line.claim(1)
    first = line.order[0]
    line.claim(10)
    row = line.engine.job_row(first)
    with transaction() as tx:
        assert state_machine.requeue(tx, job_id=first, attempt=row.attempt, actor="test", reason="x", delay=0)
    line.claim(1)
    assert line.order[-1] == first
    assert line.engine.job_row(first).turn == row.turn


def test_many_requests_at_once_get_turns_of_their_own(line: Line) -> None:
    """Or a caller with a hundred connections would have a hundred first turns."""
    line.engine.configure(DB_POOL_SIZE="16")
    ann = user("ann", weight=2)
    many(12, lambda _n: [send(ann, 2) for _ in range(3)])
    rows = line.engine.sql("SELECT turn FROM jobs ORDER BY turn")
    gaps = {round(b.turn - a.turn, 6) for a, b in pairwise(rows)}
    assert (len(rows), gaps) == (72, {0.5})


def test_a_new_weight_counts_for_what_waits(line: Line) -> None:
    ann, ben = user("ann"), user("ben")
    send(ann, 100)
    send(ben, 100)
    line.claim(10)
    with transaction() as tx:
        fair_queue.set_shares(tx, ann, weight=4, priority=None)
    assert Counter(line.claim(50))[owner(ann)] == pytest.approx(40, abs=2)
    with transaction() as tx:
        fair_queue.set_shares(tx, ben, weight=None, priority=2)
    assert Counter(line.claim(20))[owner(ben)] == 20


def test_session_ids_are_owners_of_weight_one_and_lines_of_other_accounts_do_not_matter(line: Line) -> None:
    private = line.engine.add_account(max_images=1000, submits_per_minute=10**9)
    send(None, 300, owner="tokens:fast", accounts=[private])
    ann = user("ann")
    send(ann, 50)
    for _ in range(200):
        with transaction() as tx:
            state_machine.claim_next(tx, account_id=private)
    line.claim(10)
    send(None, 30, owner="tokens:new", accounts=[line.account])
    taken = line.claim(20)
    assert taken[0] == "tokens:new"
    assert Counter(taken)["tokens:new"] == pytest.approx(10, abs=1)


def test_an_account_that_joins_the_pool_gives_nobody_the_queue(line: Line) -> None:
    """All old accounts are gone and the new one has served nobody: newcomers still begin where the queue is."""
    ann, ben = user("ann"), user("ben")
    send(ann, 100)
    line.claim(50)
    line.engine.sql("UPDATE accounts SET pool = false")
    line.account = line.engine.add_account(pool=True, max_images=1000, submits_per_minute=10**9)
    send(ben, 40)
    assert Counter(line.claim(20))[owner(ben)] == pytest.approx(10, abs=2)


def test_the_place_that_callers_are_told_is_the_order_of_the_claims(line: Line) -> None:
    ann, ben, cleo = user("ann", weight=3), user("ben"), user("cleo", priority=1)
    waiting = [*send(ann, 8), *send(ben, 5), *send(cleo, 2)]
    with transaction() as tx:
        told = {view.job.id: view.position for view in queries.group_views(tx, waiting)}
    line.claim(15)
    assert [told[one] for one in line.order] == list(range(1, 16))


def on(account_id: UUID, number: int) -> int:
    """Let an account take so many jobs; how many it found."""
    taken = 0
    for _ in range(number):
        with transaction() as tx:
            taken += state_machine.claim_next(tx, account_id=account_id) is not None
    return taken


def wide(engine: Engine, **changes: Any) -> UUID:
    return engine.add_account(max_images=10_000, max_videos=10_000, submits_per_minute=10**9, **changes)


def test_what_ran_on_an_account_of_ones_own_costs_no_turn_on_the_platforms(line: Line) -> None:
    """Ann's own account has done far more than the pool. Then she asks for the pool, and shares it with Ben's batch."""
    ann, ben = user("ann"), user("ben")
    own = wide(line.engine)
    line.engine.sql("UPDATE accounts SET user_id = :ann WHERE id = :id", ann=ann, id=own)
    send(ben, 100)
    line.claim(20)
    send(ann, 60)
    assert on(own, 60) == 60
    send(ann, 20, account_choice="pool")
    taken = line.claim(20)
    assert owner(ann) in taken[:2]
    assert Counter(taken)[owner(ann)] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("before", [True, False], ids=["waiting already", "sent afterwards"])
def test_a_group_whose_account_stops_is_not_left_behind(line: Line, *, before: bool) -> None:
    """The group's account came far; when it is blocked, the group's jobs stand among those who wait for the others."""
    ann, ben = user("ann"), user("ben")
    line.engine.sql("UPDATE users SET groups = '{lab}' WHERE id = :id", id=ann)
    theirs = wide(line.engine, pool=True)
    line.engine.sql("UPDATE accounts SET groups = '{lab}' WHERE id = :id", id=theirs)
    send(ben, 100)
    line.claim(5)
    send(ann, 150)
    assert on(theirs, 130) == 130
    if not before:
        line.engine.sql("DELETE FROM jobs WHERE state = 'queued' AND owner = :owner", owner=owner(ann))
    line.engine.sql("UPDATE accounts SET state = 'blocked' WHERE id = :id", id=theirs)
    if not before:
        send(ann, 20)
    assert set(line.claim(5)) == {owner(ben)}
    steps_tick.sweep()
    assert Counter(line.claim(20))[owner(ann)] == pytest.approx(10, abs=1)
    # Nobody else was moved, and there is nothing left to move.
    with transaction() as tx:
        assert fair_queue.left_behind(tx, limit=10) == []


def test_sweeps_leave_the_turns_of_a_line_alone(line: Line) -> None:
    ann, ben, cleo = user("ann", weight=0.1), user("ben", priority=5), user("cleo", priority=-5)
    for who in (ann, ben, cleo):
        send(who, 40)
    for _ in range(12):
        line.claim(5)
        with transaction() as tx:
            assert fair_queue.left_behind(tx, limit=10) == []


def test_a_session_that_becomes_an_account_of_the_platform_gives_nobody_the_queue(line: Line) -> None:
    """Its own users had come further with it than the pool has: newcomers must not begin there."""
    engine, ann, ben = line.engine, user("ann"), user("ben")
    private = wide(engine)
    send(None, 60, owner="tokens:fast", accounts=[private])
    assert on(private, 60) == 60
    send(ann, 100)
    line.claim(10)
    row = engine.sql("SELECT * FROM accounts WHERE id = :id", id=private)[0]
    token = PresentedToken(label=row.label, region=row.region, lookup_hash=row.lookup_hash, secret=row.secret)
    with transaction() as tx:
        assert management.keep_account(tx, token, user_id=None, groups=[]) == (private, "returned")
    send(ben, 40)
    assert Counter(line.claim(20))[owner(ben)] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_work_keeps_the_bound_of_fair_queueing(line: Line, seed: int) -> None:
    """Between any two owners who both wait all the time, the turns had differ by one of each at most."""
    dice = random.Random(seed)
    weights = {owner(user(f"u{n}", weight=w)): w for n, w in enumerate([0.5, 1, 1, 2, 4])}
    waits: Counter[str] = Counter()
    served: dict[tuple[str, str], tuple[int, int]] = {}
    for _ in range(160):
        if dice.random() < 0.25:
            who = dice.choice(list(weights))
            number = dice.randint(1, 12)
            send(UUID(who.removeprefix("user:")), number)
            waits[who] += number
        for who in line.claim(1):
            waits[who] -= 1
            both = [(a, b) for a in weights for b in weights if a < b]
            for a, b in both:
                had_a, had_b = served.get((a, b), (0, 0))
                served[a, b] = (had_a + (who == a), had_b + (who == b))
        for a in weights:
            for b in weights:
                if a < b and not (waits[a] and waits[b]):
                    served.pop((a, b), None)
        for (a, b), (had_a, had_b) in served.items():
            lag = abs(had_a / weights[a] - had_b / weights[b])
            assert lag <= 1 / weights[a] + 1 / weights[b] + 0.01
