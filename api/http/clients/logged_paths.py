"""Paths as logs may have them: the part of a link that grants access is left out."""

import re

# A share page and a result: anyone who knows the path can read them.
_SECRETS = re.compile(r"(?<=^/s/)[^/]+|(?<=^/v1/files/)file_[0-9a-f]{32}(?=/(?:content|thumbnail)$)")


def logged_path(path: str) -> str:
    """Return the path without what grants access."""
    return _SECRETS.sub("...", path)
