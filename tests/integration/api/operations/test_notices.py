"""Notices: an administrator announces, everybody reads; maintenance is shown with its reason."""

import time
from collections.abc import Iterator

import pytest

from api.operations.notice_routes import Notices
from tests.support.api_client import ApiClient, assert_error

PATH = "/admin/v1/announcement"


@pytest.fixture
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client
        client.http.delete(PATH)


def notices(client: ApiClient) -> Notices:
    return Notices.model_validate(client.http.get("/v1/notices").json())


def test_announcement_is_shown_to_everybody_until_it_ends(admin) -> None:
    with ApiClient(admin.platform) as other:
        assert notices(other).announcement is None
        answer = admin.http.put(PATH, json={"text": "Back at noon. 中午恢复。", "level": "warning"})
        assert answer.status_code == 200, answer.text
        shown = notices(other).announcement
        assert shown is not None
        assert (shown.text, shown.level, shown.until) == ("Back at noon. 中午恢复。", "warning", None)
        assert admin.http.put(PATH, json={"text": "Soon over", "until": int(time.time()) - 1}).status_code == 200
        assert notices(other).announcement is None
        assert admin.http.put(PATH, json={"text": "Now", "until": int(time.time()) + 600}).status_code == 200
        assert notices(other).announcement is not None
        assert admin.http.delete(PATH).status_code == 200
        assert notices(other).announcement is None
        assert_error(other.http.put(PATH, json={"text": "x"}), 403, "forbidden")
    entries = admin.http.get("/admin/v1/audit", params={"action": "platform.announce"}).json()["data"]
    assert [entry["details"]["text"] for entry in entries[:4]] == [None, "Now", "Soon over", "Back at noon. 中午恢复。"]


@pytest.mark.parametrize(
    "body", [{"text": ""}, {"text": "x" * 501}, {"text": "x", "level": "loud"}, {"text": "x", "until": -1}, {}]
)
def test_invalid_announcements_are_refused(admin, body) -> None:
    assert admin.http.put(PATH, json=body).status_code == 400
    assert notices(admin).announcement is None


def test_maintenance_is_shown_with_its_reason(admin) -> None:
    try:
        admin.http.patch("/admin/v1/drain", json={"draining": True, "reason": "new disks"})
        maintenance = notices(admin).maintenance
        assert maintenance is not None
        assert maintenance.reason == "new disks"
    finally:
        admin.http.patch("/admin/v1/drain", json={"draining": False})
    assert notices(admin).maintenance is None
