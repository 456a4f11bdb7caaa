"""One reading of the URL: what redis-py, Celery and the rate limits get from it."""

import ssl
from urllib.parse import unquote

import kombu
import pytest
import redis

from worker.core.security.redis_urls import RedisAddress, parse_redis_url
from worker.messaging.redis_connection import celery_settings, create_async_pool, create_client

SPECIAL = "p%40ss%2Fw%3Ard%2B%25"
PLAIN = "p@ss/w:rd+%"
VERIFIED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://redis", RedisAddress(hosts=(("redis", 6379),))),
        ("redis:///2", RedisAddress(hosts=(("localhost", 6379),), database=2)),
        ("redis://[::1]:7000/?db=3", RedisAddress(hosts=(("::1", 7000),), database=3)),
        (
            f"redis://u%3A:{SPECIAL}@redis/1",
            RedisAddress(hosts=(("redis", 6379),), database=1, username="u:", password=PLAIN),
        ),
        ("rediss://redis", RedisAddress(hosts=(("redis", 6379),), tls=VERIFIED)),
        (
            "rediss://redis?ssl_ca_certs=/a%20b+c.pem&ssl_check_hostname=False",
            RedisAddress(
                hosts=(("redis", 6379),),
                tls={"ssl_cert_reqs": "required", "ssl_check_hostname": False, "ssl_ca_certs": "/a b+c.pem"},
            ),
        ),
        (
            "rediss://redis?ssl_cert_reqs=CERT_NONE",
            RedisAddress(hosts=(("redis", 6379),), tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ),
        (
            f"sentinel://:one@a,b:27000/4?master_name=main&sentinel_password={SPECIAL}",
            RedisAddress(
                hosts=(("a", 26379), ("b", 27000)),
                database=4,
                password="one",
                master_name="main",
                sentinel_password=PLAIN,
            ),
        ),
        (
            "sentinel://a?master_name=main&ssl=true&sentinel_ssl=false",
            RedisAddress(hosts=(("a", 26379),), tls=VERIFIED, master_name="main"),
        ),
        (
            "sentinel://a?master_name=main&ssl_ca_certs=/ca.pem",
            RedisAddress(
                hosts=(("a", 26379),),
                tls={**VERIFIED, "ssl_ca_certs": "/ca.pem"},
                master_name="main",
                sentinel_tls=True,
            ),
        ),
    ],
)
def test_what_a_url_says(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


def test_passwords_are_not_shown() -> None:
    shown = repr(parse_redis_url("sentinel://:hunter2@a?master_name=main&sentinel_password=hunter3"))
    assert "hunter" not in shown


def connection_options(url: str) -> list[dict[str, object]]:
    """What each client passes to its connections: the two of redis-py, and the one that Celery uses."""
    settings = celery_settings(url)
    transport = kombu.Connection(
        settings["broker_url"], ssl=settings["broker_use_ssl"], transport_options=settings["broker_transport_options"]
    )
    channel = transport.transport.Channel
    of_celery = channel._connparams(_Unconnected(transport))  # type: ignore[arg-type]
    pools = [create_client(url).connection_pool, create_async_pool(url, connections=1, wait_seconds=1)]
    return [*(pool.connection_kwargs for pool in pools), of_celery]


class _Unconnected:
    """As much of a channel of kombu as it needs to say how it would connect."""

    def __init__(self, client: kombu.Connection) -> None:
        self.connection = client.transport
        channel = client.transport.Channel
        for name in ("max_connections", "retry_on_timeout", "client_name", "connection_class", "connection_class_ssl"):
            setattr(self, name, getattr(channel, name))
        for name in channel.from_transport_options:
            if name in client.transport_options:
                setattr(self, name, client.transport_options[name])
        self._process_credential_provider = lambda *_: None
        self._prepare_virtual_host = lambda value: channel._prepare_virtual_host(None, value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SPECIAL}@10.0.0.1:7000/5",
        f"rediss://user:{SPECIAL}@10.0.0.1:7000/5",
        f"rediss://user:{SPECIAL}@10.0.0.1:7000/5?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
        f"rediss://user:{SPECIAL}@10.0.0.1:7000/5?ssl_check_hostname=false",
        f"rediss://user:{SPECIAL}@10.0.0.1:7000/5?ssl_cert_reqs=none",
        f"redis://user:{SPECIAL}@10.0.0.1:7000?db=5",
    ],
)
def test_all_clients_connect_alike(url: str) -> None:
    first, *others = [
        {name: value for name, value in options.items() if name in _COMPARED or name.startswith(("ssl", "socket"))}
        for options in connection_options(url)
    ]
    assert first["db"] == 5
    assert (first["username"], first["password"]) == ("user", PLAIN)
    if "ssl_cert_reqs" in first:
        wanted = ssl.CERT_NONE if "none" in url else ssl.CERT_REQUIRED
        assert redis.SSLConnection(**{k: v for k, v in first.items() if k.startswith("ssl")}).cert_reqs == wanted
        assert others[1]["ssl_cert_reqs"] == wanted
        for options in (first, *others):
            options["ssl_cert_reqs"] = wanted
    assert ("ssl_cert_reqs" in first) == url.startswith("rediss")
    assert others == [first, first]


_COMPARED = {"host", "port", "db", "username", "password"}


def test_celery_knows_every_sentinel() -> None:
    url = f"sentinel://user:{SPECIAL}@a,[::1]:7000/5?master_name=main&sentinel_password=two&ssl=true&sentinel_ssl=false"
    settings = celery_settings(url)
    first, second = settings["broker_url"].split(";")
    assert unquote(first) == f"sentinel://user:{PLAIN}@a:26379/5"
    assert unquote(second) == f"sentinel://user:{PLAIN}@[::1]:7000/5"
    assert settings["broker_use_ssl"]["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert settings["broker_transport_options"]["master_name"] == "main"
    of_sentinels = settings["broker_transport_options"]["sentinel_kwargs"]
    assert of_sentinels["password"] == "two"
    assert "ssl" not in of_sentinels


def test_url_that_cannot_work_does_not_stop_an_import() -> None:
    assert celery_settings("") == {"broker_url": ""}
