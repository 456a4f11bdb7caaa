"""Keys that find a video again whose create call was not answered. Upstream has no idempotency key.

Two independent values are sent with each attempt and come back in lists: the token at the end of `safety_identifier`,
and the life of the task in seconds, which is drawn at random. Images cannot be found again.
"""

import secrets
import string
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from worker.providers.ark.responses import Task

_ALPHABET = string.ascii_letters + string.digits
TOKEN_LENGTH = 20
_LONGEST_LIFE = 172_800
_LIVES = 65_536
# A task is created between these seconds before and after the call.
_BEFORE_SECONDS, _AFTER_SECONDS = 5.0, 90.0


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """The keys of one attempt. `user` = a hash of the end user, 40 hexadecimal digits; it stays the same."""

    user: str
    token: str
    expires_after: int  # seconds, 107,265 to 172,800

    @property
    def safety_identifier(self) -> str:
        """The value of the field of that name: 61 characters of at most 64."""
        return f"{self.user}.{self.token}"


def new_keys(user: str) -> AttemptKeys:
    """Draw the keys of an attempt. Save them before the call."""
    token = "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH))
    return AttemptKeys(user, token, _LONGEST_LIFE - secrets.randbelow(_LIVES))


@dataclass(frozen=True, slots=True)
class SentVideo:
    """What is known of a create call without an answer. `sent_at` in unix seconds; `model_id` as it was sent."""

    keys: AttemptKeys
    model_id: str
    sent_at: float
    resolution: str
    ratio: str
    seconds: int


def find_matches(sent: SentVideo, tasks: Iterable[Task], *, owned: Collection[str]) -> list[Task]:
    """Return the tasks of this call, oldest first. `owned` = task ids of other jobs.

    A task with our token is ours. Without one the second key decides, together with everything else that is known.
    """
    free = [task for task in tasks if task.id not in owned]
    by_token = [task for task in free if task.safety_identifier == sent.keys.safety_identifier]
    found = by_token or [task for task in free if not task.safety_identifier and _fits(sent, task)]
    return sorted(found, key=lambda task: (task.created_at or 0.0, task.id))


def _fits(sent: SentVideo, task: Task) -> bool:
    created = task.created_at
    return (
        task.expires_after == sent.keys.expires_after
        and task.model == sent.model_id
        and created is not None
        and sent.sent_at - _BEFORE_SECONDS <= created <= sent.sent_at + _AFTER_SECONDS
        and task.resolution in {None, sent.resolution}
        and (sent.ratio == "adaptive" or task.ratio in {None, sent.ratio})
        and (sent.seconds < 0 or task.seconds in {None, sent.seconds})
    )


def echoes_keys(keys: AttemptKeys, task: Task) -> bool:
    """Whether a listed task shows both keys: an account whose tasks do so can prove that a task does not exist."""
    return task.safety_identifier == keys.safety_identifier and task.expires_after == keys.expires_after
