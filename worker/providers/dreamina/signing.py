"""The `Sign` header (protocol section 2.3) and the made-up but stable browser ids of a session."""

import hashlib

PF = "7"


def sign(path: str, appvr: str, unix_seconds: int) -> str:
    """MD5 over the last seven characters of the path, the version and the second that `Device-Time` carries."""
    text = f"9e2c|{path[-7:]}|{PF}|{appvr}|{unix_seconds}||11ac"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def web_id(session: str) -> str:
    """A 19-digit id: the same for a session in every worker, so that an account looks like one browser."""
    digest = hashlib.sha256(b"web-id:" + session.encode()).digest()
    return f"7{int.from_bytes(digest[:8], 'big') % 10**18:018d}"


def uid_token(session: str) -> str:
    """A 32-digit value for the `uid_tt` cookie, stable per session like `web_id`."""
    return hashlib.sha256(b"uid-tt:" + session.encode()).hexdigest()[:32]
