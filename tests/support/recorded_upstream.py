"""Helpers for tests of the provider: recorded fixtures, a provider with a scripted transport, accounts and orders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from worker.core.settings import Settings
from worker.providers.base import Account, ImageOrder, OpenOrder
from worker.providers.dreamina.client import DreaminaProvider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "upstream"
KEY = "11111111-1111-4111-8111-111111111111"
SESSION = "SYNTHETIC_SESSION_A"


def read_fixture(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


def load_fixture(name: str) -> dict[str, Any]:
    return json.loads(read_fixture(name))


def open_orders(*keys: str) -> list[OpenOrder]:
    """Return orders of these submit keys."""
    return [OpenOrder(key, None, "image", "jimeng-4.5") for key in keys]


def make_account(region: str = "cn", *, session: str = SESSION, cluster: dict[str, str] | None = None) -> Account:
    return Account(id="a1", region=region, session=session, cluster=cluster)


def make_order(**changes: Any) -> ImageOrder:
    values: dict[str, Any] = {
        "model": "jimeng-4.0",
        "prompt": "a red paper boat on a calm lake",
        "width": 2560,
        "height": 1440,
        "ratio": "16:9",
        "resolution": "2k",
        "count": None,
        "seed": 2500000001,
    }
    return ImageOrder(**{**values, **changes})


class ScriptedUpstream:
    """A provider whose upstream is a function or a fixed response. Records every request."""

    def __init__(
        self, answer: Callable[[httpx.Request], httpx.Response] | httpx.Response | str, **settings: Any
    ) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer
        values = {"_env_file": None, "sandbox_url": "http://127.0.0.1:9", **settings}
        self.provider = DreaminaProvider(Settings(**values), transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self._answer, str):
            return httpx.Response(200, text=read_fixture(self._answer))
        return self._answer if isinstance(self._answer, httpx.Response) else self._answer(request)

    @property
    def last_request(self) -> httpx.Request:
        return self.requests[-1]
