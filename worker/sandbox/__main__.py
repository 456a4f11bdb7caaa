"""`python -m worker.sandbox --port N`: runs one process with its state in memory, or in a file with `--state`."""

import argparse
import contextlib
import os
import socket

import uvicorn

from worker.sandbox.options import CONTROL_TOKEN_VARIABLE, Options
from worker.sandbox.server import create_app


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m worker.sandbox", description="A simulated upstream over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fd", type=int, help="file descriptor of a socket that already listens on that port")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="duration of a generation")
    parser.add_argument("--spread", type=float, default=default.spread, help="random variation of --seconds, uniform")
    parser.add_argument("--credits", type=int, default=default.credits, help="credits of a new account")
    parser.add_argument("--slots", type=int, default=default.slots, help="concurrent jobs per account, 0 = unlimited")
    parser.add_argument(
        "--video-slots",
        type=int,
        default=default.video_slots,
        help="concurrent videos per account, 0 = unlimited; upstream: 1",
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--sign", choices=["enforce", "warn", "off"], default=default.sign)
    parser.add_argument("--state", default="", help="file that keeps orders and accounts across a restart")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = _arguments(argv)
    options = Options(
        seconds=arguments.seconds,
        spread=arguments.spread,
        credits=arguments.credits,
        slots=arguments.slots,
        video_slots=arguments.video_slots,
        seed=arguments.seed,
        sign=arguments.sign,
        state_file=arguments.state,
        # Not an argument, as `ps` shows command lines to all users.
        control_token=os.environ.get(CONTROL_TOKEN_VARIABLE, ""),
    )
    config = uvicorn.Config(
        create_app(options),
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        backlog=4096,
        timeout_keep_alive=75,
        # Responses delayed by a script must not delay the exit of the process.
        timeout_graceful_shutdown=1,
    )
    listening = None if arguments.fd is None else [socket.socket(fileno=arguments.fd)]
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=listening)


if __name__ == "__main__":
    main()
