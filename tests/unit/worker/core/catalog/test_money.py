"""Prices in money: what an order may cost at most, and what it costs by the usage that upstream reports."""

import math
from decimal import Decimal
from typing import Any

import pytest

from worker.core.catalog.money import (
    CostLimit,
    Rates,
    charge_of,
    find_cost,
    find_rates,
    from_amount,
    highest_cost,
    read_cost_limit,
    to_amount,
    video_tokens,
)
from worker.core.catalog.price_lists import check_own_prices, price_lines
from worker.providers.ark.models import built_in_models
from worker.providers.ark.responses import image_usage, parse_images, parse_task, task_usage

MODELS = built_in_models()
LAYERS = {"options": {"layers": True}}


def video_job(*, clips: list[float | None] | None = None, **fields: Any) -> dict[str, Any]:
    return {"order": {"resolution": "720p", "ratio": "16:9", "seconds": 5, **fields}, "clips": clips}


def image_job(inputs: int = 0, **fields: Any) -> dict[str, Any]:
    return {"order": fields, "images": [""] * inputs}


def video_cost(model: str, params: dict[str, Any], currency: str = "USD", own: dict[str, Any] | None = None) -> int:
    pricing = MODELS.videos[model].pricing
    rates = find_rates(pricing, params, currency, own)
    assert rates is not None
    return highest_cost(pricing, params, rates)


def image_cost(model: str, params: dict[str, Any], currency: str = "USD") -> int:
    pricing = MODELS.images[model].pricing
    rates = find_rates(pricing, params, currency)
    assert rates is not None
    return highest_cost(pricing, params, rates)


@pytest.mark.parametrize(("seconds", "clip", "tokens"), [(5, 0, 108_900), (7, 0, 152_100), (5, 5, 216_900)])
def test_tokens_as_upstream_counts_them(seconds: int, clip: int, tokens: int) -> None:
    assert video_tokens(1280, 720, seconds, clip_seconds=clip) == tokens


@pytest.mark.parametrize(("currency", "held", "charged"), [("USD", 763, 762), ("CNY", 5010, 5009)])
def test_a_video_is_held_rounded_up_and_settled_by_its_tokens(currency: str, held: int, charged: int) -> None:
    pricing = MODELS.videos["seedance-2.0"].pricing
    rates = find_rates(pricing, video_job(), currency)
    assert rates is not None
    assert highest_cost(pricing, video_job(), rates) == held
    assert charge_of(rates, {"tokens": 108_900}) == charged
    assert charge_of(Rates.from_dict(rates.as_dict()), {"tokens": 108_900}) == charged
    assert charge_of(rates, {}) is None, "not reported"


@pytest.mark.parametrize(
    ("model", "resolution", "currency", "clip", "price"),
    [
        ("seedance-2.5", "480p", "USD", False, "10.7"),
        ("seedance-2.5", "720p", "USD", True, "6.4"),
        ("seedance-2.5", "1080p", "USD", False, "11.7"),
        ("seedance-2.5", "1080p", "USD", True, "11.7"),
        ("seedance-2.5", "720p", "CNY", False, "70"),
        ("seedance-2.5", "1080p", "CNY", False, "77"),
        ("seedance-2.0", "480p", "USD", False, "7.0"),
        ("seedance-2.0", "720p", "USD", True, "4.3"),
        ("seedance-2.0", "1080p", "USD", False, "7.7"),
        ("seedance-2.0", "1080p", "USD", True, "4.7"),
        ("seedance-2.0", "4k", "USD", False, "4.0"),
        ("seedance-2.0", "4k", "USD", True, "2.4"),
        ("seedance-2.0", "720p", "CNY", False, "46"),
        ("seedance-2.0", "720p", "CNY", True, "28"),
        ("seedance-2.0", "1080p", "CNY", False, "51"),
        ("seedance-2.0", "1080p", "CNY", True, "31"),
        ("seedance-2.0", "4k", "CNY", False, "26"),
        ("seedance-2.0-fast", "720p", "USD", False, "5.6"),
        ("seedance-2.0-fast", "720p", "USD", True, "3.3"),
        ("seedance-2.0-fast", "720p", "CNY", False, "37"),
        ("seedance-2.0-fast", "720p", "CNY", True, "22"),
        ("seedance-2.0-mini", "720p", "USD", False, "3.5"),
        ("seedance-2.0-mini", "720p", "USD", True, "2.1"),
        ("seedance-2.0-mini", "720p", "CNY", False, "23"),
        ("seedance-1.0-pro", "1080p", "USD", False, "2.5"),
        ("seedance-1.0-pro-fast", "720p", "USD", False, "1.0"),
        ("seedance-1.0-pro", "720p", "CNY", False, "15"),
    ],
)
def test_the_table_of_video_prices(model: str, resolution: str, currency: str, price: str, *, clip: bool) -> None:
    params = video_job(resolution=resolution, clips=[4.0] if clip else [])
    rates = find_rates(MODELS.videos[model].pricing, params, currency)
    assert rates is not None
    assert rates.per_million == Decimal(price)


