"""Request preferences: `Prefer`, client timeouts and `Idempotency-Key`; and the `X-Job-Id` response header."""

import contextlib
import re
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Request

from worker.core.errors import DreameryError
from worker.core.settings import get_settings

_MAX_TIMEOUT_SECONDS = 1e6
_TIMEOUT_MARGIN_SECONDS = 5.0
_WAIT = re.compile(r'[0-9]{1,9}|"[0-9]{1,9}"')


@dataclass(frozen=True, slots=True)
class Preference:
    """How long the caller wants to wait: up to `wait_seconds`, then a 202 with the job, or a 504.

    `requested_wait` is N of `Prefer: wait=N`, limited to `max_wait`; None without it.
    """

    respond_async: bool
    max_wait: float
    requested_wait: float | None = None
    client_limited: bool = False  # `max_wait` is shorter than our own limit, because of the client's timeout

    @property
    def wait_seconds(self) -> float:
        """Seconds to wait for the jobs to end."""
        if self.requested_wait is not None:
            return self.requested_wait
        return 0.0 if self.respond_async else self.max_wait

    @property
    def ends_early(self) -> bool:
        """Whether the wait ends because the client would disconnect soon after."""
        return self.client_limited and self.wait_seconds == self.max_wait

    def applied(self, *, deferred: bool) -> str | None:
        """The value of `Preference-Applied`; `deferred` means that the response is a 202."""
        if deferred:
            return "respond-async"
        return None if self.requested_wait is None else f"wait={int(self.requested_wait)}"

    def with_async(self, *, enabled: bool | None) -> "Preference":
        """Apply the body's `"async": true`, which has the same effect as `respond-async`."""
        return replace(self, respond_async=True) if enabled else self


def client_timeout(request: Request) -> float | None:
    """Seconds without a response until the client disconnects, as the OpenAI SDKs report; None = unknown."""
    for name in ("x-stainless-read-timeout", "x-stainless-timeout"):
        with contextlib.suppress(ValueError):
            seconds = float(request.headers.get(name, ""))
            if seconds < _MAX_TIMEOUT_SECONDS:  # false for NaN
                return max(seconds, 1.0)
    return None


def _max_wait(request: Request) -> float:
    limit, timeout = get_settings().sync_wait_seconds, client_timeout(request)
    # Respond before the SDK times out; otherwise it retries a request that is still running.
    return limit if timeout is None else min(limit, max(1.0, timeout - _TIMEOUT_MARGIN_SECONDS))


_PREFER = "`respond-async` = 202 with the job at once; `wait=N` = wait up to N seconds (RFC 7240)"


def get_preference(request: Request) -> Preference:
    """Read RFC 7240 `Prefer` and the SDK's own read timeout; unknown preferences are ignored."""
    limit = _max_wait(request)
    respond_async, wait = False, None
    for part in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = (piece.strip().lower() for piece in part.partition(";")[0].partition("="))
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and _WAIT.fullmatch(value):
            wait = min(float(value.strip('"')), limit)
    return Preference(
        respond_async=respond_async,
        max_wait=limit,
        requested_wait=wait,
        client_limited=limit < get_settings().sync_wait_seconds,
    )


async def _get_preference(
    request: Request, _prefer: Annotated[str | None, Header(alias="prefer", description=_PREFER)] = None
) -> Preference:
    # Asynchronous, because the framework runs other dependencies in threads.
    return get_preference(request)


PreferenceDep = Annotated[Preference, Depends(_get_preference)]


def parse_idempotency_key(value: str | None) -> str | None:
    """Parse an `Idempotency-Key` header: a quoted structured string or a bare token, at most 255 characters."""
    if value is None:
        return None
    key = value.strip()
    if len(key) >= 2 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not 0 < len(key) <= 255 or not key.isprintable():
        message = "`Idempotency-Key` must have 1 to 255 printable characters."
        raise DreameryError("invalid_value", message, param="Idempotency-Key")
    return key


def set_job_id_header(request: Request, job_id: str, *, accepted: bool = False) -> None:
    """Send `X-Job-Id` with the response, even if the request fails from here on.

    `accepted` means that this request created or joined the job, so errors tell SDKs not to retry.
    """
    request.state.job_id = job_id
    if accepted:
        request.state.accepted = True
