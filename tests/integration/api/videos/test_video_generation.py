"""Videos from the request to the bytes, on a running platform with workers and sandbox."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from tests.support.api_client import ApiClient, assert_error, new_key
from tests.support.media_files import make_audio, make_video
from tests.support.platform import eventually
from tests.support.uploads import make_image
from worker.core.media.video import inspect_video

GENERATIONS, VIDEOS, TASKS = "/v1/videos/generations", "/v1/videos", "/v1/video/generations"
OMNI = "jimeng-video-seedance-2.0"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def generate(client: ApiClient, prompt: str = "waves", **fields: Any) -> httpx.Response:
    return client.http.post(GENERATIONS, json={"prompt": prompt, **fields})


def bytes_of(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    got = [httpx.get(one["url"], trust_env=False) for one in answer.json()["data"]]
    assert {response.headers["content-type"] for response in got} == {"video/mp4"}
    return [response.content for response in got]


def frames(data: bytes) -> list[Image.Image]:
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def colour(image: Image.Image) -> str:
    """Return the dominant colour of a frame, red or blue, outside its text."""
    red, _green, blue = image.resize((9, 9)).getpixel((7, 1))
    return "red" if red > blue else "blue"


@pytest.mark.parametrize(
    ("fields", "size", "seconds"),
    [
        ({}, (1280, 720), 5),
        ({"ratio": "9:16", "duration": 10, "resolution": "1080p"}, (1080, 1920), 10),
        ({"model": "jimeng-video-sora2", "size": "720x1280", "seconds": "4"}, (720, 1280), 4),
        ({"model": "jimeng-video-seedance-2.5-draft"}, (854, 480), 5),
    ],
)
def test_video_from_text(client, fields, size, seconds):
    (data,) = bytes_of(generate(client, **fields))
    facts = inspect_video(io.BytesIO(data))
    assert (facts.width, facts.height) == size
    assert abs(facts.milliseconds - seconds * 1000) < 300


def test_base64_answer(client):
    answer = generate(client, response_format="b64_json")
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["data"]
    assert inspect_video(io.BytesIO(base64.b64decode(one["b64_json"]))).width == 1280


def test_two_videos_of_one_request(client):
    first, second = bytes_of(generate(client, n=2, seed=1))
    assert first != second


def test_video_shows_first_and_last_frame(client):
    red, blue = (base64.b64encode(make_image(name, side=64)).decode() for name in ("red", "blue"))
    answer = client.http.post(GENERATIONS, json={"prompt": "a boat", "images": [red, blue]})
    (data,) = bytes_of(answer)
    seen = frames(data)
    assert seen[0].size == (720, 720)
    assert (colour(seen[0]), colour(seen[-1])) == ("red", "blue")


def test_first_frame_as_form_file(client):
    parts = {
        "prompt": (None, "a boat"),
        "input_reference": ("x", make_image("blue", side=64), "application/octet-stream"),
    }
    (data,) = bytes_of(client.http.post(GENERATIONS, files=parts))
    assert colour(frames(data)[0]) == "blue"


def test_references_of_every_kind(client):
    parts = [
        ("prompt", (None, "@image_file_1 dances like @video_file_1 to @audio_file_1")),
        ("model", (None, OMNI)),
        ("image_file_1", ("cat.png", make_image("red", side=64), "image/png")),
        ("video_file_1", ("dance.mp4", make_video("red", "blue", seconds=2), "video/mp4")),
        ("audio_file_1", ("song.mp3", make_audio(), "audio/mpeg")),
    ]
    (data,) = bytes_of(client.http.post(GENERATIONS, files=parts, timeout=90))
    assert inspect_video(io.BytesIO(data)).width == 1280


def test_job_progress_and_result(client):
    started = client.http.post(GENERATIONS, json={"prompt": "waves", "async": True}).json()
    job = client.wait_for_end(started["id"])
    assert job["status"] == "completed", job
    (output,) = job["output"]
    assert (output["mime"], output["width"], output["height"]) == ("video/mp4", 1280, 720)
    assert abs(output["seconds"] - 5) < 0.3
    assert job["usage"] == {"videos": 1, "seconds": 5, "credits_estimated": 25, "credits_charged": 25}
    with Image.open(io.BytesIO(httpx.get(output["thumbnail_url"], trust_env=False).content)) as poster:
        poster.load()
    shown = client.http.get(f"{VIDEOS}/{started['request_id']}").json()
    assert (shown["status"], shown["url"]) == ("completed", output["url"])


def test_new_api_task(client):
    task = client.http.post(TASKS, json={"prompt": "waves", "model": "sora-2", "duration": 5}).json()
    path = f"{TASKS}/{task['task_id']}"
    eventually(lambda: client.http.get(path).json()["status"] == "completed", what="the task completed")
    done = client.http.get(path).json()
    assert inspect_video(io.BytesIO(httpx.get(done["url"], trust_env=False).content)).width == done["metadata"]["width"]


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [("[[fail:2038]] waves", 400, "content_policy_violation"), ("[[fail:2002]] waves", 502, "generation_failed")],
)
def test_failures_return_their_error(client, prompt, status, code):
    answer = generate(client, prompt)
    assert_error(answer, status, code)
    assert answer.headers["x-should-retry"] == "false"


def test_delete_of_running_video_frees_files_and_slot(client):
    started = client.http.post(VIDEOS, json={"prompt": "waves [[seconds:2]]"}).json()
    eventually(
        lambda: client.http.get(f"{VIDEOS}/{started['id']}").json()["status"] == "in_progress", what="it is running"
    )
    assert client.http.delete(f"{VIDEOS}/{started['id']}").json()["deleted"]
    assert_error(client.http.get(f"{VIDEOS}/{started['id']}"), 404, "video_not_found")
    # One video at a time per account: the next one runs only when the slot is free again.
    assert generate(client).status_code == 200


def test_invalid_session_in_a_list_is_skipped(api_platform):
    with ApiClient(api_platform, f"{new_key('dead')},{new_key()}") as client:
        assert generate(client).status_code == 200
