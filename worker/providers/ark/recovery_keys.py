"""Keys that find a video again whose create call was not answered. Upstream has no idempotency key.

Two independent values are sent with each attempt and come back in lists: the token at the end of `safety_identifier`,
and the life of the task in seconds. Both are drawn from the submit key. Images cannot be found again.
"""

import hashlib
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


def keys_of(submit_key: str, user: str = "") -> AttemptKeys:
    """Return the keys of the attempt with this submit key, which was committed before the call.

    They need no room of their own: they are computed again for a look-up, which does not need the user.
    """
    digest = hashlib.sha256(f"ark attempt {submit_key}".encode()).digest()
    number, token = int.from_bytes(digest[:16]), ""
    for _ in range(TOKEN_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        token += _ALPHABET[index]
    return AttemptKeys(user, token, _LONGEST_LIFE - int.from_bytes(digest[16:18]) % _LIVES)


@dataclass(frozen=True, slots=True)
class SentVideo:
    """What is known of a create call without an answer. `sent_at` in unix seconds; `model_id` as it was sent.

    `seconds` below 0 = the model chose. `within` = for how long after `sent_at` it may have been created.
    """

    keys: AttemptKeys
    model_id: str
    sent_at: float
    resolution: str
    ratio: str
    seconds: int
    within: float = _AFTER_SECONDS


def find_matches(sent: SentVideo, tasks: Iterable[Task], *, owned: Collection[str]) -> list[Task]:
    """Return the tasks of this call, oldest first. `owned` = task ids of other jobs.

    A task with our token is ours. Without one the second key decides, together with everything else that is known.
    """
    free = [task for task in tasks if task.id not in owned]
    by_token = [task for task in free if _has_token(sent.keys, task)]
    found = by_token or [task for task in free if not task.safety_identifier and _fits(sent, task)]
    return sorted(found, key=lambda task: (task.created_at or 0.0, task.id))


def _has_token(keys: AttemptKeys, task: Task) -> bool:
    return (task.safety_identifier or "").rpartition(".")[2] == keys.token


def was_sent_then(sent: SentVideo, task: Task) -> bool:
    """Whether a task was created for this model while our call was under way."""
    created = task.created_at
    return (
        task.model == sent.model_id
        and created is not None
        and sent.sent_at - _BEFORE_SECONDS <= created <= sent.sent_at + sent.within
    )


def _fits(sent: SentVideo, task: Task) -> bool:
    return (
        task.expires_after == sent.keys.expires_after
        and was_sent_then(sent, task)
        and task.resolution in {None, sent.resolution}
        and (sent.ratio == "adaptive" or task.ratio in {None, sent.ratio})
        and (sent.seconds < 0 or task.seconds in {None, sent.seconds})
    )


def echoes_keys(keys: AttemptKeys, task: Task) -> bool:
    """Whether a listed task shows both keys: an account whose tasks do so can prove that a task does not exist."""
    return _has_token(keys, task) and task.expires_after == keys.expires_after
