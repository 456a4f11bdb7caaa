"""Refusals of an upstream that tell more than a code of the error table: what else rests, and for how long."""

from dataclasses import dataclass
from enum import StrEnum

from worker.core.errors import DreameryError, Reaction


class Scope(StrEnum):
    """What a refusal concerns beyond the job itself. A group = all accounts that share a `limit_group`."""

    JOB = "job"  # nothing else
    PAIR = "pair"  # the model on this account
    GROUP_PAIR = "group_pair"  # the model on all accounts of the group
    ACCOUNT = "account"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the engine reacts to a refusal. Reactions:

    GIVE_UP: the job fails. OTHER_ACCOUNT: what `scope` names is closed or rests, and another account may take the job.
    RETRY_LATER: the same account tries again after each of `pauses`; then another account may take the job.
    """

    reaction: Reaction
    scope: Scope = Scope.JOB
    seconds: float = 0.0  # how long that rests; infinity = until an operator looks
    pauses: tuple[float, ...] = ()
    grows: bool = False  # a rest is longer after each refusal in a row
    counts: bool = False  # the refusal counts as an attempt of the job
    stops: str = ""  # the state in which accounts of `scope` end: needs_login, blocked
    checks_after: float = 0.0  # when a stopped account is checked again; 0 = at its usual time
    slower: bool = False  # submits came too fast: the rate of the group is halved, and rises slowly again
    warns: bool = False  # an operator has to do something


class RefusedError(DreameryError):
    """Upstream refused an order and named the reason, so nothing was created or charged."""

    def __init__(
        self, code: str, verdict: Verdict, message: str | None = None, *, detail: str | None = None, name: str = ""
    ) -> None:
        self.verdict = verdict
        self.name = name  # upstream's own code
        super().__init__(code, message, detail=detail)
