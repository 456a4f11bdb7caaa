"""What each error code of Ark means: whose fault it is, what to do, and our public code. Data: `errors.toml`."""

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from worker.providers.ark.responses import ApiError

_FILE = Path(__file__).with_name("errors.toml")


class Action(StrEnum):
    """What to do after an error. A pair is a model on an account."""

    FIX = "fix"
    AGAIN = "again"
    WAIT_PAIR = "wait_pair"
    WAIT_ACCOUNT = "wait_account"
    CLOSE_PAIR = "close_pair"
    STOP_ACCOUNT = "stop_account"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of an error code. `wait` and `recheck` in seconds; `state` = that of a stopped account."""

    code: str
    fault: str
    action: Action
    error: str
    text: re.Pattern[str] | None = None
    wait: float = 0.0
    tries: int = 0
    state: str = ""
    recheck: float = 0.0
    slower: bool = False
    link_only: bool = False

    def matches(self, error: ApiError) -> bool:
        """Whether the rule applies to the error."""
        if self.code.endswith("*"):
            if not error.code.startswith(self.code[:-1]):
                return False
        elif error.code != self.code:
            return False
        return self.text is None or self.text.search(error.message) is not None


# Codes that are not in the data, by status. Nothing with a named error was created, so all may be retried.
_BY_STATUS = {
    400: Rule("", "caller", Action.FIX, "invalid_parameters"),
    401: Rule("", "operator", Action.STOP_ACCOUNT, "accounts_need_login", state="needs_login"),
    403: Rule("", "operator", Action.CLOSE_PAIR, "no_account_available"),
    404: Rule("", "operator", Action.CLOSE_PAIR, "model_not_found"),
    413: Rule("", "caller", Action.FIX, "invalid_parameters"),
    429: Rule("", "us", Action.WAIT_PAIR, "rate_limit_exceeded", wait=30.0),
}
_OTHER = Rule("", "vendor", Action.AGAIN, "upstream_error", tries=2)


@lru_cache(maxsize=1)
def rules() -> tuple[Rule, ...]:
    """Return the rules in their order; the first match counts."""
    return tuple(
        Rule(
            code=row["code"],
            fault=row["fault"],
            action=Action(row["action"]),
            error=row["error"],
            text=re.compile(row["text"]) if "text" in row else None,
            wait=float(row.get("wait", 0)),
            tries=row.get("tries", 0),
            state=row.get("state", ""),
            recheck=float(row.get("recheck", 0)),
            slower=row.get("slower", False),
            link_only=row.get("link_only", False),
        )
        for row in tomllib.loads(_FILE.read_text())["error"]
    )


def rule_for(error: ApiError, *, status: int) -> Rule:
    """Return the rule of an error; `status` decides for codes that are not known (a failed task has 0)."""
    return next((rule for rule in rules() if rule.matches(error)), _BY_STATUS.get(status, _OTHER))
