"""Requests as real clients send them, over HTTP: field names, charsets, compression, Azure's paths, keys."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key

VIDEOS, GENERATIONS, CHAT = "/v1/videos", "/v1/videos/generations", "/v1/chat/completions"
BOAT = "一只红色的小船"
CRLF = "\r\n"


@pytest.fixture(scope="module")
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


def ordered(client: ApiClient, response: httpx.Response) -> dict[str, Any]:
    """Return the input of the job that the request started."""
    assert response.status_code in {200, 202}, response.text
    return client.job(response.headers["x-job-id"])["input"]


def start(client: ApiClient, path: str = IMAGES, **fields: Any) -> dict[str, Any]:
    """Start a job without waiting and return its input."""
    body = {"prompt": "a boat", "n": 1, "async": True, **fields}
    if path == CHAT:
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    return ordered(client, client.http.post(path, json={name: one for name, one in body.items() if one is not None}))


def multipart(*parts: tuple[str, bytes, str], end: bool = True) -> dict[str, Any]:
    """Return the arguments of a hand-made form: (name, bytes, more headers)."""
    body = b"".join(
        f'--x{CRLF}Content-Disposition: form-data; name="{name}"{CRLF}{headers}{CRLF}'.encode() + data + CRLF.encode()
        for name, data, headers in parts
    )
    return {
        "content": body + (b"--x--\r\n" if end else b""),
        "headers": {"Content-Type": "multipart/form-data; boundary=x"},
    }


class TestFields:
    """Section 3 of the client cases: every spelling is understood or named in a 400."""

    @pytest.mark.parametrize(
        ("size", "pixels"),
        [
            ("2K", "2048x2048"),
            ("4K", "4096x4096"),
            ("adaptive", "2048x2048"),
            ("16:9", "2560x1440"),
            ({"width": 1024, "height": 768}, "1472x1104"),
        ],
    )
    @pytest.mark.parametrize("path", [IMAGES, CHAT])
    def test_size_in_other_words_is_understood(self, client, path, size, pixels) -> None:
        assert start(client, path, model="jimeng-4.0", size=size)["size"] == pixels

    @pytest.mark.parametrize(
        "fields",
        [
            {"aspectRatio": "16:9", "imageSize": "4K"},
            {"image_config": {"aspect_ratio": "16:9", "image_size": "4K"}},
            {"extra_body": {"aspect_ratio": "16:9", "image_size": "4K"}},
            {"extra_body": {"google": {"imageConfig": {"aspectRatio": "16:9", "imageSize": "4K"}}}},
            {"generationConfig": {"imageConfig": {"aspectRatio": "16:9", "imageSize": "4K"}}},
        ],
    )
    @pytest.mark.parametrize("path", [IMAGES, CHAT])
    def test_ratio_and_size_of_other_gateways_are_understood(self, client, path, fields) -> None:
        assert start(client, path, model="jimeng-4.0", **fields)["size"] == "5404x3040"

    def test_form_fields_have_the_same_spellings(self, client) -> None:
        form = {"prompt": "a boat", "num_images": "1", "async": "true", "size[width]": "1024", "size[height]": "768"}
        assert ordered(client, client.http.post(IMAGES, data=form))["size"] == "1472x1104"
        form = {"prompt": "a boat", "n": "1", "async": "true", "image_config[aspectRatio]": "9:16", "seed": "-1"}
        assert (
            ordered(client, client.http.post(IMAGES, files={k: (None, v) for k, v in form.items()}))["size"]
            == "1440x2560"
        )
        form = {"prompt": "a boat", "n": "1", "async": "true", "extra_body": '{"image_size": "1K"}'}
        assert ordered(client, client.http.post(IMAGES, data=form))["size"] == "1328x1328"

    def test_adaptive_size_follows_the_reference(self, client) -> None:
        form = {"prompt": "a boat", "n": "1", "async": "true", "size": "adaptive"}
        response = client.http.post(
            "/v1/images/edits", data=form, files={"image": ("a.png", png(90, 160), "image/png")}
        )
        assert ordered(client, response)["size"] == "1440x2560"

    @pytest.mark.parametrize("path", [IMAGES, GENERATIONS, VIDEOS, CHAT])
    def test_seed_minus_one_is_random(self, client, path) -> None:
        n = None if path == VIDEOS else 1
        model = "jimeng-video-3.0" if path in {GENERATIONS, VIDEOS} else "jimeng-4.0"
        seeds = {start(client, path, model=model, seed=-1, n=n)["seed"] for _ in range(2)}
        assert len(seeds) == 2
        assert all(0 <= seed < 2**32 for seed in seeds)

    @pytest.mark.parametrize(
        ("path", "fields", "param", "works"),
        [
            (IMAGES, {"size": "large"}, "size", "`2K`"),
            (IMAGES, {"size": "3K"}, "size", "1k, 2k, 4k"),
            (IMAGES, {"imageSize": "9K"}, "imageSize", "1k, 2k, 4k"),
            (IMAGES, {"aspectRatio": "5:7"}, "aspectRatio", "16:9"),
            (IMAGES, {"image_config": {"aspect_ratio": "wide"}}, "image_config.aspect_ratio", "16:9"),
            (IMAGES, {"seed": -7}, "seed", "0"),
            (IMAGES, {"numImages": 99}, "numImages", "32"),
            (VIDEOS, {"size": "4K"}, "size", "720p, 1080p"),
            (VIDEOS, {"extra_body": {"aspectRatio": "3:2"}}, "extra_body.aspectRatio", "16:9"),
            (GENERATIONS, {"durationSeconds": 7}, "durationSeconds", "5, 10"),
            (CHAT, {"model": "jimeng-4.0", "aspectRatio": "5:7"}, "aspectRatio", "16:9"),
            (CHAT, {"model": "jimeng-4.0", "duration": 5}, "duration", "images"),
            (CHAT, {"model": "jimeng-video-3.0", "quality": "hd"}, "quality", "videos"),
        ],
    )
    def test_unknown_value_names_the_field_as_sent_and_what_works(self, client, path, fields, param, works) -> None:
        messages = {"messages": [{"role": "user", "content": "a boat"}]} if path == CHAT else {"prompt": "a boat"}
        message = assert_error(client.http.post(path, json={**messages, **fields}), 400, _code(fields), param)
        assert works in message

    @pytest.mark.parametrize("seconds", ["4", "8", 12])
    def test_openai_call_reports_the_nearest_length(self, client, seconds) -> None:
        video = client.http.post(
            VIDEOS, json={"prompt": "a boat", "model": "jimeng-video-3.0", "seconds": seconds}
        ).json()
        assert (video["seconds"], video["adjusted"]) == ("5" if seconds == "4" else "10", {"seconds": str(seconds)})

    def test_own_call_rejects_a_length_that_the_model_lacks(self, client) -> None:
        body = {"prompt": "a boat", "model": "jimeng-video-3.0", "seconds": "4"}
        assert "5, 10" in assert_error(client.http.post(GENERATIONS, json=body), 400, "invalid_value", "seconds")

    def test_video_keeps_openais_size_and_tells_the_pixels_beside_it(self, client) -> None:
        form = {"prompt": "a boat", "size": "1280x720"}
        files = {"input_reference": ("a.png", png(64, 64), "image/png")}
        video = client.http.post(VIDEOS, data=form, files=files).json()
        assert (video["size"], video["width"], video["height"]) == ("1280x720", 720, 720)
        client.wait_for_end(f"job_{video['id'][6:]}")
        for one in (client.http.get(f"{VIDEOS}/{video['id']}").json(), client.http.get(VIDEOS).json()["data"][0]):
            assert (one["id"], one["size"], one["width"], one["height"]) == (video["id"], "1280x720", 720, 720)

    def test_image_call_with_a_video_model_names_the_call_for_it(self, client) -> None:
        response = client.generate_images(model="jimeng-video-3.0")
        assert "/v1/videos" in assert_error(response, 404, "model_not_found", "model")
        response = client.http.post(VIDEOS, json={"prompt": "a boat", "model": "jimeng-4.0"})
        assert "/v1/images/generations" in assert_error(response, 404, "model_not_found", "model")

    @pytest.mark.parametrize("name", ["gpt-image-2-2026-04-21", "imagen-4.0-generate-001", "flux-1.1-pro"])
    def test_name_built_into_a_tool_is_understood_with_a_remark(self, client, name) -> None:
        made = start(client, model=name, n=None)
        assert (made["model"], made["adjusted"], made["n"]) == (name, {"model": name}, 1)
        row = client.http.get(f"/v1/models/{name}").json()
        assert (row["id"], row["alias_of"]) == (name, "jimeng-4.0")
        assert "jimeng-4.0" in row["remark"]

    def test_dated_video_name_is_understood_with_a_remark(self, client) -> None:
        video = client.http.post(VIDEOS, json={"prompt": "a boat", "model": "sora-2-2025-12-08", "seconds": "4"}).json()
        assert (video["model"], video["seconds"]) == ("sora-2-2025-12-08", "5")
        assert video["adjusted"] == {"model": "sora-2-2025-12-08", "seconds": "4"}


def _code(fields: dict[str, Any]) -> str:
    return "unsupported_parameter" if {"duration", "quality"} & set(fields) else "invalid_value"


class TestBodies:
    """Charsets, compression and forms that break off."""

    @pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_json_in_every_unicode_encoding_is_accepted(self, client, codec) -> None:
        body = json.dumps({"prompt": BOAT, "n": 1, "async": True}, ensure_ascii=False).encode(codec)
        response = client.http.post(IMAGES, content=body, headers={"Content-Type": "application/json"})
        assert ordered(client, response)["prompt"] == BOAT

    def test_json_in_gbk_is_read_when_named_and_else_rejected_with_a_hint(self, client) -> None:
        body = json.dumps({"prompt": BOAT, "n": 1, "async": True}, ensure_ascii=False).encode("gbk")
        named = {"Content-Type": "application/json; charset=gbk"}
        assert ordered(client, client.http.post(IMAGES, content=body, headers=named))["prompt"] == BOAT
        response = client.http.post(IMAGES, content=body, headers={"Content-Type": "application/json"})
        message = assert_error(response, 400, "invalid_json")
        assert "not UTF-8" in message
        assert "charset=gbk" in message

    @pytest.mark.parametrize(
        "more", ["Content-Type: text/plain; charset=gbk\r\n", "Content-Type: text/plain; charset=GB2312\r\n"]
    )
    def test_form_text_in_gbk_is_read_when_its_part_names_it(self, client, more) -> None:
        form = multipart(("prompt", BOAT.encode("gbk"), more), ("n", b"1", ""), ("async", b"true", ""))
        assert ordered(client, client.http.post(IMAGES, **form))["prompt"] == BOAT

    def test_form_text_in_gbk_is_rejected_with_a_hint_when_nothing_names_it(self, client) -> None:
        response = client.http.post(IMAGES, **multipart(("prompt", BOAT.encode("gbk"), "")))
        message = assert_error(response, 400, "invalid_form")
        assert "`prompt`" in message
        assert "not UTF-8" in message
        assert "charset=gbk" in message

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/x-www-form-urlencoded", b"prompt=" + BOAT.encode()),
            ("application/x-www-form-urlencoded; charset=gbk", b"prompt=" + BOAT.encode("gbk")),
        ],
    )
    def test_urlencoded_text_is_never_mojibake(self, client, content_type, body) -> None:
        response = client.http.post(IMAGES, content=body + b"&n=1&async=true", headers={"Content-Type": content_type})
        assert ordered(client, response)["prompt"] == BOAT

    def test_json_under_the_type_of_a_form_gets_a_hint(self, client) -> None:
        """`curl -d '{...}'` without a header."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = client.http.post(IMAGES, content=b'{"prompt": "a boat"}', headers=headers)
        message = assert_error(response, 400, "missing_required_parameter", "prompt")
        assert "Content-Type: application/json" in message

    @pytest.mark.parametrize(
        ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
    )
    @pytest.mark.parametrize("kind", ["json", "form"])
    def test_compressed_body_is_accepted(self, client, encoding, pack, kind) -> None:
        if kind == "json":
            body, content_type = json.dumps({"prompt": BOAT, "n": 1, "async": True}).encode(), "application/json"
        else:
            form = multipart(("prompt", BOAT.encode(), ""), ("n", b"1", ""), ("async", b"true", ""))
            body, content_type = form["content"], form["headers"]["Content-Type"]
        headers = {"Content-Type": content_type, "Content-Encoding": encoding}
        assert ordered(client, client.http.post(IMAGES, content=pack(body), headers=headers))["prompt"] == BOAT

    def test_bomb_is_refused_by_its_unpacked_size(self, client) -> None:
        body = gzip.compress(b'{"prompt": "' + b"a" * 200_000_000 + b'"}')
        assert len(body) < 500_000
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        for path in (IMAGES, "/v1/webhooks/endpoints"):
            assert_error(client.http.post(path, content=body, headers=headers), 413, "request_too_large")

    @pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
    def test_other_encodings_answer_415_with_those_that_work(self, client, encoding) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        response = client.http.post(IMAGES, content=b"{}", headers=headers)
        assert "gzip" in assert_error(response, 415, "unsupported_media_type")
        assert response.headers["accept-encoding"] == "gzip, deflate"

    @pytest.mark.parametrize("body", [b"{}", gzip.compress(b"{}", mtime=0)[:-3], b""])
    def test_body_that_is_not_what_its_header_says_is_a_400(self, client, body) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert_error(client.http.post(IMAGES, content=body, headers=headers), 400, "invalid_json")

    @pytest.mark.parametrize("path", [IMAGES, "/v1/images/edits", VIDEOS, GENERATIONS])
    def test_unfinished_form_is_invalid(self, client, path) -> None:
        form = multipart(("prompt", b"a boat", ""), end=False)
        assert "closing boundary" in assert_error(client.http.post(path, **form), 400, "invalid_form")


