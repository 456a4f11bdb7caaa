"""Bring the reference pictures of a claimed job to its account: fetch each link once, upload each picture once.

Every finished piece is a committed row, and the claim is renewed by each, so a submit that dies here goes on where it
stopped. Nothing has been ordered yet: whatever goes wrong, nothing was paid. Part of the submit step.
"""

import time
from dataclasses import replace
from typing import Any

from worker import fetch, storage
from worker.core.errors import DreameryError
from worker.core.log import get_logger
from worker.core.pictures import MAX_INPUT_BYTES, NotAPictureError, picture_facts
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import inputs, jobs, notes
from worker.db.engine import Row, retry_when_database_away, transaction
from worker.providers.provider import Account, NotSentError, Reference
from worker.providers.registry import get_provider

log = get_logger("references")

FETCH_DEADLINE_SECONDS = 25.0
# Answers that may be another one in a moment; any other status is the host's last word.
_PASSING = frozenset({408, 425, 429})


class ClaimLostError(Exception):
    """The claim ran out and somebody else has the job, or its caller no longer wants it."""


class NotFetchedYetError(DreameryError):
    """A link that gave nothing this time and may give the picture later."""

    def __init__(self, message: str) -> None:
        super().__init__("input_unavailable", message)


def bring(claim: jobs.Claim, account: Account) -> tuple[jobs.Claim, tuple[Reference, ...]]:
    """The uploaded references of the job in order, and the claim with its new lease."""
    rows = _rows(claim)
    for row in rows:
        if row.key is None:
            claim = _renewed(claim)
            _fetch(claim, row)
    for row in _rows(claim) if rows else []:
        if row.uri is None:
            claim = _renewed(claim)
            _upload(claim, account, row)
    if rows:
        claim = _renewed(claim)
    return claim, tuple(Reference(row.uri, row.width, row.height, row.format) for row in (_rows(claim) if rows else []))


@retry_when_database_away
def _rows(claim: jobs.Claim) -> list[Row[Any]]:
    with transaction() as tx:
        return inputs.job_inputs(tx, claim.id, claim.account.id)


@retry_when_database_away
def _renewed(claim: jobs.Claim) -> jobs.Claim:
    """Another lease, for one more bounded piece."""
    watchdog.renew()
    until = time.monotonic() + get_settings().lease_seconds
    with transaction() as tx:
        if not notes.renew_submit(tx, job_id=claim.id, attempt=claim.attempt):
            raise ClaimLostError
    return replace(claim, until=until)


def _fetch(claim: jobs.Claim, row: Row[Any]) -> None:
    try:
        body = fetch.download(row.url, max_bytes=MAX_INPUT_BYTES, deadline_seconds=FETCH_DEADLINE_SECONDS)
    except fetch.FetchError as error:
        log.info("reference_not_fetched", job_id=str(claim.id), n=row.n, reason=str(error), status=error.status)
        message = f"Reference picture {row.n + 1} could not be fetched: {error}."
        if error.final or (error.status is not None and error.status < 500 and error.status not in _PASSING):
            raise DreameryError("input_unavailable", message) from error
        raise NotFetchedYetError(message) from error
    with body.content as content:
        # Looking at a large picture may have to wait for others that are looked at: a piece of its own.
        _renewed(claim)
        try:
            facts = picture_facts(content)
        except NotAPictureError as error:
            message = f"Reference picture {row.n + 1} cannot be used: {error}."
            raise DreameryError("invalid_image", message) from error
        # The job's own key, not the request's: two jobs of one request may be given different bytes by one link.
        key = f"inputs/{claim.id.hex}/{row.n}.{facts.extension}"
        storage.put_file(key, content)
    _note_stored(
        claim,
        row.n,
        inputs.StoredInput(
            key=key, mime=facts.mime, bytes=body.size, width=facts.width, height=facts.height, sha256=body.sha256
        ),
    )


@retry_when_database_away
def _note_stored(claim: jobs.Claim, n: int, stored: inputs.StoredInput) -> None:
    with transaction() as tx:
        inputs.note_stored(tx, claim.id, n, stored)


def _upload(claim: jobs.Claim, account: Account, row: Row[Any]) -> None:
    try:
        data = storage.read_file(row.key)
    except storage.MissingFileError:
        message = f"The bytes of reference picture {row.n + 1} are no longer in storage."
        raise DreameryError("input_unavailable", message) from None
    try:
        reference = get_provider().upload_image(account, data, name=row.key.rpartition("/")[2])
    except DreameryError as error:
        # An upload may be repeated; only an order must never be.
        if error.code == "upstream_unreachable":
            raise NotSentError(error.detail) from error
        raise
    _note_uploaded(claim, row.n, reference)


@retry_when_database_away
def _note_uploaded(claim: jobs.Claim, n: int, reference: Reference) -> None:
    with transaction() as tx:
        inputs.note_uploaded(
            tx,
            claim.id,
            n,
            account_id=claim.account.id,
            uri=reference.uri,
            width=reference.width,
            height=reference.height,
            picture_format=reference.format,
        )
