"""The openai SDK for Python, version 1: `check.py PART...`, parts: images, edits, streams, chat, slow.

This version has no videos. Images are not validated strictly: its types allow only three sizes, and the API returns the
real ones.
"""

import base64
import io
import os
import re
import sys

import httpx
import openai
from openai import OpenAI
from PIL import Image

assert openai.__version__.startswith("1."), openai.__version__

client = OpenAI(
    base_url=f"{os.environ['DREAMERY_URL']}/v1",
    api_key=os.environ["DREAMERY_KEY"],
    timeout=60,
    max_retries=0,
)


def decode_image(b64: str) -> Image.Image:
    """The decoded image."""
    with Image.open(io.BytesIO(base64.b64decode(b64, validate=True))) as image:
        image.load()
        return image


def make_image() -> bytes:
    """A small PNG as reference image."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG")
    return content.getvalue()


def images() -> None:
    """URL and base64 responses, fields, and an error."""
    answer = client.images.generate(prompt="a boat", n=2, size="512x512", user="ann")
    assert [bool(item.url) for item in answer.data] == [True, True]
    answer = client.images.generate(model="gpt-image-1", prompt="a boat", quality="low", output_format="webp")
    assert decode_image(answer.data[0].b64_json).format == "WEBP"
    answer = client.images.generate(model="dall-e-3", prompt="a boat", response_format="b64_json", quality="hd")
    assert decode_image(answer.data[0].b64_json).size == (4096, 4096)
    assert any(model.id == "jimeng-4.0" for model in client.models.list().data)
    raised = None
    try:
        client.images.generate(prompt="a boat", size="huge")
    except openai.BadRequestError as error:
        raised = error
    assert getattr(raised, "param", None) == "size", raised


def edits() -> None:
    """Edits with one file and with several."""
    red = make_image()
    for images in (red, [red, ("b.png", red, "image/png")]):
        answer = client.images.edit(image=images, prompt="a boat", n=1, size="512x512", response_format="b64_json")
        assert decode_image(answer.data[0].b64_json).size == (1328, 1328)


def streams() -> None:
    """Streamed generation and streamed edit."""
    events = list(client.images.generate(prompt="a boat", n=2, size="512x512", stream=True))
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert decode_image(events[0].b64_json).size == (1328, 1328)
    events = list(client.images.edit(image=make_image(), prompt="a boat", n=1, size="512x512", stream=True))
    assert [event.type for event in events] == ["image_edit.completed"]


def chat() -> None:
    """An image as a chat completion, complete and streamed."""
    messages = [{"role": "user", "content": "a boat -re 1k"}]
    completion = client.chat.completions.create(model="jimeng-4.0", messages=messages)
    _assert_image_links(completion.choices[0].message.content)
    _read_stream(messages)
    link = f"data:image/png;base64,{base64.b64encode(make_image()).decode()}"
    parts = [{"type": "text", "text": "at night -re 1k"}, {"type": "image_url", "image_url": {"url": link}}]
    _read_stream([{"role": "user", "content": parts}])
    raised = None
    try:
        client.chat.completions.create(model="gpt-9", messages=messages, stream=True)
    except openai.NotFoundError as error:
        raised = error
    assert (getattr(raised, "code", None), raised.param) == ("model_not_found", "model"), raised


def slow() -> None:
    """A streamed job of 10 s completes although the client times out after 8 s without data."""
    _read_stream([{"role": "user", "content": "a boat [[seconds:10]]"}])


def _read_stream(messages: list) -> None:
    short_timeout = client.with_options(timeout=8, _extra_kwargs={"_strict_response_validation": True})
    options = {"include_usage": True}
    chunks = list(
        short_timeout.chat.completions.create(
            model="jimeng-4.0", messages=messages, stream=True, stream_options=options
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    _assert_image_links(text)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None


def _assert_image_links(text: str) -> None:
    links = re.findall(r"!\[[^]]*\]\((\S+?)\)", text)
    assert links, text
    for link in links:
        assert httpx.get(link, trust_env=False).headers["content-type"].startswith("image/")


if __name__ == "__main__":
    for part in sys.argv[1:]:
        globals()[part]()
        print(part, "ok")
