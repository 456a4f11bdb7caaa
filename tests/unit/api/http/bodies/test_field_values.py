"""One table of field names: every spelling, in every container, and every form of a size reaches the schemas' fields."""

from typing import Any

import pytest

from api.http.bodies.field_names import CONTAINERS, SPELLINGS, snake_case
from api.http.bodies.field_values import UnifiedFields, unify_fields
from api.images.schemas import ImageGenerationRequest
from api.videos.schemas import VideoGenerationRequest
from worker.core.errors import DreameryError

IMAGE = {info.alias or name for name, info in ImageGenerationRequest.model_fields.items()}
VIDEO = {info.alias or name for name, info in VideoGenerationRequest.model_fields.items()}


def unified(body: dict[str, Any], known: set[str] = IMAGE) -> UnifiedFields:
    return unify_fields(body, known)


def error(body: dict[str, Any], known: set[str] = IMAGE) -> DreameryError:
    with pytest.raises(DreameryError) as caught:
        unify_fields(body, known)
    assert caught.value.code == "invalid_value"
    return caught.value


@pytest.mark.parametrize(
    ("size", "fields"),
    [
        ("2K", {"resolution": "2k"}),
        ("4K", {"resolution": "4k"}),
        ("1.5k", {"resolution": "1.5k"}),
        ("1080P", {"resolution": "1080p"}),
        ("16:9", {"ratio": "16:9"}),
        ("9：16", {"ratio": "9:16"}),
        ("4x3", {"ratio": "4:3"}),
        ("1024*768", {"size": "1024x768"}),
        ("1280 × 720", {"size": "1280x720"}),
        ("1280:720", {"size": "1280x720"}),
        ("landscape_16_9", {"ratio": "16:9"}),
        ("Portrait", {"ratio": "9:16"}),
        ("square_hd", {"ratio": "1:1"}),
        ({"width": 1024, "height": 768}, {"width": 1024, "height": 768}),
        ({"Width": "1024", "Height": "768"}, {"width": "1024", "height": "768"}),
        ('{"width": 1024, "height": 768}', {"width": 1024, "height": 768}),
        ([1024, 768], {"size": "1024x768"}),
        (720, {"resolution": "720p"}),
        ("adaptive", {"size": "adaptive"}),
        ("auto", {"size": "auto"}),
        ("", {}),
        (None, {}),
    ],
)
@pytest.mark.parametrize("name", ["size", "image_size", "imageSize", "image-size"])
def test_size_is_understood_in_every_form(name, size, fields):
    assert unified({name: size}).fields == fields


@pytest.mark.parametrize("size", [7, True, 1.5, {"width": 100}, [1, 2, 3], {}])
def test_size_of_another_form_is_rejected_with_what_works(size):
    problem = error({"imageSize": size})
    assert problem.param == "imageSize"
    assert "`2K`" in problem.message
    assert "`16:9`" in problem.message


def test_ratio_and_resolution_fields_take_each_others_values():
    assert unified({"ratio": "1280:720"}).fields == {"size": "1280x720"}
    assert unified({"resolution": "1024x1024"}).fields == {"size": "1024x1024"}
    assert unified({"resolution": "9:16"}).fields == {"ratio": "9:16"}
    assert unified({"quality": "2K"}).fields == {"resolution": "2k"}
    assert unified({"quality": "hd"}).fields == {"quality": "hd"}
    assert unified({"resolution": "1080"}, VIDEO).fields == {"resolution": "1080p"}