class TestKeysAndPaths:
    """`Authorization` without Bearer, and Azure's header and paths."""

    @pytest.mark.parametrize("header", ["Authorization", "api-key", "x-api-key"])
    def test_session_is_accepted_without_bearer(self, api_platform, header) -> None:
        response = httpx.get(f"{api_platform.url}/v1/models", headers={header: new_key()}, trust_env=False)
        assert response.status_code == 200
        response = httpx.get(f"{api_platform.url}/v1/models", headers={"Authorization": "Basic eDp5"}, trust_env=False)
        assert_error(response, 401, "missing_api_key")

    @pytest.mark.parametrize("path", ["/openai/deployments/jimeng-4.5", "/openai/v1"])
    def test_azure_serves_images_and_chat(self, api_platform, path) -> None:
        key = new_key()
        model = {"model": "jimeng-4.5"} if path.endswith("v1") else {"model": "ignored by Azure"}
        query = {"api-version": "2026-02-01-preview"}
        with (
            ApiClient(api_platform, key) as client,
            httpx.Client(base_url=api_platform.url, headers={"api-key": key}, timeout=60, trust_env=False) as azure,
        ):
            body = {**model, "prompt": "a boat", "n": 1}
            response = azure.post(f"{path}/images/generations", params=query, json=body)
            assert client.job(response.headers["x-job-id"])["model"] == "jimeng-4.5"
            form = {**model, "prompt": "a boat", "n": "1"}
            files = {"image": ("a.png", png(64, 64), "image/png")}
            response = azure.post(f"{path}/images/edits", params=query, data=form, files=files)
            assert client.job(response.headers["x-job-id"])["model"] == "jimeng-4.5"
            chat = {**model, "n": 1, "messages": [{"role": "user", "content": "a boat"}]}
            response = azure.post(f"{path}/chat/completions", params=query, json=chat)
            assert response.json()["model"] == "jimeng-4.5"
            assert client.job(response.headers["x-job-id"])["model"] == "jimeng-4.5"

    def test_azure_serves_videos_and_models(self, client) -> None:
        query = {"api-version": "preview"}
        video = client.http.post("/openai/v1/videos", params=query, json={"prompt": "a boat", "model": "sora-2"}).json()
        assert client.http.get(f"/openai/v1/videos/{video['id']}", params=query).json()["id"] == video["id"]
        response = client.http.post("/openai/deployments/sora-2/videos", params=query, json={"prompt": "a boat"})
        assert response.json()["model"] == "sora-2"
        models = client.http.get("/v1/models").json()
        for path in ("/openai/v1/models", "/openai/models", "/openai/deployments"):
            assert client.http.get(path, params=query).json() == models
        assert client.http.get("/openai/models/jimeng-4.0", params=query).json()["id"] == "jimeng-4.0"

    def test_unknown_azure_path_is_a_404_with_the_error_object(self, client) -> None:
        assert_error(client.http.post("/openai/deployments/gpt-4o/embeddings", json={}), 404, "unknown_url")
