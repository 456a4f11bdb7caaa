"""Pictures of megabytes in every form in which clients write them: the job gets exactly their bytes."""

import base64
import io
import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from worker import storage

GENERATIONS, EDITS, CHAT = "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions"
URLENCODED = "application/x-www-form-urlencoded"


def noise(seed: int) -> bytes:
    """A PNG of about 400 kB."""
    out = io.BytesIO()
    Image.frombytes("RGB", (360, 360), random.Random(seed).randbytes(360 * 360 * 3)).save(out, "PNG")
    return out.getvalue()


FIRST, SECOND = noise(1), noise(2)
TEXT = base64.b64encode(FIRST).decode()
DATA = f"data:image/png;base64,{TEXT}"
OTHER = f"data:image/png;base64,{base64.b64encode(SECOND).decode()}"


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def stored(engine: Engine) -> list[bytes]:
    return [storage.read_file(row.key) for row in engine.sql("SELECT * FROM job_inputs ORDER BY job_id, n")]


def ask(client: TestClient, path: str, **fields: Any) -> Any:
    return client.post(path, json={"async": True, **fields})


@pytest.mark.parametrize(
    "image",
    [DATA, TEXT, base64.encodebytes(FIRST).decode(), {"b64_json": TEXT}, {"type": "Buffer", "data": list(FIRST)}],
    ids=["data URL", "base64", "lines", "object", "buffer"],
)
def test_large_picture_in_json_is_stored(client: TestClient, engine: Engine, image: Any) -> None:
    response = ask(client, EDITS, prompt="again", image=image)
    assert response.status_code == 202, response.text
    assert stored(engine) == [FIRST]


def test_large_pictures_in_forms_are_stored(client: TestClient, engine: Engine) -> None:
    fields = {"prompt": "again", "async": "true"}
    files = [("image[]", ("a.png", FIRST)), ("image[]", ("b.png", SECOND))]
    assert client.post(EDITS, data=fields, files=files).status_code == 202
    body = urlencode({**fields, "image": DATA})
    assert client.post(EDITS, content=body, headers={"Content-Type": URLENCODED}).status_code == 202
    texts = [("prompt", (None, "again")), ("async", (None, "true")), ("image", (None, DATA))]
    assert client.post(EDITS, files=texts).status_code == 202
    assert stored(engine) == [FIRST, SECOND, FIRST, FIRST]


@pytest.mark.parametrize(
    "messages",
    [
        lambda: [{"role": "user", "content": [{"type": "text", "text": "at night"}, {"type": "image_url", "image_url": {"url": DATA}}]}],
        lambda: [{"role": "user", "content": f"at night ![boat]({DATA}) please"}],
        lambda: [
            {"role": "user", "content": "a boat"},
            {"role": "assistant", "content": f"![a]({OTHER})\n![b]({DATA})"},
            {"role": "user", "content": "make the second one darker"},
        ],
    ],
    ids=["part", "Markdown", "history"],
)  # fmt: skip
def test_large_pictures_of_chats_are_stored(client: TestClient, engine: Engine, messages: Callable[[], Any]) -> None:
    response = ask(client, CHAT, model="jimeng-4.0", messages=messages())
    assert response.status_code == 202, response.text
    assert stored(engine) == [FIRST]


def test_same_body_joins_its_first_job_by_key_and_another_picture_does_not(client: TestClient) -> None:
    headers = {"Idempotency-Key": "one"}
    bodies = [{"prompt": "again", "image": image, "async": True} for image in (DATA, DATA, OTHER)]
    first, second, third = (client.post(EDITS, json=body, headers=headers) for body in bodies)
    assert first.json()["id"] == second.json()["id"]
    assert_error(third, 422, "idempotency_key_reuse")


@pytest.mark.parametrize("field", ["prompt", "user", "webhook"])
def test_picture_in_a_text_field_is_an_error(client: TestClient, engine: Engine, field: str) -> None:
    response = ask(client, GENERATIONS, **{"prompt": "a boat", field: DATA})
    assert response.status_code == 400
    assert engine.sql("SELECT 1 FROM jobs") == []
    text = f"draw {TEXT} now"
    chat = ask(client, CHAT, model="jimeng-4.0", messages=[{"role": "user", "content": text}])
    assert_error(chat, 400, "prompt_too_long", "messages")
    agent = ask(client, CHAT, model="agent", messages=[{"role": "user", "content": text}])
    assert_error(agent, 400, "prompt_too_long", "messages.0.content")