def test_the_most_is_held_where_the_model_decides() -> None:
    longest = video_cost("seedance-2.5", video_job(seconds=30))
    assert video_cost("seedance-2.5", video_job(seconds=-1)) == longest
    assert video_cost("seedance-2.5", video_job(seconds=None)) == longest
    frames = MODELS.videos["seedance-2.5"].frames["720p"]
    assert video_cost("seedance-2.5", video_job(ratio="adaptive")) == max(
        video_cost("seedance-2.5", video_job(ratio=ratio)) for ratio in frames
    )


def test_clips_count_like_output_and_at_least_once_more() -> None:
    own = 108_900 * 6.4 / 1000
    assert video_cost("seedance-2.5", video_job(clips=[2.0])) == math.ceil(2 * own)
    with_two = video_tokens(1280, 720, 5, clip_seconds=9.5)
    assert video_cost("seedance-2.5", video_job(clips=[4.5, 5.0])) == math.ceil(with_two * 6.4 / 1000)
    longest = MODELS.videos["seedance-2.0"].references.video_seconds
    unknown = video_tokens(1280, 720, 5, clip_seconds=longest)
    assert video_cost("seedance-2.0", video_job(clips=[None])) == math.ceil(unknown * 4.3 / 1000)


def test_the_slow_lane_costs_half_and_unknown_prices_are_none() -> None:
    full = video_cost("seedance-1.0-pro", video_job())
    half = video_cost("seedance-1.0-pro", video_job(options={"service_tier": "flex"}))
    assert 0 <= 2 * half - full <= 1
    assert find_rates(MODELS.videos["seedance-1.0-pro-fast"].pricing, video_job(), "CNY") is None
    assert find_rates(MODELS.videos["seedance-2.0"].pricing, video_job(), "EUR") is None


@pytest.mark.parametrize(
    ("model", "area", "images", "inputs", "more", "charged"),
    [
        ("seedream-5.0-pro", (2048, 1024), 1, 0, {}, 45),
        ("seedream-5.0-pro", (2048, 2048), 1, 0, {}, 90),
        ("seedream-5.0-pro", (2048, 1024), 1, 1, {}, 45),
        ("seedream-5.0-pro", (2048, 1024), 1, 3, {}, 51),
        ("seedream-5.0-pro", (1024, 1024), 3, 1, LAYERS, 68),
        ("seedream-5.0-pro", (2048, 2048), 3, 1, LAYERS, 135),
        ("seedream-5.0-flash", (2048, 2048), 2, 1, {}, 36),
        ("seedream-5.5", (2601123, 1), 1, 2, {}, 36),
        ("seedream-5.5", (2601124, 1), 1, 0, {}, 35),
        ("seedream-5.0-lite", (2048, 2048), 4, 0, {}, 140),
        ("seedream-4.5", (2048, 2048), 1, 0, {}, 40),
        ("seedream-4.0", (2048, 2048), 1, 0, {}, 30),
    ],
)
def test_the_table_of_image_prices(
    model: str, area: tuple[int, int], images: int, inputs: int, more: dict[str, Any], charged: int
) -> None:
    rates = find_rates(MODELS.images[model].pricing, image_job(**more), "USD")
    assert rates is not None
    usage = {"images": images, "inputs": inputs, "areas": [area[0] * area[1]] * images}
    assert charge_of(Rates.from_dict(rates.as_dict()), usage) == charged
    if not more:
        assert image_cost(model, image_job(inputs, width=area[0], height=area[1], count=images)) == charged


