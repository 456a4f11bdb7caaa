"""Where an upstream reports changes of a job: `POST /hooks/<provider>/<token>`. A report is a hint and never believed.

It only makes the poll of the account due. The id in it is kept while the answer to the submit is missing, and counts
once upstream itself has confirmed it.
"""

import json
import re
from functools import partial

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from worker.core.catalog.provider_data import all_providers
from worker.core.security.callback_tokens import CALLBACK_PATH, submit_key_of
from worker.db.accounts import lost_answers, polling
from worker.db.engine import transaction
from worker.messaging import celery_app

router = APIRouter(include_in_schema=False)

_TASK_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)


@router.post(CALLBACK_PATH + "{provider}/{token}")
async def take_report(request: Request, provider: str, token: str) -> Response:
    """Make the poll due. 404 for a token of no open job."""
    submit_key = submit_key_of(token) if provider in all_providers() else None
    if submit_key is None:
        raise HTTPException(404)
    try:
        hint = _task_id(await request.body())
    except ClientDisconnect:
        hint = None

    def note() -> bool:
        with transaction() as tx:
            job = lost_answers.note_callback(tx, submit_key, hint=hint)
            if job is not None and polling.schedule_poll(tx, job.account_id):
                tx.on_commit(partial(celery_app.enqueue_poll, job.account_id))
            return job is not None

    if not await run_in_threadpool(note):
        raise HTTPException(404)
    return Response(status_code=204)


def _task_id(content: bytes) -> str | None:
    try:
        body = json.loads(content)
    except ValueError:
        return None
    name = body.get("id") if isinstance(body, dict) else None
    return name if isinstance(name, str) and _TASK_ID.fullmatch(name) else None
