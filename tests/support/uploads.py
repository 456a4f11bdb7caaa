"""A peer that has pictures and takes uploads, and a provider that uploads to it and else is the real one."""

import io
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import httpx
import pytest
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.engine import run_step
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.providers import registry
from worker.providers.base import Account, ImageOrder, NotSentError, Reference, Submitted
from worker.providers.dreamina.client import DreaminaProvider


def picture(color: str = "red", *, side: int = 8, kind: str = "PNG") -> bytes:
    """A small picture."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), color).save(out, kind)
    return out.getvalue()


@dataclass
class Host:
    """Serves `pages` on GET, counts them; takes uploads on PUT under an account's name."""

    pages: dict[str, Callable[[], Response]] = field(default_factory=dict)
    gets: list[str] = field(default_factory=list)
    uploads: list[tuple[str, bytes]] = field(default_factory=list)  # account, bytes
    orders: list[dict[str, object]] = field(default_factory=list)  # account, uris
    refuse: Callable[[str, bytes], int] = lambda _account, _data: 200
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body, path = await request.body(), request.url.path
        if request.method == "PUT":
            account = path.rpartition("/")[2]
            status = await run_in_threadpool(self.refuse, account, body)
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

    def show(self, path: str, data: bytes) -> str:
        """Have a picture; its link."""
        self.pages[path] = lambda: Response(data, media_type="text/plain")
        return f"{self.url}{path}"


class UploadingProvider(DreaminaProvider):
    """Uploads to the host named in the environment, and tells it which references each order carried."""

    def upload_image(self, account: Account, data: bytes, *, name: str) -> Reference:  # noqa: ARG002
        try:
            answer = httpx.put(f"{os.environ['TEST_UPLOADS']}/{account.id}", content=data, trust_env=False, timeout=30)
        except httpx.HTTPError as error:
            raise NotSentError(str(error)) from error
        if answer.status_code != 200:
            codes = {400: "content_policy_violation", 401: "upstream_session_expired", 429: "rate_limit_exceeded"}
            raise DreameryError(codes.get(answer.status_code, "upstream_unreachable"))
        with Image.open(io.BytesIO(data)) as seen:
            return Reference(answer.text, *seen.size, (seen.format or "").lower())

    def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        told = {"account": account.id, "uris": [reference.uri for reference in order.references]}
        httpx.post(os.environ["TEST_UPLOADS"], json=told, trust_env=False)
        # The sandbox draws from text; that the references arrive in the order is what is looked at here.
        return super().submit_image(account, replace(order, references=()), submit_key=submit_key)


def use_uploads(url: str, patch: pytest.MonkeyPatch) -> list[UploadingProvider]:
    """From now on the steps of this process upload to that host; the provider, once made, for the caller to close."""
    patch.setenv("TEST_UPLOADS", url)
    made: list[UploadingProvider] = []

    def provider() -> UploadingProvider:
        if not made:
            made.append(UploadingProvider(get_settings()))
        return made[0]

    patch.setattr(registry, "_dreamina", provider)
    return made


def run_submit(env: dict[str, str], url: str, ids: dict[str, uuid.UUID]) -> None:
    """The body of a submit process that uploads to that host."""
    use_uploads(url, pytest.MonkeyPatch())
    run_step(env, "submit", ids)
