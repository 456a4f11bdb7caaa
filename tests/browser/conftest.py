"""Fixtures for console tests: a platform, and Chromium driven by Playwright.

Playwright's own browsers are never downloaded. If Chromium is missing and the tests run as root, apt installs it;
otherwise every test here fails and says what to install.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform, start_platform

# Chromium without windows takes less than half of the processor time. Older systems have only the whole one.
_PACKAGES = ("chromium-headless-shell", "chromium")
REMEDY = (
    "The console's tests and its bench need Chromium. Debian and Ubuntu: `apt-get install --no-install-recommends chromium "
    "fonts-noto-cjk`; elsewhere put `chromium` or `google-chrome` on the PATH."
)
# Time limit of every browser action; the machine may be busy.
TIMEOUT_MS = 30_000


def find_chromium() -> str | None:
    """The path of an installed Chromium; None if there is none."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _install() -> str:
    """Install Chromium with apt and return the end of the output, or the reason why that is impossible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "Not root, or apt-get is missing."
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    output = ""
    installs = [("install", "-y", "--no-install-recommends", package, "fonts-noto-cjk") for package in _PACKAGES]
    for command in (("update",), *installs):
        process = subprocess.run(
            ["apt-get", *command], env=env, capture_output=True, text=True, check=False, timeout=280
        )
        output = process.stdout[-500:] + process.stderr[-1000:]
        if command[0] == "install" and process.returncode == 0:
            break
    return output


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    output = "" if find_chromium() else _install()
    path = find_chromium()
    if path is None:
        pytest.fail(f"{REMEDY}\n{output}")
    return path


@pytest.fixture(scope="session")
def console_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedPlatform]:
    """One platform for all files."""
    env = {
        "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000",
        "DREAMERY_POLL_MIN_SECONDS": "0.2",
        "DREAMERY_ACCOUNT_MAX_IMAGES": "20",  # tests do not wait behind the many jobs of another
        "DREAMERY_FETCH_ALLOW": "127.0.0.1",  # allow webhooks to a local test receiver
    }
    with start_platform(tmp_path_factory.mktemp("browser"), extra_env=env, sandbox_seconds=0.3) as started:
        yield started


@pytest.fixture(scope="module")
def client(console_platform: CheckedPlatform) -> Iterator[ApiClient]:
    """A client of the platform with the admin key."""
    with ApiClient(console_platform, console_platform.admin_key) as client:
        yield client


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser per file; each test gets its own context.

    The browser closes with the file: while Playwright runs, this thread has a running event loop, so no other test
    could start one.
    """
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work as root.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, console_platform: CheckedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a storage state with the cookies of a signed-in administrator."""
    with browser.new_context(base_url=console_platform.url) as context:
        response = context.request.post(
            "/console/session", headers={"Authorization": f"Bearer {console_platform.admin_key}"}
        )
        assert response.status == 201, response.text()
        path = tmp_path_factory.mktemp("cookies") / "admin.json"
        context.storage_state(path=path)
    return path


def collect_errors(page: Page) -> list[str]:
    """A list that receives the page's errors from now on: console errors and warnings, exceptions, policy violations."""
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        # A platform without estimates answers 404; the page handles it. `context` has no service workers.
        expected = url.endswith("/v1/estimate") or "Service Worker registration blocked" in message.text
        if message.type in {"error", "warning"} and not expected:
            errors.append(f"{message.text} ({url})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


@pytest.fixture
def context(browser: Browser, console_platform: CheckedPlatform, signed_in: Path) -> Iterator[BrowserContext]:
    """A browser context of a signed-in administrator.

    Tests replace the answers of the server, and a service worker would take the place of them: it is blocked here.
    """
    options = {"storage_state": signed_in, "locale": "en", "accept_downloads": True, "service_workers": "block"}
    with browser.new_context(base_url=console_platform.url, **options) as new_context:  # type: ignore[arg-type]
        new_context.set_default_timeout(TIMEOUT_MS)
        yield new_context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page of that context; the test fails if the page reported any error."""
    new_page = context.new_page()
    errors = collect_errors(new_page)
    yield new_page
    assert errors == []
