"""litellm as a library: `check.py PART...`, parts: images, edits, chat, slow, videos."""

import base64
import io
import os
import re
import sys
import time

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # do not fetch the price list from the internet

import httpx
import litellm
from PIL import Image

litellm.telemetry = False
MODEL = "openai/jimeng-4.0"
OPTIONS = {
    "api_base": f"{os.environ['DREAMERY_URL']}/v1",
    "api_key": os.environ["DREAMERY_KEY"],
    "timeout": 60,
    "num_retries": 0,
}


def images() -> None:
    """URL and base64 responses, and an error with its message."""
    answer = litellm.image_generation(model=MODEL, prompt="a boat", n=2, size="512x512", **OPTIONS)
    assert [bool(item.url) for item in answer.data] == [True, True]
    # litellm accepts `response_format` only for OpenAI's model names.
    options = {"model": "openai/dall-e-3", "response_format": "b64_json", **OPTIONS}
    answer = litellm.image_generation(prompt="a boat", n=1, **options)
    with Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))) as image:
        assert image.size == (2048, 2048)
    raised = None
    try:
        litellm.image_generation(model=MODEL, prompt="a boat", size="huge", **OPTIONS)
    except litellm.BadRequestError as error:
        raised = error
    assert "`size`" in str(raised), raised


def edits() -> None:
    """An image from two reference images."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG")
    files = [io.BytesIO(content.getvalue()), io.BytesIO(content.getvalue())]
    answer = litellm.image_edit(model=MODEL, image=files, prompt="a boat", n=1, size="512x512", **OPTIONS)
    assert answer.data[0].url or answer.data[0].b64_json


def chat() -> None:
    """An image as a chat completion, complete and streamed."""
    messages = [{"role": "user", "content": "a boat -re 1k"}]
    completion = litellm.completion(model=MODEL, messages=messages, **OPTIONS)
    _assert_image_links(completion.choices[0].message.content)
    _read_stream(messages)
    raised = None
    try:
        litellm.completion(model="openai/gpt-9", messages=messages, stream=True, **OPTIONS)
    except litellm.NotFoundError as error:
        raised = error
    assert "gpt-9" in str(raised), raised


def slow() -> None:
    """A streamed job of 10 s completes although the client times out after 8 s without data."""
    _read_stream([{"role": "user", "content": "a boat [[seconds:10]]"}])


def videos() -> None:
    """A video, polled until it is complete."""
    video = litellm.video_generation(model="openai/jimeng-video-3.0", prompt="a boat", seconds="5", **OPTIONS)
    deadline = time.monotonic() + 120
    while (status := litellm.video_status(video_id=video.id, **OPTIONS)).status not in {"completed", "failed"}:
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
    assert status.status == "completed", status
    assert litellm.video_content(video_id=video.id, **OPTIONS)[4:8] == b"ftyp"


def _read_stream(messages: list) -> None:
    chunks = list(litellm.completion(model=MODEL, messages=messages, stream=True, **{**OPTIONS, "timeout": 8}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    _assert_image_links(text)
    assert chunks[-1].choices[0].finish_reason == "stop"


def _assert_image_links(text: str) -> None:
    links = re.findall(r"!\[[^]]*\]\((\S+?)\)", text)
    assert links, text
    for link in links:
        assert httpx.get(link, trust_env=False).headers["content-type"].startswith("image/")


if __name__ == "__main__":
    for part in sys.argv[1:]:
        globals()[part]()
        print(part, "ok")
