"""What `dreamery accounts add` prints: the outcome of each entry, and what to do next if upstream did not accept it."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from api.cli.api_client import Json
from api.cli.display.output import print_list
from api.cli.display.values import short_id

_COLUMNS = ("line", "id", "label", "outcome", "state", "provider", "region", "credits", "models", "problem")
_OUTCOMES = {
    "added": "Added",
    "returned": "Known, in use again",
    "duplicate": "Known already, unchanged",
    "not accepted": "Not accepted",
    "not checked": "Added, not checked yet",
}
# Some fields are longer than the screen: the terminal wraps them, so that copied text stays complete.
_WIDTH = 9


def print_added(added: list[Json], refused: list[Json], *, own: bool) -> None:
    """Print the outcome of each entry, in the order of the lines."""
    screen = Console(soft_wrap=True)
    rows = sorted([*map(_row, added), *map(_row, refused)], key=lambda row: int(row["line"]))
    if len(rows) == 1:
        for line in _block(rows[0]):
            screen.print(Text(line))
    else:
        print_list(rows, _COLUMNS, as_json=False)
    for row in rows:
        if step := _next_step(row, " --own" if own else ""):
            name = f"{row['label'] or 'Line ' + str(row['line'])}: " if len(rows) > 1 else ""
            screen.print(Text(f"{name}{step}"))


def _row(entry: Json) -> Json:
    """Return an entry of the response with what a person needs of it."""
    check, refusal = entry.get("check") or {}, entry.get("error")
    problem = check.get("error") or refusal
    models = entry.get("models") or check.get("models") or {}
    return {
        "line": entry["line"],
        "id": entry.get("id"),
        "label": entry.get("label"),
        "outcome": _outcome(entry, check),
        "state": entry.get("state") if check.get("live") is not None or not check else None,
        "provider": entry.get("provider"),
        "region": entry.get("region"),
        "credits": entry.get("credits"),
        "models": ", ".join(f"{count} {kind}" for kind, count in models.items()) or None,
        "problem": problem["message"] if problem else None,
    }


def _outcome(entry: Json, check: Json) -> str:
    outcome = str(entry.get("outcome", "refused"))
    if check.get("live") is False:
        return "not accepted"
    # Upstream was not reached, or nobody waited for the check.
    return "not checked" if outcome == "added" and check.get("live") is None else outcome


def _block(row: Json) -> Iterator[str]:
    """Yield the lines about a single entry. Fields without a value are left out."""
    if row["id"] is None:
        yield f"Refused: {row['problem']}"
        return
    yield f"{_OUTCOMES[row['outcome']]}: {row['label']} ({short_id(row['id'])})"
    for name in ("provider", "region", "state", "credits", "models", "problem"):
        value = row[name]
        if value is not None:
            text = f"{value:,}" if isinstance(value, int) else str(value)
            yield f"  {name.ljust(_WIDTH)} {text}"


def _next_step(row: Json, option: str) -> str:
    """Return what to do next with an entry that does not serve yet; empty = nothing."""
    if row["id"] is None:
        return "Next: correct the entry and add it again."
    account = short_id(row["id"])
    if row["outcome"] == "not accepted":
        return (
            f"Next: sign in upstream again and give the new session id or key to `dreamery accounts login {account} -"
            f"{option}`, or remove the account with `dreamery accounts remove {account}{option}`."
        )
    if row["outcome"] == "not checked":
        return f"Next: `dreamery accounts check {account}{option}` checks it now; the platform does it later anyway."
    return ""
