"""Media inputs over HTTP: each is stored for the job, upright and without metadata, or named in a 400. No task runs."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pillow_heif
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from tests.support.media_files import make_video
from tests.support.uploads import make_image
from worker import storage

pillow_heif.register_heif_opener()

PNG = make_image("red")
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
LINK = "https://example.org/a.png"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
VIDEOS, VIDEO_GENERATIONS = "/v1/videos", "/v1/videos/generations"
CHAT = "/v1/chat/completions"
OMNI = "jimeng-video-seedance-2.0"
SECRET = b"51.5007 secret place"


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, path: str, **fields: Any) -> Any:
    return client.post(path, json={"prompt": "she waves", "async": True, **fields})


def send_form(client: TestClient, path: str, parts: bytes, **fields: str) -> Any:
    """Post a form whose file parts are raw bytes, as clients write them."""
    texts = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"prompt": "she waves", "async": "true", **fields}.items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return client.post(path, content=texts + parts + b"--b--\r\n", headers=headers)


def part(headers: str, data: bytes = PNG) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + headers.encode() + b"\r\n\r\n" + data + b"\r\n"


def stored(engine: Engine) -> list[tuple[str, str, bytes]]:
    rows = engine.sql("SELECT * FROM job_inputs ORDER BY job_id, n")
    return [(row.role, row.media, storage.read_file(row.key) if row.key else row.url) for row in rows]


def photo(kind: str = "JPEG", *, orientation: int = 6, size: tuple[int, int] = (1600, 900)) -> bytes:
    tags, out = Image.Exif(), io.BytesIO()
    tags[0x0112], tags[0x010E] = orientation, SECRET.decode()
    tags.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", size, "red").save(out, kind, exif=tags)
    return out.getvalue()


@pytest.mark.parametrize("path", [VIDEOS, VIDEO_GENERATIONS, "/v1/video/generations"])
@pytest.mark.parametrize(
    "name", ["file", "image", "input_reference", "image_file_1", "first_frame", "files[]", "image[0]"]
)
def test_uploaded_picture_is_the_first_frame_of_a_video(client, engine: Engine, path: str, name: str) -> None:
    response = client.post(path, data={"prompt": "she waves", "async": "true"}, files={name: ("ok.png", PNG)})
    assert response.status_code in {200, 202}, response.text
    assert stored(engine) == [("first_frame", "image", PNG)]


@pytest.mark.parametrize("path", [GENERATIONS, EDITS, "/v1/images/compositions"])
@pytest.mark.parametrize(
    "fields",
    [{"image_urls": [DATA]}, {"image_url": DATA}, {"input_reference": {"image_url": DATA}}, {"filePaths": [DATA]}],
)
def test_names_of_video_calls_work_for_images(client, engine: Engine, path: str, fields: dict[str, Any]) -> None:
    response = ask(client, path, **fields)
    assert response.status_code == 202, response.text
    assert stored(engine) == [("reference", "image", PNG)]


def test_ark_content_becomes_prompt_and_frames(client, engine: Engine) -> None:
    content = [
        {"type": "text", "text": "the door opens"},
        {"type": "image_url", "image_url": {"url": DATA}, "role": "last_frame"},
        {"type": "image_url", "image_url": {"url": LINK}, "role": "first_frame"},
    ]
    response = client.post(VIDEO_GENERATIONS, json={"content": content, "async": True})
    assert response.status_code == 202, response.text
    assert stored(engine) == [("first_frame", "image", LINK), ("end_frame", "image", PNG)]
    assert response.json()["input"]["prompt"] == "the door opens"


@pytest.mark.parametrize("path", [GENERATIONS, VIDEOS, VIDEO_GENERATIONS])
def test_file_part_that_nothing_reads_is_named_and_no_job_starts(client, engine: Engine, path: str) -> None:
    response = client.post(path, data={"prompt": "she waves"}, files={"my_drawing": ("ok.png", PNG)})
    assert_error(response, 400, "unsupported_parameter", "my_drawing")
    assert "`image`" in response.json()["error"]["message"]
    assert_error(ask(client, path, control_image=LINK), 400, "unsupported_parameter", "control_image")
    assert engine.sql("SELECT 1 FROM jobs") == []


def test_estimate_reads_and_refuses_the_same_inputs(client, engine: Engine) -> None:
    def estimate(endpoint: str, **fields: Any) -> Any:
        return client.post("/v1/estimate", json={"endpoint": endpoint, "body": {"prompt": "a", **fields}})

    assert estimate(VIDEO_GENERATIONS, first_frame=DATA).status_code == 200
    assert estimate(EDITS, image_urls=[DATA]).status_code == 200
    assert_error(estimate(GENERATIONS, sketch=DATA), 400, "unsupported_parameter", "sketch")
    assert_error(estimate(EDITS), 400, "missing_required_parameter", "image")


@pytest.mark.parametrize(
    "headers",
    [
        "name=\"image\"; filename*=UTF-8''%E8%88%B9.png\r\nContent-Type: image/png",
        "name=\"image\"; filename*=utf-8'en'boat.png",
        'name="image"\r\nContent-Type: image/png',
        'name="image"\r\nContent-Type: application/octet-stream',
        'name="image"; filename=""\r\nContent-Type: image/png',
        'name="image"; filename="no ending"\r\nContent-Type: text/plain',
    ],
)
def test_file_part_is_recognised_without_a_plain_file_name(client, engine: Engine, headers: str) -> None:
    response = send_form(client, GENERATIONS, part(headers))
    assert response.status_code == 202, response.text
    assert stored(engine) == [("reference", "image", PNG)]


def test_untouched_file_inputs_of_a_form_are_ignored(client, engine: Engine) -> None:
    empty = part('name="mask"; filename=""\r\nContent-Type: application/octet-stream', b"")
    empty += part('name="video"; filename=""\r\nContent-Type: application/octet-stream', b"")
    picture = part('name="image"; filename="a.png"\r\nContent-Type: image/png')
    assert send_form(client, EDITS, empty + picture).status_code == 202
    assert stored(engine) == [("reference", "image", PNG)]
    mask = part('name="mask"; filename="m.png"\r\nContent-Type: image/png')
    assert_error(send_form(client, EDITS, picture + mask), 400, "unsupported_parameter", "mask")


def test_numbered_form_parts_keep_their_numbers_order(client, engine: Engine) -> None:
    blue = make_image("blue")
    files = {"image[1]": ("b.png", blue), "image[0]": ("a.png", PNG)}
    response = client.post(EDITS, data={"prompt": "a", "async": "true"}, files=files)
    assert response.status_code == 202, response.text
    assert [data for _, _, data in stored(engine)] == [PNG, blue]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "TIFF"])
def test_photo_held_upright_orders_an_upright_video(client, engine: Engine, kind: str) -> None:
    response = ask(client, VIDEO_GENERATIONS, ratio="9:16", first_frame=base64.b64encode(photo(kind)).decode())
    assert response.status_code == 202, response.text
    shown = response.json()["input"]
    assert shown["ratio"] == "9:16"
    [(_, _, data)] = stored(engine)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, dict(image.getexif())) == ((900, 1600), {})
    assert SECRET not in data
    assert (
        shown["images"][0]["adjusted"] | {"turned": "upright (EXIF orientation 6)", "metadata": "removed"}
        == (shown["images"][0]["adjusted"])
    )
    assert "turned upright" in shown["adjusted"]["first_frame"]
    assert "ratio" not in shown["adjusted"]


def test_answer_of_the_videos_call_says_what_was_changed(client, engine: Engine) -> None:
    response = client.post(
        VIDEOS, data={"prompt": "a"}, files={"input_reference": ("a.heic", photo("HEIF", orientation=1))}
    )
    assert response.status_code == 200, response.text
    assert response.json()["adjusted"]["input_reference"] == "converted from image/heic, metadata removed"


def test_image_job_says_what_was_changed(client, engine: Engine) -> None:
    shown = ask(client, EDITS, images=[DATA, base64.b64encode(photo(orientation=1)).decode()]).json()["input"]
    assert "adjusted" not in shown["images"][0]
    assert shown["images"][1]["adjusted"] == {"metadata": "removed"}
    assert shown["adjusted"] == {"images.1": "metadata removed"}


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "at night"}, {"type": "image_url", "image_url": {"url": DATA}}],
        [{"type": "text", "text": "at night"}, {"type": "image_url", "image_url": DATA}],
        [{"type": "input_text", "text": "at night"}, {"type": "input_image", "image_url": DATA}],
        [{"type": "text", "text": "at night"}, {"type": "image", "image": DATA}],
        [{"type": "text", "text": "at night"}, {"type": "image", "source": {"type": "base64", "data": DATA[22:]}}],
        [{"type": "text", "text": "at night"}, {"type": "file", "file": {"filename": "a.png", "file_data": DATA}}],
        [{"text": "at night"}, {"inlineData": {"mimeType": "image/png", "data": DATA[22:]}}],
    ],
)
def test_picture_in_every_shape_of_a_message_part_is_a_reference(client, engine: Engine, content: list[Any]) -> None:
    response = client.post(CHAT, json={"messages": [{"role": "user", "content": content}], "async": True})
    assert response.status_code == 202, response.text
    assert stored(engine) == [("reference", "image", PNG)]


@pytest.mark.parametrize("where", ["body", "message"])
def test_picture_beside_the_content_of_a_chat_is_a_reference(client, engine: Engine, where: str) -> None:
    for name in ("images", "image_url", "attachments", "files"):
        beside = {name: [DATA]}
        message = {"role": "user", "content": f"a boat and {name}", **(beside if where == "message" else {})}
        response = client.post(CHAT, json={"messages": [message], "async": True, **(beside if where == "body" else {})})
        assert response.status_code == 202, response.text
    assert stored(engine) == [("reference", "image", PNG)] * 4
    unread = {"messages": [{"role": "user", "content": "a boat"}], "sketch": DATA}
    assert_error(client.post(CHAT, json=unread), 400, "unsupported_parameter", "sketch")


def test_clip_and_frames_of_a_chat_reach_an_omni_video(client, engine: Engine) -> None:
    clip = make_video("red", seconds=2)
    url = f"data:video/mp4;base64,{base64.b64encode(clip).decode()}"
    content = [{"type": "text", "text": "dance like @video1"}, {"type": "video_url", "video_url": {"url": url}}]
    response = client.post(
        CHAT, json={"model": OMNI, "messages": [{"role": "user", "content": content}], "async": True}
    )
    assert response.status_code == 202, response.text
    assert stored(engine) == [("reference", "video", clip)]
    refused = {"model": "jimeng-4.0", "messages": [{"role": "user", "content": content}], "async": True}
    assert_error(client.post(CHAT, json=refused), 400, "unsupported_parameter", "messages")
