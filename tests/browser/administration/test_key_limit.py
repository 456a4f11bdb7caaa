"""An administrator changes how many jobs of a key run at a time; waiting jobs start at once."""

import secrets

from playwright.sync_api import Page, expect

from tests.support.api_client import ApiClient
from tests.support.platform import eventually


def test_limit_of_a_key_is_changed_and_waiting_jobs_start(page: Page, client: ApiClient) -> None:
    name = f"carol-{secrets.token_hex(4)}"
    user = client.http.post("/admin/v1/users", json={"name": name}).json()
    limits = {"concurrent_jobs": 1}
    key = client.http.post("/admin/v1/keys", json={"user": user["id"], "name": "laptop", "limits": limits}).json()
    body = {"prompt": "a boat [[seconds:60]]", "n": 1, "async": True}
    with client.as_caller(key["key"]) as caller:
        jobs = [caller.http.post("/v1/images/generations", json=body).json()["id"] for _ in range(3)]

        def held() -> int:
            found = [caller.http.get(f"/v1/jobs/{job}").json()["schedule"] for job in jobs]
            return sum(bool(schedule and schedule["held"]) for schedule in found)

        assert held() == 2
        page.goto(f"/console/users/{user['id']}")
        page.get_by_role("button", name="Change laptop").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("Jobs at a time (others wait)")).to_have_value("1")
        dialog.get_by_label("Jobs at a time (others wait)").fill("3")
        dialog.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Jobs at a time (others wait): 3")).to_be_visible()
        eventually(lambda: held() == 0, what="the waiting jobs start")
        page.get_by_role("button", name="Change laptop").click()
        dialog.get_by_label("Jobs at a time (others wait)").fill("")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog).to_be_hidden()
        assert client.http.get(f"/admin/v1/keys/{key['id']}").json()["limits"]["concurrent_jobs"] is None
        for job in jobs:
            caller.http.post(f"/v1/jobs/{job}/cancel")
