"""Random sequences with jobs of both upstreams on one database: what happens to the jobs is compared with what the
upstream did, after every step. The upstream loses answers, hides tasks, and finishes or fails them.
"""

from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.support.ark_jobs import ArkJobs
from tests.support.engine import FINAL, Engine
from worker.db.accounts import lost_answers
from worker.db.engine import transaction
from worker.db.jobs import state_machine
from worker.tasks.dispatch import sweep
from worker.tasks.poll import poll
from worker.tasks.save import save
from worker.tasks.submit import submit

FAULTS = ("", "[[reset]]", "[[reset:after]]", "[[empty:after]]", "[[reset]][[html]]")
KINDS = ("video", "video", "image", "web")
KEYS = ("plain", "noecho")


class TwoUpstreams(RuleBasedStateMachine):
    """Each rule is one event. Jobs are identified by the number in their prompt."""

    engine: Engine

    @initialize(
        orders=st.lists(
            st.tuples(st.sampled_from(KINDS), st.sampled_from(FAULTS), st.integers(0, 1)), min_size=5, max_size=7
        )
    )
    def start(self, orders: list[tuple[str, str, int]]) -> None:
        self.engine.sql("DELETE FROM job_events; DELETE FROM jobs; DELETE FROM accounts")
        self.engine.sandbox.reset()
        self.ark = ArkJobs(self.engine)
        self.accounts = [self.ark.add_account(words, max_videos=3, max_images=3) for words in KEYS]
        self.web = self.engine.add_account(max_images=3)
        self.jobs: dict[UUID, str] = {}  # id -> what marks it in the prompt
        for kind, fault, number in orders:
            self.accept(kind, fault, number)

    def any_job(self, number: int) -> UUID:
        return list(self.jobs)[number % len(self.jobs)]

    def accept(self, kind: str, fault: str, number: int) -> None:
        mark = f"[[job:{len(self.jobs)}]]"
        account, prompt = self.accounts[number], f"waves {mark}{fault}"
        if kind == "web":
            job = self.engine.add_job(self.web, prompt=prompt)
        elif kind == "video":
            job = self.ark.add_video(account, prompt=prompt)
        else:
            job = self.ark.add_image(account, prompt=prompt, retry_unclear=len(self.jobs) % 2 == 0)
        self.jobs[job] = mark

    @rule(number=st.integers(0, 6))
    def submit(self, number: int) -> None:
        self.engine.make_due()
        submit(job_id=self.any_job(number))

    @rule(number=st.integers(0, 2), seconds=st.sampled_from([0, 15, 60, 200, 400]))
    def poll(self, number: int, seconds: float) -> None:
        for job in self.jobs:
            self.ark.lose_time(job, seconds)
        self.ark.forget_lists()
        self.engine.make_due()
        poll(account_id=[*self.accounts, self.web][number])

    @rule(number=st.integers(0, 1))
    def search_to_the_end(self, number: int) -> None:
        """All searches of an account, one after the other."""
        for seconds in (15, 20, 60, 210):
            self.poll(number, seconds)

    @rule(number=st.integers(0, 6))
    def save(self, number: int) -> None:
        self.engine.make_due()
        save(job_id=self.any_job(number))

    @rule(number=st.integers(0, 6))
    def cancel(self, number: int) -> None:
        with transaction() as tx:
            state_machine.cancel(tx, self.any_job(number))

    @rule(number=st.integers(0, 6), claims_it_is=st.sampled_from(["the task", "another", "nothing"]))
    def callback(self, number: int, claims_it_is: str) -> None:
        """A report may say anything, at any time, any number of times."""
        key = self.engine.job_row(self.any_job(number)).submit_key
        tasks = self.ark.tasks()
        names = {"the task": tasks[-1].id, "another": tasks[0].id} if tasks else {}
        if key is not None:
            with transaction() as tx:
                lost_answers.note_callback(tx, key, hint=names.get(claims_it_is))

    @rule()
    def finish_upstream(self) -> None:
        self.ark.finish()
        self.engine.finish_upstream()

    @rule(share=st.sampled_from([0.0, 0.0, 1.0]), kind=st.sampled_from(["lists", "gets"]))
    def lose_answers(self, share: float, kind: str) -> None:
        self.ark.state.lost.shares = {kind: share}

    @rule()
    def leases_end(self) -> None:
        """As if all workers had been dead for long."""
        self.engine.expire_leases()
        sweep()

    def made(self, mark: str) -> list[dict[str, Any]]:
        ledger = self.ark.ledger()
        return [one for one in (*ledger["images"], *ledger["videos"]) if mark in one["prompt"]]

    @invariant()
    def books_agree(self) -> None:
        for row in self.engine.sql("SELECT * FROM jobs"):
            made = self.made(self.jobs[row.id])
            if row.providers != ["ark"]:
                continue
            most = 2 if row.charge_doubt == "charged_twice_possible" else 1
            assert len(made) <= most, "nothing is made twice, unless the caller wanted that"
            if row.state == "succeeded":
                assert made
            if row.error_code == "submit_unclear":
                assert (row.charge_doubt, row.settled_at) != (None, None)
            elif row.state in FINAL and not row.charge_doubt and row.settled_at:
                ended = [one for one in made if one.get("status", "succeeded") in FINAL]
                assert row.charged == sum(round(one["cost"]) for one in ended), (row, made)
            if row.state in FINAL and made and not row.settled_at:
                assert row.charge_doubt or row.state == "cancelled", "what is not booked is marked"

    @invariant()
    def histories_are_whole(self) -> None:
        rows = self.engine.sql(
            """SELECT j.id, j.state, j.event_seq, array_agg(e.seq ORDER BY e.seq) AS seqs,
                   (array_agg(e.to_state ORDER BY e.seq DESC))[1] AS last FROM jobs j
               JOIN job_events e ON e.job_id = j.id GROUP BY j.id"""
        )
        for row in rows:
            assert row.seqs == list(range(1, row.event_seq + 1))
            assert row.last == row.state

    def teardown(self) -> None:
        """In the end every job has a final state, and the upstreams' rules were kept."""
        if not hasattr(self, "ark"):
            return
        self.ark.state.lost.shares = {}
        for _ in range(12):
            self.ark.finish()
            self.engine.finish_upstream()
            for number in range(3):
                self.poll(number, 120)
            for job in self.jobs:
                self.submit(list(self.jobs).index(job))
                save(job_id=job)
        states = self.engine.states(self.jobs)
        assert set(states) <= FINAL, [(self.engine.job_row(job), self.made(mark)) for job, mark in self.jobs.items()]
        self.books_agree()
        assert not self.ark.ledger()["violations"]
        assert self.engine.ledger()["totals"].get("duplicate_submit_ids", 0) == 0


def test_random_events_with_two_upstreams(engine: Engine) -> None:
    TwoUpstreams.engine = engine
    run_state_machine_as_test(
        TwoUpstreams,
        settings=settings(
            max_examples=18,
            stateful_step_count=24,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
