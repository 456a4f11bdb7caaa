"""Parsing of requests: preferences, idempotency keys, ids, ranges, and the jobs planned from an image request."""

from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from api.auth.caller import Caller
from api.generation.acceptance import fingerprint
from api.http.preferences import get_preference, parse_idempotency_key
from api.images.planning import plan_image_jobs
from api.images.schemas import ImageGenerationRequest
from api.jobs.file_routes import _parse_range
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id, public_id
from worker.core.settings import get_settings

CALLER = Caller(owner="user:x")


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def request_with(*headers: tuple[str, str]) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("headers", "respond_async", "wait"),
    [
        ([], False, 600),
        ([("prefer", "respond-async")], True, 0),
        ([("prefer", "Respond-Async; x=1")], True, 0),
        ([("prefer", "wait=7")], False, 7),
        ([("prefer", 'wait = "7"')], False, 7),
        ([("prefer", "respond-async, wait=3, foo")], True, 3),
        ([("prefer", "foo, handling=lenient"), ("prefer", "wait=3")], False, 3),
        ([("prefer", "wait=0")], False, 0),
        ([("prefer", "wait=999999")], False, 600),
        ([("prefer", "wait=²")], False, 600),
        ([("prefer", "wait=-1, wait=1.5, wait=, wait")], False, 600),
        ([("prefer", "wait=" + "9" * 5000)], False, 600),
        ([("x-stainless-read-timeout", "60")], False, 55),
        ([("x-stainless-read-timeout", "60.5"), ("prefer", "wait=58")], False, 55.5),
        ([("x-stainless-read-timeout", "2")], False, 1),
        ([("x-stainless-read-timeout", "-9")], False, 1),
        ([("x-stainless-read-timeout", "nan")], False, 600),
        ([("x-stainless-read-timeout", "inf")], False, 600),
        ([("x-stainless-read-timeout", "not given")], False, 600),
    ],
)
def test_prefer_and_client_timeout(headers, respond_async, wait):
    preference = get_preference(request_with(*headers))
    seconds = preference.wait_seconds
    if headers == [("x-stainless-read-timeout", "nan")]:
        assert 1 <= seconds <= 600
    else:
        assert seconds == wait
    assert preference.respond_async == respond_async


def test_async_in_body_combines_with_wait():
    preference = get_preference(request_with(("prefer", "wait=3"))).with_async(enabled=True)
    assert (preference.respond_async, preference.wait_seconds) == (True, 3)
    assert preference.applied(deferred=True) == "respond-async"
    assert preference.applied(deferred=False) == "wait=3"


@pytest.mark.parametrize(
    ("header", "key"), [("abc", "abc"), ('"a b"', "a b"), ("  x ", "x"), ("k" * 255, "k" * 255), (None, None)]
)
def test_parse_idempotency_key(header, key):
    assert parse_idempotency_key(header) == key


@pytest.mark.parametrize("header", ["", '""', "k" * 256, "a\x00", "a\tb"])
def test_invalid_idempotency_key_raises(header):
    with pytest.raises(DreameryError) as caught:
        parse_idempotency_key(header)
    assert caught.value.param == "Idempotency-Key"


def test_public_id_has_one_spelling():
    number = new_id()
    text = public_id("job", number)
    assert parse_public_id("job", text) == number
    digits = text.removeprefix("job_")
    for invalid in (
        text.upper(),
        f"job_{digits[:-1]}",
        f"file_{digits}",
        "",
        "job_" + "\u0660" * 32,
        f"job_{digits[:15]}_{digits[16:]}",
    ):
        assert parse_public_id("job", invalid) is None


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None), ("bytes=0-", (0, 100)), ("bytes=10-19", (10, 20)), ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)), ("bytes=-500", (0, 100)), ("Bytes=5-5", (5, 6)), ("bytes=100-", (100, 100)),
        ("bytes=-0", (100, 100)), ("bytes=20-10", None), ("bytes=-", None), ("bytes=a-b", None), ("lines=1-2", None),
        ("bytes=0-1,5-6", None), ("bytes=" + "9" * 5000 + "-", None),
    ],
)  # fmt: skip
def test_parse_range(header, span):
    assert _parse_range(header, 100) == span


