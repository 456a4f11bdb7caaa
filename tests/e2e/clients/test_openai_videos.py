"""The official `openai` SDK's Videos API, with strict response validation, against a running platform."""

import io
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types import Video
from PIL import Image

from tests.support.api_client import new_key
from worker.core.media.video import inspect_video

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK marks this API as deprecated


def widescreen_image(color: str) -> bytes:
    """A small 16:9 image."""
    out = io.BytesIO()
    Image.new("RGB", (64, 36), color).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def client(api_platform) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=60
    ) as client:
        yield client


@pytest.fixture(scope="module")
def finished_video(api_platform) -> Iterator[tuple[OpenAI, Video]]:
    """A caller and its finished video."""
    with OpenAI(
        base_url=f"{api_platform.url}/v1", api_key=new_key(), _strict_response_validation=True, timeout=60
    ) as client:
        yield client, client.videos.create_and_poll(prompt="waves", model="sora-2", seconds="4", size="1280x720")


class TestWithoutFinishedVideo:
    """Requests that need no finished video."""

    def test_create_and_retrieve(self, client: OpenAI) -> None:
        video = client.videos.create(prompt="waves [[seconds:60]]", model="sora-2", seconds="8", size="720x1280")
        assert (video.object, video.model, video.seconds, video.size) == ("video", "sora-2", "10", "720x1280")
        assert video.status in {"queued", "in_progress"}
        assert (video.error, video.remixed_from_video_id, video.completed_at) == (None, None, None)
        again = client.videos.with_raw_response.retrieve(video.id)
        assert again.parse().id == video.id
        assert 2000 <= int(again.headers["openai-poll-after-ms"]) <= 5000
        with pytest.raises(openai.BadRequestError) as early:
            client.videos.download_content(video.id)
        assert early.value.code == "video_not_ready"
        assert client.videos.delete(video.id).deleted

    def test_own_fields_in_extra_body(self, client: OpenAI) -> None:
        extra = {"ratio": "1:1", "resolution": "1080p", "seed": 7}
        video = client.videos.create(prompt="waves [[hang]]", model="jimeng-video-3.0", extra_body=extra)
        # Strict validation accepts only OpenAI's four sizes; the pixels are beside it.
        assert (video.size, video.width, video.height) == ("1792x1024", 1080, 1080)
        client.videos.delete(video.id)

    def test_square_first_frame_keeps_the_ordered_size_in_lists_too(self, client: OpenAI) -> None:
        out = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(out, "PNG")
        reference = ("a.png", out.getvalue(), "image/png")
        video = client.videos.create(prompt="waves [[hang]]", size="1280x720", input_reference=reference)
        assert (video.size, video.width, video.height) == ("1280x720", 720, 720)
        assert [one.size for one in client.videos.list(limit=1)] == ["1280x720"]
        client.videos.delete(video.id)

    @pytest.mark.parametrize("form", ["bytes", "file", "tuple"])
    def test_first_frame(self, client: OpenAI, tmp_path: Path, form: str) -> None:
        red = widescreen_image("red")
        (tmp_path / "red.png").write_bytes(red)
        references = {"bytes": red, "file": (tmp_path / "red.png").open("rb"), "tuple": ("red.png", red, "image/png")}
        video = client.videos.create(prompt="waves [[hang]]", input_reference=references[form])
        references["file"].close()
        assert video.size == "1280x720"
        client.videos.delete(video.id)

    def test_list_and_delete(self, client: OpenAI) -> None:
        ids = [client.videos.create(prompt=f"waves {n} [[hang]]").id for n in range(3)]
        assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
        deleted = client.videos.delete(ids[1])
        assert (deleted.id, deleted.object, deleted.deleted) == (ids[1], "video.deleted", True)
        assert [video.id for video in client.videos.list(order="asc", limit=1)] == [ids[0], ids[2]]
        with pytest.raises(openai.NotFoundError) as not_found:
            client.videos.retrieve(ids[1])
        assert not_found.value.code == "video_not_found"
        for video_id in (ids[0], ids[2]):
            client.videos.delete(video_id)

    def test_invalid_requests_raise_with_message(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="5, 10") as bad:
            client.videos.create(prompt="waves", model="jimeng-video-3.0", seconds="7")
        assert (bad.value.code, bad.value.param) == ("invalid_value", "seconds")
        with pytest.raises(openai.NotFoundError, match="gpt-9"):
            client.videos.create(prompt="waves", model="gpt-9")
        with pytest.raises(openai.BadRequestError, match="remix"):
            client.videos.edit(prompt="at night", video=b"a video")
        assert list(client.videos.list()) == []


class TestFinishedVideo:
    """Requests on finished videos."""

    def test_create_and_poll(self, finished_video: tuple[OpenAI, Video]) -> None:
        _, video = finished_video
        assert (video.status, video.progress, video.error) == ("completed", 100, None)
        assert (video.model, video.seconds, video.size) == ("sora-2", "5", "1280x720")
        assert video.completed_at is not None

    def test_download_every_variant(self, finished_video: tuple[OpenAI, Video]) -> None:
        client, video = finished_video
        facts = inspect_video(io.BytesIO(client.videos.download_content(video.id).content))
        assert (facts.mime, facts.width, facts.height) == ("video/mp4", 1280, 720)
        assert abs(facts.milliseconds - 5000) < 300
        for variant in ("thumbnail", "spritesheet"):
            content = client.videos.download_content(video.id, variant=variant)
            assert content.response.headers["content-type"].startswith("image/")
            with Image.open(io.BytesIO(content.content)) as image:
                image.load()

    def test_remix(self, finished_video: tuple[OpenAI, Video]) -> None:
        client, video = finished_video
        remix = client.videos.remix(video.id, prompt="the same at night")
        assert (remix.remixed_from_video_id, remix.seconds, remix.size) == (video.id, video.seconds, video.size)
        done = client.videos.poll(remix.id)
        assert (done.status, done.prompt) == ("completed", "the same at night")
        assert client.videos.delete(remix.id).deleted

    def test_video_from_first_frame(self, client: OpenAI) -> None:
        video = client.videos.create_and_poll(prompt="waves", input_reference=widescreen_image("red"))
        assert (video.status, video.size) == ("completed", "1280x720")

    @pytest.mark.parametrize(("script", "code"), [("2038", "content_policy_violation"), ("2002", "generation_failed")])
    def test_failed_video_has_error(self, client: OpenAI, script: str, code: str) -> None:
        video = client.videos.create_and_poll(prompt=f"[[fail:{script}]] waves")
        assert (video.status, video.error.code) == ("failed", code)
        assert video.error.message
        with pytest.raises(openai.BadRequestError) as error_info:
            client.videos.download_content(video.id)
        assert error_info.value.code == "video_failed"