@pytest.mark.parametrize(
    ("model", "charged"), [("seedream-5.5", 245), ("seedream-5.0-pro", 630), ("seedream-5.0-flash", 126)]
)
def test_prices_in_yuan_that_are_not_published_are_guessed(model: str, charged: int) -> None:
    assert image_cost(model, image_job(width=2048, height=2048, count=1), currency="CNY") == charged
    usd = image_cost(model, image_job(width=2048, height=2048, count=1))
    assert charged == usd * 7


def test_images_of_unknown_size_count_as_the_largest() -> None:
    rates = find_rates(MODELS.images["seedream-5.0-pro"].pricing, image_job(), "USD")
    assert rates is not None
    assert charge_of(rates, {"images": 2, "areas": [1024 * 1024]}) == 45 + 90
    assert charge_of(rates, {"images": 0, "inputs": 4}) == 0
    assert charge_of(rates, {}) is None
    by_class = image_job(resolution="2k", width=2048, height=1024, options={"size_class": True})
    assert image_cost("seedream-5.0-pro", by_class) == 90


def test_absurd_usage_costs_no_memory_and_gives_no_money_back() -> None:
    images = find_rates(MODELS.images["seedream-5.0-flash"].pricing, image_job(), "USD")
    videos = find_rates(MODELS.videos["seedance-2.0"].pricing, video_job(), "USD")
    assert images is not None
    assert videos is not None
    assert charge_of(images, {"images": 2**53, "inputs": 2**53}) == 2**53 * 18
    assert charge_of(images, {"images": -3, "inputs": -3, "areas": [1]}) == 0
    assert charge_of(images, {"images": 1, "inputs": -3, "areas": [-1]}) == 18
    assert charge_of(videos, {"tokens": -(2**53)}) == 0
    assert charge_of(videos, {"tokens": 2**53}) == round(2**53 * 7 / 1000)


def test_layers_hold_the_most_that_may_come() -> None:
    assert image_cost("seedream-5.0-pro", image_job(1, width=1024, height=1024, **LAYERS)) == math.ceil(17 * 22.5)


def test_accounts_may_have_prices_of_their_own() -> None:
    plain = video_cost("seedance-2.0", video_job())
    assert video_cost("seedance-2.0", video_job(), own={"*": {"factor": 0.5}}) == math.ceil(plain / 2)
    own = {"seedance-2.0": {"prices": [{"resolutions": ["720p"], "plain": 1}]}, "*": {"factor": 0.5}}
    assert video_cost("seedance-2.0", video_job(), own=own) == math.ceil(108.9)
    pricing = MODELS.videos["seedance-2.0"].pricing
    assert find_rates(pricing, video_job(resolution="1080p"), "USD", own) is None
    images = {"seedream-5.0-pro": {"factor": 2, "prices": [{"picture": 0.01}]}}
    rates = find_rates(MODELS.images["seedream-5.0-pro"].pricing, image_job(), "CNY", images)
    assert rates is not None
    assert charge_of(rates, {"images": 3, "areas": []}) == 60


