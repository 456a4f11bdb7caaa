"""Encryption and keyed hashing of secrets at rest.

AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D), bound to the context it belongs to, so a ciphertext copied
to another row does not open. The master key list is newest first: the first encrypts, all decrypt.

Hashes that find things again hang on the *root key*, not on a master key: 32 bytes that the database keeps, sealed
(`worker/db/platform/root_key.py`), so that a master key can be replaced without anything getting another hash.
Only steps and the API's caller check call `decrypt_secret` (I8).
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

# `v1` named no key. It is still opened, and a rotation rewrites it.
_VERSION, _OLD_VERSION = "v2", "v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_BYTES = 32


class SecretUnreadableError(Exception):
    """No key of the list opens this ciphertext; `DREAMERY_MASTER_KEY` is not the one it was written with."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One key of the list. `id` names it in ciphertexts and reports, and tells nothing of it."""

    id: str
    key: bytes = field(repr=False)


def master_keys(settings: Settings | None = None) -> tuple[MasterKey, ...]:
    """The keys of DREAMERY_MASTER_KEY, newest first. Raises SecretUnreadableError when there is none."""
    listed = (settings or get_settings()).master_key.get_secret_value().split(",")
    parts = list(dict.fromkeys(part.strip() for part in listed if part.strip()))
    if not parts:
        raise SecretUnreadableError("DREAMERY_MASTER_KEY is not set")
    # Keys are long random strings, so one hash is a sound derivation; a password would need argon2.
    keys = [hashlib.sha256(b"dreamery-master:" + part.encode()).digest() for part in parts]
    return tuple(MasterKey(id=_derived(key, "key id").hex()[:8], key=key) for key in keys)


def master_key_ids(settings: Settings | None = None) -> list[str]:
    """The ids of the master keys, newest first; none when no key is set."""
    try:
        return [master.id for master in master_keys(settings)]
    except SecretUnreadableError:
        return []


def _derived(key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"dreamery {purpose}".encode()).derive(key)


def derived_keys(purpose: str, *, settings: Settings | None = None) -> list[bytes]:
    """A key for one purpose from each master key, newest first (HKDF, RFC 5869): sign with the first, accept all.

    For signatures that may die with their master key. What has to outlive it hangs on the root key.
    """
    return [_derived(master.key, purpose) for master in master_keys(settings)]


# --- ciphertexts ---


def encrypt_secret(plain: str, *, context: str, settings: Settings | None = None) -> str:
    """Encrypt with the newest key: `v2:KEYID:base64(nonce + ciphertext + tag)`."""
    return _seal(plain.encode(), context, master_keys(settings)[0])


def decrypt_secret(sealed: str, *, context: str, settings: Settings | None = None) -> str:
    """Decrypt with whichever key fits. Raises SecretUnreadableError."""
    return _open(sealed, context, master_keys(settings))[0].decode()


def reencrypt_secret(sealed: str, *, context: str, settings: Settings | None = None) -> str | None:
    """The same secret under the newest key; None when it is under that already. Raises SecretUnreadableError."""
    keys = master_keys(settings)
    if sealed.startswith(f"{_VERSION}:{keys[0].id}:"):
        return None
    return _seal(_open(sealed, context, keys)[0], context, keys[0])


def encryption_key_id(sealed: str, *, context: str, settings: Settings | None = None) -> str | None:
    """The id of the key of the list that opens this ciphertext; None = no key does."""
    try:
        return _open(sealed, context, master_keys(settings))[1].id
    except SecretUnreadableError:
        return None


def _seal(plain: bytes, context: str, master: MasterKey) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(master.key).encrypt(nonce, plain, context.encode())
    return f"{_VERSION}:{master.id}:{base64.b64encode(nonce + sealed).decode()}"


def _open(sealed: str, context: str, keys: tuple[MasterKey, ...]) -> tuple[bytes, MasterKey]:
    version, _, rest = sealed.partition(":")
    key_id, _, body = rest.partition(":") if version == _VERSION else ("", "", rest)
    if version not in {_VERSION, _OLD_VERSION}:
        raise SecretUnreadableError("unknown ciphertext version")
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:
        raise SecretUnreadableError("not a ciphertext of ours") from None
    if len(raw) < _NONCE_BYTES + _TAG_BYTES:
        raise SecretUnreadableError("the ciphertext is cut short")
    for master in keys:
        if key_id in {"", master.id}:
            try:
                return AESGCM(master.key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()), master
            except InvalidTag:
                continue
    raise SecretUnreadableError("no key of DREAMERY_MASTER_KEY opens this secret")


# --- the root key, and what hangs on it ---


class _Root:
    """The root key of this process, once it was read."""

    key: bytes | None = None


def set_root_key(key: bytes) -> None:
    """Said once per process, by `worker.db.platform.root_key`, before anything is looked up."""
    _Root.key = key


def encrypt_root_key(key: bytes, *, context: str) -> str:
    """The root key as the database keeps it."""
    return encrypt_secret(base64.b64encode(key).decode(), context=context)


def decrypt_root_key(sealed: str, *, context: str) -> bytes:
    """The root key that the database keeps. Raises SecretUnreadableError."""
    return base64.b64decode(decrypt_secret(sealed, context=context))


def generate_root_key() -> bytes:
    """A fresh root key."""
    return os.urandom(_KEY_BYTES)


def legacy_root_key() -> bytes:
    """What earlier versions used in place of a root key: their oldest master key, by which their rows are found."""
    return master_keys()[-1].key


def _root() -> bytes:
    if _Root.key is None:
        raise RuntimeError("the root key is not loaded: call worker.db.platform.root_key.load_root_key() first")
    return _Root.key


def lookup_hash(secret: str) -> str:
    """Keyed hash by which a presented secret is found again; useless without the root key."""
    return hmac.new(_root(), b"lookup:" + secret.encode(), hashlib.sha256).hexdigest()


def webhook_secret(owner: str) -> str:
    """The Standard Webhooks secret (`whsec_...`) of an owner, derived, so that nothing needs to be stored."""
    digest = hmac.new(_root(), b"webhook:" + owner.encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(digest).decode()


def new_webhook_secret() -> str:
    """A fresh Standard Webhooks secret: `whsec_` and 32 random bytes."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()
