"""Names of compressions of request bodies (`Content-Encoding`)."""

# Brotli and Zstandard need libraries of their own, and no known client compresses requests with them.
SUPPORTED = ("gzip", "deflate")
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


def encoding_of(header: str) -> str | None:
    """Return the encoding of a `Content-Encoding` header, None for an uncompressed body. Raises ValueError."""
    names = [name for name in (part.strip().lower() for part in header.split(",")) if name not in {"", "identity"}]
    if not names:
        return None
    if len(names) > 1 or names[0] not in _NAMES:
        raise ValueError(header)
    return _NAMES[names[0]]
