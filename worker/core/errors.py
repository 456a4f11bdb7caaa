"""The error table: every failure Dreamery can report, what a client sees of it and what the engine does about it.

Codes are API: they never change meaning. Upstream's own numbers map to these rows in
`worker/providers/dreamina/faults.py`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reaction(StrEnum):
    """What the engine does with a job whose upstream call ended in this error."""

    GIVE_UP = "give_up"  # the job fails; another account would refuse it too
    OTHER_ACCOUNT = "other_account"  # this account cannot; another of the caller's may
    RETRY_LATER = "retry_later"  # surely not accepted; the same account may be asked again after a pause
    UNCLEAR = "unclear"  # nobody knows whether it was accepted; ask by submit key first


class Fault(StrEnum):
    """Who has to change something."""

    CONTENT = "content"
    REQUEST = "request"
    ACCOUNT = "account"
    UPSTREAM = "upstream"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row: stable code, HTTP status and OpenAI type of the answer, who is at fault, what the engine does."""

    code: str
    status: int
    type: str
    fault: Fault
    reaction: Reaction
    message: str


_REQUEST = "invalid_request_error"
_SERVER = "server_error"
_RATE = "rate_limit_error"


def _row(  # noqa: PLR0917 - the table below reads as a table only without argument names
    code: str, status: int, kind: str, fault: Fault, message: str, reaction: Reaction
) -> ErrorKind:
    return ErrorKind(code=code, status=status, type=kind, fault=fault, reaction=reaction, message=message)


def _ask(code: str, status: int, message: str, kind: str = _REQUEST) -> ErrorKind:
    return _row(code, status, kind, Fault.REQUEST, message, Reaction.GIVE_UP)


