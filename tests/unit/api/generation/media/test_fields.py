"""Every common name and form of an image, frame, clip or audio file is used, or named in a 400; none is left out."""

import asyncio
import base64
import io
from typing import Any
from urllib.parse import quote

import pytest

from api.generation.media.fields import FIELDS, find_role
from api.generation.media.reference_images import ReferenceImage
from api.generation.media.reference_media import read_input
from api.generation.media.values import InputEntry
from api.http.bodies.field_names import snake_case
from api.http.body_parsing import Upload, validate_body
from api.images.schemas import ImageGenerationRequest
from api.videos.schemas import RemixRequest, VideoGenerationRequest
from tests.support.media_files import make_audio, make_video
from tests.support.uploads import make_image
from worker.core.errors import DreameryError

LINK = "https://example.org/a.png"
CLIP = "https://example.org/a.mp4"
SONG = "https://example.org/a.mp3"
PNG = make_image("red")
JPEG = make_image("red", side=64, kind="JPEG")
B64 = base64.b64encode(PNG).decode()
DATA = f"data:image/png;base64,{B64}"


def upload(data: bytes = PNG, name: str = "a.png") -> Upload:
    return Upload(name=name, size=len(data), file=io.BytesIO(data))


def images(**fields: Any) -> list[InputEntry]:
    return validate_body({"prompt": "a boat", **fields}, ImageGenerationRequest).media_inputs


def videos(**fields: Any) -> list[InputEntry]:
    return validate_body({"prompt": "waves", **fields}, VideoGenerationRequest).media_inputs


def roles(entries: list[InputEntry]) -> list[tuple[str, Any]]:
    return [(entry.role, entry.value) for entry in entries]


def refused(read: Any, param: str, **fields: Any) -> str:
    with pytest.raises(DreameryError) as caught:
        read(**fields)
    assert (caught.value.code, caught.value.param, caught.value.kind.status) == ("unsupported_parameter", param, 400)
    assert f"`{param}`" in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("read", [images, videos])
@pytest.mark.parametrize(
    "name",
    [
        *("image", "images", "image_url", "image_urls", "imageUrl", "imageUrls", "image-url", "Image", "IMAGE_URL"),
        *("file", "files", "file_paths", "filePaths", "input_reference", "inputReference", "input_references"),
        *("image_file_1", "image1", "image_1", "image_file_12", "imageFile1", "img", "img_url", "pictures", "photo"),
        *("input_image", "input_images", "init_image", "initImages", "source_image_url", "image_base64", "imageBase64"),
        *("image_b64", "base64_image", "binary_data_base64", "image_list", "image_input", "promptImage", "attachments"),
        *("upload", "media_url", "frame_images"),
    ],
)
def test_picture_under_every_common_name_is_used_by_image_and_video_calls(read: Any, name: str) -> None:
    [entry] = read(**{name: LINK})
    assert (entry.value, entry.media, entry.role) == (LINK, "image", "image")
    assert entry.param in {name, snake_case(name)}


@pytest.mark.parametrize(
    "name",
    [
        *("first_frame", "first_frame_image", "first_frame_url", "firstFrame", "start_image", "startImageUrl"),
        *("start_frame", "first_image", "head_frame", "starting_image", "first_frame_image_base64", "initialImage"),
    ],
)
def test_names_of_a_first_frame(name: str) -> None:
    assert roles(videos(**{name: LINK})) == [("first_frame", LINK)]
    refused(images, name, **{name: LINK})


@pytest.mark.parametrize(
    "name",
    [
        *("last_frame", "last_frame_image", "last_frame_url", "lastFrame", "end_image", "endImageUrl", "end_frame"),
        *("end_frame_image", "image_tail", "imageTail", "tail_image_url", "final_frame", "last_image", "tail_frame"),
    ],
)
def test_names_of_a_last_frame(name: str) -> None:
    assert roles(videos(**{name: LINK})) == [("end_frame", LINK)]
    refused(images, name, **{name: LINK})


@pytest.mark.parametrize(
    "name", ["reference_images", "referenceImages", "ref_image", "image_reference", "reference_image_url"]
)
def test_names_of_references(name: str) -> None:
    assert roles(videos(**{name: [LINK, DATA]})) == [("reference", LINK), ("reference", DATA)]
    assert [entry.value for entry in images(**{name: LINK})] == [LINK]


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        *(
            ({name: CLIP}, "video")
            for name in ("video", "videos", "video_url", "videoUrls", "video_file_1", "reference_video")
        ),
        *(({name: SONG}, "audio") for name in ("audio", "audios", "audio_url", "audio_file_2", "referenceAudio")),
        ({"file": CLIP}, "video"),
        ({"files": [SONG]}, "audio"),
        ({"reference_images": [{"video_url": CLIP}]}, "video"),
        ({"input_reference": {"type": "audio_url", "audio_url": {"url": SONG}}}, "audio"),
    ],
)
def test_clips_and_audio_are_recognised_by_name_or_content(fields: dict[str, Any], role: str) -> None:
    [entry] = videos(**fields)
    assert (entry.role, entry.media) == (role, role)
    refused(images, entry.param, **fields)


