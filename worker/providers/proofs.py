"""What can be learned of an account: facts of its credential for free, and what only a real one proves, in steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from worker.providers.base import Account


@dataclass(frozen=True, slots=True)
class ProofStep:
    """One step. `cost` = the most that it may cost, in thousandths of the account's currency."""

    name: str
    title: str
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step found. `ok`: True = as expected, False = otherwise, None = for information, or not found out."""

    text: str
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class ProofResult:
    """What a step found. `known` = what later steps need, such as ids; `facts` = to add to those of the account."""

    findings: tuple[Finding, ...]
    known: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class CredentialFacts(Protocol):
    """An upstream that tells more of a credential than whether it is valid."""

    async def read_facts(self, account: "Account") -> dict[str, Any]:
        """Make free calls that only a valid credential passes. Return facts to add to those of the account.

        Raises RefusedError with a text for the operator.
        """


class Proof(Protocol):
    """An upstream of which some claims need a real account."""

    def proof_steps(self, account: "Account") -> tuple[ProofStep, ...]:
        """Return the steps, cheapest first."""

    async def prove(self, account: "Account", step: str, known: Mapping[str, Any]) -> ProofResult:
        """Run one step. `known` = what the steps before it returned, together. An unexpected answer is a finding."""
