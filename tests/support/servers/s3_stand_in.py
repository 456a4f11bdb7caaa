"""A bucket that fails on request: full, overloaded, silent. It answers what our S3 client asks and checks no signatures."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.servers.http_servers import running_app

BUCKET = "stand-in"
# The answers of well-known servers that have no room left, and of one that is overloaded.
FULL_507 = (507, b"<html><h1>507 Insufficient Storage</h1></html>")
FULL_MINIO = (
    507,
    b"<Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum</Message></Error>",
)
FULL_QUOTA = (403, b"<Error><Code>QuotaExceeded</Code><Message>no more</Message></Error>")
SLOW_DOWN = (503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")


@dataclass
class FailingBucket:
    """Objects by key. `failure` = status and body of every PUT; `silent` = PUTs get no answer."""

    url: str = ""
    failure: tuple[int, bytes] | None = None
    silent: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)

    def settings(self) -> dict[str, str]:
        """Dreamery's settings for this bucket."""
        return {
            "STORAGE_URL": f"s3://{BUCKET}",
            "S3_ENDPOINT": self.url,
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": "stand-in",
            "S3_SECRET_ACCESS_KEY": "a secret of the stand-in",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        key = request.url.path.removeprefix(f"/{BUCKET}").lstrip("/")
        response = await self._answer(request, key)
        await response(scope, receive, send)

    async def _answer(self, request: Request, key: str) -> Response:
        if request.method == "PUT":
            body = await request.body()
            self.puts.append(key)
            if self.silent:
                await asyncio.sleep(30)
            if self.failure is not None:
                return Response(self.failure[1], self.failure[0], media_type="application/xml")
            self.objects[key] = body
            return Response(headers={"etag": _etag(body)})
        if request.method == "POST" and "delete" in request.query_params:
            for name in re.findall(rb"<Key>(.+?)</Key>", await request.body()):
                self.objects.pop(name.decode(), None)
            return Response(b"<DeleteResult></DeleteResult>", media_type="application/xml")
        if key not in self.objects:
            return Response(b"<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        body = self.objects[key]
        headers = {"etag": _etag(body), "last-modified": formatdate(usegmt=True)}
        return Response(body, headers=headers)


def _etag(body: bytes) -> str:
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'


@contextlib.contextmanager
def running_failing_bucket() -> Iterator[FailingBucket]:
    """Run the server until the block ends."""
    bucket = FailingBucket()
    with running_app(bucket) as bucket.url:
        yield bucket
