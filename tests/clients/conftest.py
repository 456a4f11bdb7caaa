"""Keeps the slow front ends out of `make test`: `make test-clients` sets TEST_CLIENTS."""

import os

collect_ignore_glob = [] if os.environ.get("TEST_CLIENTS") else ["*/test_*.py"]
