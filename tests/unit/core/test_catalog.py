"""The catalog: every model of the protocol, sizes, counts and how many jobs a wish becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.catalog import get_catalog
from worker.core.errors import DreameryError

_NAMES = [
    "jimeng-4.0",
    "jimeng-image-4.0",
    "jimeng-4.1",
    "jimeng-4.5",
    "jimeng-4.6",
    "jimeng-image-4.7",
    "jimeng-5.0",
    "jimeng-image-5.0-lite",
    "jimeng-3.1",
    "jimeng-3.0",
    "jimeng-2.1",
    "jimeng-2.0-pro",
    "jimeng-2.0",
    "jimeng-1.4",
    "jimeng-xl-pro",
    "jimeng-nano-banana",
    "nanobanana",
    "jimeng-nano-banana-pro",
    "nanobananapro",
]


@pytest.mark.parametrize("name", _NAMES)
def test_every_public_id_of_the_protocol_is_known(name: str) -> None:
    assert name in {n for m in get_catalog().image_models for n in (m.id, *m.aliases)}


def test_no_name_stands_for_two_models() -> None:
    names = [n for m in get_catalog().image_models for n in (m.id, *m.aliases)]
    assert len(names) == len(set(names))


def test_every_resolution_of_a_model_has_all_eight_ratios() -> None:
    catalog = get_catalog()
    for model in catalog.image_models:
        for resolution in model.resolutions:
            assert set(catalog.sizes[resolution]) == set(catalog.ratios)


def test_the_cn_key_of_3_1_differs() -> None:
    model = get_catalog().image_model("jimeng-3.1")
    assert "fangzhou" in model.upstream_key("cn")
    assert "fangzhou" not in model.upstream_key("us")


def test_an_unknown_model_says_where_the_list_is() -> None:
    with pytest.raises(DreameryError, match="GET /v1/models") as caught:
        get_catalog().image_model("dall-e-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@given(n=st.integers(1, 64), name=st.sampled_from(["jimeng-4.0", "jimeng-5.0-pro", "jimeng-3.0"]))
def test_the_jobs_of_a_wish_give_enough_and_not_too_many(n: int, name: str) -> None:
    model = get_catalog().image_model(name)
    counts = model.jobs_for(n)
    assert sum(counts) == n
    assert all(1 <= count <= model.most_per_job for count in counts)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (2048, 2048, (2048, 2048)),
        (1024, 1024, (1328, 1328)),
        (1792, 1024, (1664, 936)),
        (2560, 1440, (2560, 1440)),
        (5404, 3040, (5404, 3040)),
        (512, 512, (1328, 1328)),
    ],
)
def test_pixels_are_mapped_to_the_nearest_size(width: int, height: int, expected: tuple[int, int]) -> None:
    catalog = get_catalog()
    size = catalog.nearest_size(catalog.image_model("jimeng-4.0"), width, height)
    assert (size.width, size.height) == expected
