"""Keys under a passphrase, for backups: scrypt (RFC 7914) and AES-256-GCM."""

import base64
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_CONTEXT = b"dreamery-backup-keys"
# 64 MiB and a few tenths of a second per guess.
_COST, _BLOCK, _LANES = 2**16, 8, 1
MIN_PASSPHRASE_CHARS = 12


class WrongPassphraseError(Exception):
    """The passphrase does not open these keys, or they were changed."""


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=_LANES).derive(passphrase.encode())


def encrypt_keys(keys: dict[str, str], passphrase: str) -> bytes:
    """The keys as a text that only the passphrase opens."""
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, json.dumps(keys).encode(), _CONTEXT)
    parts = {"salt": salt, "nonce": nonce, "sealed": sealed}
    encoded = {name: base64.b64encode(value).decode() for name, value in parts.items()}
    return json.dumps({"kdf": f"scrypt {_COST} {_BLOCK} {_LANES}", **encoded}).encode()


def decrypt_keys(locked: bytes, passphrase: str) -> dict[str, str]:
    """The keys again. Raises WrongPassphraseError."""
    try:
        told = json.loads(locked)
        salt, nonce, sealed = (base64.b64decode(told[name]) for name in ("salt", "nonce", "sealed"))
        opened = json.loads(AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, _CONTEXT))
    except (InvalidTag, ValueError, KeyError, TypeError) as error:
        raise WrongPassphraseError from error
    return {str(name): str(value) for name, value in opened.items()}
