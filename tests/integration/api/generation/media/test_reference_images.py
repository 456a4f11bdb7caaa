"""Reference images over HTTP: accepted, shown, stored, replayed and rejected. No worker task runs."""

import base64
import io
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from tests.support.uploads import make_image
from worker import storage

RED = make_image("red")
B64 = base64.b64encode(RED).decode()
LINK = "https://example.org/a.png"
GENERATIONS, COMPOSITIONS, EDITS = (f"/v1/images/{name}" for name in ("generations", "compositions", "edits"))


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, path: str = GENERATIONS, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(path, json={"prompt": "a boat", "async": True, **fields}, headers=headers)


def rows(engine: Engine) -> list[Any]:
    return engine.sql("SELECT * FROM job_inputs ORDER BY job_id, n")


def stored_files(engine: Engine) -> list[str]:
    folder = storage._store().prefix
    assert folder is not None
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("path", [GENERATIONS, COMPOSITIONS, EDITS])
def test_links_and_bytes_are_stored_and_shown_without_bytes(client, engine: Engine, path: str) -> None:
    answer = ask(
        client, path, image=[LINK, f"data:image/png;base64,{B64}"], images=[{"image_url": {"url": f"{LINK}?2"}}]
    )
    assert answer.status_code == 202, answer.text
    shown = client.get(f"/v1/jobs/{answer.json()['id']}").json()["input"]["images"]
    assert [shown[0], shown[2]] == [LINK, f"{LINK}?2"]
    assert {"mime": "image/png", "width": 8, "height": 8, "bytes": len(RED)}.items() <= shown[1].items()
    assert B64 not in answer.text
    first, second, third = rows(engine)
    assert [(row.n, row.url, row.key is None) for row in (first, second, third)] == [
        (0, LINK, True), (1, None, False), (2, f"{LINK}?2", True),
    ]  # fmt: skip
    assert storage.read_file(second.key) == RED
    assert second.key == f"inputs/{second.job_id.hex}/1.png"
    assert (second.bytes, second.width, second.sha256) == (len(RED), 8, shown[1]["sha256"])
    assert B64 not in str(engine.sql("SELECT * FROM jobs"))


def test_jobs_of_one_request_share_inputs(client, engine: Engine) -> None:
    answer = ask(client, image=B64, n=20).json()
    assert len(answer["jobs"]) > 1
    assert len(rows(engine)) == len(answer["jobs"])
    assert len({row.key for row in rows(engine)}) == 1
    assert len(stored_files(engine)) == 1


@pytest.mark.parametrize("path", [COMPOSITIONS, EDITS])
@pytest.mark.parametrize("fields", [{}, {"image": ""}, {"images": []}])
def test_missing_required_image_returns_400(client, engine: Engine, path: str, fields: dict[str, Any]) -> None:
    assert_error(ask(client, path, **fields), 400, "missing_required_parameter", "image")
    assert ask(client, **fields).status_code == 202


def test_invalid_image_rejects_request_and_stores_nothing(client, engine: Engine) -> None:
    assert_error(ask(client, images=[B64, "nonsense!"]), 400, "invalid_image", "images.1")
    assert_error(ask(client, image=B64, model="jimeng-3.1"), 400, "unsupported_parameter", "image")
    assert_error(ask(client, image=[LINK] * 11), 400, "invalid_value", "image")
    assert_error(ask(client, EDITS, image=B64, mask=B64), 400, "unsupported_parameter", "mask")
    assert (engine.sql("SELECT 1 FROM jobs"), stored_files(engine)) == ([], [])


