"""`dreamery up --container`: what differs when the platform is the program of a container."""

import os
import pwd
from pathlib import Path

from worker.local.data_dir import write_private
from worker.local.platform_settings import PlatformSettings
from worker.local.processes import StartError

_USER = "dreamery"
_MARKER = "admin.shown"


def port_of_host(settings: PlatformSettings) -> int | None:
    """Return the port in PORT, which Render and similar hosts set; None if there is none, or DREAMERY_API_PORT is set.

    Raises StartError for what is no port.
    """
    text = os.environ.get("PORT", "")  # noqa: TID251 - a name that hosts choose
    if not text or "api_port" in settings.values:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise StartError(f"PORT={text} is not a port. Set DREAMERY_API_PORT, or remove PORT.")
    return int(text)


def leave_root(data_dir: Path) -> None:
    """Become the user `dreamery` when the container was started as root, because a host mounts its disk for root only.

    A data folder of root becomes ours if it is empty. Raises StartError if it holds files of root.
    """
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return  # not our image; the servers then run as `nobody`
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if data_dir.stat().st_uid == 0:
        names = {entry.name for entry in data_dir.iterdir()} - {"lost+found"}
        if names:
            raise StartError(f"{data_dir} has files of root. Give them to our user: chown -R {user.pw_uid} {data_dir}")
        os.chown(data_dir, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def key_was_shown(data_dir: Path) -> bool:
    """Return whether the generated key was printed by an earlier start."""
    return (data_dir / "keys" / _MARKER).exists()


def remember_shown_key(data_dir: Path) -> None:
    """Note that the key was printed. A start that was killed before prints it again."""
    write_private(data_dir / "keys" / _MARKER, "")
