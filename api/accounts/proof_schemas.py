"""Bodies of the proof of an upstream with an account."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.http.fields import StorableObject, Text, example


class ProofRequest(BaseModel):
    """One step of the proof of an upstream with an account. A step may cost money, at most its `cost`."""

    model_config = example(step="list")

    step: Text | None = Field(None, description="its name; null = list the steps", max_length=60)
    known: StorableObject = Field({}, description="what the steps before it returned, together", max_length=50)


class ProofStep(BaseModel):
    """A step."""

    name: str
    title: str
    cost: int = Field(description="the most that it may cost, in thousandths of the currency")


class ProofFinding(BaseModel):
    """What a step found."""

    text: str
    ok: bool | None = Field(description="true = as expected, false = otherwise, null = for information")


class ProofStepResult(BaseModel):
    """A step, done or not, or the list of steps."""

    id: str
    object: Literal["account.proof"]
    done: bool = Field(description="false = it is running; ask again with its id")
    currency: str | None
    steps: list[ProofStep] | None
    findings: list[ProofFinding] | None
    known: dict[str, Any]