def test_replay_is_matched_by_images_and_stores_no_copy(client, engine: Engine) -> None:
    key = {"Idempotency-Key": "pictures-1"}
    first = ask(client, image=B64, headers=key)
    again = ask(client, image={"image_url": f"data:;base64,{B64}"}, headers=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    other = base64.b64encode(make_image("blue")).decode()
    assert_error(ask(client, image=other, headers=key), 422, "idempotency_key_reuse")
    assert len(stored_files(engine)) == len(rows(engine)) == 1


def test_full_queue_leaves_no_stored_inputs(client, engine: Engine) -> None:
    engine.configure(OPEN_JOBS_PER_CALLER="1")
    assert ask(client, image=B64).status_code == 202
    assert_error(ask(client, image=B64), 429, "queue_full")
    assert len(stored_files(engine)) == 1


def test_body_with_images_may_be_larger(client, engine: Engine) -> None:
    noise = io.BytesIO()
    Image.effect_noise((2000, 2000), 90).save(noise, "PNG", compress_level=1)
    large = base64.b64encode(noise.getvalue()).decode()
    assert ask(client, image=large).status_code == 202
    [row] = rows(engine)
    assert row.bytes > 3_000_000
    assert_error(client.post("/v1/jobs/x/cancel", content=b"x" * 1_000_001), 413, "request_too_large")


FORMS: list[list[tuple[str, Any]]] = [
    [("image", ("upload", RED, "application/octet-stream"))],
    [("image[]", ("a.png", RED, "image/png")), ("image[]", ("blob", RED, "text/plain"))],
    [("image", ("a", RED, "")), ("image", ("b", RED, ""))],
    [("images", ("a", RED, "")), ("image[0]", ("b", RED, ""))],
]


@pytest.mark.parametrize("path", [COMPOSITIONS, EDITS, GENERATIONS])
@pytest.mark.parametrize("files", FORMS)
def test_form_files_in_every_spelling(client, engine: Engine, path: str, files: list[Any]) -> None:
    form = {
        "prompt": "a boat",
        "n": "2",
        "async": "true",
        "seed": "7",
        "input_fidelity": "high",
        "size": "",
        "mask": "",
    }
    answer = client.post(path, data={**form, "metadata[a]": "b"}, files=files)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["input"]["n"], job["input"]["seed"], job["metadata"]) == (2, 7, {"a": "b"})
    assert [storage.read_file(row.key) for row in rows(engine)] == [RED] * len(files)


def test_invalid_form_fields_are_rejected(client, engine: Engine) -> None:
    def assert_rejected(code: str, param: str | None, **form: Any) -> None:
        files = {"image": ("a.png", RED), **form.pop("files", {})}
        assert_error(client.post(EDITS, data={"prompt": "a", **form}, files=files), 400, code, param)

    assert_rejected("unsupported_parameter", "mask", files={"mask": ("m.png", RED)})
    assert_rejected("unsupported_parameter", "markup", markup="{}")
    assert_rejected("invalid_value", "input_fidelity", input_fidelity="some")
    assert_rejected("invalid_value", "n", n="two")
    assert_rejected("invalid_value", "stream", stream="perhaps")
    assert_rejected("invalid_value", "output_compression", output_format="png", output_compression="5")
    assert_rejected("unsupported_parameter", "output_format", output_format="gif")
    assert_rejected("invalid_image", "image", files={"image": ("a.png", b"<svg/>")})
    assert_error(client.post(EDITS, data={"prompt": "a"}, files=[("image", RED)] * 17), 400, "invalid_value", "image")
    assert (engine.sql("SELECT 1 FROM jobs"), stored_files(engine)) == ([], [])


def test_link_to_own_result_is_read_from_storage(client: TestClient, engine: Engine) -> None:
    begun = ask(client, n=1).json()
    engine.run_until_final(UUID(hex=begun["id"].partition("_")[2]))
    drawn = client.get(f"/v1/jobs/{begun['id']}").json()["output"][0]["url"]
    [mark] = ask(client, image=drawn).json()["input"]["images"]
    assert mark["mime"].startswith("image/")
    gone = drawn.rpartition("/v1/files/")[0] + "/v1/files/file_" + "0" * 32 + "/content"
    assert_error(ask(client, image=gone), 410, "file_expired", "image")
    video = ask(client, "/v1/videos/generations", images=[drawn])
    assert video.status_code == 202, video.text
    assert video.json()["input"]["images"][0]["mime"].startswith("image/")
