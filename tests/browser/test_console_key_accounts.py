"""Accounts with keys in the console: adding one, its fields and closed models, and API keys for some providers."""

import json
from pathlib import Path

import psycopg
from playwright.sync_api import Page, expect

from tests.browser.test_console import check_accessibility
from tests.browser.test_console_manage import read_secret, row, unique_name
from tests.support.api_client import ApiClient


def test_key_is_added_changed_and_its_models_reopened(page: Page, client: ApiClient, tmp_path: Path) -> None:
    label = unique_name("company")
    page.goto("/console/accounts")
    page.get_by_role("button", name="Add accounts").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Provider").select_option("ark")
    dialog.get_by_label("Region").select_option("sandbox")
    dialog.get_by_label("API keys").fill(f"ark-{label}")
    dialog.get_by_label("Limit group").fill("acme")
    dialog.get_by_label("Name").fill(label)
    dialog.get_by_label("Groups").fill(label.replace("_", "-"))
    dialog.get_by_role("button", name="Add and check").click()
    line = page.get_by_role("list", name="Result of each line").get_by_role("listitem")
    expect(line).to_contain_text("models offered")
    expect(line).to_contain_text("Key for all models")
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    row(page, label).get_by_role("link", name=label).click()
    expect(page.get_by_text("Key for all models")).to_be_visible()
    page.get_by_label("Model IDs").fill("seedance-2.0 = ep-1\nseedream-5.5=ep-2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    account = next(one for one in client.http.get("/admin/v1/accounts").json()["data"] if one["label"] == label)
    assert account["model_ids"] == {"seedance-2.0": "ep-1", "seedream-5.5": "ep-2"}
    assert account["limit_group"] == "acme"
    rests = {"seedance-2.0": {"until": "Infinity", "code": "ModelNotOpen", "detail": "not activated", "at": 1}}
    with psycopg.connect(client.platform.database_url) as connection:
        connection.execute("UPDATE accounts SET model_rests = %s WHERE label = %s", (json.dumps(rests), label))
    page.reload()
    expect(page.get_by_text("not activated")).to_be_visible()
    check_accessibility(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.screenshot(path=tmp_path / "account-narrow.png", full_page=True)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("button", name="Reopen seedance-2.0").click()
    expect(page.get_by_text("seedance-2.0 may be used again.")).to_be_visible()
    expect(page.get_by_text("not activated")).to_have_count(0)


def test_api_key_for_one_provider(page: Page, client: ApiClient) -> None:
    name = unique_name("narrow")
    page.goto("/console/keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_text("Accounts of all providers").click()
    dialog.get_by_label("Ark and ModelArk").check()
    dialog.get_by_role("button", name="Create key").click()
    key = read_secret(page, "API key")
    expect(row(page, name).get_by_text("Accounts of: ark")).to_be_visible()
    with client.as_caller(key) as caller:
        providers = {one["provider"] for one in caller.http.get("/v1/models").json()["data"]}
    assert providers == {"ark"}


def test_accounts_groups_and_providers_of_a_key_are_changed_later(page: Page, client: ApiClient) -> None:
    name, label = unique_name("worker"), unique_name("studio account")
    account = {"provider": "ark", "region": "sandbox", "tokens": unique_name("ark"), "label": label, "check": False}
    client.http.post("/admin/v1/accounts", json=account).raise_for_status()
    listed = client.http.get("/admin/v1/accounts", params={"limit": 1000}).json()["data"]
    [account_id] = [one["id"] for one in listed if one["label"] == label]
    user = client.http.post("/admin/v1/users", json={"name": unique_name("dora")}).json()
    key = client.http.post("/admin/v1/keys", json={"user": user["id"], "name": name}).json()

    def selection() -> tuple[object, object, object, object]:
        found = client.http.get(f"/admin/v1/keys/{key['id']}").json()
        return found["name"], found["providers"], found["accounts"], found["account_groups"]

    page.goto(f"/console/users/{user['id']}")
    page.get_by_role("button", name=f"Change {name}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Accounts of all providers").click()
    dialog.get_by_label("Ark and ModelArk").check()
    dialog.get_by_text("All accounts", exact=True).click()
    dialog.get_by_label(label).check()
    dialog.get_by_label("Groups of accounts").fill("studio, night")
    check_accessibility(page)
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Key changed.")).to_be_visible()
    expect(row(page, name).get_by_text("Accounts of: ark")).to_be_visible()
    expect(row(page, name).get_by_text("Accounts: 1, groups: studio, night")).to_be_visible()
    assert selection() == (name, ["ark"], [account_id], ["studio", "night"])

    # The dialog shows what is set, and a change of one part leaves the others.
    page.get_by_role("button", name=f"Change {name}").click()
    dialog.get_by_text("Only some accounts").click()
    expect(dialog.get_by_label("Groups of accounts")).to_have_value("studio, night")
    expect(dialog.get_by_label(label)).to_be_checked()
    dialog.get_by_label("Groups of accounts").fill("")
    dialog.get_by_label("Name").fill(f"{name}-2")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    assert selection() == (f"{name}-2", ["ark"], [account_id], None)

    page.get_by_role("button", name=f"Change {name}-2").click()
    dialog.get_by_text("Selected providers: 1").click()
    dialog.get_by_label("Ark and ModelArk").uncheck()
    dialog.get_by_text("Only some accounts").click()
    dialog.get_by_label(label).uncheck()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    assert selection() == (f"{name}-2", None, None, None)


def test_own_key_is_changed_later(page: Page, client: ApiClient) -> None:
    name = unique_name("own")
    client.http.post("/v1/keys", json={"name": name}).raise_for_status()
    page.goto("/console/keys")
    page.get_by_role("button", name=f"Change {name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Groups of accounts")).to_have_count(0)
    dialog.get_by_text("Accounts of all providers").click()
    dialog.get_by_label("Ark and ModelArk").check()
    dialog.get_by_role("button", name="Save").click()
    expect(row(page, name).get_by_text("Accounts of: ark")).to_be_visible()