def test_uploaded_clip_under_a_general_name_is_a_clip() -> None:
    clip, song = make_video("red"), make_audio()
    entries = videos(file=[upload(clip, "blob"), upload(song, ""), upload(PNG, "x.mp4")])
    assert [entry.media for entry in entries] == ["video", "audio", "image"]


def test_ark_content_gives_prompt_frames_and_references() -> None:
    content = [
        {"type": "text", "text": "she waves"},
        {"type": "image_url", "image_url": {"url": LINK}, "role": "first_frame"},
        {"type": "image_url", "image_url": {"url": DATA}, "role": "last_frame"},
        {"type": "image_url", "image_url": {"url": LINK}, "role": "reference_image"},
        {"type": "image_url", "image_url": {"url": LINK}},
        {"type": "video_url", "video_url": {"url": CLIP}, "role": "reference_video"},
        {"type": "audio_url", "audio_url": {"url": SONG}, "role": "reference_audio"},
    ]
    body = validate_body({"content": content}, VideoGenerationRequest)
    assert body.prompt == "she waves"
    assert [entry.role for entry in body.media_inputs] == [
        "first_frame",
        "end_frame",
        "reference",
        "image",
        "video",
        "audio",
    ]
    assert body.media_inputs[1].param == "content.2"
    assert (
        validate_body({"content": content[:1] + content[4:5]}, ImageGenerationRequest).media_inputs[0].role == "image"
    )
    refused(videos, "content.0", content=[{"type": "draft_task"}])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"keyframes": {"frame0": {"type": "image", "url": LINK}, "frame1": {"url": DATA}}}, ["first_frame", "end_frame"]),
        ({"promptImage": [{"uri": LINK, "position": "first"}, {"uri": LINK, "position": "last"}]}, ["first_frame", "end_frame"]),
        ({"frame_images": [{"image_url": {"url": LINK}, "frame_type": "last_frame"}]}, ["end_frame"]),
        ({"subject_reference": [{"type": "character", "image": [LINK]}]}, ["reference"]),
        ({"image": {"bytesBase64Encoded": B64, "mimeType": "image/png"}, "lastFrame": {"gcsUri": LINK, "url": LINK}}, ["image", "end_frame"]),
        ({"input": {"img_url": LINK}}, ["image"]),
        ({"extra_body": {"last_frame": LINK}}, ["end_frame"]),
        ({"images": f'["{LINK}", "{LINK}"]'}, ["image", "image"]),
        ({"image": f'{{"url": "{LINK}"}}'}, ["image"]),
        ({"image": {"1": {"url": DATA}, "0": LINK}}, ["image", "image"]),
    ],
)  # fmt: skip
def test_shapes_of_other_services_are_understood(fields: dict[str, Any], expected: list[str]) -> None:
    assert [entry.role for entry in videos(**fields)] == expected


def test_numbered_names_keep_their_order_and_numbers() -> None:
    entries = videos(
        image_file_2="https://h/2.png",
        image_file_10="https://h/10.png",
        image="https://h/0.png",
        image_1="https://h/1.png",
    )
    assert [(entry.value[10:-4], entry.number) for entry in entries] == [("0", None), ("1", 1), ("2", 2), ("10", 10)]


@pytest.mark.parametrize("read", [images, videos])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("control_image", LINK), ("logo", DATA), ("styling", upload()), ("mein_bild", upload(b"x", "notes.txt"))),
        *(
            ("control", {"url": "https://example.org/x"}),
            ("planes", [{"picture": {"b64": B64 * 4}}]),
            ("pose", B64 * 4),
        ),
        *(("avatar", f"{LINK}?size=2"), ("clips", [{"src": CLIP}])),
        *(("control", f'{{"image": "{LINK}"}}'), ("raw", {"type": "Buffer", "data": list(PNG)})),
    ],
)
def test_file_under_an_unknown_name_is_named_in_the_error(read: Any, name: str, value: Any) -> None:
    if name == "clips":
        assert read is images or roles(read(clips=value)) == [("video", value[0])]
        return
    message = refused(read, name, **{name: value})
    assert "`image`" in message
    assert "`images`" in message


