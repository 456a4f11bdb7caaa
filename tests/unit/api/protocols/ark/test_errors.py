"""Errors of the Ark-native endpoints in the vendor's shape."""

import asyncio
import json
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.http.errors import error_response
from api.protocols.ark.errors import ArkErrors, vendor_code
from worker.core.errors import ERRORS, DreameryError


@pytest.mark.parametrize(
    ("code", "param", "expected"),
    [
        ("missing_required_parameter", "content.0.role", "MissingParameter.content"),
        ("missing_required_parameter", None, "MissingParameter"),
        ("unsupported_parameter", "seed", "InvalidParameter.UnsupportedParameter"),
        ("invalid_value", "size", "InvalidParameter"),
        ("invalid_api_key", None, "AuthenticationError"),
        ("model_not_found", "model", "InvalidEndpointOrModel.NotFound"),
        ("job_not_found", None, "NotFound.TaskNotFound"),
        ("forbidden", None, "AccessDenied"),
        ("rate_limit_exceeded", None, "AccountRateLimitExceeded"),
        ("no_account_available", None, "ServerOverloaded"),
        ("submit_unclear", None, "InternalServiceError"),
        ("content_policy_violation", None, "SensitiveContentDetected"),
    ],
)
def test_codes(code: str, param: str | None, expected: str) -> None:
    assert vendor_code(code, ERRORS[code].status, param) == expected


def test_code_of_upstream_says_more_than_ours() -> None:
    refused = "Upstream refused the request (OutputVideoSensitiveContentDetected.DeepFake): the video"
    assert (
        vendor_code("content_policy_violation", 400, message=refused) == "OutputVideoSensitiveContentDetected.DeepFake"
    )
    chinese = "上游拒绝了该请求（ModelNotOpen）：x"
    assert vendor_code("content_policy_violation", 400, message=chinese) == "ModelNotOpen"
    for other in ("Upstream refused the request (it is late): x", "Unknown (ModelNotOpen): x"):
        assert vendor_code("content_policy_violation", 400, message=other) == "SensitiveContentDetected"


def test_every_code_of_ours_has_one_of_the_vendors() -> None:
    found = {vendor_code(kind.code, kind.status) for kind in ERRORS.values()}
    assert all(name[0].isupper() and "{" not in name for name in found)


async def _call(answer: Response, path: str) -> tuple[int, dict[bytes, bytes], Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await ArkErrors(app)({"type": "http", "path": path, "method": "POST", "headers": []}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    headers = dict(sent[0]["headers"])
    assert int(headers[b"content-length"]) == len(body)
    return sent[0]["status"], headers, json.loads(body)


def call(answer: Response, path: str = "/api/v3/images/generations") -> tuple[int, dict[bytes, bytes], Any]:
    return asyncio.run(_call(answer, path))


def test_error_answers_are_rewritten() -> None:
    error = DreameryError("invalid_api_key")
    status, headers, body = call(error_response(error, headers={"x-request-id": "req_1"}))
    assert status == 401
    assert headers[b"x-error-code"] == b"AuthenticationError"
    assert body == {
        "error": {
            "code": "AuthenticationError",
            "message": f"{error.message} Request id: req_1",
            "param": "",
            "type": "Unauthorized",
        }
    }


def test_other_answers_stay_as_they_are() -> None:
    answer = error_response(DreameryError("invalid_api_key"))
    assert (call(answer, "/v1/images/generations"))[2]["error"]["code"] == "invalid_api_key"
    assert (call(JSONResponse({"error": None})))[2] == {"error": None}
    assert (call(JSONResponse(["x"], status_code=404)))[2] == ["x"]


def test_slashes_of_a_joined_base_url_do_not_hide_the_path() -> None:
    answer = error_response(DreameryError("invalid_value", param="size"))
    assert (call(answer, "//api/v3//images/generations"))[2]["error"]["code"] == "InvalidParameter"
