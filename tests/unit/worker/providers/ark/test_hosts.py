"""Where calls go: the shipped host of a region, and another one from the operator's file."""

from pathlib import Path

import httpx
import pytest

from worker.core.concurrency import event_loop
from worker.core.settings import Settings
from worker.providers.ark.http import ArkHttp
from worker.providers.base import Account


def url_of_a_call(region: str, **settings: object) -> httpx.URL:
    called: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request)
        return httpx.Response(200, json={})

    http = ArkHttp(Settings(_env_file=None, **settings), httpx.MockTransport(answer))  # type: ignore[arg-type]
    event_loop.run(http.get(Account(id="a", region=region, session="key", provider="ark"), "/models"))
    return called[0].url


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("cn", "https://ark.cn-beijing.volces.com/api/v3/models"),
        ("intl", "https://ark.ap-southeast.bytepluses.com/api/v3/models"),
    ],
)
def test_shipped_hosts(region: str, url: str) -> None:
    assert str(url_of_a_call(region)) == url


def test_operators_file_changes_the_host_of_one_region(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text('[providers.ark.hosts.intl]\napi = "https://ark.eu-west.bytepluses.com"\n')
    assert url_of_a_call("intl", catalog_file=path).host == "ark.eu-west.bytepluses.com"
    assert url_of_a_call("cn", catalog_file=path).host == "ark.cn-beijing.volces.com"
