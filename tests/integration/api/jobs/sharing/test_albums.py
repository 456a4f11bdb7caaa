"""Albums: own ones, those shared with other users, and that access ends at once."""

import pytest

from tests.integration.api.jobs.sharing.conftest import Person, uuid_of
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from worker.db.albums import album_files, albums


class TestOwner:
    def test_an_album_has_files_in_an_order_with_a_cover(self, owner):
        one, two, three = [*owner.make_files(2), *owner.make_files(1)]
        album = owner.album(one, two, three, name="  Boats  ")
        found = owner.call("GET", f"/v1/albums/{album}").json()
        assert (found["name"], found["role"], found["owner"]) == ("Boats", "owner", "olivia")
        assert (found["files"], found["members"], found["show_prompts"]) == (3, 0, False)
        items = owner.items(album)
        assert [item["file"] for item in items] == [one, two, three]
        assert found["cover"]["id"] == items[0]["id"]
        order = {"files": [items[2]["id"], items[1]["id"]], "before": items[0]["id"]}
        assert owner.call("POST", f"/v1/albums/{album}/order", order).status_code == 200
        assert [item["file"] for item in owner.items(album)] == [three, two, one]
        changed = owner.call("PATCH", f"/v1/albums/{album}", {"name": "Ships", "cover": items[1]["id"]}).json()
        assert (changed["name"], changed["cover"]["id"]) == ("Ships", items[1]["id"])
        first = owner.call("GET", f"/v1/albums/{album}/files", limit=2).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        rest = owner.call("GET", f"/v1/albums/{album}/files", after=first["data"][-1]["id"]).json()
        assert ([item["file"] for item in rest["data"]], rest["has_more"]) == ([one], False)

    def test_files_are_added_once_and_taken_out_without_deleting_them(self, owner):
        one, two = owner.make_files(2)
        album = owner.album(one)
        answer = owner.call("POST", f"/v1/albums/{album}/files", {"files": [one, two, two]}).json()
        assert (answer["added"], answer["album"]["files"]) == (1, 2)
        item = owner.items(album)[0]["id"]
        assert owner.call("DELETE", f"/v1/albums/{album}/files", {"files": [item]}).json()["files"] == 1
        assert owner.app.get(f"/v1/files/{one}/content").status_code == 200
        assert_error(
            owner.call("DELETE", f"/v1/albums/{album}/files", {"files": [item]}), 404, "file_not_found", "files"
        )

    def test_adding_is_all_or_nothing(self, owner, add_person):
        (own,), (foreign,) = owner.make_files(), add_person("mallory").make_files()
        album = owner.album()
        answer = owner.call("POST", f"/v1/albums/{album}/files", {"files": [own, foreign]})
        assert_error(answer, 404, "file_not_found", "files")
        assert owner.items(album) == []
        for files, param in (([own, "job_1"], "files.1"), ([], "files"), ("x", "files")):
            assert_error(owner.call("POST", f"/v1/albums/{album}/files", {"files": files}), 400, "invalid_value", param)

    def test_limits_of_albums_members_and_files(self, owner, add_person, monkeypatch):
        monkeypatch.setattr(albums, "MOST_ALBUMS", 1)
        monkeypatch.setattr(albums, "MOST_MEMBERS", 1)
        monkeypatch.setattr(album_files, "MOST_FILES", 1)
        one, two = owner.make_files(2)
        album = owner.album(one)
        assert_error(owner.call("POST", "/v1/albums", {"name": "another"}), 400, "album_limit")
        assert_error(owner.call("POST", f"/v1/albums/{album}/files", {"files": [two]}), 400, "album_limit", "files")
        assert len(owner.items(album)) == 1
        owner.invite(album, bob := add_person("bob"))
        owner.invite(album, bob, "contributor")  # a change of the role needs no room
        full = owner.call("POST", f"/v1/albums/{album}/members", {"user": add_person("carol").name})
        assert_error(full, 400, "album_limit", "user")
        # A deleted file makes room.
        owner.engine.sql("UPDATE files SET removed_at = now() WHERE id = :id", id=uuid_of(one))
        assert owner.call("POST", f"/v1/albums/{album}/files", {"files": [two]}).json()["album"]["files"] == 1

    def test_deleting_an_album_keeps_the_files(self, owner):
        (file,) = owner.make_files()
        album = owner.album(file)
        assert owner.call("DELETE", f"/v1/albums/{album}").json() == {"id": album, "object": "album", "deleted": True}
        assert_error(owner.call("GET", f"/v1/albums/{album}"), 404, "album_not_found")
        assert owner.app.get(f"/v1/files/{file}/content").status_code == 200
        actions = owner.engine.sql("SELECT action FROM audit_log WHERE target = :album ORDER BY id", album=album)
        assert [row.action for row in actions] == ["album.create", "album.delete"]


