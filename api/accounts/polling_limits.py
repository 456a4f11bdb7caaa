"""Rules for the polling limits of an account: floor and ceiling in seconds, and eagerness."""

from typing import Any

from api.auth.caller import Caller
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.db.accounts.management import POLLING


def check_polling_limits(caller: Caller, wanted: dict[str, Any], row: Any = None) -> None:
    """Raise `invalid_value` if the account may not get the polling limits in `wanted`; None = the platform's setting.

    `row` has the present limits, None = a new account. Values that stay as they are pass, so that a changed setting of
    the platform does not block other changes of the account.
    """
    present = {name: getattr(row, name, None) for name in POLLING}
    changed = [name for name in POLLING if name in wanted and wanted[name] != present[name]]
    intervals = [name for name in changed if name != "poll_eagerness"]
    if not intervals:
        return
    if not caller.has_scope("admin"):
        _require_platform_floor({name: wanted[name] for name in intervals})
    _require_order({**present, **wanted}, param=intervals[0])


def _require_platform_floor(intervals: dict[str, float | None]) -> None:
    """A user's account may be polled more rarely than the platform's floor, never more often."""
    floor = get_settings().poll_min_seconds
    for name, value in intervals.items():
        if value is not None and value < floor:
            message = (
                f"`{name}` must be at least {floor:g}, the platform's shortest polling interval. "
                "Only an administrator can have an account polled more often."
            )
            raise DreameryError("invalid_value", message, param=name)


def _require_order(limits: dict[str, Any], *, param: str) -> None:
    settings = get_settings()
    own_floor, own_ceiling = limits["poll_min_seconds"], limits["poll_max_seconds"]
    floor = settings.poll_min_seconds if own_floor is None else own_floor
    ceiling = settings.poll_max_seconds if own_ceiling is None else own_ceiling
    if floor <= ceiling or (own_floor is None and own_ceiling is None):
        return
    if own_floor is None:
        message = (
            f"`poll_max_seconds` ({ceiling:g}) must not be less than {floor:g}, the platform's shortest polling "
            "interval, while the account has no own `poll_min_seconds`."
        )
    elif own_ceiling is None:
        message = (
            f"`poll_min_seconds` ({floor:g}) must not exceed {ceiling:g}, the platform's longest polling interval, "
            "while the account has no own `poll_max_seconds`."
        )
    else:
        message = f"`poll_min_seconds` ({floor:g}) must not exceed `poll_max_seconds` ({ceiling:g})."
    raise DreameryError("invalid_value", message, param=param)
