"""Prices: the shape of an order, the choice between known prices, and the operator's default prices."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker.core import catalog_overrides
from worker.core.catalog.models import Catalog
from worker.core.catalog.pricing import KnownPrice, Shape, find_highest_price, find_price, shape_of
from worker.core.errors import DreameryError
from worker.providers.dreamina.credit_history import parse_history

CATALOG = Catalog(catalog_overrides.load(None, catalog_overrides.shipped_data()))


def known_price(
    units: int, price: int, *, day: int = 1, size: str = "2k", variant: str = "", place: str = "us"
) -> KnownPrice:
    return KnownPrice(place, Shape(size, units, variant), price, datetime(2026, 1, day, tzinfo=UTC))


def price_and_source(
    known: list[KnownPrice], shape: Shape, *, place: str = "us", kind: str = "image"
) -> tuple[int, str] | None:
    result = find_price(place, kind=kind, model="jimeng-4.0", shape=shape, known=known, catalog=CATALOG)
    return (result.credits, result.source) if result else None


@pytest.mark.parametrize(
    ("kind", "model", "order", "shape"),
    [
        ("image", "jimeng-4.0", {"resolution": "2k", "count": 3}, Shape("2k", 3)),
        ("image", "jimeng-3.0", {"resolution": "1k", "count": None, "prompt": "3张"}, Shape("1k", 4)),
        ("image", "jimeng-4.0", {"resolution": "1k", "count": None, "prompt": "生成3张"}, Shape("1k", 3)),
        ("image", "new_key", {"resolution": "1k", "count": None}, Shape("1k", 4)),
        ("video", "seedance-2.0", {"resolution": "720p", "seconds": 4, "parts": []}, Shape("720p", 4)),
        ("video", "seedance-2.0", {"resolution": "720p", "seconds": 4, "parts": ["a"]}, Shape("720p", 4, "omni")),
        ("image", "agent", {"resolution": "", "count": 1}, None),
        ("chat", "agent", {"messages": []}, None),
    ],
)
def test_shape_of_an_order(kind: str, model: str, order: dict[str, Any], shape: Shape | None) -> None:
    assert shape_of(kind, model, {"order": order}, CATALOG) == shape


def test_exact_price_precedes_scaled_price() -> None:
    known = [known_price(4, 8), known_price(3, 5, day=2), known_price(1, 9, size="4k")]
    assert price_and_source(known, Shape("2k", 4)) == (8, "learned")
    assert price_and_source(known, Shape("2k", 2)) == (4, "scaled"), "5 of 3, rounded up"
    assert price_and_source(known, Shape("1k", 1)) is None
    assert price_and_source(known, Shape("2k", 4), place="cn") is None
    omni = [known_price(5, 25, size="720p"), known_price(5, 60, size="720p", variant="omni")]
    assert price_and_source(omni, Shape("720p", 10, "omni"), kind="video") == (120, "scaled")
    assert price_and_source(omni[:1], Shape("720p", 5, "omni"), kind="video") == (25, "scaled"), (
        "at least the price of the plain video"
    )
    assert price_and_source(omni[1:], Shape("720p", 5), kind="video") is None


def test_highest_price_of_several_places() -> None:
    known = [known_price(1, 3), known_price(1, 7, place="sg")]
    result = find_highest_price(
        ["cn", "us", "sg"], kind="image", model="m", shape=Shape("2k", 1), known=known, catalog=CATALOG
    )
    assert result is not None
    assert (result.credits, result.place) == (7, "sg")
    assert find_highest_price([], kind="image", model="m", shape=Shape("2k", 1), known=known, catalog=CATALOG) is None


def test_precedence_of_default_prices(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        '[prices.cn.image]\n"2k" = 1.5\n[prices.cn."jimeng-4.0"]\n"2k x4" = 5\n'
        '[prices.cn.video]\n"720p" = 8\n"720p omni" = 12\n"720p 10s" = 70\n[prices.sandbox.image]\n"2k" = 3\n'
    )
    catalog = Catalog(catalog_overrides.load(path, catalog_overrides.shipped_data()))

    def default_price(
        kind: str, model: str, units: int, size: str = "2k", variant: str = "", place: str = "cn"
    ) -> int | None:
        return catalog.default_price(place, kind, model, size=size, units=units, variant=variant)

    assert default_price("image", "jimeng-4.0", 4) == 5
    assert default_price("image", "jimeng-4.0", 3) == 5, "1.5 each, rounded up"
    assert default_price("image", "jimeng-4.1", 4) == 6
    assert default_price("image", "jimeng-4.1", 4, size="4k") is None
    assert [default_price("video", "v", s, "720p") for s in (5, 10)] == [40, 70]
    assert default_price("video", "v", 5, "720p", "omni") == 60
    assert default_price("image", "jimeng-4.0", 1, place="sandbox") == 3
    assert default_price("image", "jimeng-4.0", 1, size="4k", place="sandbox") == 4, "other prices stay"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[prices]\ncn = 1", "prices.cn"),
        ("[prices.CHINA.image]", "prices.CHINA"),
        ('[prices.cn.nobody]\n"2k" = 1', "is not a model"),
        ('[prices.cn.image]\n"2k four" = 1', "'2k four' must have the form"),
        ('[prices.cn.image]\n"2k" = -1', "must be credits"),
        ('[prices.cn.image]\n"2k" = true', "must be credits"),
        ("[prices.cn]\nimage = 3", "must be a table"),
    ],
)
def test_invalid_operator_prices_are_reported_with_their_location(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(catalog_overrides.CatalogFileError, match=complaint):
        catalog_overrides.load(path, catalog_overrides.shipped_data())


def test_credit_history_skips_invalid_records() -> None:
    good = {"amount": 3, "create_time": 1700000000, "submit_id": "k", "title": "t", "status": 1}
    rows = [good, {**good, "amount": "x"}, {**good, "create_time": None}, 7, {**good, "amount": float("nan")}]
    page = parse_history({"data": {"total_credit": 12, "records": rows, "new_cursor": 20, "has_more": True}})
    assert [(line.submit_key, line.amount) for line in page.records] == [("k", 3)]
    assert (page.total, page.cursor, page.more, page.complete) == (12, "20", True, False)
    page = parse_history({"response": '{"records": [], "total_credit": true}'})
    assert (page.total, page.records, page.more, page.complete) == (None, (), False, True)
    for answer in ({}, {"data": []}, {"response": "no json"}, {"data": {"records": None}}):
        with pytest.raises(DreameryError, match="upstream"):
            parse_history(answer)