@pytest.mark.parametrize("gone", ["deleted job", "deleted file", "past its retention"])
def test_a_file_that_is_gone_is_in_no_album(owner: Person, engine: Engine, gone: str) -> None:
    first, second = owner.make_files()[0], owner.make_files()[0]
    album = owner.album(first, second)
    url = owner.items(album)[0]["url"]
    assert owner.app.get(url).status_code == 200
    statement = {
        "deleted job": "UPDATE jobs SET deleted_at = now() WHERE id = (SELECT job_id FROM files WHERE id = :id)",
        "deleted file": "UPDATE files SET deleted_at = now() WHERE id = :id",
        "past its retention": "UPDATE files SET removed_at = now() WHERE id = :id",
    }
    engine.sql(statement[gone], id=uuid_of(first))
    assert [item["file"] for item in owner.items(album)] == [second]
    assert owner.call("GET", f"/v1/albums/{album}").json()["files"] == 1
    assert_error(owner.app.get(url), 404, "file_not_found")


class TestMembers:
    def test_a_viewer_sees_the_album_and_nothing_beyond(self, owner, add_person):
        (file,) = owner.make_files()
        album, bob = owner.album(file), add_person("bob", role="viewer")
        assert_error(bob.call("GET", f"/v1/albums/{album}"), 404, "album_not_found")
        owner.invite(album, bob)
        (listed,) = bob.call("GET", "/v1/albums").json()["data"]
        assert (listed["id"], listed["role"], listed["owner"]) == (album, "viewer", "olivia")
        assert bob.call("GET", "/v1/albums", role="owner").json()["data"] == []
        assert bob.call("GET", "/v1/albums", role="member").json()["data"] == [listed]
        (item,) = bob.items(album)
        # Neither the id of the file nor its job, which would grant access beyond the album.
        assert (item["file"], item["job"], item["prompt"], item["model"]) == (None, None, None, None)
        assert file.removeprefix("file_") not in bob.call("GET", f"/v1/albums/{album}/files").text
        content = bob.app.get(item["url"])
        assert content.content == owner.app.get(f"/v1/files/{file}/content").content
        assert content.headers["cache-control"] == "private, no-cache"
        assert bob.app.get(item["thumbnail_url"]).headers["content-type"] == "image/webp"
        part = bob.app.get(item["url"], headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, content.content[2:6])
        assert bob.app.get(item["url"], headers={"If-None-Match": content.headers["etag"]}).status_code == 304
        owner.call("PATCH", f"/v1/albums/{album}", {"show_prompts": True})
        assert bob.items(album)[0]["prompt"] == "a boat"

    @pytest.mark.parametrize("role", ["viewer", "contributor"])
    def test_members_change_nothing_of_others(self, owner, add_person, role):
        (file,) = owner.make_files()
        album, bob = owner.album(file), add_person("bob")
        owner.invite(album, bob, role)
        (item,) = bob.items(album)
        path = f"/v1/albums/{album}"
        for method, tail, body in [
            ("PATCH", "", {"name": "mine"}),
            ("DELETE", "", None),
            ("POST", "/order", {"files": [item["id"]]}),
            ("POST", "/members", {"user": "bob", "role": "contributor"}),
            ("DELETE", f"/members/{owner.id}", None),
        ]:
            assert_error(bob.call(method, path + tail, body), 403, "forbidden")
        removed = bob.call("DELETE", f"{path}/files", {"files": [item["id"]]})
        if role == "viewer":
            assert_error(removed, 403, "forbidden")
            (own,) = bob.make_files()
            assert_error(bob.call("POST", f"{path}/files", {"files": [own]}), 403, "forbidden")
        else:
            assert_error(removed, 404, "file_not_found", "files")
        assert len(owner.items(album)) == 1

    def test_a_contributor_adds_own_files_and_takes_them_along(self, owner, add_person):
        (file,) = owner.make_files()
        album, bob = owner.album(file), add_person("bob")
        owner.invite(album, bob, "contributor")
        own, other = [*bob.make_files(), *bob.make_files()]
        assert bob.call("POST", f"/v1/albums/{album}/files", {"files": [own, other]}).json()["added"] == 2
        items = owner.items(album)
        assert [item["added_by"] for item in items] == ["olivia", "bob", "bob"]
        assert [item["file"] for item in items] == [file, None, None]
        mine = [item["id"] for item in bob.items(album) if item["file"] == own]
        assert bob.call("DELETE", f"/v1/albums/{album}/files", {"files": mine}).json()["files"] == 2
        assert bob.call("DELETE", f"/v1/albums/{album}/members/{bob.id}").status_code == 200
        assert [item["file"] for item in owner.items(album)] == [file]
        assert_error(bob.call("GET", f"/v1/albums/{album}"), 404, "album_not_found")

    def test_removing_a_member_ends_all_access_at_once(self, owner, add_person):
        (file,) = owner.make_files()
        album, bob, carol = owner.album(file), add_person("bob"), add_person("carol")
        for member in (bob, carol):
            owner.invite(album, member)
        (item,), (kept,) = bob.items(album), carol.items(album)
        others = owner.call("DELETE", f"/v1/albums/{album}/members/{bob.id}").json()["data"]
        assert [(one["name"], one["role"]) for one in others] == [("carol", "viewer")]
        for path in ("", "/files", "/members"):
            assert_error(bob.call("GET", f"/v1/albums/{album}{path}"), 404, "album_not_found")
        for link in (item["url"], item["thumbnail_url"]):
            assert_error(bob.app.get(link, headers={"If-None-Match": "*"}), 404, "file_not_found")
        assert carol.app.get(kept["url"]).status_code == 200
        missing = owner.call("DELETE", f"/v1/albums/{album}/members/{bob.id}")
        assert_error(missing, 404, "user_not_found")

    def test_a_user_who_may_only_read_can_leave(self, owner, add_person):
        album, vera, bob = owner.album(), add_person("vera", role="viewer"), add_person("bob")
        for member in (vera, bob):
            owner.invite(album, member)
        path = f"/v1/albums/{album}/members"
        assert_error(vera.call("DELETE", f"{path}/{bob.id}"), 403, "forbidden")
        # A key of a member that may only read changes nothing.
        reader = Person(bob.id, bob.name, add_key(bob, ["read"]), bob.app, bob.engine)
        assert_error(reader.call("DELETE", f"{path}/{bob.id}"), 403, "forbidden")
        assert vera.call("DELETE", f"{path}/{vera.id}").status_code == 200
        assert_error(vera.call("GET", f"/v1/albums/{album}"), 404, "album_not_found")
        assert [one["name"] for one in owner.call("GET", path).json()["data"]] == ["bob"]

    def test_a_link_works_for_its_user_only(self, owner, add_person, engine):
        (file,) = owner.make_files()
        album, bob = owner.album(file), add_person("bob")
        owner.invite(album, bob)
        url = bob.items(album)[0]["url"]
        name = url.rpartition("/")[2].partition("?")[0]
        forged = url.replace(name.partition("-")[2], owner.id.removeprefix("user_"))
        for link in (forged, url.partition("?")[0], url[:-3] + "AAA"):
            assert_error(bob.app.get(link), 403, "link_not_signed")
        engine.sql("UPDATE users SET disabled = true WHERE name = 'bob'")
        assert_error(bob.app.get(url), 404, "file_not_found")

    def test_sharing_with_unknown_users_or_oneself_is_refused(self, owner):
        album = owner.album()
        path = f"/v1/albums/{album}/members"
        assert_error(owner.call("POST", path, {"user": "nobody"}), 404, "user_not_found", "user")
        assert_error(owner.call("POST", path, {"user": "olivia"}), 400, "invalid_value", "user")
        assert_error(owner.call("POST", path, {"user": "olivia", "role": "owner"}), 400, "invalid_value", "role")


def test_keys_need_both_scopes_and_a_user(owner: Person, add_person) -> None:
    album = owner.album()
    reader = Person(owner.id, owner.name, add_key(owner, ["read"]), owner.app, owner.engine)
    generator = Person(owner.id, owner.name, add_key(owner, ["generate"]), owner.app, owner.engine)
    assert reader.call("GET", f"/v1/albums/{album}").status_code == 200
    assert_error(reader.call("PATCH", f"/v1/albums/{album}", {"name": "x"}), 403, "forbidden")
    for method, body in (("GET", None), ("PATCH", {"name": "x"})):
        assert_error(generator.call(method, f"/v1/albums/{album}", body), 403, "forbidden")
    session = Person("", "", new_key(), owner.app, owner.engine)
    assert session.call("GET", "/v1/albums").json()["data"] == []
    assert_error(session.call("GET", f"/v1/albums/{album}"), 404, "album_not_found")
    assert_error(session.call("POST", "/v1/albums", {"name": "x"}), 403, "forbidden")


def add_key(person: Person, scopes: list[str]) -> str:
    """Return another key of the same user."""
    answer = person.call("POST", "/v1/keys", {"name": "narrow", "scopes": scopes})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])
