"""Garbage collector settings and lean imports. The API and the workers import this module before any large import.

With Python's defaults (700, 10, 10), a quarter of a worker's startup time goes into looking at imported objects that
stay anyway. So nothing is collected until `keep_imports` is called, and what exists then is never looked at again.

Some libraries import others only because they are installed, for features that Dreamery does not use: structlog imports
rich and its lexers, kombu yaml, tenacity tornado, redis-py the OpenTelemetry SDK. Here they are imported without them,
which saves about 8 MB per process.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

gc.set_threshold(10_000, 20, 50)
gc.disable()

_UNUSED = {
    "structlog": ("rich", "better_exceptions", "colorama"),
    "kombu.serialization": ("yaml",),
    "tenacity": ("tornado",),
    "redis.observability.providers": ("opentelemetry.sdk",),
}


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Make imports of these packages fail within the block, except where they are loaded already."""
    missing = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def keep_imports() -> None:
    """Start to collect garbage, except what exists now. For the end of a start, when everything is imported."""
    gc.freeze()
    gc.enable()


def import_without(library: str, packages: tuple[str, ...]) -> None:
    """Import a library without its optional packages."""
    with _hidden(packages):
        importlib.import_module(library)


for _library, _packages in _UNUSED.items():
    import_without(_library, _packages)
