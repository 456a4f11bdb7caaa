"""What a request asks of its answer: `Prefer`, client timeouts, `Idempotency-Key`, `X-Job-Id`."""

import contextlib
import re
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Request

from worker.core.errors import DreameryError
from worker.core.settings import get_settings

_LONGEST_TIMEOUT = 1e6


_WAIT = re.compile(r'[0-9]{1,9}|"[0-9]{1,9}"')


@dataclass(frozen=True, slots=True)
class Preference:
    """How the caller wants to wait: at most `wait_seconds`, and then a 202 with the job, or a 504.

    `asked_wait` is what `Prefer: wait=N` said, capped; None when it said nothing.
    """

    respond_async: bool
    longest_wait: float
    asked_wait: float | None = None

    @property
    def wait_seconds(self) -> float:
        """How long to wait for the end."""
        if self.asked_wait is not None:
            return self.asked_wait
        return 0.0 if self.respond_async else self.longest_wait

    def applied(self, *, deferred: bool) -> str | None:
        """The value of `Preference-Applied`; `deferred` = the answer is a 202."""
        if deferred:
            return "respond-async"
        return None if self.asked_wait is None else f"wait={int(self.asked_wait)}"

    def with_async(self, *, wanted: bool | None) -> "Preference":
        """The same with the body's `"async": true`, which means what `respond-async` means."""
        return replace(self, respond_async=True) if wanted else self


def read_timeout(request: Request) -> float | None:
    """After how many seconds without an answer the client hangs up, as the OpenAI SDKs tell (Python's, Node's)."""
    for name in ("x-stainless-read-timeout", "x-stainless-timeout"):
        with contextlib.suppress(ValueError):
            seconds = float(request.headers.get(name, ""))
            if seconds < _LONGEST_TIMEOUT:  # not a number is not less
                return max(seconds, 1.0)
    return None


def _longest_wait(request: Request) -> float:
    longest, timeout = get_settings().sync_wait_seconds, read_timeout(request)
    # Answer before the SDK gives up, or it repeats a request that is still running.
    return longest if timeout is None else min(longest, max(1.0, timeout - 5))


_PREFER = "`respond-async` = 202 with the job at once; `wait=N` = wait at most N seconds (RFC 7240)"


def get_preference(
    request: Request, _prefer: Annotated[str | None, Header(alias="prefer", description=_PREFER)] = None
) -> Preference:
    """Read RFC 7240 `Prefer` and the SDKs' own read timeout; unknown preferences are ignored."""
    longest = _longest_wait(request)
    respond_async, wait = False, None
    for part in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = (piece.strip().lower() for piece in part.partition(";")[0].partition("="))
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and _WAIT.fullmatch(value):
            wait = min(float(value.strip('"')), longest)
    return Preference(respond_async=respond_async, longest_wait=longest, asked_wait=wait)


PreferenceDep = Annotated[Preference, Depends(get_preference)]


def clean_idempotency_key(value: str | None) -> str | None:
    """The key of an `Idempotency-Key` header: a quoted structured string or a bare token, at most 255 characters."""
    if value is None:
        return None
    key = value.strip()
    if len(key) >= 2 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not 0 < len(key) <= 255 or not key.isprintable():
        message = "`Idempotency-Key` must have 1 to 255 printable characters."
        raise DreameryError("invalid_value", message, param="Idempotency-Key")
    return key


def name_job(request: Request, job_id: str, *, accepted: bool = False) -> None:
    """From here on the answer, also one about a crash, carries `X-Job-Id`.

    `accepted` = this request made or joined the job, so errors tell SDKs not to repeat it.
    """
    request.state.job_id = job_id
    if accepted:
        request.state.accepted = True
