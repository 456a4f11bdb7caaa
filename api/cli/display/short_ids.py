"""Full ids from what people type: the last digits that tables show, the label of an account, or the full id."""

import re
from collections.abc import Iterable
from itertools import islice

from api.cli.api_client import Client, ClientError, Json

_TAIL = re.compile(r"[0-9a-f]{6,31}")
_NEWEST_JOBS = 1000
_PAGE = 100
_PLURALS = {"batch": "batches"}


def job_id(client: Client, text: str) -> str:
    """Return the full id of a job. Short ids are looked up among the newest jobs, for admins those of all users."""
    if not _TAIL.fullmatch(text):
        return text
    try:
        return _only_match("job", text, islice(client.list_all("/admin/v1/jobs", limit=_PAGE), _NEWEST_JOBS))
    except ClientError as error:
        if error.code != "forbidden":
            raise
    return _only_match("job", text, islice(client.list_all("/v1/jobs", limit=_PAGE), _NEWEST_JOBS))


def batch_id(client: Client, text: str) -> str:
    """Return the full id of a batch."""
    return _only_match("batch", text, client.list_all("/v1/batches", limit=_PAGE)) if _TAIL.fullmatch(text) else text


def key_id(client: Client, text: str) -> str:
    """Return the full id of an API key."""
    return _only_match("key", text, client.list_all("/admin/v1/keys")) if _TAIL.fullmatch(text) else text


def user_id(client: Client, text: str) -> str:
    """Return the full id of a user, or a name as it is: the API takes both."""
    if not _TAIL.fullmatch(text):
        return text
    users = list(client.list_all("/admin/v1/users"))
    return text if any(user["name"] == text for user in users) else _only_match("user", text, users)


def account_id(client: Client, text: str, *, own: bool = False) -> str:
    """Return the full id of an account, which can also be given by its label."""
    if text.startswith("account_"):
        return text
    pages = client.list_all("/v1/accounts") if own else client.list_all("/admin/v1/accounts", pool_only="false")
    accounts = list(pages)
    labelled = [str(each["id"]) for each in accounts if each["label"] == text]
    if len(labelled) > 1:
        raise ClientError(f"{len(labelled)} accounts have the label {text!r}. Give the id: `dreamery accounts list`.")
    return labelled[0] if labelled else _only_match("account", text, accounts)


def channel_id(client: Client, text: str) -> str:
    """Return the full id of a channel of alerts, which can also be given by its name."""
    if text.startswith("whe_"):
        return text
    channels = client.get("/admin/v1/alerts/channels")["data"]
    named = [str(each["id"]) for each in channels if each["name"] == text]
    if len(named) > 1:
        raise ClientError(f"{len(named)} channels have the name {text!r}. Give the id: `dreamery alerts channels`.")
    return named[0] if named else _only_match("channel", text, channels)


def _only_match(what: str, tail: str, found: Iterable[Json]) -> str:
    ids = [str(each["id"]) for each in found if str(each["id"]).endswith(tail)]
    if len(ids) == 1:
        return ids[0]
    problem = f"No {what} has the id {tail!r}." if not ids else f"The ids of {len(ids)} {what}s end in {tail!r}."
    hints = {
        "job": f"The newest {_NEWEST_JOBS} were searched; `dreamery jobs list --json` prints full ids.",
        "channel": "Give a name or an id of `dreamery alerts channels`.",
        "account": "Give a label or an id of `dreamery accounts list`.",
    }
    hint = hints.get(what, f"`dreamery {_PLURALS.get(what, f'{what}s')} list` shows them.")
    raise ClientError(f"{problem} {hint}", code=f"{what}_not_found")
