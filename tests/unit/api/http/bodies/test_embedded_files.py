"""Files as text in a body: each way of writing them gives the same bytes, and other text stays as it is."""

import base64
import json
import random
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.http.bodies import embedded_files
from api.http.bodies.embedded_files import FileExtractor, find_embedded, has_reference, use_embedded_files
from api.http.bodies.spool import Spool
from worker.core.errors import DreameryError

PNG = b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(60_001)
TEXT = base64.b64encode(PNG).decode()


opened: list[Spool] = []


@pytest.fixture(autouse=True)
def close_files():
    yield
    while opened:
        opened.pop().close()


def extract(body: bytes, **more: int) -> tuple[bytes, FileExtractor]:
    source, extractor = Spool(), FileExtractor()
    opened.extend((source, extractor.spool))
    source.append(body)
    text = extractor.extract(source, 0, source.size, **more)
    use_embedded_files(extractor.files)
    return text, extractor


def content_of(text: str) -> bytes:
    found = find_embedded(text)
    assert found is not None
    return found.open().read()


def wrapped(width: int, end: str = "\n") -> str:
    return end.join(TEXT[start : start + width] for start in range(0, len(TEXT), width))


def dotnet(text: str) -> str:
    return json.dumps(text).replace("+", "\\u002B")


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(f"data:image/png;base64,{TEXT}"),
        json.dumps(TEXT),
        json.dumps(TEXT.rstrip("=")),
        json.dumps(f"base64://{TEXT}"),
        json.dumps(f"data:image/png;base64,{TEXT}").replace("/", "\\/"),
        dotnet(f"data:image/png;base64,{TEXT}").replace("=", "\\u003D"),
        json.dumps(TEXT.replace("+", "-").replace("/", "_")),
        json.dumps(wrapped(76)),
        json.dumps(wrapped(64, "\r\n") + "\r\n"),
        json.dumps("data:image/png;base64,\n" + wrapped(76)),
        json.dumps(quote(f"data:image/png;base64,{TEXT}", safe="")),
    ],
)
def test_base64_in_json_becomes_a_reference_to_its_bytes(written):
    for space in range(0, 4096, 511):
        body = f'{{"a": "{" " * space}",  "image": {written}, "prompt": "a boat, base64,x"}}'.encode()
        text, _ = extract(body)
        fields = json.loads(text)
        assert (content_of(fields["image"]), fields["prompt"]) == (PNG, "a boat, base64,x")
        assert len(text) < 5000


def test_list_of_byte_values_becomes_a_reference_to_its_bytes():
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps({"image": {"type": "Buffer", "data": list(PNG)}, "n": [1, 2, 3]}, separators=separators)
        fields = json.loads(extract(body.encode())[0])
        assert (content_of(fields["image"]["data"]), fields["n"]) == (PNG, [1, 2, 3])
    pretty = json.dumps({"image": list(PNG)}, indent=4).encode()
    assert content_of(json.loads(extract(pretty)[0])["image"]) == PNG


def test_urlencoded_text_keeps_its_other_fields():
    body = f"prompt=a+boat&image={quote_plus(TEXT)}&n=2"
    text = extract(body.encode())[0].decode()
    before, image, after = text.split("&")
    assert (before, after) == ("prompt=a+boat", "n=2")
    assert content_of(image) == PNG


def test_pictures_within_a_text_leave_the_text_around_them():
    picture = f"![boat](data:image/png;base64,{TEXT})"
    said = f"first {picture} then {picture}\nmake it darker"
    text, extractor = extract(json.dumps({"content": said}).encode())
    content = json.loads(text)["content"]
    assert content.startswith("first ![boat](data:image/png;base64,")
    assert content.endswith(")\nmake it darker")
    assert len(extractor.files) == 1, "the same picture is stored once"
    bare = json.loads(extract(json.dumps(f"{TEXT.rstrip('=')}\nmake it darker").encode())[0])
    assert bare.endswith("\nmake it darker")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        base64.b64encode(b"PK\x03\x04" + PNG).decode(),
        "the quick brown fox\n" * 5000,
        "0" * 100_000,
        "\\n" * 50_000,
        "\\u0041" * 20_000,
        f"data:image/png;base64,{TEXT[:20_001]}!",
        "%41" * 30_000,
        "[" + "1," * 50_000 + "1]",
        "[" + "137," * 50_000 + "999]",
        "[137,80,78,71,13,10,26,10," + "1," * 50_000 + "300]",
    ],
)
def test_other_long_text_stays_as_it_is(text):
    body = f'{{"prompt": "{text}"}}'.encode()
    assert extract(body)[0] == body


def test_text_beyond_the_limit_is_refused_before_it_is_read():
    with pytest.raises(DreameryError, match="more than 1000000 bytes") as caught:
        extract(b'{"prompt": "' + b"a b " * 500_000 + b'"}', limit=1_000_000)
    assert caught.value.status == 413
    text, _ = extract(json.dumps({"image": TEXT * 1}).encode(), limit=1000)
    assert len(text) < 1000, "files do not count"


def test_reference_is_valid_only_in_the_request_that_carried_the_file():
    text = json.loads(extract(json.dumps(TEXT).encode())[0])
    assert has_reference(text)
    use_embedded_files({})
    assert find_embedded(text) is None


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9000), st.integers(0, 9000), st.integers(16_500, 30_000), st.sampled_from([4096, 65_536]))
def test_place_and_size_do_not_matter(before, after, size, piece):
    data = PNG[:size]
    body = json.dumps({"a": "z," * before, "image": base64.b64encode(data).decode(), "b": "y" * after}).encode()
    original, embedded_files._PIECE = embedded_files._PIECE, piece
    try:
        fields = json.loads(extract(body)[0])
    finally:
        embedded_files._PIECE = original
    assert content_of(fields["image"]) == data
    assert (len(fields["a"]), len(fields["b"])) == (2 * before, after)
