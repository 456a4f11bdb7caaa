"""Prepares an account for an upstream call: decrypts its session and proxy and resolves its hosts.

Hosts that the region does not tell are looked up when they are unknown or old. A session that is refused as expired on
stored hosts may only have moved, so the hosts are looked up once more before the refusal counts.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from worker.core.catalog.provider_data import all_providers
from worker.core.concurrency.event_loop import in_thread, run
from worker.core.concurrency.lanes import acting_for, acting_owner
from worker.core.errors import DreameryError
from worker.core.observability.faults import UnexpectedError
from worker.core.security.encryption import SecretUnreadableError, decrypt_secret
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, transaction
from worker.providers.base import Account, NotSentError
from worker.providers.registry import get_provider, required
from worker.tasks.stages.polling import list_turns

Answer = TypeVar("Answer")

SESSION_EXPIRED = "upstream_session_expired"


class SecretLockedError(DreameryError):
    """This worker cannot decrypt the secrets of the account. Neither the account nor the job is at fault."""

    def __init__(self) -> None:
        super().__init__(
            "overloaded", "A worker cannot decrypt this account with its DREAMERY_MASTER_KEY. See its log."
        )


def decrypt_account(row: AccountRow) -> Account:
    """Return the account with its decrypted secrets and its stored hosts. Raises SecretLockedError."""
    try:
        session = decrypt_secret(row.secret, context=row.lookup_context)
        proxy = decrypt_secret(row.proxy, context=row.proxy_context) if row.proxy else None
    except SecretUnreadableError:
        raise SecretLockedError from None
    return Account(
        id=row.id.hex,
        region=row.region,
        session=session,
        cluster=row.cluster,
        proxy=proxy,
        provider=row.provider,
        model_ids=row.model_ids,
        currency=row.currency,
        limit_group=row.limit_group,
        facts=row.facts,
        list_turn=list_turns.turn_of(row),
    )


def prepare_account(row: AccountRow) -> Account:
    """Like `prepare_account_async`, in a thread."""
    return run(prepare_account_async(row)) if needs_look_up(row) else decrypt_account(row)


async def prepare_account_async(row: AccountRow) -> Account:
    """Return the account with its hosts; unknown or old hosts are looked up and stored.

    Raises SecretLockedError, NotSentError when the look-up reached no host, or upstream's refusal of the look-up.
    """
    account = decrypt_account(row)
    return await _look_up_hosts(row, account) if needs_look_up(row) else account


def has_looked_up_hosts(row: AccountRow) -> bool:
    """Whether the region of the account does not tell its hosts."""
    return row.region in all_providers()[row.provider].credentials.looked_up


def needs_look_up(row: AccountRow) -> bool:
    """Whether the hosts of the account are unknown or old, so that preparing it makes calls."""
    outdated = row.cluster_age_seconds is None or row.cluster_age_seconds > get_settings().region_cache_seconds
    return has_looked_up_hosts(row) and (row.cluster is None or outdated)


async def call_upstream_async(row: AccountRow, call: Callable[[Account], Awaitable[Answer]]) -> Answer:
    """Return the result of a call that costs nothing. A session that stored hosts refuse is tried on fresh hosts, once.

    Its turns count for the user whose account it is, or whom the caller acts for, else for the account alone.
    """
    owner = f"user:{row.user_id}" if row.user_id is not None else acting_owner() or f"account:{row.id}"
    with _faults_as_errors(), acting_for(owner, row.id):
        account = await prepare_account_async(row)
        try:
            return await call(account)
        except DreameryError as error:
            if not _may_have_moved(row, account, error):
                raise
        return await call(await _look_up_hosts(row, account))


@contextmanager
def _faults_as_errors() -> Iterator[None]:
    """Raise unexpected exceptions as UnexpectedError, so that the code for upstream's refusals handles them too."""
    try:
        yield
    except DreameryError:
        raise
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001
        raise UnexpectedError(error) from None


def _may_have_moved(row: AccountRow, account: Account, error: DreameryError) -> bool:
    """Whether the session may have moved to another cluster since its hosts were stored."""
    return error.code == SESSION_EXPIRED and has_looked_up_hosts(row) and account.cluster is row.cluster


def forget_hosts(row: AccountRow) -> bool:
    """Remove the stored hosts of a refused session: the next call looks them up. Return whether there were any."""
    if not has_looked_up_hosts(row) or row.cluster is None:
        return False
    with transaction() as tx:
        accounts.store_cluster(tx, row.id, None)
    return True


async def _look_up_hosts(row: AccountRow, account: Account) -> Account:
    try:
        cluster = await required(get_provider(row).capabilities.hosts).look_up_hosts(account)
    except DreameryError as error:
        # The look-up orders nothing, so a failure of it is never unclear.
        if error.code == "upstream_unreachable" and not isinstance(error, NotSentError):
            raise NotSentError(error.detail) from error
        raise
    await in_thread(_store_cluster, row, cluster)
    return replace(account, cluster=cluster)


def _store_cluster(row: AccountRow, cluster: dict[str, str]) -> None:
    with transaction() as tx:
        accounts.store_cluster(tx, row.id, cluster)
