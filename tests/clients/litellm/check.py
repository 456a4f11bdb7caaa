"""litellm as a library: `check.py PART...` of pictures, edits, chat, slow, videos."""

import base64
import io
import os
import re
import sys
import time

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices is not fetched from the internet

import httpx
import litellm
from PIL import Image

litellm.telemetry = False
MODEL = "openai/jimeng-4.0"
HOW = {
    "api_base": f"{os.environ['DREAMERY_URL']}/v1",
    "api_key": os.environ["DREAMERY_KEY"],
    "timeout": 60,
    "num_retries": 0,
}


def pictures() -> None:
    """Links and bytes, and an error with its text."""
    answer = litellm.image_generation(model=MODEL, prompt="a boat", n=2, size="512x512", **HOW)
    assert [bool(one.url) for one in answer.data] == [True, True]
    # It lets a form of the answer through for OpenAI's own names only.
    how = {"model": "openai/dall-e-3", "response_format": "b64_json", **HOW}
    answer = litellm.image_generation(prompt="a boat", n=1, **how)
    with Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))) as picture:
        assert picture.size == (2048, 2048)
    refused = None
    try:
        litellm.image_generation(model=MODEL, prompt="a boat", size="huge", **HOW)
    except litellm.BadRequestError as error:
        refused = error
    assert "`size`" in str(refused), refused


def edits() -> None:
    """A picture from two."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG")
    files = [io.BytesIO(content.getvalue()), io.BytesIO(content.getvalue())]
    answer = litellm.image_edit(model=MODEL, image=files, prompt="a boat", n=1, size="512x512", **HOW)
    assert answer.data[0].url or answer.data[0].b64_json


def chat() -> None:
    """A picture as a chat, whole and as a stream."""
    messages = [{"role": "user", "content": "a boat -re 1k"}]
    whole = litellm.completion(model=MODEL, messages=messages, **HOW)
    _look_at_pictures(whole.choices[0].message.content)
    _read_stream(messages)
    refused = None
    try:
        litellm.completion(model="openai/gpt-9", messages=messages, stream=True, **HOW)
    except litellm.NotFoundError as error:
        refused = error
    assert "gpt-9" in str(refused), refused


def slow() -> None:
    """A job of 40 s comes through to its end."""
    _read_stream([{"role": "user", "content": "a boat [[seconds:40]]"}])


def videos() -> None:
    """A video, asked for until it is there."""
    made = litellm.video_generation(model="openai/jimeng-video-3.0", prompt="a boat", seconds="5", **HOW)
    until = time.monotonic() + 120
    while (status := litellm.video_status(video_id=made.id, **HOW)).status not in {"completed", "failed"}:
        assert time.monotonic() < until, status
        time.sleep(0.5)
    assert status.status == "completed", status
    assert litellm.video_content(video_id=made.id, **HOW)[4:8] == b"ftyp"


def _read_stream(messages: list) -> None:
    chunks = list(litellm.completion(model=MODEL, messages=messages, stream=True, **{**HOW, "timeout": 30}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    _look_at_pictures(text)
    assert chunks[-1].choices[0].finish_reason == "stop"


def _look_at_pictures(text: str) -> None:
    links = re.findall(r"!\[[^]]*\]\((\S+?)\)", text)
    assert links, text
    for link in links:
        assert httpx.get(link, trust_env=False).headers["content-type"].startswith("image/")


if __name__ == "__main__":
    for part in sys.argv[1:]:
        globals()[part]()
        print(part, "ok")
