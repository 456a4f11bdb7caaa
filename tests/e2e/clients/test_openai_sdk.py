"""The official `openai` SDK, with strict response validation, against a running platform."""

import asyncio
import base64
import io
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from tests.support.api_client import ApiClient, account_name, new_key
from tests.support.sandbox_client import read_ledger
from tests.support.uploads import make_image


@pytest.fixture
def client(api_platform) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=60
    ) as client:
        client.platform = api_platform
        yield client


def count_submits(client: OpenAI, platform) -> int:
    ledger = read_ledger(platform)
    name = account_name(client.api_key)
    return sum(line["account"] == name for line in ledger["submits"])


def test_url_response(client):
    answer = client.images.generate(prompt="a lighthouse", n=2, size="1024x1024", quality="auto", user="u")
    assert len(answer.data) == 2
    assert answer.size == "1328x1328"
    assert answer.created > 1_700_000_000
    for item in answer.data:
        assert item.b64_json is None
        assert httpx.get(item.url, trust_env=False).headers["content-type"] == f"image/{answer.output_format}"


def test_b64_json_response(client):
    answer = client.images.generate(model="jimeng-4.0", prompt="a boat", n=1, response_format="b64_json")
    (item,) = answer.data
    assert item.url is None
    with Image.open(io.BytesIO(base64.b64decode(item.b64_json))) as image:
        assert image.size == (2048, 2048)


def test_own_fields_in_extra_body(client):
    extra = {"ratio": "16:9", "resolution": "1k", "seed": 7, "negative_prompt": "rain"}
    assert client.images.generate(prompt="a boat", n=1, extra_body=extra).size == "1664x936"


def test_base_url_with_extra_slashes(api_platform):
    with OpenAI(base_url=f"{api_platform.url}//v1//", api_key=new_key(), _strict_response_validation=True) as client:
        assert client.models.list().data


def test_models(client):
    models = client.models.list().data
    names = {model.id for model in models}
    assert {"jimeng-4.0", "nanobanana"} <= names
    for model in models:
        assert (model.object, bool(model.owned_by), model.created > 0) == ("model", True, True)
    assert client.models.retrieve("jimeng-4.0").id == "jimeng-4.0"
    with pytest.raises(openai.NotFoundError) as error_info:
        client.models.retrieve("org/gpt-9:free")
    assert error_info.value.code == "model_not_found"


def decode_image(item) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(item.b64_json, validate=True))) as image:
        image.load()
        return image


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_every_image_field(client, form):
    answer = client.images.generate(
        model="gpt-image-1", prompt="a boat", size="1024x1536", quality="low", background="auto", moderation="low",
        output_format=form, output_compression=100, user="ann",
    )  # fmt: skip
    (item,) = answer.data
    assert (item.url, answer.quality, answer.output_format) == (None, "low", form)
    assert answer.safety_identifier == "ann"
    assert decode_image(item).format.lower() == form
    assert answer.size == "x".join(map(str, decode_image(item).size))


def test_image_stream(client):
    events = list(client.images.generate(prompt="a boat", n=10, size="512x512", stream=True, partial_images=2))
    assert [event.type for event in events] == ["image_generation.completed"] * 10
    assert {decode_image(event).size for event in events} == {(1328, 1328)}
    assert all(event.usage.total_tokens == 0 for event in events)


def test_heartbeats_keep_a_slow_stream_alive(client):
    """The SDK must ignore heartbeats, and they must keep the connection alive."""
    short_timeout = client.with_options(timeout=6, max_retries=0)
    (event,) = short_timeout.images.generate(prompt="[[seconds:8]]", n=1, size="512x512", stream=True)
    assert event.type == "image_generation.completed"


def test_edits_with_every_file_type(client, tmp_path):
    red, blue = make_image("red"), make_image("blue")
    path = tmp_path / "red.png"
    path.write_bytes(red)
    for images in (red, ("a.png", red, "image/png"), path.open("rb"), [red, ("b.bin", blue)], [path, io.BytesIO(blue)]):
        answer = client.images.edit(
            image=images, prompt="a boat", n=2, size="auto", input_fidelity="high", quality="low",
            response_format="b64_json", output_format="webp", output_compression=80,
        )  # fmt: skip
        assert [decode_image(item).format for item in answer.data] == ["WEBP"] * 2
        if hasattr(images, "close"):
            images.close()
    assert count_submits(client, client.platform) == 5


