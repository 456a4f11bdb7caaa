"""Apps without servers. They are not started, so they read no root key from a database."""

import pytest

from worker.core.security.encryption import set_root_key


@pytest.fixture(scope="session", autouse=True)
def _root_key() -> None:
    set_root_key(b"a root key for tests only")
