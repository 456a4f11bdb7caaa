"""The vendor's Ark libraries: `ark_check.py LIBRARY PART...`, parts: images, sets, stream, videos, cancel, errors, repeats.

LIBRARY = volcenginesdkarkruntime or byteplussdkarkruntime. Both have the same interface.
"""

import base64
import importlib
import io
import os
import sys
import time

import httpx

library = importlib.import_module(sys.argv[1])
URL, KEY = os.environ["DREAMERY_URL"], os.environ["DREAMERY_KEY"]
IMAGE, SETS, VIDEO = "dola-seedream-5-0-flash-260915", "seedream-4-5-251128", "dreamina-seedance-2-0-mini-260615"
VIDEO_FIELDS = {"resolution": "480p", "ratio": "16:9", "duration": 4, "watermark": False, "generate_audio": True}


ark = library.Ark(base_url=f"{URL}/api/v3", api_key=KEY, timeout=120, max_retries=0)
types = importlib.import_module(f"{sys.argv[1]}.types.images")


def images() -> None:
    """A link, base64, references, and a size class."""
    answer = ark.images.generate(model=IMAGE, prompt="a boat", size="1024x1024", watermark=False)
    assert (answer.model, answer.usage.generated_images, answer.usage.output_tokens) == (IMAGE, 1, 4096)
    assert answer.created_at > 1_700_000_000
    (image,) = answer.data
    assert image.size == "1024x1024"
    content = httpx.get(image.url, trust_env=False)
    assert content.headers["content-type"] == "image/jpeg"
    reference = "data:image/jpeg;base64," + base64.b64encode(content.content).decode()
    answer = ark.images.generate(
        model=IMAGE,
        prompt="the same at night",
        image=[reference],
        size="2K",
        response_format="b64_json",
        watermark=True,
    )
    (image,) = answer.data
    assert io.BytesIO(base64.b64decode(image.b64_json)).read(3) == b"\xff\xd8\xff"
    assert answer.usage.input_images == 1
    assert image.size == "2048x2048"


def sets() -> None:
    """A set of images in one call."""
    options = types.SequentialImageGenerationOptions(max_images=3)
    answer = ark.images.generate(
        model=SETS,
        prompt="three boats",
        size="2048x2048",
        sequential_image_generation="auto",
        sequential_image_generation_options=options,
        watermark=False,
    )
    assert [image.size for image in answer.data] == ["2048x2048"] * 3
    assert answer.usage.generated_images == 3


def stream() -> None:
    """A set as a stream of events."""
    options = types.SequentialImageGenerationOptions(max_images=2)
    events = list(
        ark.images.generate(
            model=SETS,
            prompt="two boats",
            size="2048x2048",
            sequential_image_generation="auto",
            sequential_image_generation_options=options,
            stream=True,
            watermark=False,
        )
    )
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_succeeded", "partial_succeeded", "completed"], kinds
    assert [event.image_index for event in events[:-1]] == [0, 1]
    assert all(httpx.get(event.url, trust_env=False).status_code == 200 for event in events[:-1])
    usage = events[-1].usage  # the library does not tell its event types apart
    assert (usage if isinstance(usage, dict) else usage.model_dump())["generated_images"] == 2


def videos() -> None:
    """A video from its creation to its file; get, list and delete."""
    tasks = ark.content_generation.tasks
    content = [{"type": "text", "text": "waves roll ashore"}]
    options = {"return_last_frame": True, "safety_identifier": "user-1", **VIDEO_FIELDS}
    created = tasks.create(model=VIDEO, content=content, **options)
    assert created.id.startswith("cgt-")
    task = _finish(created.id)
    assert (task.model, task.status, task.ratio, task.resolution) == (VIDEO, "succeeded", "16:9", "480p")
    assert (task.duration, task.framespersecond, task.service_tier) == (4, 24, "default")
    assert task.safety_identifier == "user-1"
    assert task.usage.completion_tokens > 30_000
    assert httpx.get(task.content.video_url, trust_env=False).content[4:8] == b"ftyp"
    assert httpx.get(task.content.last_frame_url, trust_env=False).content[:3] == b"\xff\xd8\xff"
    second = tasks.create(model=VIDEO, content=content, **{**options, "seed": None})
    _finish(second.id)
    page = tasks.list(task_ids=[created.id, second.id], status="succeeded", model=VIDEO, page_size=10)
    assert page.total == 2
    assert [item.id for item in page.items] == [second.id, created.id]
    assert tasks.list(page_num=2, page_size=1, task_ids=[created.id, second.id]).items[0].id == created.id
    tasks.delete(task_id=created.id)
    assert _error(lambda: tasks.get(task_id=created.id)) == (404, "NotFound.TaskNotFound")


def cancel() -> None:
    """A task that waits is cancelled; one that runs is refused."""
    tasks = ark.content_generation.tasks
    running = [
        tasks.create(model=VIDEO, content=[{"type": "text", "text": f"[[seconds:8]] {n}"}], **VIDEO_FIELDS).id
        for n in range(12)
    ]
    waiting = running.pop()
    tasks.delete(task_id=waiting)
    assert tasks.get(task_id=waiting).status == "cancelled"
    deadline = time.monotonic() + 60
    while tasks.get(task_id=running[0]).status == "queued":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert _error(lambda: tasks.delete(task_id=running[0])) == (403, "OperationDenied.Running")


def errors() -> None:
    """Errors have the vendor's codes."""
    assert _error(lambda: ark.images.generate(model="seedream-99", prompt="x")) == (
        404,
        "InvalidEndpointOrModel.NotFound",
    )
    wrong = library.Ark(base_url=f"{URL}/api/v3", api_key="sk-dreamery-wrong", max_retries=0)
    assert _error(wrong.content_generation.tasks.list) == (401, "AuthenticationError")
    assert _error(lambda: ark.images.generate(model=IMAGE, prompt="x", guidance_scale=3.5)) == (
        400,
        "InvalidParameter.UnsupportedParameter",
    )
    refused = "[[refuse:InputTextSensitiveContentDetected]] x"
    status, code = _error(lambda: ark.images.generate(model=IMAGE, prompt=refused, size="1024x1024"))
    assert status == 400
    assert code.startswith(("SensitiveContentDetected", "InputTextSensitiveContentDetected")), code


def repeats() -> None:
    """The library repeats a call that takes longer than its timeout; the repeat joins the job of the first one."""
    impatient = library.Ark(base_url=f"{URL}/api/v3", api_key=KEY, timeout=2, max_retries=4)
    answer = impatient.images.generate(model=IMAGE, prompt="a slow boat [[seconds:5]]", size="1024x1024")
    assert answer.usage.generated_images == 1
    headers = {"Authorization": f"Bearer {KEY}"}
    found = httpx.get(f"{URL}/v1/jobs", params={"q": "a slow boat"}, headers=headers, trust_env=False).json()
    assert len(found["data"]) == 1


def _finish(name: str):
    deadline = time.monotonic() + 120
    while (task := ark.content_generation.tasks.get(task_id=name)).status in {"queued", "running"}:
        assert time.monotonic() < deadline, task
        time.sleep(0.2)
    return task


def _error(call) -> tuple[int, str]:
    try:
        call()
    except library._exceptions.ArkAPIStatusError as error:
        return error.status_code, error.code
    raise AssertionError("no error")


if __name__ == "__main__":
    for part in sys.argv[2:]:
        globals()[part]()
        print(part, "ok")
