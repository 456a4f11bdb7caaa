"""Sign-in through an OpenID provider: authorization code with PKCE. Authlib and joserfc speak the protocol.

Both are imported at the first use, because most platforms have no such provider.
"""

import asyncio
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from typing import Any

from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.core.settings import Settings

log = get_logger("oidc")

STATE_SECONDS = 600
_CALL_SECONDS = 10.0
_METADATA_SECONDS = 3600.0
_LEEWAY_SECONDS = 60
_LONGEST_NAME = 100
_ROLES = ("viewer", "member", "admin")


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """What the browser keeps in a cookie while it is at the provider."""

    state: str
    nonce: str
    verifier: str
    started_at: float

    def to_cookie(self) -> str:
        """Return it as text for a cookie."""
        return urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()


def read_pending(cookie: str) -> PendingSignIn | None:
    """Return what `to_cookie` wrote; None if it is not that or is too old."""
    try:
        pending = PendingSignIn(**json.loads(urlsafe_b64decode(cookie)))
        return pending if 0 <= time.time() - float(pending.started_at) <= STATE_SECONDS else None
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, as the provider says. `groups` None = it says nothing about groups."""

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...] | None


def role_of(person: Person, rules: str) -> str | None:
    """Return the highest role that the rules (`group=role,...`, `*` = everybody) give; None = none.

    Without rules everybody is a member.
    """
    if not rules.strip():
        return "member"
    pairs = [rule.partition("=") for rule in rules.split(",") if rule.strip()]
    groups = {*(person.groups or ()), "*"}
    given = [role.strip() for group, _, role in pairs if group.strip() in groups and role.strip() in _ROLES]
    return max(given, key=_ROLES.index, default=None)


class OpenIdProvider:
    """The provider of the settings. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metadata: tuple[float, dict[str, Any], Any] | None = None
        self._loading = asyncio.Lock()

    async def start(self, redirect_uri: str) -> tuple[str, PendingSignIn]:
        """Return the address at the provider to which the browser goes, and what it must keep meanwhile."""
        metadata, _ = await self._load()
        pending = PendingSignIn(
            secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), time.time()
        )
        async with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=pending.state,
                nonce=pending.nonce,
                code_verifier=pending.verifier,
            )
        return str(url), pending

    async def finish(self, redirect_uri: str, code: str, pending: PendingSignIn) -> Person:
        """Exchange the code for the person. Raises `sign_in_failed`."""
        metadata, keys = await self._load()
        try:
            async with asyncio.timeout(2 * _CALL_SECONDS), self._client(redirect_uri) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"],
                    code=code,
                    code_verifier=pending.verifier,
                    grant_type="authorization_code",
                )
                claims = self._claims(token, metadata, keys, pending.nonce)
                if self._settings.oidc_groups_claim not in claims and metadata.get("userinfo_endpoint"):
                    more = (await client.get(metadata["userinfo_endpoint"])).json()
                    # The answer must be about the same person.
                    claims = {**more, **claims} if more.get("sub") == claims["sub"] else claims
        except DreameryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the provider answered, the user starts again
            log.warning("oidc_failed", error=type(error).__name__, reason=str(error)[:200])
            self._metadata = None  # its keys may have changed
            raise DreameryError("sign_in_failed", detail="failed") from None
        return self._person(claims)

    def _claims(self, token: Any, metadata: dict[str, Any], keys: Any, nonce: str) -> dict[str, Any]:
        from joserfc import jwt

        algorithms = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        decoded = jwt.decode(token["id_token"], keys, algorithms=[name for name in algorithms if name[:2] in _SIGNED])
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": metadata["issuer"]},
            aud={"essential": True, "value": self._settings.oidc_client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
        )
        registry.validate(decoded.claims)
        return dict(decoded.claims)

    def _person(self, claims: dict[str, Any]) -> Person:
        groups = claims.get(self._settings.oidc_groups_claim)
        names = [_printable(claims.get(name)) for name in ("preferred_username", "email", "name", "sub")]
        subject = str(claims["sub"])
        if not subject or subject != _printable(subject):
            raise DreameryError("sign_in_failed", detail="failed")
        return Person(
            issuer=str(claims["iss"]),
            subject=subject,
            name=next(name for name in names if name)[:_LONGEST_NAME],
            groups=tuple(str(group) for group in groups) if isinstance(groups, list) else None,
        )

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        settings, secret = self._settings, self._settings.oidc_client_secret.get_secret_value()
        return AsyncOAuth2Client(
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret.get_secret_value() or None,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope=settings.oidc_scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_CALL_SECONDS,
        )

    async def _load(self) -> tuple[dict[str, Any], Any]:
        """Return the provider's description and keys, read at most once an hour. Raises `sign_in_failed`."""
        async with self._loading:
            if self._metadata is None or self._metadata[0] < time.monotonic():
                metadata, keys = await self._read()
                self._metadata = (time.monotonic() + _METADATA_SECONDS, metadata, keys)
            return self._metadata[1], self._metadata[2]

    async def _read(self) -> tuple[dict[str, Any], Any]:
        from joserfc.jwk import KeySet

        try:
            async with asyncio.timeout(2 * _CALL_SECONDS), self._client("") as client:
                metadata = await _get(client, f"{self._settings.oidc_issuer}/.well-known/openid-configuration")
                self._check_issuer(str(metadata["issuer"]))
                return metadata, KeySet.import_key_set(await _get(client, metadata["jwks_uri"]))
        except Exception as error:  # noqa: BLE001 - whatever the provider answered, nobody can sign in with it
            log.warning("oidc_unreachable", error=type(error).__name__, reason=str(error)[:200])
            raise DreameryError("sign_in_failed", detail="provider") from None

    def _check_issuer(self, issuer: str) -> None:
        if issuer.rstrip("/") != self._settings.oidc_issuer:
            raise ValueError(f"it says it is {issuer[:100]}")


def _printable(value: object) -> str:
    """Return the text as the name of a user may be: names appear on command lines and in log lines."""
    return "".join(sign for sign in str(value or "") if sign.isprintable()).strip()


async def _get(client: Any, url: str) -> Any:
    return (await client.request("GET", url, withhold_token=True)).raise_for_status().json()


# Signatures by a key pair of the provider; never `none`, never one by the client's secret.
_SIGNED = frozenset({"RS", "PS", "ES", "Ed"})
