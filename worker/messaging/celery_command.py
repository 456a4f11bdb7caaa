"""`python -m worker.messaging.celery_command [--listen-fd N] ...`: the command `celery ...`, with lean imports.

`celery` itself would import its libraries before `gc_tuning.py` can keep them small. With `--listen-fd`, Flower uses a
socket that is already open.
"""

import socket
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from worker.core.gc_tuning import import_without  # first, before the large imports

if TYPE_CHECKING:
    from worker.core.settings import Settings


def _listen_on(fd: int) -> None:
    import flower.app  # type: ignore[import-untyped]

    listening = socket.socket(fileno=fd)
    listening.setblocking(False)

    def use_open_socket(*_args: Any, **_options: Any) -> list[socket.socket]:
        return [listening]

    flower.app.bind_sockets = use_open_socket


def _prepare_flower(settings: "Settings") -> None:
    """Check the server, as the other roles do, and give Flower our client: it would read the URL in its own way."""
    import flower.utils.broker  # type: ignore[import-untyped]
    import flower.views  # type: ignore[import-untyped]
    import redis.asyncio

    from worker.messaging.redis_connection import create_async_pool, require_usable_redis

    require_usable_redis()

    class Broker(flower.utils.broker.RedisBase):  # type: ignore[misc]  # the library has no types
        """Reads the lengths of queues. Flower creates one per page."""

        def __init__(self, *_args: Any, **options: Any) -> None:
            super().__init__("redis://", **options)
            self.redis = redis.asyncio.Redis.from_pool(
                create_async_pool(settings.redis_url, connections=1, wait_seconds=2.0)
            )

    flower.views.Broker = Broker


def _leave_out_prompt() -> None:
    """Replace the library for interactive prompts, which only `celery amqp` uses and which takes 6 MB."""
    prompt = ModuleType("click_repl")
    prompt.__dict__["register_repl"] = lambda *_args, **_options: None
    sys.modules.setdefault("click_repl", prompt)


def main() -> None:
    """Run Celery with the remaining arguments."""
    from worker.core.security import configuration
    from worker.core.settings import get_settings

    configuration.require_usable(get_settings(), database="flower" not in sys.argv)
    if "flower" in sys.argv:
        _prepare_flower(get_settings())
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
