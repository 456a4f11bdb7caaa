"""The free check of a key: is it valid, which tasks may it list, which models exist, and what refusals mean."""

import time
from typing import Any

from worker.core.errors import DreameryError
from worker.providers.ark.client import ArkClient
from worker.providers.ark.models import built_in_models, model_id
from worker.providers.base import Account
from worker.providers.refusals import RefusedError

# Upstream's code (or its beginning) -> what an operator should know. The first match counts.
_MEANINGS = (
    (
        "AuthenticationError",
        (
            "Upstream does not accept this API key: it is wrong, disabled or deleted, belongs to another region, or "
            "its list of addresses does not include this server. Check it in the console of the vendor."
        ),
    ),
    ("InvalidAccountStatus", "The customer's account upstream is not in order. Check it in the console of the vendor."),
    (
        "AccountOverdue",
        "The customer has an overdue balance upstream. Top it up; it is checked again every hour.",
    ),
    (
        "OperationDenied.ServiceOverdue",
        "A service of the customer is unpaid upstream. Pay it; it is checked again every hour.",
    ),
    (
        "OperationDenied",
        (
            "The customer has not activated this service upstream, or its roles do not allow it. Check them in the "
            "console of the vendor."
        ),
    ),
    (
        "AccessDenied",
        (
            "The API key is valid, but limited to some models or endpoints, and may not do this. Allow it in the "
            "console of the vendor."
        ),
    ),
    ("InvalidSubscription", "The API key belongs to a subscription plan with another address, and does not work here."),
    ("UnsupportedModel", "The API key belongs to a subscription plan with another address, and does not work here."),
    ("ModelNotOpen", "The customer has not activated this model. Activate it in the console of the vendor."),
    (
        "InvalidEndpointOrModel.ModelIDAccessDisabled",
        "The customer may use own endpoints only: name one for the model in `model_ids` (`ep-...`).",
    ),
    ("InvalidEndpointOrModel", "Upstream has no such model or endpoint for this customer. Check `model_ids`."),
    ("NotFound", "Upstream does not know this address or id. Check the region of the key."),
)
_NEEDS_MODEL = ("AccessDenied", "MissingParameter", "InvalidParameter")


def meaning_of(name: str) -> str | None:
    """Return what an error of this code means for the operator of the account; None = nothing special."""
    return next((text for beginning, text in _MEANINGS if name.startswith(beginning)), None)


class KeyCheck:
    """Reads what can be learned of a key for free."""

    def __init__(self, client: ArkClient) -> None:
        self._client = client

    async def read_facts(self, account: Account) -> dict[str, Any]:
        """Return `scope`, `tasks`, `listed`, `unlisted` and `facts_at`. Raises RefusedError with what it means."""
        try:
            return await self._read(account)
        except RefusedError as error:
            text = meaning_of(error.name) or error.message
            raise RefusedError(error.code, error.verdict, text, detail=error.detail, name=error.name) from None

    async def _read(self, account: Account) -> dict[str, Any]:
        facts: dict[str, Any] = {"scope": "all", "tasks": None, "facts_at": int(time.time())}
        refused: RefusedError | None = None
        try:
            facts["tasks"] = await self._client.count_tasks(account)
        except RefusedError as error:
            if error.verdict.stops or not error.name.startswith(_NEEDS_MODEL):
                raise
            refused, facts["scope"] = error, "custom"
        try:
            ids = await self._client.list_models(account)
        except DreameryError as error:
            if refused is None and not (isinstance(error, RefusedError) and error.verdict.stops):
                return facts  # the list of models is no condition: the key has just worked
            raise
        facts |= _listed(ids)
        if refused is not None:
            await self._count_of_one_model(account, facts)
        return facts

    async def _count_of_one_model(self, account: Account, facts: dict[str, Any]) -> None:
        """Count the tasks of one model, as a limited key may be allowed to. No answer changes anything else."""
        models = built_in_models().videos
        name = next((name for name in account.model_ids if name in models), None)
        if name is None:
            return
        try:
            facts["tasks"] = await self._client.count_tasks(account, model_id(account, name))
        except DreameryError:
            return


def _listed(ids: list[str]) -> dict[str, Any]:
    """Return which of our models upstream lists, and how many it lists that we do not have."""
    models = built_in_models()
    found = [models.find_image(one) or models.find_video(one) for one in ids]
    return {
        "listed": sorted({model.id for model in found if model is not None}),
        "unlisted": sum(model is None for model in found),
    }