ERRORS: dict[str, ErrorKind] = {
    row.code: row
    for row in (
        # the request itself
        _ask("invalid_value", 400, "A field has a value that is not accepted."),
        _ask("missing_required_parameter", 400, "A required field is missing."),
        _ask("unsupported_parameter", 400, "This field is not supported by the model."),
        _ask("file_expired", 410, "This result is past its retention and was removed."),
        _ask("invalid_json", 400, "The body is not valid JSON."),
        _ask("invalid_image", 400, "A reference picture cannot be used."),
        _ask("input_unavailable", 400, "A reference picture could not be fetched."),
        _ask("prompt_too_long", 400, "The prompt is too long."),
        _ask("invalid_api_key", 401, "Unknown API key. Send `Authorization: Bearer <key>` with a valid key."),
        _ask("missing_api_key", 401, "No API key given. Send `Authorization: Bearer <key>`."),
        _ask("forbidden", 403, "This key may not do that.", "permission_error"),
        _ask("model_not_found", 404, "Unknown model. `GET /v1/models` lists the known ones."),
        _ask("unknown_url", 404, "Unknown URL. See /docs for the list."),
        _ask("job_not_found", 404, "No such job."),
        _ask("file_not_found", 404, "No such file."),
        _ask("method_not_allowed", 405, "This URL does not take that method."),
        _ask("request_too_large", 413, "The body is too large."),
        _ask("unsupported_media_type", 415, "The body must be application/json."),
        _ask("range_not_satisfiable", 416, "The file has no byte in that range."),
        _ask("idempotency_key_reuse", 422, "This Idempotency-Key was used with another body."),
        # before acceptance
        _row("queue_full", 429, _RATE, Fault.PLATFORM, "Too many open jobs. Try again later.", Reaction.GIVE_UP),
        _row(
            "no_account_available",
            503,
            _SERVER,
            Fault.PLATFORM,
            "No upstream account can take this job now. Try again later or add an account.",
            Reaction.RETRY_LATER,
        ),
        _row("overloaded", 503, _SERVER, Fault.PLATFORM, "The platform is not ready. Try again.", Reaction.RETRY_LATER),
        _row(
            "internal_error", 500, _SERVER, Fault.PLATFORM, "Internal error. Report the request id.", Reaction.GIVE_UP
        ),
        # content
        _row(
            "content_policy_violation",
            400,
            _REQUEST,
            Fault.CONTENT,
            "Upstream refused the content. Change the prompt and try again.",
            Reaction.GIVE_UP,
        ),
        _row(
            "unsupported_language",
            400,
            _REQUEST,
            Fault.CONTENT,
            "Upstream does not support the language of this text.",
            Reaction.GIVE_UP,
        ),
        _row(
            "invalid_parameters",
            400,
            _REQUEST,
            Fault.REQUEST,
            "Upstream refused the parameters of this job.",
            Reaction.GIVE_UP,
        ),
        # accounts
        _row(
            "upstream_session_expired",
            401,
            "authentication_error",
            Fault.ACCOUNT,
            "Upstream does not know this session (expired, or on another cluster). Log in again and use the new id.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "insufficient_quota",
            429,
            "insufficient_quota",
            Fault.ACCOUNT,
            "The upstream account has not enough credits or no right to this model or resolution.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "daily_limit_reached",
            429,
            "insufficient_quota",
            Fault.ACCOUNT,
            "The upstream account has reached its daily limit.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "account_limited",
            429,
            _RATE,
            Fault.ACCOUNT,
            "Upstream has limited this account for today.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "upstream_permission_denied",
            403,
            "permission_error",
            Fault.ACCOUNT,
            "Upstream says this account may not do that.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "upstream_consent_required",
            403,
            "permission_error",
            Fault.ACCOUNT,
            "Give the first-use consent for this model on the upstream site with this account.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "upstream_risk_control",
            503,
            _SERVER,
            Fault.ACCOUNT,
            "Upstream refused this account or network address (risk control). Nothing was charged by upstream as far "
            "as known. Use the account in a browser; do not repeat.",
            Reaction.OTHER_ACCOUNT,
        ),
        _row(
            "concurrency_limit",
            429,
            _RATE,
            Fault.ACCOUNT,
            "The upstream account already runs as many tasks as upstream allows.",
            Reaction.RETRY_LATER,
        ),
        _row("rate_limit_exceeded", 429, _RATE, Fault.ACCOUNT, "Upstream asks to slow down.", Reaction.RETRY_LATER),
        # upstream
        _row("generation_failed", 502, _SERVER, Fault.UPSTREAM, "Upstream could not generate this.", Reaction.GIVE_UP),
        _row("upstream_error", 502, _SERVER, Fault.UPSTREAM, "Upstream answered with an error.", Reaction.GIVE_UP),
        _row(
            "upstream_sign_error",
            502,
            _SERVER,
            Fault.UPSTREAM,
            "Upstream refused the request signature. Check the clock of this machine.",
            Reaction.GIVE_UP,
        ),
        _row(
            "history_unavailable",
            502,
            _SERVER,
            Fault.UPSTREAM,
            "Upstream no longer has the record of this job.",
            Reaction.GIVE_UP,
        ),
        _row("upstream_unreachable", 502, _SERVER, Fault.UPSTREAM, "Upstream cannot be reached.", Reaction.UNCLEAR),
        _row(
            "submit_unclear",
            502,
            _SERVER,
            Fault.UPSTREAM,
            "It is not known whether upstream accepted this job, and it cannot be asked. Not repeated: it may have "
            "been paid.",
            Reaction.GIVE_UP,
        ),
        _row(
            "result_unavailable",
            502,
            _SERVER,
            Fault.UPSTREAM,
            "Upstream finished the job, but its results could not be copied.",
            Reaction.GIVE_UP,
        ),
        _row(
            "generation_timeout",
            504,
            _SERVER,
            Fault.UPSTREAM,
            "The generation did not finish in time.",
            Reaction.GIVE_UP,
        ),
        # where a job ends, or a wait
        _row("job_cancelled", 409, _REQUEST, Fault.REQUEST, "The job was cancelled.", Reaction.GIVE_UP),
        _row(
            "queue_timeout",
            504,
            _SERVER,
            Fault.PLATFORM,
            "No account became free for this job in time.",
            Reaction.GIVE_UP,
        ),
    )
}


class DreameryError(Exception):
    """A failure with a row in the table. `message` is shown to users; it must never hold a secret."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        detail: str | None = None,
    ) -> None:
        self.kind = ERRORS[code]
        self.message = message or self.kind.message
        self.param = param
        self.retry_after = retry_after
        self.detail = detail  # for logs and the job's events: upstream's logid, its own words
        super().__init__(f"{code}: {self.message}")

    @property
    def code(self) -> str:
        """The stable code of this failure."""
        return self.kind.code