@pytest.mark.parametrize(
    "own",
    [
        {"seedance-2.0": {}},
        {"seedance-2.0": 0.5},
        {"*": {"factor": "0.5"}},
        {"*": {"factor": -1}},
        {"*": {"factor": True}},
        {"*": {"factor": 101}},
        {"*": {"discount": 0.5}},
        {"*": {"prices": [{"picture": 0.1}]}},
        {"seedance-2.0": {"prices": {"plain": 1}}},
        {"seedance-2.0": {"prices": [{"resolutions": ["720p"]}]}},
        {"seedance-2.0": {"prices": [{"resolutions": ["720p"], "plain": "7"}]}},
        {"seedream-5.0-pro": {"prices": [{"picture": -1}]}},
        {"seedream-5.0-pro": {"prices": [{"picture": 1e300}]}},
        {"seedream-5.0-pro": {"prices": [{"picture": float("nan")}]}},
        {"seedream-5.0-pro": {"prices": [7]}},
    ],
)
def test_wrong_prices_of_an_account_are_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\*|see"):
        check_own_prices(own)


def test_a_mistaken_price_fits_its_column() -> None:
    own = {"seedance-2.0": {"factor": 100, "prices": [{"resolutions": ["720p"], "plain": 1_000_000}]}}
    found = find_cost(MODELS.videos["seedance-2.0"].pricing, video_job(), "USD", own)
    assert found is not None
    assert found[1] == 2**31 - 1


def test_right_prices_of_an_account() -> None:
    check_own_prices({})
    check_own_prices({"*": {"factor": 0.9}, "seedance-2.0": {"prices": [{"resolutions": ["720p"], "plain": 6.5}]}})


def test_usage_of_answers() -> None:
    task = parse_task({"id": "cgt-1", "usage": {"completion_tokens": 108_900, "total_tokens": 200_000}})
    assert task_usage(task) == {"tokens": 108_900}, "the total is not what is charged"
    assert task_usage(parse_task({"id": "cgt-1"})) == {}
    data = [{"url": "https://x/1", "size": "1024x2048"}, {"error": {"code": "Refused"}}, {"url": "https://x/2"}]
    answer = parse_images({"data": data, "usage": {"generated_images": 2, "input_images": 3}})
    assert image_usage(answer.items, answer) == {"images": 2, "inputs": 3, "areas": [1024 * 2048, 0]}
    assert image_usage(answer.items[:1], None, inputs=1) == {"images": 1, "inputs": 1, "areas": [1024 * 2048]}


def test_amounts() -> None:
    assert (to_amount(762), to_amount(None), to_amount(0)) == (0.762, None, 0.0)
    assert [from_amount(value) for value in (0.57, "0.57", 0.0009, 25, 0.29)] == [570, 570, 0, 25_000, 290]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0.5", CostLimit(500)),
        (0.5, CostLimit(500)),
        (2, CostLimit(2000)),
        ("0.5 USD", CostLimit(500, "USD")),
        ("3cny", CostLimit(3000, "CNY")),
        (0, CostLimit(0)),
    ],
)
def test_limits_of_the_cost(text: str | float, limit: CostLimit) -> None:
    assert read_cost_limit(text) == limit


@pytest.mark.parametrize("text", ["", "-1", "1 EUR", "USD", "1e3", "nan", "0.5  USD", "1,5", "٣", 1e300])
def test_wrong_limits_of_the_cost(text: str | float) -> None:
    with pytest.raises(ValueError, match="amount"):
        read_cost_limit(text)


def test_lines_of_a_price_list() -> None:
    lines = {
        (one.currency, one.shape, one.unit): one.price for one in price_lines(MODELS.videos["seedance-2.0"].pricing)
    }
    assert lines["USD", "480p 720p", "million tokens"] == 7.0
    assert lines["CNY", "1080p with clips", "million tokens"] == 31
    listed = [one for one in price_lines(MODELS.images["seedream-5.0-pro"].pricing) if one.currency == "USD"]
    images = {(one.shape, one.unit): one.price for one in listed}
    assert images["up to 2610000 pixels", "image"] == 0.045
    assert images["any size", "layer"] == 0.045
    assert images["any size", "input image after the first"] == 0.003
