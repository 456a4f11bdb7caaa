"""`python -m api.cli.operator.run_platform FD`: the process that `dreamery up` becomes.

`dreamery up` reads the settings, which takes more memory than everything this process does later, and replaces itself
with this program. The settings come through a pipe, because they contain keys.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from api.cli.operator import container
from worker.local.platform_settings import PlatformOptions, PlatformSettings
from worker.local.processes import StartError, stop_when_parent_dies
from worker.local.supervisor import Platform

_OPTIONS = [item.name for item in fields(PlatformOptions) if item.name not in {"on_notice", "extra_env"}]


def replace_this_process(
    options: PlatformOptions, settings: PlatformSettings, *, die_with_parent: bool, sandbox_keys: list[str]
) -> NoReturn:
    """Become the supervisor of this platform. The process id stays."""
    values = {name: getattr(options, name) for name in _OPTIONS}
    plan = {
        "options": {**values, "data_dir": str(options.data_dir) if options.data_dir else None},
        "settings": asdict(settings),
        "parent": os.getppid() if die_with_parent else None,
        "sandbox_keys": sandbox_keys,
        "default_data_dir": str(Path(settings.data_dir).resolve()),
    }
    readable, writable = os.pipe()
    os.set_inheritable(readable, True)
    # A pipe holds at least 64 kB, and the settings are a few; a longer text would block without a reader.
    with os.fdopen(writable, "w", encoding="utf-8") as pipe:
        json.dump(plan, pipe)
    sys.stdout.flush()
    # -P: never import a folder named `api` from the working directory.
    command = [sys.executable, "-P", "-m", "api.cli.operator.run_platform", str(readable)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH")]))  # noqa: TID251
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606, TID251 - our own program


def _stop_on_signals(stop: Callable[[], None], parent: int | None) -> None:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, on_signal)
    if parent is not None:
        stop_when_parent_dies(stop)
        if os.getppid() != parent:
            stop()


def _print_status(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def _print_notice(line: str) -> None:
    print(f"\033[33m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def _print_addresses(
    platform: Platform, *, settings: PlatformSettings, sandbox_keys: list[str], default_data_dir: str
) -> None:
    custom_folder = str(platform.data_dir) != default_data_dir
    hint = f"\n             other commands find it with DREAMERY_DATA_DIR={platform.data_dir}" if custom_folder else ""
    password = "DREAMERY_FLOWER_PASSWORD" if settings.flower_password else "the admin key"
    flower = platform.flower_url and f"\n  Flower     {platform.flower_url}  (user admin, password: {password})"
    memory = platform.available_memory // 1_000_000
    # A key that was given is known, and this output often ends in a log.
    admin_key = "as given in DREAMERY_ADMIN_KEY" if settings.admin_key else platform.admin_key
    in_container = platform.options.own_tmp
    logs = "logs: the output of this program" if in_container else f"logs: {platform.logs_dir}"
    if in_container and not settings.admin_key and container.key_was_shown(platform.data_dir):
        admin_key = f"printed at the first start; again: docker exec CONTAINER cat {platform.data_dir}/keys/admin.key"
    sandbox, sandbox_key = f"{' and '.join(sandbox_keys)} are test keys, no account needed", sandbox_keys[0]
    if settings.env == "production":
        sandbox, sandbox_key = "off in production", "$DREAMERY_ADMIN_KEY"
    print(
        f"""
Dreamery is up.

  API        {platform.url}  (docs: {platform.url}/docs)
  Console    {platform.url}/console  (sign in with the admin key){flower}
  Admin key  {admin_key}
  Sandbox    {sandbox}
  Profile    {platform.profile}  ({memory:,} MB of memory available; change it with --profile)
  Data       {platform.data_dir}  ({logs}){hint}

Try it in another terminal:

  curl {platform.url}/v1/images/generations \\
    -H "Authorization: Bearer {sandbox_key}" -H "Content-Type: application/json" \\
    -d '{{"prompt": "a lighthouse at dawn", "size": "2048x2048", "n": 1}}'

Ctrl-C stops everything.""",
        flush=True,
    )
    if in_container:
        container.remember_shown_key(platform.data_dir)


def main() -> int:
    """Run the platform until a signal; returns the exit code."""
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as pipe:
        plan: dict[str, Any] = json.load(pipe)
    options = plan["options"]
    data_dir = Path(options["data_dir"]) if options["data_dir"] else None
    arguments = {**options, "data_dir": data_dir, "sandbox_args": tuple(options["sandbox_args"])}
    settings = PlatformSettings(**plan["settings"])
    platform = Platform(PlatformOptions(**arguments, on_notice=_print_notice), settings=settings)
    _stop_on_signals(platform.request_stop, plan["parent"])
    _print_status("Starting ...")
    try:
        platform.start()
    except StartError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    _print_addresses(
        platform, settings=settings, sandbox_keys=plan["sandbox_keys"], default_data_dir=plan["default_data_dir"]
    )
    platform.wait()
    _print_status("Stopping ...")
    platform.stop()
    print("Stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
