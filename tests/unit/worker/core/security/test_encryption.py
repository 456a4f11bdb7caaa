"""Encryption of secrets at rest: contexts, key rotation, derived keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.security.encryption import (
    SecretUnreadableError,
    decrypt_secret,
    derived_keys,
    encrypt_secret,
    encryption_key_id,
    master_keys,
    reencrypt_secret,
)
from worker.core.settings import Settings


def _settings(*keys: str) -> Settings:
    return Settings(_env_file=None, master_key=",".join(keys))


@given(plain=st.text(max_size=200), context=st.text(min_size=1, max_size=50))
def test_ciphertext_decrypts_only_in_its_own_context(plain: str, context: str) -> None:
    settings = _settings("first-key")
    encrypted = encrypt_secret(plain, context=context, settings=settings)
    assert decrypt_secret(encrypted, context=context, settings=settings) == plain
    with pytest.raises(SecretUnreadableError):
        decrypt_secret(encrypted, context=context + "x", settings=settings)


def test_older_key_decrypts_and_newest_key_encrypts() -> None:
    old, both, new = _settings("old"), _settings("new", "old"), _settings("new")
    encrypted_before = encrypt_secret("session", context="c", settings=old)
    assert decrypt_secret(encrypted_before, context="c", settings=both) == "session"
    with pytest.raises(SecretUnreadableError):
        decrypt_secret(encrypted_before, context="c", settings=new)
    assert decrypt_secret(encrypt_secret("session", context="c", settings=both), context="c", settings=new) == "session"


def test_same_secret_gives_different_ciphertexts() -> None:
    settings = _settings("key")
    assert encrypt_secret("s", context="c", settings=settings) != encrypt_secret("s", context="c", settings=settings)


def test_rotation_rewrites_ciphertexts_of_older_keys() -> None:
    old, both, new = _settings("old"), _settings("new", "old"), _settings("new")
    before = encrypt_secret("session", context="c", settings=old)
    # The format of versions without key ids.
    unnamed = f"v1:{before.rpartition(':')[2]}"
    for encrypted in (before, unnamed):
        assert encryption_key_id(encrypted, context="c", settings=both) == master_keys(old)[0].id
        assert encryption_key_id(encrypted, context="c", settings=new) is None
        after = reencrypt_secret(encrypted, context="c", settings=both)
        assert after is not None
        assert decrypt_secret(after, context="c", settings=new) == "session"
        assert reencrypt_secret(after, context="c", settings=both) is None
    with pytest.raises(SecretUnreadableError):
        reencrypt_secret(before, context="c", settings=new)


def test_derived_keys_differ_by_purpose() -> None:
    links, cookies = (derived_keys(name, settings=_settings("new", "old")) for name in ("links", "cookies"))
    assert len({*links, *cookies}) == 4
    assert links[1:] == derived_keys("links", settings=_settings("old"))


def test_encryption_needs_a_master_key() -> None:
    with pytest.raises(SecretUnreadableError, match="DREAMERY_MASTER_KEY"):
        encrypt_secret("s", context="c", settings=_settings())
