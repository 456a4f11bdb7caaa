"""An account row made ready for a call: session and proxy opened, hosts looked up. All steps that call come here.

Region `auto` is looked up when its hosts are not known or old (protocol section 1.2). A 1015 on hosts that were looked
up earlier may only mean that the session moved, so they are looked up once more before it counts.
"""

from collections.abc import Callable
from typing import TypeVar

from worker.core.errors import DreameryError
from worker.core.security.encryption import SecretUnreadableError, open_secret
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import transaction
from worker.providers.base import Account, NotSentError
from worker.providers.registry import get_provider

Answer = TypeVar("Answer")

EXPIRED = "upstream_session_expired"


class NotServableError(DreameryError):
    """This account cannot be used at all; another may."""

    def __init__(self, message: str) -> None:
        super().__init__(EXPIRED, message)


def opened(row: AccountRow) -> Account:
    """The account as calls need it, with the hosts that are known. Raises NotServableError."""
    try:
        session = open_secret(row.secret, context=row.lookup_context)
        proxy = open_secret(row.proxy, context=row.proxy_context) if row.proxy else None
    except SecretUnreadableError:
        message = "The session of this account cannot be opened with DREAMERY_MASTER_KEY. Add the account again."
        raise NotServableError(message) from None
    return Account(id=row.id.hex, region=row.region, session=session, cluster=row.cluster, proxy=proxy)


def located(row: AccountRow) -> Account:
    """The account with its hosts, which are looked up when they are not known, and remembered.

    Raises NotServableError, NotSentError when the look-up reached nobody, or what upstream said to it.
    """
    old = row.cluster_age_seconds is None or row.cluster_age_seconds > get_settings().region_cache_seconds
    account = opened(row)
    if row.region == "auto" and (row.cluster is None or old):
        return _looked_up(row, account)
    return account


def asked(row: AccountRow, call: Callable[[Account], Answer]) -> Answer:
    """What a call that costs nothing gives; after a 1015 on remembered hosts it is made once more on fresh ones."""
    account = located(row)
    try:
        return call(account)
    except DreameryError as error:
        fresh = account.cluster is not row.cluster
        if error.code != EXPIRED or row.region != "auto" or fresh:
            raise
    watchdog.renew()
    return call(_looked_up(row, account))


def forget_hosts(row: AccountRow) -> bool:
    """After a 1015: whether its hosts were remembered ones. They are forgotten, so that the next call looks again."""
    if row.region != "auto" or row.cluster is None:
        return False
    with transaction() as tx:
        accounts.store_cluster(tx, row.id, None)
    return True


def _looked_up(row: AccountRow, account: Account) -> Account:
    try:
        cluster = get_provider().locate(account)
    except DreameryError as error:
        # Whatever went wrong, nothing was ordered by it.
        if error.code == "upstream_unreachable" and not isinstance(error, NotSentError):
            raise NotSentError(error.detail) from error
        raise
    with transaction() as tx:
        accounts.store_cluster(tx, row.id, cluster)
    watchdog.renew()
    return Account(id=account.id, region=account.region, session=account.session, cluster=cluster, proxy=account.proxy)
