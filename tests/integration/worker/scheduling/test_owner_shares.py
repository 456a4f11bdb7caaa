"""What waits for third parties is shared by owner: a user whose proxies stall delays only the own accounts."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from api.auth.session_tokens import encrypt_session_token, session_token_hash
from tests.support.api_client import new_session
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.tarpits import Tarpit, running_tarpit
from worker.core.concurrency import event_loop
from worker.core.concurrency.work_in_shares import MOST_PER_SHARE
from worker.core.security.session_tokens import SessionToken
from worker.db.accounts import management, session_checks
from worker.db.accounts.session_checks import MAX_RUNNING_PER_OWNER
from worker.db.credits import settlement
from worker.db.engine import transaction
from worker.tasks import check_session, refresh_accounts, sync_credits

SLOW, QUICK = 20, "the other user"


@pytest.fixture
def tarpit(engine: Engine) -> Iterator[Tarpit]:
    with running_tarpit() as server:
        # The calls end in time for the test, but not before the other user's.
        engine.configure(
            FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{server.place}",
            CALL_TIMEOUT_SECONDS="6",
            DAILY_RECEIVE="daily",
        )
        yield server


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in (refresh_accounts, sync_credits):
        monkeypatch.setattr(task, "RUN_SECONDS", 3.0)


def add_user(engine: Engine, name: str) -> UUID:
    user = uuid4()
    engine.sql("INSERT INTO users (id, name, role) VALUES (:id, :name, 'member')", id=user, name=name)
    return user


def add_own_account(user: UUID, *, proxy: str | None = None, region: str = "sandbox") -> UUID:
    token = SessionToken(session=new_session(), region=region, proxy=proxy)
    with transaction() as tx:
        presented = encrypt_session_token(session_token_hash(token), token)
        return management.register_account(tx, presented, user_id=user, groups=[])[0]


def add_slow_accounts(engine: Engine, tarpit: Tarpit, *, region: str = "sandbox") -> list[UUID]:
    user = add_user(engine, "the user with the proxies")
    return [
        add_own_account(user, proxy=f"http://user{number}:pass@{tarpit.place}", region=region) for number in range(SLOW)
    ]


def assert_other_user_is_served(engine: Engine, tarpit: Tarpit, served: str, run: event_loop.Future[str]) -> None:
    """The other user's account is served while the calls through the proxies hang, which are few at once."""
    eventually(lambda: engine.sql(served), what="the account of the other user is served")
    eventually(lambda: tarpit.open == MOST_PER_SHARE, what="the proxies hold their share")
    assert not run.done()
    assert len(tarpit.requests) == MOST_PER_SHARE
    run.result(60)


@pytest.mark.parametrize("region", ["sandbox", "auto"])
def test_background_checks(engine: Engine, tarpit: Tarpit, region: str) -> None:
    add_slow_accounts(engine, tarpit, region=region)
    other = add_own_account(add_user(engine, QUICK))
    engine.sql("UPDATE accounts SET refresh_due_at = now() - interval '1 day' WHERE id <> :id", id=other)
    run = event_loop.start(refresh_accounts.refresh())
    served = f"SELECT 1 FROM accounts WHERE id = '{other}' AND checked_at IS NOT NULL AND check_code IS NULL"
    eventually(lambda: engine.sql(served), what="the account of the other user is checked")
    assert not run.done()
    if region == "sandbox":
        assert_other_user_is_served(engine, tarpit, served, run)
    run.result(60)


def test_tests_of_expired_sessions(engine: Engine, tarpit: Tarpit) -> None:
    add_slow_accounts(engine, tarpit)
    other = add_own_account(add_user(engine, QUICK))
    engine.sql(
        """UPDATE accounts SET rest_code = 'upstream_session_expired', refresh_due_at = now() + interval '1 hour',
               rest_until = now() + CASE WHEN id = :id THEN interval '60 s' ELSE interval '50 s' END""",
        id=other,
    )
    run = event_loop.start(refresh_accounts.refresh())
    served = f"SELECT 1 FROM accounts WHERE id = '{other}' AND checked_at IS NOT NULL AND rest_code IS NULL"
    assert_other_user_is_served(engine, tarpit, served, run)


def test_daily_credits(engine: Engine, tarpit: Tarpit) -> None:
    add_slow_accounts(engine, tarpit)
    other = add_own_account(add_user(engine, QUICK))
    run = event_loop.start(sync_credits.sync())
    served = f"SELECT 1 FROM credit_receives WHERE account_id = '{other}' AND gained IS NOT NULL"
    assert_other_user_is_served(engine, tarpit, served, run)


def test_credit_history(engine: Engine, tarpit: Tarpit) -> None:
    engine.configure(DAILY_RECEIVE="off")
    slow = add_slow_accounts(engine, tarpit)
    other = add_own_account(add_user(engine, QUICK))
    for account in (*slow, other):
        engine.add_job(account)
    engine.sql(
        """UPDATE jobs SET account_id = account_ids[1], state = 'failed', error_code = 'upstream_error', attempt = 1,
               submitted_at = now() - interval '5 minutes', finished_at = now() - interval '4 minutes'"""
    )
    engine.sql("UPDATE accounts SET ledger_due_at = now() - interval '1 day' WHERE id <> :id", id=other)
    run = event_loop.start(sync_credits.sync())
    served = f"SELECT 1 FROM accounts WHERE id = '{other}' AND credits_at IS NOT NULL"
    assert_other_user_is_served(engine, tarpit, served, run)
    with transaction() as tx:
        assert settlement.claim_account(tx, providers=["dreamina"]) is not None, "the rest waits for the next run"


def test_checks_on_request(engine: Engine, tarpit: Tarpit) -> None:
    slow = {uuid4(): account for account in add_slow_accounts(engine, tarpit)}
    other, check = add_own_account(add_user(engine, QUICK)), uuid4()
    with transaction() as tx:
        session_checks.create_account_checks(tx, owner="the user with the proxies", accounts_by_check=slow)
        session_checks.create_account_checks(tx, owner=QUICK, accounts_by_check={check: other})
    for one in slow:
        event_loop.start_later(check_session.check_lane, one)
    eventually(lambda: tarpit.open == MAX_RUNNING_PER_OWNER, what="the proxies hold their share")
    assert "checked" in event_loop.run(check_session.check_lane(check))
    assert tarpit.open == MAX_RUNNING_PER_OWNER
    with transaction() as tx:
        assert session_checks.results(tx, [check])[check]["live"] is True
    # The lane continues with the rest of the owner's checks, though each message was handled long ago.
    eventually(lambda: len(tarpit.requests) == SLOW, what="every account is asked", within=60)
    assert tarpit.open <= MAX_RUNNING_PER_OWNER
    eventually(lambda: engine.sql("SELECT count(*) AS n FROM account_checks WHERE result IS NULL")[0].n == 0,
               what="every check has an answer", within=60)  # fmt: skip


def test_claims_of_one_owner_at_the_same_time_stay_within_the_share(engine: Engine) -> None:
    account, checks = add_own_account(add_user(engine, QUICK)), [uuid4() for _ in range(MAX_RUNNING_PER_OWNER + 8)]
    with transaction() as tx:
        session_checks.create_account_checks(tx, owner="a", accounts_by_check=dict.fromkeys(checks, account))

    def claim(check: UUID) -> bool:
        with transaction() as tx:
            return session_checks.claim(tx, check) is not None

    async def claim_all() -> list[bool]:
        return [await one for one in [event_loop.spawn(event_loop.in_thread(claim, check)) for check in checks]]

    assert sum(event_loop.run(claim_all())) == MAX_RUNNING_PER_OWNER
