"""What a request says, read: preferences, idempotency keys, ids, ranges, and the jobs it asks for."""

from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from api.auth.dependencies import Caller
from api.generation.acceptance import fingerprint
from api.http.preferences import get_preference, parse_idempotency_key
from api.images.planning import plan_image_jobs
from api.images.schemas import ImageGenerationRequest
from api.jobs.file_routes import _span
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
def test_preferences(headers, respond_async, wait):
    preference = get_preference(request_with(*headers))
    waits = preference.wait_seconds
    if headers == [("x-stainless-read-timeout", "nan")]:
        assert 1 <= waits <= 600
    else:
        assert waits == wait
    assert preference.respond_async == respond_async


def test_async_in_the_body_goes_with_wait():
    asked = get_preference(request_with(("prefer", "wait=3"))).with_async(enabled=True)
    assert (asked.respond_async, asked.wait_seconds) == (True, 3)
    assert asked.applied(deferred=True) == "respond-async"
    assert asked.applied(deferred=False) == "wait=3"


@pytest.mark.parametrize(
    ("given", "key"), [("abc", "abc"), ('"a b"', "a b"), ("  x ", "x"), ("k" * 255, "k" * 255), (None, None)]
)
def test_idempotency_keys(given, key):
    assert parse_idempotency_key(given) == key


@pytest.mark.parametrize("given", ["", '""', "k" * 256, "a\x00", "a\tb"])
def test_odd_idempotency_keys(given):
    with pytest.raises(DreameryError) as caught:
        parse_idempotency_key(given)
    assert caught.value.param == "Idempotency-Key"


def test_ids_have_one_spelling():
    number = new_id()
    text = public_id("job", number)
    assert parse_public_id("job", text) == number
    digits = text.removeprefix("job_")
    for odd in (
        text.upper(),
        f"job_{digits[:-1]}",
        f"file_{digits}",
        "",
        "job_" + "\u0660" * 32,
        f"job_{digits[:15]}_{digits[16:]}",
    ):
        assert parse_public_id("job", odd) is None


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None), ("bytes=0-", (0, 100)), ("bytes=10-19", (10, 20)), ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)), ("bytes=-500", (0, 100)), ("Bytes=5-5", (5, 6)), ("bytes=100-", (100, 100)),
        ("bytes=-0", (100, 100)), ("bytes=20-10", None), ("bytes=-", None), ("bytes=a-b", None), ("lines=1-2", None),
        ("bytes=0-1,5-6", None), ("bytes=" + "9" * 5000 + "-", None),
    ],
)  # fmt: skip
def test_ranges(header, span):
    assert _span(header, 100) == span


def plan(**fields):
    body = ImageGenerationRequest.model_validate({"prompt": "a boat", **fields})
    return plan_image_jobs(body, CALLER)


def order(**fields):
    planned, _ = plan(**fields)
    return SimpleNamespace(**planned[0].params["order"])


SERIES = "连续故事，生成12张，小船的一天"


def test_a_series_is_one_job_that_is_told_no_number():
    planned, n = plan(prompt=SERIES)
    assert (len(planned), n, planned[0].params["order"]["count"]) == (1, 12, None)


@pytest.mark.parametrize("fields", [{"n": 2}, {"model": "jimeng-5.0"}, {"image": "https://example.com/a.png"}])
def test_a_number_of_its_own_or_references_or_another_model_make_no_series(fields):
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
def test_sizes(fields, pixels):
    drawn = order(**fields)
    assert (drawn.width, drawn.height) == pixels


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
def test_quality_chooses_where_nothing_else_does(fields, pixels):
    drawn = order(**fields)
    assert (drawn.width, drawn.height) == pixels


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
def test_the_file_asked_for(fields, output):
    planned, _ = plan(**fields)
    assert planned[0].params.get("output") == output


def test_the_user_is_kept_under_both_names():
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
def test_flags_win_over_fields(fields, pixels, flags):
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
def test_what_cannot_be_drawn(fields, code, param):
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
def test_n_becomes_jobs_in_order(model, n, counts):
    planned, wanted = plan(model=model, n=n, seed=2**32 - 1)
    assert wanted == (n or 4)
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
def test_values_that_no_field_takes(fields):
    with pytest.raises(ValidationError):
        ImageGenerationRequest.model_validate({"prompt": "a", **fields})


def test_null_everywhere_and_unknown_fields_are_fine():
    fields = dict.fromkeys(set(ImageGenerationRequest.model_fields) - {"prompt", "run_async"} | {"async"})
    strange = {
        "quality": "hd",
        "style": "vivid",
        "moderation": "low",
        "steps": 5,
        "extra": {"a": []},
        "background": "auto",
    }
    planned, n = plan(**fields | strange)
    assert (len(planned), n) == (1, 4)


def test_the_fingerprint_ignores_what_we_ignore():
    def of(**fields):
        body = ImageGenerationRequest.model_validate({"prompt": "a", **fields})
        return fingerprint("/p", body.model_dump(mode="json"), [])

    assert of() == of(style="vivid", moderation="low", partial_images=2, input_fidelity="high") == of(n=None)
    assert of() != of(n=1)
    assert of() != fingerprint("/q", ImageGenerationRequest(prompt="a").model_dump(mode="json"), [])
    assert of() != fingerprint("/p", ImageGenerationRequest(prompt="a").model_dump(mode="json"), ["a picture"])
