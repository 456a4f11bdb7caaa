"""The upload gateways over HTTP: apply and commit at `/`, the store at `/upload/v1/`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from worker.sandbox import responses as sandbox_responses
from worker.sandbox.scripts import Fault, Role
from worker.sandbox.state import World
from worker.sandbox.uploads.file_inspection import Contents, examine_media, examine_picture
from worker.sandbox.uploads.store import Slot, UploadError, crc_of

Endpoint = Callable[[Request], Awaitable[Response]]
Play = Callable[[Fault, Callable[[], Awaitable[Response]]], Awaitable[Response]]

STORE = "/upload/v1"
# Action -> method, service, version
_ACTIONS = {
    "ApplyImageUpload": ("GET", "imagex", "2018-08-01"),
    "CommitImageUpload": ("POST", "imagex", "2018-08-01"),
    "ApplyUploadInner": ("GET", "vod", "2020-11-19"),
    "CommitUploadInner": ("POST", "vod", "2020-11-19"),
}
_NOBODY = Role()
_REGION = "cn-north-1"


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _metadata(action: str, now: float) -> dict[str, Any]:
    _, service, version = _ACTIONS.get(action, ("", "imagex", "2018-08-01"))
    names = ("RequestId", "Action", "Version", "Service", "Region")
    return dict(zip(names, (sandbox_responses.log_id(now), action, version, service, _REGION), strict=True))


def _addresses(slot: Slot) -> dict[str, Any]:
    host = slot.credential.store_host
    store = {"StoreUri": slot.uri, "Auth": slot.auth}
    if slot.vid:
        node = {"Type": "Edge", "Vid": slot.vid, "UploadHost": host, "SessionKey": slot.session_key}
        return {"InnerUploadAddress": {"UploadNodes": [{**node, "StoreInfos": [store]}]}}
    if slot.singular:
        return {"UploadAddress": {"StoreInfos": [store], "UploadHost": host, "SessionKey": slot.session_key}}
    address = {
        "StoreInfos": [{**store, "UploadID": slot.uri[-16:]}],
        "UploadHosts": [host],
        "UploadHeader": None,
        "SessionKey": slot.session_key,
    }
    return {"UploadAddress": address}


def _results(slot: Slot, contents: Contents) -> dict[str, Any]:
    if slot.vid:
        meta = {
            "Uri": slot.uri,
            "Width": contents.width,
            "Height": contents.height,
            "Duration": round(contents.seconds, 3),
            "Bitrate": int(contents.size * 8 / max(contents.seconds, 0.04)),
            "Format": contents.format,
            "Codec": contents.codec,
            "Size": contents.size,
            "Md5": contents.md5,
            "Fps": round(contents.fps),
        }
        return {"Results": [{"Vid": slot.vid, "VideoMeta": meta}]}
    plugin = {
        "FileName": slot.uri.rpartition("/")[2],
        "SourceUri": slot.uri,
        "ImageUri": slot.uri,
        "ImageWidth": contents.width,
        "ImageHeight": contents.height,
        "ImageMd5": contents.md5,
        "ImageFormat": contents.format,
        "ImageSize": contents.size,
        "FrameCnt": 1,
    }
    return {"Results": [{"Uri": slot.uri, "UriStatus": 2000}], "PluginResult": [plugin]}


def _gateway(world: World, request: Request, body: bytes, now: float) -> dict[str, Any]:
    """The `Result` of an apply or a commit; every refusal is an UploadError."""
    action = request.query_params.get("Action", "")
    method, service, version = _ACTIONS.get(action, ("", "", ""))
    if method != request.method or request.query_params.get("Version") != version:
        raise UploadError(400, 100008, "InvalidActionOrVersion", "Action, Version and method do not fit together")
    headers = dict(request.headers)
    true_host = headers.get("x-orig-host")
    # Browsers sign the host they address, which an egress origin hides from us.
    headers["host"] = true_host or headers.get("host", "")
    query = request.url.query
    credential = world.vault.authorize(request.method, query, headers, body, service=service, now=now)
    if true_host and true_host != credential.domain:
        raise UploadError(403, 100009, "AccessDenied", f"the token is for {credential.domain}, not for this host")
    result: dict[str, Any] = {"RequestId": sandbox_responses.log_id(now)}
    if method == "GET":
        return result | _addresses(world.vault.apply(credential, query))
    try:
        asked = orjson.loads(body)
        slot = world.vault.commit(credential, asked["SessionKey"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise UploadError(400, 100004, "InvalidParameter", "the body holds no SessionKey") from None
    return result | _results(slot, slot.contents) if slot.contents else result


async def _store(world: World, request: Request, body: bytes) -> tuple[int, int, str, str]:
    """Take the bytes of one promised place: HTTP status, code, message, CRC-32."""
    uri = request.path_params["uri"]
    headers, slot, crc = request.headers, world.vault.promised(uri), crc_of(body)
    if slot is None or headers.get("authorization") != slot.auth:
        return 403, 4010, "invalid authorization", crc
    if headers.get("x-orig-host", slot.credential.store_host) != slot.credential.store_host:
        return 403, 4010, "this host does not hold the address", crc
    if len(body) != slot.size:
        return 200, 4012, "size not match", crc
    if headers.get("content-crc32") != crc:
        return 200, 4013, "crc32 not match", crc
    examine = examine_media if slot.vid else examine_picture
    # Unpacking a large picture takes a moment that other callers must not feel.
    world.vault.fill(slot, await asyncio.to_thread(examine, body))
    return 200, 2000, "Success", crc


def _note(world: World, path: str, code: str, detail: str) -> None:
    world.ledger.violation(code, path=path, account="", detail=detail, now=time.time())


def _gateway_endpoint(world: World, play: Play) -> Endpoint:
    async def gateway(request: Request) -> Response:
        action = request.query_params.get("Action", "")
        if not action:
            world.ledger.calls["unknown"] += 1
            return sandbox_responses.edge_page(404)
        path = f"/?Action={action if action in _ACTIONS else 'unknown'}"
        world.ledger.calls[path] += 1
        now = time.time()
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)

        async def act() -> Response:
            metadata = _metadata(action, now)
            try:
                return _json({"ResponseMetadata": metadata, "Result": _gateway(world, request, body, now)})
            except UploadError as problem:
                _note(world, path, problem.code, problem.message)
                error = {"CodeN": problem.number, "Code": problem.code, "Message": problem.message}
                return _json({"ResponseMetadata": {**metadata, "Error": error}}, problem.status)

        return await play(world.faults.draw(path, _NOBODY), act)

    return gateway


def _store_endpoint(world: World, play: Play) -> Endpoint:
    async def store(request: Request) -> Response:
        world.ledger.calls[STORE] += 1
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)

        async def act() -> Response:
            status, code, message, crc = await _store(world, request, body)
            if code != 2000:
                _note(world, STORE, f"tos {code}", message)
            data = {"crc32": crc} if code == 2000 else {}
            return _json({"code": code, "apiversion": "v1", "message": message, "data": data}, status)

        return await play(world.faults.draw(STORE, _NOBODY), act)

    return store


def upload_routes(world: World, play: Play) -> list[Route]:
    """`play` acts out a fault around the answer."""
    return [
        Route("/", _gateway_endpoint(world, play), methods=["GET", "POST"]),
        Route(STORE + "/{uri:path}", _store_endpoint(world, play), methods=["POST"]),
    ]
