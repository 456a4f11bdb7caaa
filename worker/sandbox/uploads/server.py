"""The upload gateways: apply and commit at `/`, the store at `/upload/v1/`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from worker.sandbox import responses as sandbox_responses
from worker.sandbox.scripts import AccountBehaviour, Fault
from worker.sandbox.state import SandboxState
from worker.sandbox.uploads.file_inspection import FileInfo, inspect_image, inspect_media
from worker.sandbox.uploads.store import Upload, UploadError, crc32_hex

Endpoint = Callable[[Request], Awaitable[Response]]
FaultRunner = Callable[[Fault, Callable[[], Awaitable[Response]]], Awaitable[Response]]

STORE = "/upload/v1"
# Action -> method, service, version
_ACTIONS = {
    "ApplyImageUpload": ("GET", "imagex", "2018-08-01"),
    "CommitImageUpload": ("POST", "imagex", "2018-08-01"),
    "ApplyUploadInner": ("GET", "vod", "2020-11-19"),
    "CommitUploadInner": ("POST", "vod", "2020-11-19"),
}
_DEFAULT_BEHAVIOUR = AccountBehaviour()
_REGION = "cn-north-1"


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _metadata(action: str, now: float) -> dict[str, Any]:
    _, service, version = _ACTIONS.get(action, ("", "imagex", "2018-08-01"))
    names = ("RequestId", "Action", "Version", "Service", "Region")
    return dict(zip(names, (sandbox_responses.log_id(now), action, version, service, _REGION), strict=True))


def _addresses(upload: Upload) -> dict[str, Any]:
    host = upload.credential.store_host
    store = {"StoreUri": upload.uri, "Auth": upload.auth}
    if upload.vid:
        node = {"Type": "Edge", "Vid": upload.vid, "UploadHost": host, "SessionKey": upload.session_key}
        return {"InnerUploadAddress": {"UploadNodes": [{**node, "StoreInfos": [store]}]}}
    if upload.credential.singular:
        return {"UploadAddress": {"StoreInfos": [store], "UploadHost": host, "SessionKey": upload.session_key}}
    address = {
        "StoreInfos": [{**store, "UploadID": upload.uri[-16:]}],
        # Deployments use one spelling or the other, and clients read one or the other.
        "UploadHosts": [host],
        "UploadHost": host,
        "UploadHeader": None,
        "SessionKey": upload.session_key,
    }
    return {"UploadAddress": address}


def _results(upload: Upload, file_info: FileInfo) -> dict[str, Any]:
    if upload.vid:
        meta = {
            "Uri": upload.uri,
            "Width": file_info.width,
            "Height": file_info.height,
            "Duration": round(file_info.seconds, 3),
            "Bitrate": int(file_info.size * 8 / max(file_info.seconds, 0.04)),
            "Format": file_info.format,
            "Codec": file_info.codec,
            "Size": file_info.size,
            "Md5": file_info.md5,
            "Fps": round(file_info.fps),
        }
        return {"Results": [{"Vid": upload.vid, "VideoMeta": meta}]}
    plugin = {
        "FileName": upload.uri.rpartition("/")[2],
        "SourceUri": upload.uri,
        "ImageUri": upload.uri,
        "ImageWidth": file_info.width,
        "ImageHeight": file_info.height,
        "ImageMd5": file_info.md5,
        "ImageFormat": file_info.format,
        "ImageSize": file_info.size,
        "FrameCnt": 1,
    }
    return {"Results": [{"Uri": upload.uri, "UriStatus": 2000}], "PluginResult": [plugin]}


def _gateway(state: SandboxState, request: Request, body: bytes, now: float) -> dict[str, Any]:
    """Return the `Result` of an apply or a commit. Raises UploadError."""
    action = request.query_params.get("Action", "")
    method, service, version = _ACTIONS.get(action, ("", "", ""))
    if method != request.method or request.query_params.get("Version") != version:
        raise UploadError(400, 100008, "InvalidActionOrVersion", "Action, Version and method do not match")
    headers = dict(request.headers)
    upstream_host = headers.get("x-orig-host")
    # Clients sign upstream's host, which an egress origin replaces in the Host header.
    headers["host"] = upstream_host or headers.get("host", "")
    query = request.url.query
    credential = state.uploads.authorize(request.method, query, headers, body, service=service, now=now)
    if upstream_host and upstream_host != credential.domain:
        raise UploadError(403, 100009, "AccessDenied", f"the token is for {credential.domain}, not for this host")
    result: dict[str, Any] = {"RequestId": sandbox_responses.log_id(now)}
    if method == "GET":
        return result | _addresses(state.uploads.apply(credential, query))
    try:
        parsed = orjson.loads(body)
        upload = state.uploads.commit(credential, parsed["SessionKey"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise UploadError(400, 100004, "InvalidParameter", "the body has no SessionKey") from None
    return result | _results(upload, upload.file_info) if upload.file_info else result


async def _store(state: SandboxState, request: Request, body: bytes) -> tuple[int, int, str, str]:
    """Receive the bytes of an upload address. Returns HTTP status, code, message and CRC-32."""
    uri = request.path_params["uri"]
    headers, upload, crc = request.headers, state.uploads.find_upload(uri), crc32_hex(body)
    if upload is None or headers.get("authorization") != upload.auth:
        return 403, 4010, "invalid authorization", crc
    if headers.get("x-orig-host", upload.credential.store_host) != upload.credential.store_host:
        return 403, 4010, "the address belongs to another host", crc
    if len(body) != upload.size:
        return 200, 4012, "size not match", crc
    if headers.get("content-crc32") != crc:
        return 200, 4013, "crc32 not match", crc
    inspect = inspect_media if upload.vid else inspect_image
    # Decoding a large image is slow and must not block other calls.
    state.uploads.add_file_info(upload, await asyncio.to_thread(inspect, body))
    return 200, 2000, "Success", crc


def _record_violation(state: SandboxState, path: str, code: str, detail: str) -> None:
    state.ledger.record_violation(code, path=path, account="", detail=detail, now=time.time())


def _gateway_endpoint(state: SandboxState, run_with_fault: FaultRunner) -> Endpoint:
    async def gateway(request: Request) -> Response:
        action = request.query_params.get("Action", "")
        if not action:
            state.ledger.calls["unknown"] += 1
            return sandbox_responses.edge_page(404)
        path = f"/?Action={action if action in _ACTIONS else 'unknown'}"
        state.ledger.calls[path] += 1
        now = time.time()
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)

        async def handle() -> Response:
            metadata = _metadata(action, now)
            try:
                return _json({"ResponseMetadata": metadata, "Result": _gateway(state, request, body, now)})
            except UploadError as error:
                _record_violation(state, path, error.code, error.message)
                details = {"CodeN": error.number, "Code": error.code, "Message": error.message}
                return _json({"ResponseMetadata": {**metadata, "Error": details}}, error.status)

        return await run_with_fault(state.faults.next_fault(path, _DEFAULT_BEHAVIOUR), handle)

    return gateway


def _store_endpoint(state: SandboxState, run_with_fault: FaultRunner) -> Endpoint:
    async def store(request: Request) -> Response:
        state.ledger.calls[STORE] += 1
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)

        async def handle() -> Response:
            status, code, message, crc = await _store(state, request, body)
            if code != 2000:
                _record_violation(state, STORE, f"tos {code}", message)
            data = {"crc32": crc} if code == 2000 else {}
            return _json({"code": code, "apiversion": "v1", "message": message, "data": data}, status)

        return await run_with_fault(state.faults.next_fault(STORE, _DEFAULT_BEHAVIOUR), handle)

    return store


def upload_routes(state: SandboxState, run_with_fault: FaultRunner) -> list[Route]:
    """Return the routes. `run_with_fault` applies a fault to a response."""
    return [
        Route("/", _gateway_endpoint(state, run_with_fault), methods=["GET", "POST"]),
        Route(STORE + "/{uri:path}", _store_endpoint(state, run_with_fault), methods=["POST"]),
    ]
