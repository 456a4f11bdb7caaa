"""Errors of the server in the words of the command line: options and commands instead of HTTP."""

import re

GIVE_A_KEY = "Give another key with --key or DREAMERY_ADMIN_KEY."

# Each sentence of the server that speaks of HTTP, and what a user of the commands does instead.
_SENTENCES: tuple[tuple[str, str], ...] = (
    (r" Send `Authorization: Bearer <key>`(?: with a valid key)?\.", ""),
    (r"`GET /v1/models`", "`dreamery models`"),
    (r"`GET /v1/accounts/providers`", "`dreamery models`"),
    (r"`GET /admin/v1/workers`", "`dreamery workers`"),
    (r"Add one with `POST /v1/accounts`, or leave out `X-Accounts`\.", "Add one with `dreamery accounts add --own`."),
    (r"Get the job again \(`GET /v1/jobs/\{id\}`\) for a new link\.", "`dreamery jobs show` prints a new link."),
    (r", or send `Prefer: respond-async`\.", "."),
)
_BY_CODE = {
    "unknown_url": "The platform does not know this command. Is it a Dreamery platform of the same version?",
    "method_not_allowed": "The platform does not know this command. Is it a Dreamery platform of the same version?",
}


def in_command_words(message: str, code: str) -> str:
    """Return the message of an error for a user of the command line."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    for pattern, words in _SENTENCES:
        message = re.sub(pattern, words, message)
    return message
