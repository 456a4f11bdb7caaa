"""An administrator announces something: everybody sees it above every page, once closed it stays closed."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import collect_errors
from tests.browser.test_console import check_accessibility
from tests.support.api_client import ApiClient
from tests.support.platform import CheckedPlatform


@pytest.fixture
def admin(console_platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(console_platform, console_platform.admin_key) as client:
        yield client
        client.http.delete("/admin/v1/announcement")
        client.http.patch("/admin/v1/drain", json={"draining": False})


def test_announcement_reaches_everybody(page: Page, browser: Browser, admin: ApiClient) -> None:
    text = f"New disks on Sunday {uuid4().hex[:6]}"
    page.goto("/console/system")
    page.get_by_role("button", name="Announcement").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Text", exact=True).fill(text)
    dialog.get_by_label("Show", exact=True).select_option(label="For 24 hours")
    dialog.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("main").get_by_text(text)).to_be_visible()
    check_accessibility(page)
    name = f"eve-{uuid4().hex[:8]}"
    admin.http.post("/admin/v1/users", json={"name": name, "role": "viewer"})
    key = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with browser.new_context(base_url=admin.platform.url, locale="zh-CN") as context:
        context.request.post("/console/session", headers={"Authorization": f"Bearer {key}"})
        other = context.new_page()
        errors = collect_errors(other)
        other.goto("/console/jobs")
        expect(other.get_by_text(text)).to_be_visible()
        other.get_by_role("button", name="关闭此公告").click()
        expect(other.get_by_text(text)).to_have_count(0)
        other.reload()
        expect(other.get_by_role("heading", level=1)).to_be_visible()
        expect(other.locator("main .spinner")).to_have_count(0)
        expect(other.get_by_text(text)).to_have_count(0)
        # Another announcement is shown again, and so is maintenance.
        admin.http.put("/admin/v1/announcement", json={"text": "Done.", "level": "warning"})
        admin.http.patch("/admin/v1/drain", json={"draining": True, "reason": "new disks"})
        other.reload()
        expect(other.get_by_text("Done.")).to_be_visible()
        expect(other.get_by_text("维护中")).to_contain_text("new disks")
        assert errors == []
    page.get_by_role("button", name="Announcement", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Announcement removed.")).to_be_visible()
    assert admin.http.get("/v1/notices").json()["announcement"] is None