def test_edit_stream(client):
    events = list(client.images.edit(image=[make_image("red"), make_image("blue")], prompt="a boat", n=2, stream=True))
    assert [event.type for event in events] == ["image_edit.completed"] * 2
    with pytest.raises(openai.BadRequestError, match="mask") as masked:
        client.images.edit(image=make_image("red"), mask=make_image("blue"), prompt="a boat")
    assert (masked.value.code, masked.value.param) == ("unsupported_parameter", "mask")
    with pytest.raises(openai.APIError) as failed:
        list(client.images.edit(image=make_image("red"), prompt="[[fail:2005]]", stream=True))
    assert failed.value.code == "content_policy_violation"


def test_too_many_images(client):
    with pytest.raises(openai.BadRequestError, match="at most 10") as error_info:
        client.images.edit(image=[make_image("red")] * 17, prompt="a boat")
    assert error_info.value.param == "image"


def test_async_client(api_platform):
    async def run() -> None:
        base_url = f"{api_platform.url}/v1"
        async with AsyncOpenAI(base_url=base_url, api_key=new_key(), _strict_response_validation=True) as client:
            requests = [client.images.generate(prompt=f"boat {n}", n=1, response_format=kind)
                     for n, kind in enumerate(["url", "b64_json"])]  # fmt: skip
            linked, inline = await asyncio.gather(*requests)
            assert linked.data[0].url
            assert inline.data[0].b64_json
            assert (await client.models.list()).data

    asyncio.run(run())


def test_invalid_requests_raise_with_message(client, api_platform):
    with pytest.raises(openai.NotFoundError, match="gpt-9") as unknown:
        client.images.generate(prompt="a", model="gpt-9")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError, match="size") as bad:
        client.images.generate(prompt="a", size="huge")
    assert (bad.value.code, bad.value.param, bad.value.type) == ("invalid_value", "size", "invalid_request_error")
    with pytest.raises(openai.AuthenticationError, match="API key"):
        OpenAI(base_url=f"{api_platform.url}/v1", api_key="sk-dreamery-wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="Responses API"):
        client.responses.create(model="jimeng-4.0", input="a")
    assert count_submits(client, api_platform) == 0


@pytest.mark.parametrize(
    ("words", "prompt", "error", "code"),
    [
        ("caller", "[[fail:2005]]", openai.BadRequestError, "content_policy_violation"),
        ("broke", "a boat", openai.RateLimitError, "insufficient_quota"),
        ("limited", "a boat", openai.RateLimitError, "account_limited"),
        ("caller", "[[fail:2002]]", openai.InternalServerError, "generation_failed"),
        ("shark", "a boat", openai.InternalServerError, "upstream_risk_control"),
    ],
)
def test_failed_job_is_not_retried(api_platform, words, prompt, error, code):
    key = new_key(words)
    with OpenAI(base_url=f"{api_platform.url}/v1", api_key=key, max_retries=2) as client:
        with pytest.raises(error) as error_info:
            client.images.generate(prompt=prompt, n=1)
        assert error_info.value.code == code
        assert error_info.value.message
        assert count_submits(client, api_platform) == 1
    with ApiClient(api_platform, key) as caller:
        (job,) = caller.http.get("/v1/jobs").json()["data"]
        assert job["id"] == error_info.value.response.headers["x-job-id"]


def test_early_timeout_invites_the_retry_that_joins(api_platform):
    """The SDK sends its read timeout; the server answers earlier, and the same request then joins the job."""
    with OpenAI(base_url=f"{api_platform.url}/v1", api_key=new_key(), max_retries=0, timeout=6.5) as client:
        with pytest.raises(openai.InternalServerError) as error_info:
            client.images.generate(prompt="[[seconds:4]]", n=1)
        assert error_info.value.code == "generation_timeout"
        assert error_info.value.response.headers["x-should-retry"] == "true"
        answer = client.with_options(max_retries=8).images.generate(prompt="[[seconds:4]]", n=1)
        assert answer.data[0].url
        assert count_submits(client, api_platform) == 1
