"""Every way to make a video or an image with the official API: the order of the engine becomes a call that it takes."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.integration.worker.tasks.test_upload_references import RED, input_in_request
from tests.support.ark_jobs import CREATE, IMAGES, ArkJobs
from tests.support.engine import Engine
from worker.db.engine import transaction
from worker.db.jobs import inputs

PUBLIC = "https://dreamery.test"


@pytest.fixture
def ark(engine: Engine) -> ArkJobs:
    engine.configure(PUBLIC_URL=PUBLIC)
    return ArkJobs(engine)


def bodies_of(engine: Engine, path: str) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = []
    engine.interceptor.before[path] = lambda _path, body: bodies.append(json.loads(body))
    return bodies


def change(engine: Engine, job: UUID, model: str, **order: Any) -> None:
    engine.sql(
        """UPDATE jobs SET model = :model,
               params = jsonb_set(params, '{order}', params->'order' || CAST(:order AS jsonb)) WHERE id = :id""",
        id=job,
        model=model,
        order=json.dumps(order),
    )


def add_inputs(job: UUID, *roles: tuple[str, str]) -> None:
    """Add an input for each (kind, role)."""
    types = {"image": "image/png", "video": "video/mp4", "audio": "audio/mpeg"}
    made = []
    for number, (kind, role) in enumerate(roles):
        new = input_in_request(RED, f"inputs/{job.hex}/{number}.bin")
        assert new.stored is not None
        stored = replace(new.stored, mime=types[kind], milliseconds=None if kind == "image" else 5000)
        made.append(replace(new, stored=stored, media=kind, role=role))
    with transaction() as tx:
        inputs.add_inputs(tx, [job], made)


IMAGE, CLIP, SOUND = ("image", "reference"), ("video", "reference"), ("audio", "reference")
FIRST, LAST = ("image", "first_frame"), ("image", "end_frame")
REFERENCES = ["reference_image", "reference_video", "reference_audio"]
VIDEOS: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]], dict[str, Any], list[str]]] = {
    # name: model, order, inputs, expected fields, expected roles
    "text": ("seedance-2.0", {"options": {"mode": "text"}}, [], {"generate_audio": True, "ratio": "16:9"}, []),
    "silent": (
        "seedance-2.0",
        {"options": {"mode": "text", "generate_audio": False}},
        [],
        {"generate_audio": False},
        [],
    ),
    "4k": ("seedance-2.0", {"resolution": "4k", "options": {"mode": "text"}}, [], {"resolution": "4k"}, []),
    "first frame": ("seedance-2.5", {"options": {"mode": "first"}}, [FIRST], {"ratio": "adaptive"}, ["first_frame"]),
    "both frames": (
        "seedance-2.0-fast",
        {"ratio": "adaptive", "options": {"mode": "first_last"}},
        [FIRST, LAST],
        {"ratio": "adaptive"},
        ["first_frame", "last_frame"],
    ),
    "references": (
        "seedance-2.0",
        {
            "prompt": "x",
            "parts": [{"text": "like "}, {"material": 0}, {"text": " as in "}, {"material": 1}],
            "options": {"mode": "reference"},
        },
        [IMAGE, CLIP, SOUND],
        {},
        REFERENCES,
    ),
    "edit": (
        "seedance-2.5",
        {"prompt": "replace the sky", "options": {"mode": "edit"}},
        [CLIP],
        {"omni_reference_task_type": "edit", "duration": -1, "ratio": "adaptive"},
        ["reference_video"],
    ),
    "extend": (
        "seedance-2.5",
        {"prompt": "continue", "options": {"mode": "extend"}},
        [CLIP],
        {"omni_reference_task_type": "extend", "ratio": "adaptive"},
        ["reference_video"],
    ),
    "draft": ("seedance-2.5", {"options": {"mode": "draft"}}, [], {"draft": True, "resolution": "480p"}, []),
    "last frame": (
        "seedance-2.0-mini",
        {"options": {"mode": "text", "return_last_frame": True}},
        [],
        {"return_last_frame": True},
        [],
    ),
    "mov": ("seedance-2.5", {"options": {"mode": "text", "output_format": "mov"}}, [], {"output_format": "mov"}, []),
    "priority": ("seedance-2.0", {"options": {"mode": "text", "priority": 7}}, [], {"priority": 7}, []),
    "web search": (
        "seedance-2.0",
        {"options": {"mode": "text", "web_search": True}},
        [],
        {"tools": [{"type": "web_search"}]},
        [],
    ),
    "slow lane": (
        "seedance-1.0-pro",
        {"seed": 7, "options": {"mode": "text", "service_tier": "flex", "camera_fixed": True}},
        [],
        {"service_tier": "flex", "seed": 7, "camera_fixed": True},
        [],
    ),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_video(engine: Engine, ark: ArkJobs, name: str) -> None:
    model, order, given, fields, roles = VIDEOS[name]
    job = ark.add_video(ark.add_account())
    change(engine, job, model, **order)
    add_inputs(job, *given)
    bodies = bodies_of(engine, CREATE)
    engine.submit(job)
    row = engine.job_row(job)
    assert (row.state, row.error_message) == ("running", None)
    [body] = bodies
    assert {name: body.get(name) for name in fields} == fields
    assert body["watermark"] is False
    assert {"duration", "ratio", "resolution", "execution_expires_after", "safety_identifier"} <= set(body)
    assert body["callback_url"].startswith(f"{PUBLIC}/hooks/ark/")
    assert [item["role"] for item in body["content"] if "role" in item] == roles
    for item in body["content"]:
        kind = item["type"].partition("_")[0]
        if kind in {"image", "audio"}:
            assert item[item["type"]]["url"].startswith(f"data:{kind}/")
        elif kind == "video":
            assert item["video_url"]["url"].startswith(f"{PUBLIC}/v1/inputs/{job.hex}-")
    if name == "references":
        assert body["content"][0]["text"] == "like Image 1 as in Video 1"
    assert ark.ledger()["violations"] == {}


def test_final_of_a_draft(engine: Engine, ark: ArkJobs) -> None:
    account = ark.add_account()
    draft = ark.add_video(account)
    change(engine, draft, "seedance-2.5", options={"mode": "draft"})
    engine.submit(draft)
    ark.finish()
    assert engine.run_until_final(draft, each_round=ark.finish) == ["succeeded"]
    final = ark.add_video(account)
    options = {"mode": "final", "draft_of": engine.job_row(draft).upstream_id}
    change(engine, final, "seedance-2.5", resolution="1080p", options=options)
    bodies = bodies_of(engine, CREATE)
    engine.submit(final)
    assert (engine.job_row(final).state, engine.job_row(final).error_message) == ("running", None)
    [body] = bodies
    assert body["content"] == [{"type": "draft_task", "draft_task": {"id": options["draft_of"]}}]
    assert not {"ratio", "duration", "generate_audio", "draft"} & set(body)


IMAGE_ORDERS: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    # name: model, order, number of inputs, expected fields
    "size": ("seedream-5.0-flash", {"width": 1424, "height": 800}, 0, {"size": "1424x800"}),
    "class": ("seedream-5.0-pro", {"options": {"size_class": "2K"}}, 0, {"size": "2K"}),
    "references": ("seedream-5.0-pro", {}, 2, {}),
    "png": ("seedream-5.5", {"options": {"output_format": "png"}}, 0, {"output_format": "png"}),
    "webp": ("seedream-5.5", {"options": {"output_format": "webp"}}, 0, {"output_format": None}),
    "transparent": (
        "seedream-5.5",
        {"options": {"background": "transparent", "output_format": "png"}},
        0,
        {"background": "transparent"},
    ),
    "layers": (
        "seedream-5.0-pro",
        {"options": {"layers": True, "size_class": "2K"}},
        1,
        {"layer_decomposition": True, "size": "2K"},
    ),
    "set": (
        "seedream-4.5",
        {"width": 2048, "height": 2048, "count": 3, "options": {"series": True}},
        0,
        {"stream": True, "sequential_image_generation_options": {"max_images": 3}},
    ),
    "web search": (
        "seedream-5.0-lite",
        {"width": 2048, "height": 2048, "options": {"web_search": True}},
        0,
        {"tools": [{"type": "web_search"}], "stream": True},
    ),
    "fast": ("seedream-5.0-pro", {"options": {"optimize": "fast"}}, 0, {"optimize_prompt_options": {"mode": "fast"}}),
}


@pytest.mark.parametrize("name", IMAGE_ORDERS)
def test_image(engine: Engine, ark: ArkJobs, name: str) -> None:
    model, order, given, fields = IMAGE_ORDERS[name]
    job = ark.add_image(ark.add_account())
    change(engine, job, model, **order)
    add_inputs(job, *[IMAGE] * given)
    bodies = bodies_of(engine, IMAGES)
    assert engine.run_until_final(job) == ["succeeded"], engine.job_row(job).error_message
    [body] = bodies
    assert {name: body.get(name) for name in fields} == fields
    assert (body["watermark"], body["response_format"]) == (False, "url")
    images = [body["image"]] if isinstance(body.get("image"), str) else body.get("image", [])
    assert [image.partition(",")[0] for image in images] == ["data:image/png;base64"] * given
    assert not {"n", "quality", "seed", "negative_prompt"} & set(body)
    assert ark.ledger()["violations"] == {}
