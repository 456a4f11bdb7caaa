"""Response formats: envelopes of each path family, refusals by code, edge pages and broken connections."""

import itertools
import re
import socket
import struct
import time
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_serial = itertools.count(1)
_SIGNATURE = "U0FOREJPWF9TSUdOQVRVUkU="
TRANSPORT_KEY = "sandbox.transport"

INPUT_KEY = "web_text_violates_community_guidelines_toast"
_RISK_KEY = "web_risk_control_message_reject_generation"
_CREDIT_KEY = "web_dre_m10n_generate_popup_credit_ininsufficient_title"
_BUSY = "Too many people are generating. Try again later."
_UNUSUAL = "Couldn't generate due to unusual activity in your account. Try again later."

# ret -> errmsg, (data.fail_code, data.fail_starling_key, data.fail_starling_message); None = data is null
_REFUSALS: dict[str, tuple[str, tuple[str, str, str] | None]] = {
    "-6": ("shark not pass reject", ("4013", _RISK_KEY, _UNUSUAL)),
    "1": ("rate limit", ("1", "web_rate_limited", _BUSY)),
    "1000": ("invalid parameter", ("", "", "")),
    "1001": ("invalid parameter", ("", "", "")),
    "1002": ("common error", ("", "", "")),
    "1006": ("Not enough credits left or no relevant benefits", ("1006", _CREDIT_KEY, "Not enough credits")),
    "1010": ("ExceedConcurrencyLimit", ("1010", "", "ExceedConcurrencyLimit")),
    "1310": ("ExceedConcurrencyLimit", ("1310", "", "ExceedConcurrencyLimit")),
    "1014": ("sign error", None),
    "1015": ("login error", None),
    "1018": ("account punish limit ai generate", None),
    "1057": ("rate limit", ("1057", "web_rate_limited", _BUSY)),
    "3018": ("permission denied", ("1017", "", "")),
    "4013": (
        "generation failed, suspected abnormal behaviour",
        ("4013", _RISK_KEY, "Generation failed because of suspected abnormal behaviour"),
    ),
    "5000": ("not enough credits", None),
    "2003": ("risk not pass: detected risk", None),
}
_REFUSALS |= {code: ("rate limit", (code, "web_rate_limited", _BUSY)) for code in ("1157", "2014", "2020", "10020")}
_REFUSALS |= {code: ("risk control", (code, _RISK_KEY, _UNUSUAL)) for code in ("1019", "1021", "2035", "2043", "2049")}
_REFUSALS |= {
    code: ("InputTextRisk", (code, INPUT_KEY, "The text does not meet the platform rules."))
    for code in ("1063", "2005", "2038", "2050")
}


class ResetConnection(Response):
    """No response: closes the connection with a TCP reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        transport = scope.get(TRANSPORT_KEY)
        if transport is None:
            raise ConnectionResetError("this server gives no access to its transport")
        # SO_LINGER with zero seconds turns the close into a RST, as a failing middle box sends it.
        if not transport.is_closing():  # a killed client has closed it already
            with socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno())) as duplicate:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        # The server would report a missing response if this returned before the disconnect.
        while (await receive())["type"] != "http.disconnect":
            pass


def log_id(now: float) -> str:
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}SANDBOX{next(_serial):013X}"


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def mweb(data: Any, now: float) -> Response:
    """A successful response of /mweb and /lv."""
    head = f'{{"ret":"0","errmsg":"success","systime":"{int(now)}","logid":"{log_id(now)}","data":'
    return _json(head.encode() + orjson.dumps(data) + b"}")


def commerce(data: Any, now: float) -> Response:
    """A successful response of /commerce: contains the payload as an object and as a JSON string."""
    answer = {
        "ret": "0",
        "errmsg": "success",
        "svr_time": int(now),
        "log_id": log_id(now),
        "response": orjson.dumps(data).decode(),
        "sign": _SIGNATURE,
        "data": data,
    }
    return _json(orjson.dumps(answer))


def passport(data: Any) -> Response:
    return _json(orjson.dumps({"message": "success", "data": data}))


def refusal(family: str, code: str, now: float) -> Response:
    """An error response of the family. Always HTTP 200."""
    if family == "passport":
        expired = {"error_code": 1, "description": "session expired", "captcha": "", "desc_url": ""}
        return _json(orjson.dumps({"message": "error", "data": expired}))
    errmsg, parts = _REFUSALS.get(code, ("error", (code, "", "")))
    if family == "commerce":
        answer: dict[str, Any] = {"ret": code, "errmsg": errmsg, "svr_time": int(now), "log_id": log_id(now)}
        answer |= {"response": "", "sign": _SIGNATURE, "data": None}
        return _json(orjson.dumps(answer))
    data = None
    if parts is not None:
        fail_code, key, message = parts
        data = {
            "aigc_data": None,
            "fail_code": fail_code,
            "fail_starling_key": key,
            "fail_starling_message": message,
        }
    answer = {"ret": code, "errmsg": errmsg, "systime": str(int(now)), "logid": log_id(now), "data": data}
    return _json(orjson.dumps(answer))


_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


def range_response(content: bytes, media_type: str, range_header: str) -> Response:
    """Return a file, or the single range of it that a player requests to seek. Ignores other `Range` headers."""
    headers = {"Accept-Ranges": "bytes"}
    match = _RANGE.fullmatch(range_header.strip())
    if not match or not (match[1] or match[2]):
        return Response(content, media_type=media_type, headers=headers)
    size = len(content)
    if match[1]:
        first, last = int(match[1]), min(int(match[2]) if match[2] else size - 1, size - 1)
    else:
        first, last = max(size - int(match[2]), 0), size - 1
    if first > last:
        return Response(b"", 416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(content[first : last + 1], 206, media_type=media_type, headers=headers)


def edge_page(status: int) -> Response:
    reason = {403: "403 Forbidden", 404: "404 Not Found"}.get(status, f"{status} Bad Gateway")
    page = f"<html><head><title>{reason}</title></head><body>sandbox edge page</body></html>"
    return Response(page, status_code=status, media_type="text/html")


def fault_response(kind: str) -> Response:
    """Return the response of a fault: `reset`, `empty`, `html`, or an HTTP status as text."""
    if kind == "reset":
        return ResetConnection()
    if kind == "empty":
        return Response(b"", media_type="application/json")
    if kind == "html":
        return edge_page(502)
    return Response(b'{"message":"internal error"}', status_code=int(kind), media_type="application/json")