def plan(**fields):
    body = ImageGenerationRequest.model_validate({"prompt": "a boat", **fields})
    return plan_image_jobs(body, CALLER)


def order(**fields):
    planned, _ = plan(**fields)
    return SimpleNamespace(**planned[0].params["order"])


SERIES = "连续故事，生成12张，小船的一天"


def test_image_series_is_one_job_without_count():
    planned, n = plan(prompt=SERIES)
    assert (len(planned), n, planned[0].params["order"]["count"]) == (1, 12, None)


@pytest.mark.parametrize("fields", [{"n": 2}, {"model": "jimeng-5.0"}, {"image": "https://example.com/a.png"}])
def test_explicit_n_references_or_other_model_disable_series(fields):
    planned, n = plan(**{"prompt": SERIES, **fields})
    assert (n, planned[0].params["order"]["count"]) == (fields.get("n", 4), fields.get("n", 4))


@pytest.mark.parametrize(
    ("fields", "pixels"),
    [
        ({}, (2048, 2048)),
        ({"size": "auto"}, (2048, 2048)),
        ({"size": None, "ratio": None, "resolution": None, "width": None, "height": None}, (2048, 2048)),
        ({"size": ""}, (2048, 2048)),
        ({"size": "512x512"}, (1328, 1328)),
        ({"size": "1792x1024"}, (1664, 936)),
        ({"size": "2048X2048"}, (2048, 2048)),
        ({"size": "4000 x 4000"}, (4096, 4096)),
        ({"width": 1000, "height": 2000}, (936, 1664)),
        ({"size": "1024x1024", "width": 1024, "height": 1024}, (1328, 1328)),
        ({"ratio": "16:9"}, (2560, 1440)),
        ({"aspect_ratio": "9:16", "resolution": "1k"}, (936, 1664)),
        ({"ratio": "21:9", "resolution": "4K"}, (6197, 2656)),
        ({"size": "1024x1024", "resolution": "4k"}, (4096, 4096)),
        ({"size": "1600x900", "ratio": "16:9"}, (1664, 936)),
        ({"model": "jimeng-2.1"}, (1328, 1328)),
    ],
)
def test_size_parameters(fields, pixels):
    ordered = order(**fields)
    assert (ordered.width, ordered.height) == pixels


@pytest.mark.parametrize(
    ("fields", "pixels"),
    [
        ({"quality": "low"}, (1328, 1328)),
        ({"quality": "medium"}, (2048, 2048)),
        ({"quality": "Standard"}, (2048, 2048)),
        ({"quality": "auto"}, (2048, 2048)),
        ({"quality": ""}, (2048, 2048)),
        ({"quality": "high"}, (4096, 4096)),
        ({"quality": "HD", "ratio": "16:9"}, (5404, 3040)),
        ({"quality": "max", "model": "jimeng-2.1"}, (1328, 1328)),
        ({"quality": "high", "size": "1024x1024"}, (1328, 1328)),
        ({"quality": "low", "resolution": "4k"}, (4096, 4096)),
        ({"quality": "low", "prompt": "a -re 2k"}, (2048, 2048)),
    ],
)
def test_quality_sets_resolution_without_other_size_parameters(fields, pixels):
    ordered = order(**fields)
    assert (ordered.width, ordered.height) == pixels


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, None),
        ({"output_compression": 100}, None),
        ({"output_format": "PNG"}, {"format": "png", "compression": None}),
        ({"output_format": "png", "output_compression": 100}, {"format": "png", "compression": None}),
        ({"output_format": "jpg"}, {"format": "jpeg", "compression": None}),
        ({"output_format": "webp", "output_compression": "7"}, {"format": "webp", "compression": 7}),
    ],
)
def test_output_format(fields, output):
    planned, _ = plan(**fields)
    assert planned[0].params.get("output") == output


