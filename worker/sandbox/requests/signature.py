"""Validates the headers of a call: the app and its signature."""

import hashlib
from typing import Any

from worker.sandbox.models.hosts import AID_CHINA, AID_INTERNATIONAL
from worker.sandbox.requests.fields import RefusedError

CLOCK_TOLERANCE = 300


def sign(path: str, *, pf: str, appvr: str, second: str, tdid: str) -> str:
    return hashlib.md5(f"9e2c|{path[-7:]}|{pf}|{appvr}|{second}|{tdid}|11ac".encode()).hexdigest()


def check_app(*, appid: str, aid: str, aid_needed: bool, expected_aid: str | None) -> None:
    """Check that `aid` in the query matches the `Appid` header, and the host if the client named one."""
    if appid not in {AID_CHINA, AID_INTERNATIONAL}:
        raise RefusedError("1000", f"Appid header is {appid!r}")
    if (aid or aid_needed) and aid != appid:
        raise RefusedError("1000", f"aid {aid!r} is not the Appid header {appid!r}")
    if expected_aid and appid != expected_aid:
        raise RefusedError("1000", f"Appid {appid} does not belong to this host, {expected_aid} does")


def check_sign(path: str, headers: Any, now: float) -> None:
    second = headers.get("device-time", "")
    if not second.isascii() or not second.isdigit() or abs(now - int(second[:15])) > CLOCK_TOLERANCE:
        raise RefusedError("1014", f"Device-Time {second[:24]!r} is more than 5 minutes off")
    expected_sign = sign(
        path,
        pf=headers.get("pf", ""),
        appvr=headers.get("appvr", ""),
        second=second,
        tdid=headers.get("tdid", ""),
    )
    if headers.get("sign", "") != expected_sign:
        raise RefusedError("1014", "Sign does not match path, Pf, Appvr, Device-Time and Tdid")
    if headers.get("sign-ver") != "1":
        raise RefusedError("1014", "Sign-Ver is not 1")
