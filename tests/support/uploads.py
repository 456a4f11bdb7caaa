"""A server that offers files and accepts uploads, and the real provider changed to upload to it."""

import asyncio
import io
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import httpx
import pytest
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.engine import run_task
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.providers import registry
from worker.providers.base import Account, ImageOrder, NotSentError, Reference, Submitted
from worker.providers.dreamina.client import DreaminaProvider


def make_image(color: str = "red", *, side: int = 8, kind: str = "PNG") -> bytes:
    """Return a small image file."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), color).save(out, kind)
    return out.getvalue()


@dataclass
class MediaHost:
    """Serves `pages` on GET and accepts uploads on PUT below an account's name. Records all calls.

    `upload_status` returns the status of an upload and may block.
    """

    pages: dict[str, Callable[[], Response]] = field(default_factory=dict)
    gets: list[str] = field(default_factory=list)
    uploads: list[tuple[str, bytes]] = field(default_factory=list)  # account, bytes
    orders: list[dict[str, object]] = field(default_factory=list)  # account, uris
    upload_status: Callable[[str, bytes], int] = lambda _account, _data: 200
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body, path = await request.body(), request.url.path
        if request.method == "PUT":
            account = path.rpartition("/")[2]
            status = await run_in_threadpool(self.upload_status, account, body)
            if status == 200:
                self.uploads.append((account, body))
            answer = Response(f"tos/{account}/{uuid.uuid4().hex}", status_code=status)
        elif request.method == "POST":
            self.orders.append(await request.json())
            answer = Response()
        else:
            self.gets.append(path)
            page = self.pages.get(path)
            answer = await run_in_threadpool(page) if page else Response(status_code=404)
        await answer(scope, receive, send)

    def add_file(self, path: str, data: bytes) -> str:
        """Serve `data` at `path` and return its link."""
        self.pages[path] = lambda: Response(data, media_type="text/plain")
        return f"{self.url}{path}"


class UploadingProvider(DreaminaProvider):
    """Uploads to the host named in the environment and reports the references of each order to it."""

    async def upload_image(self, account: Account, data: BinaryIO, *, name: str) -> Reference:  # noqa: ARG002
        content = data.read()
        try:
            place = f"{os.environ['TEST_UPLOADS']}/{account.id}"
            answer = await asyncio.to_thread(httpx.put, place, content=content, trust_env=False, timeout=30)
        except httpx.HTTPError as error:
            raise NotSentError(str(error)) from error
        if answer.status_code != 200:
            codes = {400: "content_policy_violation", 401: "upstream_session_expired", 429: "rate_limit_exceeded"}
            raise DreameryError(codes.get(answer.status_code, "upstream_unreachable"))
        with Image.open(io.BytesIO(content)) as image:
            return Reference(answer.text, *image.size, (image.format or "").lower())

    async def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        report = {"account": account.id, "uris": [reference.uri for reference in order.references]}
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(os.environ["TEST_UPLOADS"], json=report)
        # Tests check the reported references; the sandbox draws from the text alone.
        return await super().submit_image(account, replace(order, references=()), submit_key=submit_key)


def use_upload_provider(url: str, patch: pytest.MonkeyPatch) -> list[UploadingProvider]:
    """Make the tasks of this process upload to that host.

    Returns a list that holds the provider once it was created; the caller closes it.
    """
    patch.setenv("TEST_UPLOADS", url)
    providers: list[UploadingProvider] = []

    def provider() -> UploadingProvider:
        if not providers:
            providers.append(UploadingProvider(get_settings()))
        return providers[0]

    patch.setitem(registry.PROVIDERS, "dreamina", provider)
    return providers


def run_submit(env: dict[str, str], url: str, ids: dict[str, uuid.UUID]) -> None:
    """Run the submit task with uploads to that host. Entry point of a process."""
    use_upload_provider(url, pytest.MonkeyPatch())
    run_task(env, "submit", ids)
