"""The console as an app of a device: its manifest, the page without a connection, and files that are shared into it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import TIMEOUT_MS
from tests.support.platform import CheckedPlatform

# Waits until the service worker answers for the page; before that the browser has nothing to show offline.
CONTROLLED = """async () => {
    await navigator.serviceWorker.ready;
    if (!navigator.serviceWorker.controller) await new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
}"""
SHARE = """async ([bytes, name]) => {
    const form = Object.assign(document.createElement("form"), { method: "POST", action: "console/share", enctype: "multipart/form-data" });
    const files = Object.assign(document.createElement("input"), { type: "file", name: "files", multiple: true });
    const text = Object.assign(document.createElement("input"), { name: "text", value: "words that were shared" });
    const list = new DataTransfer();
    list.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    files.files = list.files;
    form.append(files, text);
    document.body.append(form);
    form.submit();
}"""


@pytest.fixture
def device(browser: Browser, console_platform: CheckedPlatform, signed_in: Path) -> Iterator[BrowserContext]:
    with browser.new_context(base_url=console_platform.url, storage_state=signed_in, locale="en") as context:
        context.set_default_timeout(TIMEOUT_MS)
        yield context


def open_controlled(device: BrowserContext) -> Page:
    page = device.new_page()
    page.goto("/console?mode=image")
    page.evaluate(CONTROLLED)
    return page


def share(page: Page, name: str = "from-a-phone.png") -> None:
    content = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(content, "PNG")
    page.evaluate(SHARE, [list(content.getvalue()), name])


def test_without_a_connection_the_page_says_so_and_comes_back(device: BrowserContext) -> None:
    page = open_controlled(device)
    page.goto("/console/jobs")
    device.set_offline(True)
    page.reload()
    expect(page.get_by_text("Connection lost. Reconnecting…")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("The server is not responding.")
    device.set_offline(False)
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    # Only the page and its files are stored: no answer of the API, nothing of a user.
    stored = page.evaluate(
        """async () => {
            const urls = [];
            for (const name of await caches.keys())
                for (const request of await (await caches.open(name)).keys()) urls.push(new URL(request.url).pathname);
            return urls;
        }"""
    )
    assert len(stored) > 100
    assert [path for path in stored if not path.startswith("/console/static/") and path != "/console/offline"] == []
    text = page.evaluate("async () => (await caches.match('/console/offline')).text()")
    assert 'data-session="unknown"' in text


def test_a_shared_photo_is_a_reference_of_the_draft(device: BrowserContext) -> None:
    page = open_controlled(device)
    share(page)
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("words that were shared")
    expect(page).to_have_url("/console?mode=image")
    # It is taken once, and the draft keeps it.
    page.reload()
    expect(page.get_by_role("img", name="Reference 1")).to_be_visible()
    expect(page.get_by_role("img", name="Reference 2")).to_have_count(0)


def test_what_was_shared_is_not_left_to_the_next_user(browser: Browser, console_platform: CheckedPlatform) -> None:
    with browser.new_context(base_url=console_platform.url, locale="en") as context:
        context.set_default_timeout(TIMEOUT_MS)
        key = {"Authorization": f"Bearer {console_platform.admin_key}"}
        assert context.request.post("/console/session", headers=key).status == 201
        page = open_controlled(context)
        # Not on the playground, which would take it.
        page.goto("/console/jobs")
        waiting = """async () => {
            const open = indexedDB.open("dreamery-shared", 1);
            await new Promise((done) => { open.onsuccess = done; });
            const all = open.result.transaction("shares").objectStore("shares").getAll();
            await new Promise((done) => { all.onsuccess = done; });
            open.result.close();
            return all.result.length;
        }"""
        page.evaluate(
            """async () => {
                const form = new FormData();
                form.append("files", new File(["x"], "secret.png", { type: "image/png" }));
                await fetch("console/share", { method: "POST", body: form, redirect: "manual" });
            }"""
        )
        assert page.evaluate(waiting) == 1
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
        assert page.evaluate(waiting) == 0


def test_without_a_service_worker_a_share_is_reported_as_lost(page: Page) -> None:
    page.goto("/console?mode=image")
    share(page)
    expect(page.get_by_text("The shared files did not arrive.")).to_be_visible()
    expect(page.get_by_role("img", name="Reference 1")).to_have_count(0)


def test_chromium_finds_the_console_installable(device: BrowserContext) -> None:
    page = open_controlled(device)
    tools = device.new_cdp_session(page)
    found = tools.send("Page.getAppManifest")
    assert found["errors"] == []
    manifest = json.loads(found["data"])
    assert manifest["share_target"]["action"] == "/console/share"
    errors = tools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # A window of a test is private, where no browser installs anything.
    assert [item["errorId"] for item in errors if item["errorId"] != "in-incognito"] == []
