"""Encryption and keyed hashing of secrets at rest.

AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D), bound to the context it belongs to, so a ciphertext copied
to another row does not open. The master key list is newest first: the first encrypts, all decrypt.
Only steps and the API's caller check call `open_secret`; ruff and a shape test hold that (I8).
"""

import base64
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.core.settings import Settings, get_settings

_VERSION = "v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class SecretUnreadableError(Exception):
    """No key of the list opens this ciphertext; `DREAMERY_MASTER_KEY` is not the one it was written with."""


def _keys(settings: Settings) -> list[bytes]:
    parts = [part.strip() for part in settings.master_key.get_secret_value().split(",") if part.strip()]
    if not parts:
        raise SecretUnreadableError("DREAMERY_MASTER_KEY is not set")
    # Keys are long random strings, so one hash is a sound derivation; a password would need argon2.
    return [hashlib.sha256(b"dreamery-master:" + part.encode()).digest() for part in parts]


def master_key_ids(settings: Settings | None = None) -> list[str]:
    """Names of the master keys, newest first, by which people tell them apart; they say nothing about the keys."""
    try:
        return [
            hashlib.sha256(b"dreamery-master-id:" + key).hexdigest()[:12] for key in _keys(settings or get_settings())
        ]
    except SecretUnreadableError:
        return []


def seal_secret(plain: str, *, context: str, settings: Settings | None = None) -> str:
    """Encrypt with the newest key: `v1:base64(nonce + ciphertext + tag)`."""
    key = _keys(settings or get_settings())[0]
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain.encode(), context.encode())
    return f"{_VERSION}:{base64.b64encode(nonce + sealed).decode()}"


def open_secret(sealed: str, *, context: str, settings: Settings | None = None) -> str:
    """Decrypt with whichever key fits. Raises SecretUnreadableError."""
    version, _, body = sealed.partition(":")
    if version != _VERSION:
        raise SecretUnreadableError("unknown ciphertext version")
    keys = _keys(settings or get_settings())
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:
        raise SecretUnreadableError("not a ciphertext of ours") from None
    if len(raw) < _NONCE_BYTES + _TAG_BYTES:
        raise SecretUnreadableError("the ciphertext is cut short")
    for key in keys:
        try:
            return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()).decode()
        except InvalidTag:
            continue
    raise SecretUnreadableError("no key of DREAMERY_MASTER_KEY opens this secret")


def lookup_hash(secret: str, *, settings: Settings | None = None) -> str:
    """Keyed hash by which a presented secret is found again; useless without the master key.

    The *oldest* key of the list is used, so that adding a newer key in front keeps every stored hash valid.
    """
    key = _keys(settings or get_settings())[-1]
    return hmac.new(key, b"lookup:" + secret.encode(), hashlib.sha256).hexdigest()


def webhook_secret(owner: str, *, settings: Settings | None = None) -> str:
    """The Standard Webhooks secret (`whsec_...`) of an owner, derived, so that nothing needs to be stored."""
    key = _keys(settings or get_settings())[-1]
    return "whsec_" + base64.b64encode(hmac.new(key, b"webhook:" + owner.encode(), hashlib.sha256).digest()).decode()


def new_webhook_secret() -> str:
    """A fresh Standard Webhooks secret: `whsec_` and 32 random bytes."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()
