"""`dreamery mcp` and a platform that does not answer."""

import asyncio

import pytest

from api.cli.mcp.http_gateway import HttpGateway
from api.protocols.mcp.gateways.protocol import UnreachableError, call_json


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[broken", "http://127.0.0.1:9/proxy/"])
def test_platform_that_is_away_is_named(url):
    async def read() -> None:
        async with HttpGateway(url, "sk-dreamery-any") as gateway:
            await call_json(gateway, "GET", "/v1/models")

    with pytest.raises(UnreachableError, match="DREAMERY_URL"):
        asyncio.run(read())
