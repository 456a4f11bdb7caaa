"""The parent of all processes that read untrusted files: it forks one for each file and never reads a file itself.

Started as a program by `client`, with an empty environment and one end of a socket as standard input. Each message is
one byte, which names the decoders, and the socket of one task. A fork takes milliseconds, because the decoders are
already loaded. The program ends when it was idle for as many seconds as its argument says, or when its parent closes
the socket or dies.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[4]


class _Server:
    """Children by process id, with their sockets. A socket is closed after its child has ended."""

    def __init__(self, listener: socket.socket, idle_seconds: float) -> None:
        self._listener, self._idle_seconds = listener, idle_seconds
        self._children: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._poll.register(listener, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serve until the parent has gone, or nothing was asked for a while."""
        while True:
            events = self._poll.poll(None if self._children else self._idle_seconds * 1000)
            if not events and not self._children:
                return
            for number, _ in events:
                if number == self._listener.fileno():
                    if not self._accept():
                        self._kill_all()
                        return
                elif number == self._woken.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                else:
                    self._abandon(number)
            self._reap()

    def _accept(self) -> bool:
        """Fork for the next task. Return False if the parent has gone."""
        kind, numbers, *_ = socket.recv_fds(self._listener, 1, 1)
        if not kind:
            return False
        if not numbers:
            return True
        task = socket.socket(fileno=numbers[0])
        from worker.core.media.isolation import child

        child.load_decoders(kind)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            # No memory or no process is left: `client` sees that the task has not begun, and tries again.
            task.close()
            return True
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                keep = task.fileno()
                others = [self._listener, self._wake, self._woken, *self._children.values()]
                for other in others:
                    if other.fileno() != keep:
                        other.close()
                child.run(task, parent)
            finally:
                os._exit(1)
        self._children[pid] = task
        # Only the hang-up counts: the parent gives the task up.
        self._poll.register(task, 0)
        return True

    def _abandon(self, number: int) -> None:
        self._poll.unregister(number)
        for pid, task in self._children.items():
            if task.fileno() == number:
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            task = self._children.pop(pid)
            with contextlib.suppress(KeyError):
                self._poll.unregister(task)
            if os.WIFSIGNALED(status):
                with contextlib.suppress(OSError):
                    task.send(b'\n{"killed": %d}\n' % os.WTERMSIG(status))
            task.close()

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Run the program."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A stopping platform signals the whole group: the parent ends this program by closing the socket.
        signal.signal(number, signal.SIG_IGN)
    sys.path.insert(0, str(_ROOT))
    _Server(socket.socket(fileno=0), float(sys.argv[1])).run()


if __name__ == "__main__":
    main()