def test_user_and_safety_identifier_are_kept_in_metadata():
    planned, _ = plan(user="ann", safety_identifier="s-1", metadata={"a": "b"})
    assert planned[0].metadata == {"a": "b", "user": "ann", "safety_identifier": "s-1"}


@pytest.mark.parametrize(
    ("fields", "pixels", "flags"),
    [
        ({"prompt": "a -ra 16:9"}, (2560, 1440), {"ratio": "16:9"}),
        ({"prompt": "a -re 4k -ra 16：9", "size": "1024x1024", "resolution": "1k", "ratio": "1:1"}, (5404, 3040),
         {"ratio": "16:9", "resolution": "4k"}),
        ({"prompt": "a -re 1k", "size": "2048x2048"}, (1328, 1328), {"resolution": "1k"}),
        ({"prompt": "a"}, (2048, 2048), {}),
    ],
)  # fmt: skip
def test_prompt_flags_override_fields(fields, pixels, flags):
    planned, _ = plan(**fields)
    params = planned[0].params
    assert (params["order"]["prompt"], params["flags"]) == ("a", flags)
    assert (params["order"]["width"], params["order"]["height"]) == pixels


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": "a -re 8k"}, "invalid_value", "prompt"),
        ({"prompt": "a -ra 7:1", "ratio": "1:1"}, "invalid_value", "prompt"),
        ({"prompt": "a -re 4k", "model": "jimeng-2.1"}, "invalid_value", "prompt"),
        ({"prompt": "a -d 5"}, "unsupported_parameter", "prompt"),
        ({"prompt": "-re 4k"}, "invalid_value", "prompt"),
        ({"size": "big"}, "invalid_value", "size"),
        ({"size": "0x0"}, "invalid_value", "size"),
        ({"size": "1024"}, "invalid_value", "size"),
        ({"size": "-5x5"}, "invalid_value", "size"),
        ({"size": "١x٢"}, "invalid_value", "size"),
        ({"size": "4000x1000"}, "invalid_value", "size"),
        ({"size": "100000x100000"}, "invalid_value", "size"),
        ({"width": 512}, "missing_required_parameter", "height"),
        ({"height": 512}, "missing_required_parameter", "width"),
        ({"width": 512, "height": 2048}, "invalid_value", "width"),
        ({"size": "512x512", "width": 512, "height": 513}, "invalid_value", "size"),
        ({"ratio": "7:1"}, "invalid_value", "ratio"),
        ({"aspect_ratio": "wide"}, "invalid_value", "aspect_ratio"),
        ({"size": "1024x1024", "ratio": "16:9"}, "invalid_value", "ratio"),
        ({"resolution": "8k"}, "invalid_value", "resolution"),
        ({"model": "jimeng-2.1", "resolution": "4k"}, "invalid_value", "resolution"),
        ({"model": "gpt-9"}, "model_not_found", "model"),
        ({"prompt": "x" * 32_001}, "prompt_too_long", "prompt"),
        ({"negative_prompt": "x" * 32_001}, "prompt_too_long", "negative_prompt"),
        ({"mask": "https://example.org/a.png"}, "unsupported_parameter", "mask"),
        ({"markup": "{}"}, "unsupported_parameter", "markup"),
        ({"output_format": "svg"}, "unsupported_parameter", "output_format"),
        ({"output_format": "GIF"}, "unsupported_parameter", "output_format"),
        ({"output_format": "tiff"}, "invalid_value", "output_format"),
        ({"output_format": "png", "output_compression": 50}, "invalid_value", "output_compression"),
        ({"output_compression": 0}, "invalid_value", "output_compression"),
        ({"background": "transparent"}, "unsupported_parameter", "background"),
    ],
)
def test_invalid_image_request_raises(fields, code, param):
    with pytest.raises(DreameryError) as caught:
        plan(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("model", "n", "counts"),
    [
        ("jimeng-4.0", None, [4]), ("jimeng-4.0", 1, [1]), ("jimeng-4.0", 8, [8]), ("jimeng-4.0", 10, [8, 2]),
        ("jimeng-4.0", 32, [8, 8, 8, 8]), ("jimeng-5.0-pro", 6, [4, 2]),
        ("jimeng-3.0", None, [None]), ("jimeng-3.0", 1, [None]), ("jimeng-3.0", 9, [None, None, None]),
    ],
)  # fmt: skip
def test_n_is_split_into_jobs_in_order(model, n, counts):
    planned, n_images = plan(model=model, n=n, seed=2**32 - 1)
    assert n_images == (n or 4)
    orders = [job.params["order"] for job in planned]
    assert [one["count"] for one in orders] == counts
    assert [one["seed"] for one in orders] == [(2**32 - 1 + i) % 2**32 for i in range(len(counts))]
    ids = [job.id for job in planned]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0}, {"n": 33}, {"n": 1.5}, {"n": "many"}, {"n": []}, {"seed": -1}, {"seed": 2**32}, {"seed": "x"},
        {"sample_strength": 1.1}, {"sample_strength": float("nan")}, {"sample_strength": float("-inf")},
        {"response_format": "bytes"}, {"metadata": {"a": 1}}, {"metadata": ["a"]},
        {"metadata": {str(i): "x" for i in range(17)}}, {"metadata": {"k" * 65: "x"}}, {"metadata": {"k": "x" * 513}},
        {"prompt": None}, {"prompt": "  \n "}, {"prompt": 5}, {"prompt": "a\x00"}, {"prompt": "\ud800"},
        {"negative_prompt": "\udfff"}, {"user": "a\x00"}, {"metadata": {"a": "\x00"}}, {"metadata": {"\ud800": "a"}},
        {"webhook": "ftp://x"}, {"webhook": "https://x\x00"}, {"size": 1024}, {"ratio": 1.5}, {"width": 1e400},
        {"async": "perhaps"}, {"output_format": 5}, {"model": {}}, {"quality": "good"}, {"background": "red"},
        {"output_compression": 101}, {"output_compression": -1}, {"partial_images": 4}, {"moderation": "none"},
        {"style": "loud"}, {"input_fidelity": "some"}, {"stream": "perhaps"}, {"safety_identifier": "x" * 201},
    ],
)  # fmt: skip
def test_invalid_field_values_are_rejected(fields):
    with pytest.raises(ValidationError):
        ImageGenerationRequest.model_validate({"prompt": "a", **fields})


def test_null_and_unknown_fields_are_accepted():
    fields = dict.fromkeys(set(ImageGenerationRequest.model_fields) - {"prompt", "run_async"} | {"async"})
    unknown = {
        "quality": "hd",
        "style": "vivid",
        "moderation": "low",
        "steps": 5,
        "extra": {"a": []},
        "background": "auto",
    }
    planned, n = plan(**fields | unknown)
    assert (len(planned), n) == (1, 4)


def test_fingerprint_ignores_unsupported_fields():
    def fingerprint_of(**fields):
        body = ImageGenerationRequest.model_validate({"prompt": "a", **fields})
        return fingerprint("/p", body.model_dump(mode="json"), [])

    assert (
        fingerprint_of()
        == fingerprint_of(style="vivid", moderation="low", partial_images=2, input_fidelity="high")
        == fingerprint_of(n=None)
    )
    assert fingerprint_of() != fingerprint_of(n=1)
    assert fingerprint_of() != fingerprint("/q", ImageGenerationRequest(prompt="a").model_dump(mode="json"), [])
    assert fingerprint_of() != fingerprint(
        "/p", ImageGenerationRequest(prompt="a").model_dump(mode="json"), ["an image"]
    )
