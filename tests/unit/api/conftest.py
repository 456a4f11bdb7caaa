"""Apps without servers: nobody starts them, so nobody reads the root key from a database."""

import pytest

from worker.core.security.encryption import use_root


@pytest.fixture(scope="session", autouse=True)
def _root_key() -> None:
    use_root(b"a root key for tests only")
