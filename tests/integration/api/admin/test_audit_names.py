"""The audit log names the users, keys and accounts that its entries mention by id."""

from uuid import uuid4

from tests.support.api_client import ApiClient


def test_entries_name_their_objects(api_platform) -> None:
    with ApiClient(api_platform, api_platform.admin_key) as admin:
        name = f"user {uuid4().hex}"
        user = admin.http.post("/admin/v1/users", json={"name": name}).json()["id"]
        key = admin.http.post("/admin/v1/keys", json={"user": name, "name": "laptop"}).json()["id"]
        new = admin.http.post(f"/admin/v1/keys/{key}/rotate", json={"grace_seconds": 0}).json()["id"]
        job = admin.start_job("a paper boat")["id"]
        admin.http.post(f"/admin/v1/jobs/{job}/cancel")
        album = admin.http.post("/v1/albums", json={"name": "Boats"}).json()["id"]
        entries = admin.http.get("/admin/v1/audit", params={"limit": 100}).json()["data"]
    named = {(entry["action"], entry["target"]): entry["names"] for entry in entries}
    assert named["user.add", user] == {user: name}
    assert named["key.make", key] == {key: "laptop"}
    assert named["key.rotate", key] == {key: "laptop", new: "laptop"}
    assert named["job.cancel", job] == {job: "a paper boat"}
    assert named["album.create", album] == {album: "Boats"}
    [rotated] = [entry for entry in entries if (entry["action"], entry["target"]) == ("key.rotate", key)]
    assert rotated["users"] == {key: user, new: user}
    # Names in details and targets without an object stay as they are.
    assert all(set(names) <= {target, *entry_values(entries)} for (_, target), names in named.items())


def entry_values(entries: list[dict]) -> set[str]:
    return {value for entry in entries for value in entry["details"].values() if isinstance(value, str)}
