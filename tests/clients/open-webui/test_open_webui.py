"""Open WebUI, unmodified and with its default settings, driven in Chromium against a running platform.

Run with `make test-clients`. The environment has several gigabytes, because Open WebUI installs PyTorch. Screenshots of
each test are in the folder that pytest prints with `--basetemp`, or in SCREENSHOTS.
"""

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import chromium
from tests.support.client_environments import ensure_environment
from tests.support.platform import CheckedPlatform, eventually, free_port, start_platform

__all__ = ["chromium"]

_START_SECONDS = 240
_ANSWER_MS = 120_000
_USER = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}


@dataclass(frozen=True, slots=True)
class OpenWebUI:
    """A running Open WebUI whose only connection is the platform."""

    url: str
    token: str
    platform: CheckedPlatform

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call Open WebUI's own API as its administrator."""
        headers = {"Authorization": f"Bearer {self.token}"}
        response = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=120, trust_env=False, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of the connection, newest first."""
        headers = {"Authorization": f"Bearer {self.platform.admin_key}"}
        response = httpx.get(f"{self.platform.url}/v1/jobs?limit=100", headers=headers, timeout=30, trust_env=False)
        return list(response.json()["data"])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    """A platform with a quick sandbox."""
    env = {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000", "DREAMERY_POLL_MIN_SECONDS": "0.2"}
    with start_platform(tmp_path_factory.mktemp("platform"), extra_env=env, sandbox_seconds=0.5) as started:
        yield started


@pytest.fixture(scope="module")
def open_webui(platform: CheckedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenWebUI]:
    """Open WebUI with an administrator who has signed up."""
    folder, port = tmp_path_factory.mktemp("open-webui"), free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DATA_DIR": str(folder),
        "OPENAI_API_BASE_URL": f"{platform.url}/v1",
        "OPENAI_API_KEY": platform.admin_key,
        "HF_HUB_OFFLINE": "1",  # its search model cannot be downloaded in a closed network
        # The images page fetches results from the platform, which has a private address here.
        "ENABLE_RAG_LOCAL_WEB_FETCH": "true",
    }
    program = ensure_environment("open-webui") / "bin" / "open-webui"
    with (folder / "open-webui.log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        eventually(lambda: _is_up(url), within=_START_SECONDS, what="Open WebUI answers")
        signed_up = httpx.post(f"{url}/api/v1/auths/signup", json=_USER, timeout=60, trust_env=False)
        assert signed_up.status_code == 200, signed_up.text
        yield OpenWebUI(url=url, token=signed_up.json()["token"], platform=platform)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for the file."""
    expect.set_options(timeout=_ANSWER_MS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, open_webui: OpenWebUI, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """A page of the signed-in administrator; a screenshot is taken at the end."""
    with browser.new_context(base_url=open_webui.url, viewport={"width": 1280, "height": 900}) as context:
        context.add_init_script(f"localStorage.setItem('token', '{open_webui.token}')")
        new_page = context.new_page()
        new_page.set_default_timeout(_ANSWER_MS)
        yield new_page
        folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        new_page.screenshot(path=folder / f"{request.node.name}.png")


def open_chat(page: Page, model: str) -> None:
    """Open a new chat with a model and close the release notes, which a new user sees first."""
    page.goto(f"/?models={model}")
    page.wait_for_selector("#chat-input")
    notes = page.get_by_role("button", name="Okay, Let's Go!")
    try:
        notes.click(timeout=10_000)
    except Exception:  # noqa: BLE001 - shown once per user
        assert notes.count() == 0


def send(page: Page, text: str) -> None:
    """Write a message and send it."""
    page.click("#chat-input")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def shown_images(page: Page) -> int:
    """The number of results in the chat that the browser has loaded."""
    script = "[...document.querySelectorAll('img')].filter(i => i.src.includes('/v1/files/file_') && i.naturalWidth > 0).length"
    return int(page.evaluate(script))


def wait_for(page: Page, condition: Callable[[], bool], what: str) -> None:
    for _ in range(_ANSWER_MS // 500):
        if condition():
            return
        page.wait_for_timeout(500)
    pytest.fail(f"{what} did not happen; the page shows: {page.inner_text('body')[-800:]}")


def test_plain_prompt_shows_pictures_and_background_calls_create_no_job(page: Page, open_webui: OpenWebUI) -> None:
    before = len(open_webui.jobs())
    open_chat(page, "jimeng-4.0")
    send(page, "a lighthouse at dawn")
    wait_for(page, lambda: shown_images(page) == 4, "four pictures")
    # The title, tags and follow-up questions are requested after the answer.
    wait_for(page, lambda: "ighthouse" in open_webui.call("GET", "/api/v1/chats/")[0]["title"], "the chat gets a title")
    page.wait_for_timeout(5_000)
    assert len(open_webui.jobs()) == before + 1


def test_progress_is_shown_while_pictures_are_generated(page: Page) -> None:
    open_chat(page, "jimeng-4.0")
    send(page, "a red boat [[seconds:12]]")
    expect(page.get_by_text("Thinking").or_(page.get_by_text("Thought")).first).to_be_visible()
    assert shown_images(page) == 0
    wait_for(page, lambda: shown_images(page) == 4, "four pictures")


def test_video_plays(page: Page) -> None:
    open_chat(page, "jimeng-video-3.0")
    send(page, "waves roll ashore")
    expect(page.locator("video")).to_be_visible()
    ready = "document.querySelector('video').readyState >= 2 && document.querySelector('video').videoWidth > 0"
    wait_for(page, lambda: bool(page.evaluate(ready)), "the video loads")
    page.evaluate("(async () => { const v = document.querySelector('video'); v.muted = true; await v.play(); })()")
    wait_for(page, lambda: page.evaluate("document.querySelector('video').currentTime") > 0, "the video plays")
    assert "<video" not in page.inner_text("body")


def red_square() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (640, 480), (200, 30, 30)).save(content, "PNG")
    return content.getvalue()


def test_attached_picture_is_the_reference(page: Page, open_webui: OpenWebUI) -> None:
    open_chat(page, "jimeng-4.0")
    picture = {"name": "square.png", "mimeType": "image/png", "buffer": red_square()}
    page.locator("input[type=file]").first.set_input_files([picture])  # type: ignore[list-item]
    page.wait_for_timeout(3_000)
    send(page, "the same square in blue")
    wait_for(page, lambda: shown_images(page) >= 1, "a picture")
    newest = open_webui.jobs()[0]
    assert newest["input"]["images"], newest["input"]
    assert "attached_files" not in newest["input"]["prompt"]


def test_follow_up_changes_the_last_picture(page: Page, open_webui: OpenWebUI) -> None:
    open_chat(page, "jimeng-4.0")
    send(page, "a boat on a lake")
    wait_for(page, lambda: shown_images(page) == 4, "four pictures")
    page.wait_for_timeout(3_000)
    send(page, "make it a bit darker")
    wait_for(page, lambda: shown_images(page) > 4, "the changed picture")
    newest = open_webui.jobs()[0]
    assert newest["input"]["images"], newest["input"]


@pytest.fixture(scope="module")
def images_page(open_webui: OpenWebUI) -> None:
    """The administrator has chosen the platform for image generation and editing."""
    config = open_webui.call("GET", "/api/v1/images/config")
    url, key = f"{open_webui.platform.url}/v1", open_webui.platform.admin_key
    config |= {
        "ENABLE_IMAGE_GENERATION": True,
        "IMAGE_GENERATION_ENGINE": "openai",
        "IMAGE_GENERATION_MODEL": "jimeng-4.0",
    }
    config |= {"IMAGES_OPENAI_API_BASE_URL": url, "IMAGES_OPENAI_API_KEY": key, "IMAGE_SIZE": "1024x1024"}
    config |= {"ENABLE_IMAGE_EDIT": True, "IMAGE_EDIT_ENGINE": "openai", "IMAGE_EDIT_MODEL": "jimeng-4.0"}
    config |= {"IMAGES_EDIT_OPENAI_API_BASE_URL": url, "IMAGES_EDIT_OPENAI_API_KEY": key, "IMAGE_EDIT_SIZE": ""}
    open_webui.call("POST", "/api/v1/images/config/update", json=config)


@pytest.mark.usefixtures("images_page")
def test_images_page_generates_and_edits(page: Page, open_webui: OpenWebUI) -> None:
    before = len(open_webui.jobs())
    page.goto("/playground/images")
    box = page.get_by_placeholder("Describe the image")
    box = box if box.count() else page.locator("textarea").last
    box.fill("a paper crane")
    page.get_by_role("button", name="Run").click()
    loaded = "[...document.querySelectorAll('img')].filter(i => i.naturalWidth >= 512).length"
    wait_for(page, lambda: page.evaluate(loaded) >= 1, "a picture on the images page")
    picture = {"name": "square.png", "mimeType": "image/png", "buffer": red_square()}
    page.locator("input[type=file]").first.set_input_files([picture])  # type: ignore[list-item]
    page.wait_for_timeout(1_500)
    box.fill("the same square in blue")
    page.get_by_role("button", name="Run").click()
    wait_for(page, lambda: len(open_webui.jobs()) >= before + 2, "the edit becomes a job")
    wait_for(page, lambda: open_webui.jobs()[0]["status"] == "completed", "the edit ends")
    assert open_webui.jobs()[0]["input"]["images"]
