"""Errors of the Ark interface: status, code and message in upstream's envelope."""

import secrets

import orjson
from starlette.responses import Response

_TYPES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 429: "TooManyRequests"}
STATUS_OF = {
    "AuthenticationError": 401,
    "InvalidAccountStatus": 401,
    "AccountOverdueError": 403,
    "AccessDenied": 403,
    "OperationDenied": 403,
    "ModelNotOpen": 404,
    "InvalidEndpointOrModel": 404,
    "NotFound": 404,
    "RateLimitExceeded": 429,
    "ModelAccountRpmRateLimitExceeded": 429,
    "ModelAccountIpmRateLimitExceeded": 429,
    "AccountRateLimitExceeded": 429,
    "RequestBurstTooFast": 429,
    "QuotaExceeded": 429,
    "SetLimitExceeded": 429,
    "ServerOverloaded": 429,
    "InternalServiceError": 500,
    "ContentSecurityDetectionError": 500,
}


class RefusedError(Exception):
    """A refused call. `violation` = the client broke a rule that ours never should break."""

    def __init__(self, code: str, message: str = "", *, param: str = "", violation: bool = False) -> None:
        super().__init__(code)
        self.code, self.message, self.param, self.violation = code, message or f"{code}.", param, violation

    @property
    def status(self) -> int:
        return STATUS_OF.get(self.code, STATUS_OF.get(self.code.partition(".")[0], 400))


def request_id() -> str:
    return f"0217{secrets.token_hex(24)}"


def json_response(body: object, status: int = 200) -> Response:
    headers = {"x-request-id": request_id()}
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")


def error_response(error: RefusedError) -> Response:
    identifier = request_id()
    body = {
        "error": {
            "code": error.code,
            "message": f"{error.message} Request id: {identifier}",
            "param": error.param,
            "type": _TYPES.get(error.status, "InternalServerError"),
        }
    }
    headers = {"x-request-id": identifier} | ({"x-error-code": error.code} if error.status == 401 else {})
    return Response(orjson.dumps(body), error.status, headers=headers, media_type="application/json")
