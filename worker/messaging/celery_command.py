"""`python -m worker.messaging.celery_command [--listen-fd N] ...`: the command `celery ...`, with lean imports.

`celery` itself would import its libraries before `gc_tuning.py` can keep them small. With `--listen-fd`, Flower uses a
socket that is already open.
"""

import socket
import sys
from types import ModuleType
from typing import Any

from worker.core.gc_tuning import import_without  # first, before the large imports


def _listen_on(fd: int) -> None:
    import flower.app  # type: ignore[import-untyped]

    listening = socket.socket(fileno=fd)
    listening.setblocking(False)

    def use_open_socket(*_args: Any, **_options: Any) -> list[socket.socket]:
        return [listening]

    flower.app.bind_sockets = use_open_socket


def _leave_out_prompt() -> None:
    """Replace the library for interactive prompts, which only `celery amqp` uses and which takes 6 MB."""
    prompt = ModuleType("click_repl")
    prompt.__dict__["register_repl"] = lambda *_args, **_options: None
    sys.modules.setdefault("click_repl", prompt)


def main() -> None:
    """Run Celery with the remaining arguments."""
    from worker.core.security import configuration
    from worker.core.settings import get_settings

    configuration.require_usable(get_settings())
    if "worker" in sys.argv:
        import_without("httpx", ("rich",))  # its command line needs it
    if "flower" not in sys.argv:
        _leave_out_prompt()
        import_without("celery.bin.celery", ("flower",))
    from celery.__main__ import main as run_celery

    if sys.argv[1] == "--listen-fd":
        _listen_on(int(sys.argv[2]))
        del sys.argv[1:3]
    sys.argv[0] = "celery"
    run_celery()


if __name__ == "__main__":
    main()
