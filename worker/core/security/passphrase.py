"""Passphrase encryption of keys in backups, with scrypt (RFC 7914) and AES-256-GCM."""

import base64
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_CONTEXT = b"dreamery-backup-keys"
# 64 MiB of memory and a few tenths of a second per guess.
_COST, _BLOCK, _PARALLELISM = 2**16, 8, 1
MIN_PASSPHRASE_CHARS = 12


class WrongPassphraseError(Exception):
    """The passphrase is wrong, or the encrypted keys were modified."""


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=_PARALLELISM).derive(passphrase.encode())


def encrypt_keys(keys: dict[str, str], passphrase: str) -> bytes:
    """Encrypt the keys with the passphrase; returns JSON."""
    salt, nonce = os.urandom(16), os.urandom(12)
    ciphertext = AESGCM(_key(passphrase, salt)).encrypt(nonce, json.dumps(keys).encode(), _CONTEXT)
    parts = {"salt": salt, "nonce": nonce, "sealed": ciphertext}
    encoded = {name: base64.b64encode(value).decode() for name, value in parts.items()}
    return json.dumps({"kdf": f"scrypt {_COST} {_BLOCK} {_PARALLELISM}", **encoded}).encode()


def decrypt_keys(encrypted: bytes, passphrase: str) -> dict[str, str]:
    """Decrypt the keys. Raises WrongPassphraseError."""
    try:
        parts = json.loads(encrypted)
        salt, nonce, ciphertext = (base64.b64decode(parts[name]) for name in ("salt", "nonce", "sealed"))
        keys = json.loads(AESGCM(_key(passphrase, salt)).decrypt(nonce, ciphertext, _CONTEXT))
    except (InvalidTag, ValueError, KeyError, TypeError) as error:
        raise WrongPassphraseError from error
    return {str(name): str(value) for name, value in keys.items()}
