"""Credentials of upstream accounts as text, with the notations of their region and proxy: session ids and keys.

`[credentials]` in the data of a provider says which notations it has: `worker/core/catalog/provider_data.py`. A key is
taken as it is: its vendor may change its form. Credentials never appear in error messages, logs or reprs.
"""

import re
import socket
from dataclasses import dataclass, field

from worker.core.catalog.provider_data import ProviderData, all_providers, first_provider
from worker.core.errors import DreameryError
from worker.core.security.ip_addresses import is_public

MAX_TOKENS = 100
# The region of every provider that means the sandbox instead of the upstream.
SANDBOX = "sandbox"
# A session id of the sandbox for the first steps with a platform.
DEMO_TOKEN = f"demo:{SANDBOX}"

_SUFFIX = re.compile(r":([A-Za-z]+)$")
_PROXY = re.compile(r"(https?|socks[45]?[ah]?)://", re.IGNORECASE)
_DIRECT = re.compile(r"direct://@?", re.IGNORECASE)
# Notations of an IPv4 address that resolvers accept: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+)){0,3}", re.IGNORECASE)
_PROXY_KINDS = {"http": ("http", 80), "https": ("https", 443)} | dict.fromkeys(
    ("socks", "socks5", "socks5h"), ("socks5", 1080)
)
_PROXY_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PROXY_USER = re.compile(r"[!-~]{0,512}")
# Valid cookie value (RFC 6265): printable ASCII without space, quote, comma, semicolon and backslash.
_SESSION = re.compile(r"[!#-+\--:<-\[\]-~]{1,512}")


@dataclass(frozen=True, slots=True)
class SessionToken:
    """One session id or key with its region (named or default) and its proxy.

    `proxy` None = not given, an account keeps its proxy; "" (`direct://@SESSION`) = remove the proxy.
    """

    session: str = field(repr=False)
    region: str
    proxy: str | None = field(default=None, repr=False)  # `http|https|socks5://[user[:password]@]host:port`
    provider: str = field(default_factory=first_provider)


def parse_tokens(bearer: str, default_region: str) -> list[SessionToken]:
    """Return the distinct tokens of an `Authorization` value, in order.

    Raises `missing_api_key` if there is none, and `invalid_api_key` for an invalid one.
    """
    scheme, _, rest = bearer.strip().partition(" ")
    text = rest if scheme.lower() == "bearer" else bearer
    parts = [part for part in (piece.strip() for piece in text.split(",")) if part]
    if not parts:
        raise DreameryError("missing_api_key")
    if len(parts) > MAX_TOKENS:
        raise DreameryError("invalid_api_key", f"At most {MAX_TOKENS} tokens are allowed per request.")
    found = (parse_token(part, position, default_region) for position, part in enumerate(parts, start=1))
    return list(dict.fromkeys(found))


def parse_token(part: str, position: int, default_region: str, provider: str | None = None) -> SessionToken:
    """Parse one credential of a provider; `position` counts from 1 and is used in error messages.

    Without a provider it belongs to the first one, except `NAME-...:sandbox`, which is of the provider NAME. Raises
    `invalid_api_key`; also if it names no region and there is no `default_region`.
    """
    proxy: str | None = None
    if direct := _DIRECT.match(part):
        proxy, part = "", part[direct.end() :]
    elif _PROXY.match(part):
        # Split at the last @, because the user part of a proxy may contain one.
        address, _, part = part.rpartition("@")
        proxy = parse_proxy(address, position)
    data = all_providers()[provider or _provider_of(part)]
    session, region = _split_region(part, position, data)
    region = region or default_region
    if not _SESSION.fullmatch(session):
        words = "a session id" if data.has_sessions else "a key"
        raise _invalid_token(position, f"{words} has 1 to 512 printable ASCII characters without spaces or quotes")
    if not region:
        raise _invalid_token(position, "it needs a region, one of: " + ", ".join(data.regions))
    return SessionToken(session=session, region=region, proxy=proxy, provider=data.name)


def _provider_of(part: str) -> str:
    name, dash, _ = part.partition("-")
    is_named = bool(dash) and part.lower().endswith(f":{SANDBOX}") and name in all_providers()
    return name if is_named else first_provider()


def _split_region(part: str, position: int, data: ProviderData) -> tuple[str, str]:
    """Return the credential without its notation of a region, and that region or ""."""
    word, dash, rest = part.partition("-")
    region = word.lower() if dash and word.lower() in data.region_prefixes else ""
    session = rest if region else part
    if suffix := _SUFFIX.search(session):
        named = suffix.group(1).lower()
        if named not in data.regions:
            # A key may contain a colon; a session id has none before letters.
            if not data.has_sessions:
                return session, region
            raise _invalid_token(
                position, "unknown region after the colon; known regions: " + ", ".join(sorted(data.regions))
            )
        if region and named != region:
            raise _invalid_token(position, "prefix and suffix have different regions")
        session, region = session[: suffix.start()], named
    return session, region


def parse_proxy(address: str, position: int) -> str:
    """Return the proxy in canonical form: scheme, user part as given, host in lower case, explicit port.

    Raises `invalid_api_key`.
    """
    scheme, _, rest = address.partition("://")
    kind, default_port = _PROXY_KINDS.get(scheme.lower(), ("", 0))
    if not kind and address:
        raise _invalid_token(position, "the proxy must be http, https, socks or socks5; socks4 is not supported")
    user, at, authority = rest.removesuffix("/").rpartition("@")
    host, _, port = authority.partition(":")
    number = port or str(default_port)
    good_port = number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) < 65536
    if not (_PROXY_HOST.fullmatch(host) and good_port and _PROXY_USER.fullmatch(user)) or set(user) & set("/?#"):
        raise _invalid_token(position, "a proxy token has the form http://user:password@host:port@SESSION")
    return f"{kind}://{user}{at}{host.lower()}:{int(number)}"


def check_proxy(token: SessionToken, position: int, allowed: frozenset[str]) -> None:
    """Refuse a proxy with a literal private address that is not `allowed` (`host` or `host:port`).

    Host names are resolved and checked when connecting. Raises `invalid_api_key`.
    """
    authority = (token.proxy or "").rpartition("://")[2].rpartition("@")[2]
    host = authority.rpartition(":")[0]
    if authority and not {host, authority} & allowed and _is_private(host):
        raise _invalid_token(
            position, "its proxy has a private address; the operator can allow it with DREAMERY_FETCH_ALLOW"
        )


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    if not _NUMERIC.fullmatch(host):
        return False
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return False


def proxy_without_credentials(proxy: str) -> str:
    """Return a canonical proxy without its user part."""
    kind, _, rest = proxy.partition("://")
    return f"{kind}://{rest.rpartition('@')[2]}"


def demo_tokens() -> list[str]:
    """Return the credentials for the first steps with a platform: the sandbox's for each provider."""
    return [DEMO_TOKEN, *(f"{one.name}-{DEMO_TOKEN}" for one in all_providers().values() if not one.has_sessions)]


def mask_token(token: SessionToken) -> str:
    """Return a masked token for display: recognizable to its owner, but not usable. The proxy is left out."""
    session = token.session
    first, last = (4, 4) if len(session) >= 16 else (2, 0) if len(session) >= 8 else (0, 0)
    return f"{session[:first]}****{session[len(session) - last :]}:{token.region}"


def _invalid_token(position: int, reason: str) -> DreameryError:
    return DreameryError("invalid_api_key", f"Token {position} is invalid: {reason}.")
