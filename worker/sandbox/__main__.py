"""`python -m worker.sandbox --port N`: one process, state in memory."""

import argparse
import contextlib

import uvicorn

from worker.sandbox.options import Options
from worker.sandbox.server import create_app


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m worker.sandbox", description="A stand-in upstream over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long one generation takes")
    parser.add_argument("--spread", type=float, default=default.spread, help="uniform spread around --seconds")
    parser.add_argument("--credits", type=int, default=default.credits, help="credits of a new account")
    parser.add_argument("--slots", type=int, default=default.slots, help="jobs at once per account, 0 = any")
    parser.add_argument(
        "--video-slots", type=int, default=default.video_slots, help="videos at once per account, 0 = any; upstream: 1"
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--sign", choices=["enforce", "warn", "off"], default=default.sign)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    asked = _arguments(argv)
    options = Options(
        seconds=asked.seconds,
        spread=asked.spread,
        credits=asked.credits,
        slots=asked.slots,
        video_slots=asked.video_slots,
        seed=asked.seed,
        sign=asked.sign,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(
            create_app(options),
            host=asked.host,
            port=asked.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            backlog=4096,
            timeout_keep_alive=75,
            # Answers held back by a script must not hold back the end of the process.
            timeout_graceful_shutdown=1,
        )


if __name__ == "__main__":
    main()
