"""The page of batches: the total price first, errors of a refused file, progress, pause, and the way to its jobs and results."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_console import check_accessibility


def jsonl(*bodies: dict[str, Any]) -> bytes:
    lines = [
        {"custom_id": f"line-{n}", "method": "POST", "url": "/v1/images/generations", "body": body}
        for n, body in enumerate(bodies, 1)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def choose(page: Page, content: bytes, name: str = "boats.jsonl") -> None:
    """Open the dialog and choose a file."""
    page.get_by_role("button", name="New batch").click()
    page.get_by_label("JSONL or CSV file").set_input_files(
        [{"name": name, "mimeType": "text/plain", "buffer": content}]
    )


@pytest.fixture
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches")


def test_price_comes_first_and_results_are_downloaded(page: Page, shots: Path) -> None:
    page.goto("/console/batches")
    choose(page, jsonl({"prompt": "a boat", "n": 1}, {"prompt": "a dog", "n": 1}))
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("two pictures")
    dialog.get_by_role("button", name="Check and show the price").click()
    total = dialog.get_by_role("row", name="Total")
    expect(total).to_contain_text(re.compile(r"2.*credits"))
    check_accessibility(page)
    page.screenshot(path=shots / "price.png")
    dialog.get_by_role("button", name="Accept the batch").click()
    entry = page.get_by_role("listitem").filter(has_text="two pictures")
    expect(entry).to_contain_text("Completed 2 · failed 0")
    expect(entry.get_by_text("Completed", exact=True)).to_be_visible()
    check_accessibility(page)
    with page.expect_download() as download:
        entry.get_by_role("link", name="Pictures and videos (zip)").click()
    assert download.value.suggested_filename.endswith(".zip")
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=shots / f"list-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1440, "height": 900})
    entry.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("list", name="Jobs").get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_label("Batch")).to_be_visible()


def test_bad_lines_are_named_and_nothing_is_accepted(page: Page) -> None:
    page.goto("/console/batches")
    choose(page, jsonl({"prompt": "a boat"}, {"prompt": "a boat", "n": 99}))
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Check and show the price").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Line 2 (line-2)")
    expect(dialog.get_by_role("button", name="Check and show the price")).to_be_disabled()


def test_batch_is_paused_resumed_and_cancelled(page: Page) -> None:
    page.goto("/console/batches")
    slow = jsonl(*({"prompt": f"boat {n} [[seconds:60]]", "n": 1} for n in range(3)))
    choose(page, slow)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("slow ones")
    dialog.get_by_role("button", name="Check and show the price").click()
    dialog.get_by_role("button", name="Accept the batch").click()
    entry = page.get_by_role("listitem").filter(has_text="slow ones")
    entry.get_by_role("button", name="Pause").click()
    expect(entry.get_by_text("Paused", exact=True)).to_be_visible()
    entry.get_by_role("button", name="Resume").click()
    expect(entry.get_by_role("button", name="Pause")).to_be_visible()
    entry.get_by_role("button", name="Cancel the batch").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the batch").click()
    expect(entry.get_by_role("button", name="Pause")).to_have_count(0)
