"""Options of a sandbox process."""

from dataclasses import dataclass
from typing import Literal

# The header that control routes require, and the environment variable with its value.
CONTROL_HEADER = "X-Sandbox-Control"
CONTROL_TOKEN_VARIABLE = "SANDBOX_CONTROL_TOKEN"  # noqa: S105 - a name

SignMode = Literal["enforce", "warn", "off"]


@dataclass(frozen=True)
class Options:
    seconds: float = 3.0
    spread: float = 0.0
    credits: int = 10_000
    slots: int = 0
    video_slots: int = 0
    seed: int = 1
    sign: SignMode = "enforce"
    control_token: str = ""  # empty = control routes refuse every call
    state_file: str = ""  # empty = the state is in memory only
