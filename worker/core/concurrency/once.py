"""Objects of which a process has exactly one."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Once(Generic[_T]):
    """A function without arguments that creates its result with the first call, and returns the same one afterwards.

    Unlike `lru_cache`, several first callers at the same time get the same object: connections or permits of another
    one would belong to nobody. An error is raised, and not kept.
    """

    def __init__(self, create: Callable[[], _T]) -> None:
        self._create = create
        self._lock = threading.Lock()
        self._created: list[_T] = []

    def __call__(self) -> _T:
        with self._lock:
            if not self._created:
                self._created.append(self._create())
            return self._created[0]

    @property
    def is_created(self) -> bool:
        """Whether the object exists."""
        return bool(self._created)

    def forget(self) -> None:
        """Let the next call create another object."""
        with self._lock:
            self._created.clear()
