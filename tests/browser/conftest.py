"""A real browser on the console of one platform: Debian's Chromium, driven by Playwright, and what it complained about.

Playwright's own browsers are never downloaded. A machine without Chromium gets it from apt when the tests run as root;
otherwise every test here fails and says what to install.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.platform import CheckedPlatform, start_platform

_PACKAGES = ("chromium", "fonts-noto-cjk")
REMEDY = (
    "The console's tests and its bench need Chromium. Debian and Ubuntu: `apt-get install --no-install-recommends chromium "
    "fonts-noto-cjk`; elsewhere put `chromium` or `google-chrome` on the PATH."
)
# How long the page may take for anything; this machine may be busy.
PATIENCE_MS = 30_000


def find_chromium() -> str | None:
    """The path of a Chromium that is installed here."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _install() -> str:
    """Debian's Chromium by apt; what apt said when that failed."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "Not root, or no apt-get here."
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    said = ""
    for step in (("update",), ("install", "-y", "--no-install-recommends", *_PACKAGES)):
        done = subprocess.run(["apt-get", *step], env=env, capture_output=True, text=True, check=False, timeout=280)
        said = done.stdout[-500:] + done.stderr[-1000:]
    return said


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    said = "" if find_chromium() else _install()
    path = find_chromium()
    if path is None:
        pytest.fail(f"{REMEDY}\n{said}")
    return path


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    """One platform per file."""
    env = {
        "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000",
        "DREAMERY_POLL_MIN_SECONDS": "0.2",
        "DREAMERY_FETCH_ALLOW": "127.0.0.1",  # webhooks may go to a receiver of the test
    }
    with start_platform(tmp_path_factory.mktemp("browser"), extra_env=env, sandbox_seconds=0.3) as started:
        yield started


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser per file; each test has a context of its own.

    It ends with the file: as long as Playwright lives, this thread counts as running an event loop, and
    no test may run one of its own.
    """
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Root cannot use Chromium's own sandbox.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, platform: CheckedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cookies of an administrator who signed in, as a file."""
    with browser.new_context(base_url=platform.url) as context:
        answer = context.request.post("/console/session", headers={"Authorization": f"Bearer {platform.admin_key}"})
        assert answer.status == 201, answer.text()
        kept = tmp_path_factory.mktemp("cookies") / "admin.json"
        context.storage_state(path=kept)
    return kept


def watch(page: Page) -> list[str]:
    """What the page complains about from now on: errors and warnings of the console, exceptions, failed policies."""
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        where = message.location.get("url", "")
        # A platform that offers no estimates answers 404, and the page goes without.
        if message.type in {"error", "warning"} and not where.endswith("/v1/estimate"):
            complaints.append(f"{message.text} ({where})")

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


@pytest.fixture
def context(browser: Browser, platform: CheckedPlatform, signed_in: Path) -> Iterator[BrowserContext]:
    """A browser of an administrator who is signed in."""
    with browser.new_context(
        base_url=platform.url, storage_state=signed_in, locale="en", accept_downloads=True
    ) as made:
        made.set_default_timeout(PATIENCE_MS)
        yield made


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page in it; the test fails when the page complained about anything."""
    made = context.new_page()
    complaints = watch(made)
    yield made
    assert complaints == []