@pytest.mark.parametrize(
    "body",
    [
        {"aspectRatio": "16:9", "imageSize": "2K"},
        {"aspect-ratio": "16:9", "image-size": "2K"},
        {"image_config": {"aspect_ratio": "16:9", "image_size": "2K"}},
        {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}},
        {"extra_body": {"aspect_ratio": "16:9", "image_size": "2K"}},
        {"extra_body": {"google": {"image_config": {"aspect_ratio": "16:9", "image_size": "2K"}}}},
        {"generationConfig": {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}}},
        {"extra_fields": '{"aspect_ratio": "16:9", "resolution": "2k"}'},
        {"parameters": {"aspectRatio": "16:9", "sampleImageSize": "1K", "size": "2K"}},
        {"ratio": "16:9", "extra_body": {"image_config": {"aspect_ratio": "16:9", "image_size": "2K"}}},
    ],
)
def test_ratio_and_size_are_found_in_every_spelling_and_container(body):
    fields = unified(body).fields
    assert (fields["ratio"], fields["resolution"]) == ("16:9", "2k")


@pytest.mark.parametrize(("name", "spelling"), [(name, one) for name, all_ in SPELLINGS.items() for one in all_])
def test_each_spelling_of_the_table_sets_its_field(name, spelling):
    camel = "".join(part.title() if n else part for n, part in enumerate(spelling.split("_")))
    value = {"size": "1024x1024", "ratio": "1:1", "resolution": "2k"}.get(name, "7")
    for sent in (spelling, camel, spelling.replace("_", "-")):
        result = unify_fields({sent: value}, {name})
        assert result.fields == {name: value}, sent
        assert result.sent_names == {name: sent}


@pytest.mark.parametrize("container", sorted(CONTAINERS))
def test_each_container_is_opened(container):
    assert unified({container: {"seed": 5}}).fields == {"seed": 5}
    assert unified({container: "a text"}).fields == {container: "a text"}


@pytest.mark.parametrize("seed", [-1, "-1", -1.0, "random", None, ""])
def test_seed_minus_one_is_random(seed):
    assert unified({"seed": seed}).fields == {}
    assert unified({"extra_body": {"seed": seed}}).fields == {}
    assert unified({"seed": 0}).fields == {"seed": 0}


def test_fields_without_a_row_are_known_in_camel_and_kebab_case():
    body = {"sampleStrength": 0.3, "response-format": "b64", "outputFormat": "image/png"}
    assert unified(body).fields == {"sample_strength": 0.3, "response_format": "b64_json", "output_format": "png"}


def test_other_fields_stay_as_they_are():
    body = {"prompt": "", "messages": [{"Content": 1}], "unknownThing": {"size": 1}, "metadata": {"Size": "2K"}}
    assert unified(body).fields == body
    assert unified({"metadata": '{"a": "b"}'}).fields == {"metadata": {"a": "b"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"ratio": "1:1", "aspectRatio": "16:9"}, "aspectRatio"),
        ({"n": 1, "extra_body": {"num_images": 2}}, "extra_body.num_images"),
        ({"size": "2K", "resolution": "4k"}, "resolution"),
        ({"size": "1024x1024", "image_size": "512x512"}, "image_size"),
    ],
)
def test_contradicting_spellings_are_rejected(body, param):
    problem = error(body)
    assert problem.param == param
    assert "differ" in problem.message


def test_automatic_size_yields_to_a_real_one():
    assert unified({"size": "auto", "image_size": "512x512"}).fields == {"size": "512x512"}
    assert unified({"size": "512x512", "image_size": "auto"}).fields == {"size": "512x512"}


def test_deep_and_broken_containers_are_left_alone():
    body: dict[str, Any] = {"seed": 1}
    for _ in range(50):
        body = {"extra_body": body}
    assert "seed" not in unified(body).fields
    assert unified({"extra_body": "{broken"}).fields == {"extra_body": "{broken"}


@pytest.mark.parametrize(
    ("name", "snake"),
    [("aspectRatio", "aspect_ratio"), ("AspectRatio", "aspect_ratio"), ("Aspect Ratio", "aspect_ratio"), ("imageURL", "image_url"), ("b64_json", "b64_json")],
)  # fmt: skip
def test_names_are_compared_in_snake_case(name, snake):
    assert snake_case(name) == snake
