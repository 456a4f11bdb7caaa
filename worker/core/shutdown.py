"""Whether this process was told to stop, and how long ago. Steps finish what they have begun and begin nothing new."""

import time


class StopFlag:
    """Told once, by a signal handler; asked by steps between two pieces of work."""

    def __init__(self) -> None:
        self._since: float | None = None

    def request(self) -> None:
        """The process shall stop. Safe in a signal handler: it takes no lock."""
        if self._since is None:
            self._since = time.monotonic()

    def reset(self) -> None:
        """As if nobody had asked, for a process that goes on."""
        self._since = None

    @property
    def requested(self) -> bool:
        """Whether it shall."""
        return self._since is not None

    def requested_for(self, seconds: float) -> bool:
        """Whether it was asked at least so long ago."""
        return self._since is not None and time.monotonic() - self._since >= seconds


stopping = StopFlag()
