"""What a receiver of webhooks needs to check them."""

from fastapi import APIRouter, Response

from api.deps import CallerDep
from api.errors import error_responses
from api.render import json_response
from worker.core.crypto import webhook_secret

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.get("/secret", summary="Get your webhook secret", responses=error_responses(401))
async def get_secret(caller: CallerDep) -> Response:
    """The `whsec_...` secret that signs what is sent to the `webhook` of your jobs (Standard Webhooks)."""
    return json_response({"object": "webhook.secret", "secret": webhook_secret(caller.owner)})
