"""The headers upstream would not accept: the app and its signature."""

import hashlib
from typing import Any

from worker.sandbox.models.hosts import AID_ABROAD, AID_CHINA
from worker.sandbox.requests.fields import RefusedError

CLOCK_TOLERANCE = 300


def sign(path: str, *, pf: str, appvr: str, second: str, tdid: str) -> str:
    return hashlib.md5(f"9e2c|{path[-7:]}|{pf}|{appvr}|{second}|{tdid}|11ac".encode()).hexdigest()


def check_app(*, appid: str, aid: str, aid_needed: bool, wanted: str | None) -> None:
    """`aid` in the query and `Appid` in the header agree, and fit the host when the client told it."""
    if appid not in {AID_CHINA, AID_ABROAD}:
        raise RefusedError("1000", f"Appid header is {appid!r}")
    if (aid or aid_needed) and aid != appid:
        raise RefusedError("1000", f"aid {aid!r} is not the Appid header {appid!r}")
    if wanted and appid != wanted:
        raise RefusedError("1000", f"Appid {appid} does not belong to this host, {wanted} does")


def check_sign(path: str, headers: Any, now: float) -> None:
    second = headers.get("device-time", "")
    if not second.isascii() or not second.isdigit() or abs(now - int(second[:15])) > CLOCK_TOLERANCE:
        raise RefusedError("1014", f"Device-Time {second[:24]!r} is more than 5 minutes off")
    wanted = sign(
        path,
        pf=headers.get("pf", ""),
        appvr=headers.get("appvr", ""),
        second=second,
        tdid=headers.get("tdid", ""),
    )
    if headers.get("sign", "") != wanted:
        raise RefusedError("1014", "Sign does not fit path, Pf, Appvr, Device-Time and Tdid")
    if headers.get("sign-ver") != "1":
        raise RefusedError("1014", "Sign-Ver is not 1")