@pytest.mark.parametrize("read", [images, videos])
@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 20, "style_preset": "photo", "guidance": 7.5, "watermark": False, "scheduler": "ddim"},
        {"callback_url": "https://example.org/hook", "callback": {"url": "https://example.org/x.png"}},
        {"metadata": {"picture": LINK}, "user": LINK, "referer": LINK},
        {"note": f"like {LINK} but blue", "homepage": "https://example.org/", "trace_id": "a" * 64},
        {"tools": [{"url": LINK}], "headers": {"x": DATA}, "audio": False, "sound": "on", "reference": "none"},
        {"image": None, "images": [], "first_frame": "", "file": upload(b"", "")},
        {"mask": "", "mask_image": None},
        {"mask": upload(b"", "")},
        {"mask": upload(b"", "mask.png")},
    ],
)
def test_fields_that_are_no_media_and_empty_inputs_are_ignored(read: Any, fields: dict[str, Any]) -> None:
    assert read(**fields) == []


@pytest.mark.parametrize("read", [images, videos])
@pytest.mark.parametrize("name", ["mask", "mask_image", "maskUrl", "inpaint_mask"])
def test_mask_is_refused_under_every_name(read: Any, name: str) -> None:
    refused(read, name, **{name: DATA})


@pytest.mark.parametrize("fields", [{"image": LINK}, {"first_frame": DATA}, {"picture_of_me": upload()}])
def test_remix_names_an_input_that_it_does_not_take(fields: dict[str, Any]) -> None:
    [name] = fields
    refused(lambda **sent: validate_body({"prompt": "at night", **sent}, RemixRequest), name, **fields)
    assert validate_body({"prompt": "at night", "image": ""}, RemixRequest).prompt == "at night"


RED = base64.b64encode(make_image("red", side=200, kind="JPEG"))  # has `+` and `/`
URLSAFE = RED.translate(bytes.maketrans(b"+/", b"-_")).decode()


@pytest.mark.parametrize(
    "value",
    [
        *({"b64_json": B64}, {"base64": B64}, {"b64": B64}, {"data": B64}, {"image_base64": B64}, {"url": DATA}, {"image": B64}),
        *({"type": "base64", "media_type": "image/png", "data": B64}, {"type": "image", "source": {"type": "base64", "data": B64}}),
        *({"inlineData": {"mimeType": "image/png", "data": B64}}, {"inline_data": {"mime_type": "image/png", "data": B64}}),
        *({"type": "file", "file": {"file_data": DATA, "filename": "a.png"}}, {"type": "Buffer", "data": list(PNG)}),
        *(RED.decode(), URLSAFE, URLSAFE.rstrip("="), quote(RED, safe=""), RED.decode().replace("+", " ")),
        *(f"data:image/jpeg;base64,{URLSAFE}", f"data:image/jpeg;base64,{quote(RED, safe='')}", f"data:image/png,{quote(PNG)}"),
        *(quote(DATA, safe=""), f"image/png;base64,{B64}", f"base64://{B64}", f"data:;base64,{B64}", f"  {DATA}\n"),
        *("\r\n".join(B64[n : n + 76] for n in range(0, len(B64), 76)), " ".join(B64[n : n + 76] for n in range(0, len(B64), 76))),
        *(upload(), upload(PNG, ""), upload(JPEG[:-2], "photo.jpg"), base64.b64encode(JPEG[:-2]).decode()),
    ],
)  # fmt: skip
def test_every_form_of_a_picture_is_read(value: Any) -> None:
    [entry] = images(image=value)
    found = asyncio.run(read_input(entry, "user:x"))
    assert found.content is not None
    found.content.close()
    assert isinstance(found, ReferenceImage)
    assert found.facts is not None
    assert found.facts.mime in {"image/png", "image/jpeg"}


@pytest.mark.parametrize(
    "value", ["C:\\photos\\cat.png", "/home/me/cat.png", "./cat.jpg", "file:///cat.png", "blob:https://h/1-2"]
)
def test_path_on_the_callers_machine_is_explained(value: str) -> None:
    [entry] = images(image=value)
    with pytest.raises(DreameryError) as caught:
        asyncio.run(read_input(entry, "user:x"))
    assert caught.value.code == "invalid_image"
    assert "your own machine" in caught.value.message


def test_each_name_of_the_table_has_one_role() -> None:
    names = [name for group in FIELDS.values() for name in group]
    assert len(names) == len(set(names))
    assert {find_role(name) for name in names} == set(FIELDS)
    assert all(find_role(name) == role for role, group in FIELDS.items() for name in group)


@pytest.mark.parametrize(
    "name", ["prompt", "size", "image_size", "image_config", "image_count", "video_length", "n_images", "seed"]
)
def test_other_fields_have_no_role(name: str) -> None:
    assert find_role(name) is None


def test_endless_names_cost_nothing() -> None:
    assert find_role("image" + "_url" * 1_000_000) is None
    assert images(**{"x" * 1_000_000: 1}) == []
