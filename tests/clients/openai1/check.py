"""The openai SDK for Python, version 1: `check.py PART...` of pictures, edits, streams, chat, slow.

It knows no videos. Not strict for pictures: its types of that time know three sizes only, and ours are told as they are.
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


def drawn(b64: str) -> Image.Image:
    """The picture, decoded."""
    with Image.open(io.BytesIO(base64.b64decode(b64, validate=True))) as picture:
        picture.load()
        return picture


def a_picture() -> bytes:
    """A small PNG to work from."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(content, "PNG")
    return content.getvalue()


def pictures() -> None:
    """Links, bytes, fields, mistakes."""
    answer = client.images.generate(prompt="a boat", n=2, size="512x512", user="ann")
    assert [bool(one.url) for one in answer.data] == [True, True]
    answer = client.images.generate(model="gpt-image-1", prompt="a boat", quality="low", output_format="webp")
    assert drawn(answer.data[0].b64_json).format == "WEBP"
    answer = client.images.generate(model="dall-e-3", prompt="a boat", response_format="b64_json", quality="hd")
    assert drawn(answer.data[0].b64_json).size == (4096, 4096)
    assert any(model.id == "jimeng-4.0" for model in client.models.list().data)
    refused = None
    try:
        client.images.generate(prompt="a boat", size="huge")
    except openai.BadRequestError as error:
        refused = error
    assert getattr(refused, "param", None) == "size", refused


def edits() -> None:
    """One file and several."""
    red = a_picture()
    for given in (red, [red, ("b.png", red, "image/png")]):
        answer = client.images.edit(image=given, prompt="a boat", n=1, size="512x512", response_format="b64_json")
        assert drawn(answer.data[0].b64_json).size == (1328, 1328)


def streams() -> None:
    """Both streams of pictures."""
    events = list(client.images.generate(prompt="a boat", n=2, size="512x512", stream=True))
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert drawn(events[0].b64_json).size == (1328, 1328)
    events = list(client.images.edit(image=a_picture(), prompt="a boat", n=1, size="512x512", stream=True))
    assert [event.type for event in events] == ["image_edit.completed"]


def chat() -> None:
    """A picture as a chat, whole and as a stream."""
    messages = [{"role": "user", "content": "a boat -re 1k"}]
    whole = client.chat.completions.create(model="jimeng-4.0", messages=messages)
    _look_at_pictures(whole.choices[0].message.content)
    _read_stream(messages)
    link = f"data:image/png;base64,{base64.b64encode(a_picture()).decode()}"
    parts = [{"type": "text", "text": "at night -re 1k"}, {"type": "image_url", "image_url": {"url": link}}]
    _read_stream([{"role": "user", "content": parts}])
    refused = None
    try:
        client.chat.completions.create(model="gpt-9", messages=messages, stream=True)
    except openai.NotFoundError as error:
        refused = error
    assert (getattr(refused, "code", None), refused.param) == ("model_not_found", "model"), refused


def slow() -> None:
    """A job of 40 s comes through to its end, though the client gives up after 30 s of silence."""
    _read_stream([{"role": "user", "content": "a boat [[seconds:40]]"}])


def _read_stream(messages: list) -> None:
    patient = client.with_options(timeout=30, _extra_kwargs={"_strict_response_validation": True})
    options = {"include_usage": True}
    chunks = list(
        patient.chat.completions.create(model="jimeng-4.0", messages=messages, stream=True, stream_options=options)
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    _look_at_pictures(text)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None


def _look_at_pictures(text: str) -> None:
    links = re.findall(r"!\[[^]]*\]\((\S+?)\)", text)
    assert links, text
    for link in links:
        assert httpx.get(link, trust_env=False).headers["content-type"].startswith("image/")


if __name__ == "__main__":
    for part in sys.argv[1:]:
        globals()[part]()
        print(part, "ok")
