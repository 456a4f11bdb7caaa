"""Passwords of users: argon2id with the parameters that OWASP recommends for servers with little memory.

A check takes 19 MiB and some ten milliseconds. Callers limit how many run at once.
"""

from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from worker.core.errors import DreameryError

MIN_LENGTH, MAX_LENGTH = 10, 256
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def hash_password(password: str, *, name: str) -> str:
    """Return the hash of a new password of the user of this name. Raises `weak_password`."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        message = f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters."
        raise DreameryError("weak_password", message, param="password")
    if len(set(password)) < 4 or password.casefold() == name.casefold():
        message = "This password is easy to guess. Use several words or a password manager."
        raise DreameryError("weak_password", message, param="password")
    return _HASHER.hash(password)


def is_password(password: str, stored: str | None) -> bool:
    """Whether the password is the one of this hash. Without a hash it takes the same time and is False."""
    try:
        return _HASHER.verify(stored or _no_hash(), password[:MAX_LENGTH]) and stored is not None
    except (InvalidHashError, VerificationError):
        return False


@lru_cache(maxsize=1)
def _no_hash() -> str:
    return _HASHER.hash("a password that nobody has")
