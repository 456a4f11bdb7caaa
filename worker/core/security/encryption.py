"""Encryption and keyed hashing of secrets at rest.

AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D). The context is authenticated, so a ciphertext copied to
another row cannot be decrypted. The list of master keys is newest first: the first one encrypts, all decrypt.

Lookup hashes are keyed with the *root key*, so they survive a master-key rotation. The root key is 32 bytes, stored
encrypted in the database (`worker/db/platform/root_key.py`). Only tasks call `decrypt_secret` (I8).
"""

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.core.settings import Settings, get_settings

# `v1` ciphertexts have no key id. They can still be decrypted, and a rotation rewrites them.
_VERSION, _OLD_VERSION = "v2", "v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_BYTES = 32


NO_MASTER_KEY = "DREAMERY_MASTER_KEY is not set: use the one of the other processes of this platform"


class SecretUnreadableError(Exception):
    """No master key decrypts this ciphertext: `DREAMERY_MASTER_KEY` does not contain the key that encrypted it."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key. `id` identifies it in ciphertexts and reports, and does not reveal the key."""

    id: str
    key: bytes = field(repr=False)


def master_keys(settings: Settings | None = None) -> tuple[MasterKey, ...]:
    """Return the keys of DREAMERY_MASTER_KEY, newest first. Raises SecretUnreadableError if there is none."""
    value = (settings or get_settings()).master_key.get_secret_value().split(",")
    parts = list(dict.fromkeys(part.strip() for part in value if part.strip()))
    if not parts:
        raise SecretUnreadableError(NO_MASTER_KEY)
    # Keys are long random strings, so one hash is a safe derivation; a password would need argon2.
    keys = [hashlib.sha256(b"dreamery-master:" + part.encode()).digest() for part in parts]
    return tuple(MasterKey(id=_derived(key, "key id").hex()[:8], key=key) for key in keys)


def master_key_ids(settings: Settings | None = None) -> list[str]:
    """Return the ids of the master keys, newest first; empty if no key is set."""
    try:
        return [master.id for master in master_keys(settings)]
    except SecretUnreadableError:
        return []


def _derived(key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"dreamery {purpose}".encode()).derive(key)


def derived_keys(purpose: str, *, settings: Settings | None = None) -> list[bytes]:
    """Derive a key for a purpose from each master key, newest first (HKDF, RFC 5869): sign with the first, accept all.

    For signatures that may become invalid with their master key. Longer-lived values use the root key.
    """
    return [_derived(master.key, purpose) for master in master_keys(settings)]


# --- ciphertexts ---


def encrypt_secret(plain: str, *, context: str, settings: Settings | None = None) -> str:
    """Encrypt with the newest key. Returns `v2:KEYID:base64(nonce + ciphertext + tag)`."""
    return _encrypt(plain.encode(), context, master_keys(settings)[0])


def decrypt_secret(encrypted: str, *, context: str, settings: Settings | None = None) -> str:
    """Decrypt with the matching master key. Raises SecretUnreadableError."""
    return _decrypt(encrypted, context, master_keys(settings))[0].decode()


def reencrypt_secret(encrypted: str, *, context: str, settings: Settings | None = None) -> str | None:
    """Re-encrypt with the newest key; None if it already uses that key. Raises SecretUnreadableError."""
    keys = master_keys(settings)
    if encrypted.startswith(f"{_VERSION}:{keys[0].id}:"):
        return None
    return _encrypt(_decrypt(encrypted, context, keys)[0], context, keys[0])


def encryption_key_id(encrypted: str, *, context: str, settings: Settings | None = None) -> str | None:
    """Return the id of the master key that decrypts this ciphertext; None = no key does."""
    try:
        return _decrypt(encrypted, context, master_keys(settings))[1].id
    except SecretUnreadableError:
        return None


def _encrypt(plain: bytes, context: str, master: MasterKey) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = AESGCM(master.key).encrypt(nonce, plain, context.encode())
    return f"{_VERSION}:{master.id}:{base64.b64encode(nonce + ciphertext).decode()}"


def _decrypt(encrypted: str, context: str, keys: tuple[MasterKey, ...]) -> tuple[bytes, MasterKey]:
    version, _, rest = encrypted.partition(":")
    key_id, _, body = rest.partition(":") if version == _VERSION else ("", "", rest)
    if version not in {_VERSION, _OLD_VERSION}:
        raise SecretUnreadableError("unknown ciphertext version")
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:
        raise SecretUnreadableError("not a valid ciphertext") from None
    if len(raw) < _NONCE_BYTES + _TAG_BYTES:
        raise SecretUnreadableError("the ciphertext is truncated")
    for master in keys:
        if key_id in {"", master.id}:
            try:
                return AESGCM(master.key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()), master
            except InvalidTag:
                continue
    raise SecretUnreadableError("no key of DREAMERY_MASTER_KEY decrypts this secret")


# --- the root key and values derived from it ---


class _RootKey:
    """Holder of the root key of this process, once loaded."""

    key: bytes | None = None


def set_root_key(key: bytes) -> None:
    """Set the root key of this process. `worker.db.platform.root_key` calls this once, before any lookup."""
    _RootKey.key = key


def encrypt_root_key(key: bytes, *, context: str) -> str:
    """Encrypt the root key for the database."""
    return encrypt_secret(base64.b64encode(key).decode(), context=context)


def decrypt_root_key(encrypted: str, *, context: str) -> bytes:
    """Decrypt the root key from the database. Raises SecretUnreadableError."""
    return base64.b64decode(decrypt_secret(encrypted, context=context))


def generate_root_key() -> bytes:
    """Return a new random root key."""
    return os.urandom(_KEY_BYTES)


def legacy_root_key() -> bytes:
    """Return the key that earlier versions used for lookup hashes: their oldest master key."""
    return master_keys()[-1].key


def _root_key() -> bytes:
    if _RootKey.key is None:
        raise RuntimeError("the root key is not loaded: call worker.db.platform.root_key.load_root_key() first")
    return _RootKey.key


def lookup_hash(secret: str) -> str:
    """Return the keyed hash that finds a secret in the database. It cannot be computed without the root key."""
    return hmac.new(_root_key(), b"lookup:" + secret.encode(), hashlib.sha256).hexdigest()


def root_signature(purpose: str, value: bytes) -> bytes:
    """Return a signature (32 bytes) that stays valid when the master key changes."""
    return hmac.new(_root_key(), f"{purpose}:".encode() + value, hashlib.sha256).digest()


def webhook_secret(owner: str) -> str:
    """Derive the Standard Webhooks secret (`whsec_...`) of an owner; it is not stored."""
    digest = hmac.new(_root_key(), b"webhook:" + owner.encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(digest).decode()


def new_webhook_secret() -> str:
    """Return a new Standard Webhooks secret: `whsec_` and 32 random bytes."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()
