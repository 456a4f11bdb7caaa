"""Forms: charsets of parts, files by their headers, and forms that break off."""

import pytest
from starlette.datastructures import Headers

from api.http.bodies import forms
from api.http.bodies.charsets import CharsetError
from api.http.bodies.embedded_files import FileExtractor
from api.http.bodies.forms import FilePart, FormError, FormLimits, read_form
from api.http.bodies.spool import Spool
from worker.core.errors import DreameryError

BOAT = "一只小船"
GBK, UTF8 = BOAT.encode("gbk"), BOAT.encode()
MULTIPART, URLENCODED = "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"


def part(name: str, data: bytes, *, more: str = "", headers: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{headers}\r\n'.encode() + data + b"\r\n"


@pytest.fixture(params=[1, 10_000])
def step(request, monkeypatch) -> int:
    monkeypatch.setattr(forms, "_PIECE_BYTES", request.param)
    return request.param


def read(content_type: str, body: bytes) -> list[tuple[str, object]]:
    source = Spool()
    source.append(body)
    found = read_form(Headers({"content-type": content_type}), source, FormLimits(3, 5, 1000), FileExtractor())
    return [(name, (one.name, one.file.read()) if isinstance(one, FilePart) else one) for name, one in found]


END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (MULTIPART, part("prompt", UTF8) + END),
        (MULTIPART, part("prompt", GBK, headers="Content-Type: text/plain; charset=gbk\r\n") + END),
        (MULTIPART, part("prompt", GBK, headers='Content-Type: text/plain; charset="GB2312"\r\n') + END),
        (f"{MULTIPART}; charset=gbk", part("prompt", GBK) + END),
        (MULTIPART, part("prompt", GBK) + part("_charset_", b"gbk") + END),
        (MULTIPART, part("_charset_", b"gbk") + part("prompt", GBK) + END),
        (URLENCODED, b"prompt=" + UTF8),
        (URLENCODED, b"prompt=%E4%B8%80%E5%8F%AA%E5%B0%8F%E8%88%B9"),
        (f"{URLENCODED}; charset=gbk", b"prompt=%D2%BB%D6%BB%D0%A1%B4%AC"),
        (URLENCODED, b"prompt=%D2%BB%D6%BB%D0%A1%B4%AC&_charset_=gbk"),
    ],
)
def test_prompt_is_read_in_its_charset(content_type, body, step):
    assert read(content_type, body) == [("prompt", BOAT)]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (MULTIPART, part("prompt", GBK) + END),
        (MULTIPART, part("prompt", GBK, headers="Content-Type: text/plain; charset=utf-8\r\n") + END),
        (URLENCODED, b"prompt=%D2%BB%D6%BB%D0%A1%B4%AC"),
        (URLENCODED, b"prompt=" + GBK),
    ],
)
def test_prompt_in_an_unnamed_charset_is_an_error_instead_of_mojibake(content_type, body):
    with pytest.raises(CharsetError, match=r"`prompt`.*not UTF-8.*charset=gbk"):
        read(content_type, body)


@pytest.mark.parametrize(
    "body",
    [
        part("prompt", UTF8),
        part("prompt", UTF8)[:-2],
        part("prompt", UTF8) + b"--b",
        part("prompt", UTF8) + b"--b\r\nContent-Disposition: form-data",
        part("prompt", UTF8) + part("image", b"\x89PNG", more='; filename="a.png"')[:-5],
        b"",
    ],
)
def test_unfinished_form_is_an_error(body, step):
    with pytest.raises(FormError, match="closing boundary"):
        read(MULTIPART, body)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=other"])
def test_form_with_a_wrong_boundary_is_an_error(content_type):
    with pytest.raises(FormError):
        read(content_type, part("prompt", UTF8) + END)


@pytest.mark.parametrize(
    ("more", "headers", "name"),
    [
        ('; filename="a.png"', "", "a.png"),
        ("; filename*=UTF-8''%E8%88%B9.png", "", "船.png"),
        ("; filename*=utf-8'en'a%22b.png", "Content-Type: image/png\r\n", "ab.png"),
        ("", "Content-Type: image/png\r\n", ""),
        ("", "Content-Type: application/octet-stream\r\n", ""),
    ],
)
def test_file_part_is_a_file_whatever_names_it(more, headers, name, step):
    body = part("image", b"\x89PNG\xff", more=more, headers=headers) + END
    assert read(MULTIPART, body) == [("image", (name, b"\x89PNG\xff"))]


def test_text_with_a_binary_type_stays_text():
    headers = "Content-Type: application/octet-stream\r\n"
    assert read(MULTIPART, part("prompt", UTF8, headers=headers) + END) == [("prompt", BOAT)]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (MULTIPART, b"".join(part(str(n), b"x") for n in range(6)) + END),
        (MULTIPART, b"".join(part(str(n), b"x", more='; filename="a"') for n in range(4)) + END),
        (MULTIPART, part("prompt", b"x" * 2000) + END),
        (URLENCODED, b"&".join(b"a=1" for _ in range(6))),
        (URLENCODED, b"a=" + b"x" * 2000),
    ],
)
def test_form_beyond_its_limits_is_an_error(content_type, body):
    with pytest.raises((FormError, DreameryError)):
        read(content_type, body)
