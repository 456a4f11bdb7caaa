"""Share links: a page that opens without a key, until it expires or is revoked."""

import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.jobs.sharing import page_routes
from tests.integration.api.jobs.sharing.conftest import Person, uuid_of
from tests.support.api_client import assert_error, new_key
from worker.core.ids import new_id
from worker.core.security.share_links import read_share_token, share_token
from worker.db.albums import shares

DAY = 86_400


def share(owner: Person, **fields: Any) -> dict[str, Any]:
    """Create a share and return it."""
    answer = owner.call("POST", "/v1/shares", fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def files_on(page: str, token: str) -> list[str]:
    """Return the addresses of the pictures that a page shows in full size, in order."""
    parts = page.split(f'src="{token}/')[1:]
    return [f"/s/{token}/{part[:32]}" for part in parts if part[32] == '"']


def open_page(app: TestClient, url: str, **headers: str) -> Any:
    """Open a page as a visitor without a key or cookie."""
    app.cookies.clear()
    return app.get(url, headers=headers)


def test_a_page_opens_without_a_key_and_serves_its_files(owner):
    files = owner.make_files(2)
    made = share(owner, files=files, title="Two <boats>", expires_in=DAY)
    assert made["expires_at"] == pytest.approx(time.time() + DAY, abs=60)
    token = made["url"].rpartition("/")[2]
    page = open_page(owner.app, made["url"])
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "set-cookie" not in page.headers
    assert "<script" not in page.text
    assert "Two &lt;boats&gt;" in page.text
    shown = files_on(page.text, token)
    assert len(shown) == 2
    # The ids of the files would grant access beyond the page.
    assert all(file.removeprefix("file_") not in page.text for file in files)
    originals = [owner.app.get(f"/v1/files/{file}/content") for file in files]
    for link, original in zip(shown, originals, strict=True):
        content = owner.app.get(link)
        assert content.content == original.content
        assert content.headers["cache-control"] == "private, no-cache"
        assert "noindex" in content.headers["x-robots-tag"]
        assert content.headers["content-disposition"].startswith("inline")
        part = owner.app.get(link, headers={"Range": "bytes=-4"})
        assert (part.status_code, part.content) == (206, original.content[-4:])
        assert owner.app.get(link, headers={"Range": "bytes=9999999-"}).status_code == 416
        assert owner.app.head(link).headers["content-length"] == str(len(original.content))
        assert owner.app.get(f"{link}/thumbnail").headers["content-type"] == "image/webp"
        saved = owner.app.get(link, params={"download": "true"})
        assert saved.headers["content-disposition"].startswith("attachment")


def test_the_page_allows_nothing_but_its_own_files(owner):
    made = share(owner, files=owner.make_files())
    page = open_page(owner.app, made["url"])
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["img-src"] == policy["media-src"] == "'self'"
    assert policy["style-src"].startswith("'sha256-")
    assert "script-src" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "noindex" in page.headers["x-robots-tag"]
    assert page.headers["cache-control"] == "private, no-store"
    assert f'property="og:image" content="{made["url"]}/' in page.text


def test_the_page_speaks_the_language_of_the_visitor(owner):
    url = share(owner, files=owner.make_files())["url"]
    page = open_page(owner.app, url, **{"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"})
    assert '<html lang="zh-CN">' in page.text
    assert "有效期至" in page.text
    assert "Accept-Language" in page.headers["vary"]
    assert "Available until" in open_page(owner.app, url, **{"Accept-Language": "fr, en;q=0.8"}).text


def test_prompts_and_downloads_are_shown_only_if_the_sharer_chose_so(owner, add_person):
    (file,) = owner.make_files()
    plain = open_page(owner.app, share(owner, files=[file], allow_download=False)["url"]).text
    assert "a boat" not in plain
    assert "download" not in plain
    full = open_page(owner.app, share(owner, files=[file], show_prompts=True)["url"]).text
    assert "a boat" in full
    assert "?download=true" in full
    # Prompts of contributors are theirs.
    bob, album = add_person("bob"), owner.album()
    owner.invite(album, bob, "contributor")
    bob.call("POST", f"/v1/albums/{album}/files", {"files": bob.make_files()})
    assert "a boat" not in open_page(owner.app, share(owner, album=album, show_prompts=True)["url"]).text


@pytest.mark.parametrize("end", ["revoked", "expired", "album deleted", "user disabled", "files deleted"])
def test_a_page_that_ended_ends_with_all_of_its_files(owner, engine, end):
    (file,) = owner.make_files()
    album = owner.album(file)
    made = share(owner, album=album)
    token = made["url"].rpartition("/")[2]
    (link,) = files_on(open_page(owner.app, made["url"]).text, token)
    if end == "revoked":
        answer = owner.call("DELETE", f"/v1/shares/{made['id']}")
        assert answer.json() == {"id": made["id"], "object": "share", "deleted": True}
        assert_error(owner.call("DELETE", f"/v1/shares/{made['id']}"), 404, "share_not_found")
    elif end == "expired":
        engine.sql("UPDATE shares SET expires_at = now()")
        (listed,) = owner.call("GET", "/v1/shares").json()["data"]
        assert (listed["id"], listed["expired"]) == (made["id"], True)
    elif end == "album deleted":
        owner.call("DELETE", f"/v1/albums/{album}")
    elif end == "user disabled":
        engine.sql("UPDATE users SET disabled = true WHERE name = 'olivia'")
    else:
        engine.sql("UPDATE files SET deleted_at = now() WHERE id = :id", id=uuid_of(file))
    page = open_page(owner.app, made["url"])
    assert (page.status_code, page.headers["content-type"]) == (410, "text/html; charset=utf-8")
    assert "no longer shared" in page.text
    code = (404, "file_not_found") if end == "files deleted" else (410, "share_ended")
    for address in (link, f"{link}/thumbnail"):
        assert_error(owner.app.get(address, headers={"If-None-Match": "*"}), *code)


def test_links_that_were_not_made_here_open_nothing(owner, monkeypatch):
    monkeypatch.setattr(page_routes, "_UNKNOWN_LINKS_PER_MINUTE", 4)
    made = share(owner, files=owner.make_files())
    token = made["url"].rpartition("/")[2]
    assert read_share_token(token) is not None
    other = share_token(new_id())
    assert open_page(owner.app, f"/s/{other}").status_code == 410, "signed here, but there is no such share"
    for wrong in (token[:-1], token[:22] + other[22:], "x"):
        page = open_page(owner.app, f"/s/{wrong}")
        assert (page.status_code, "no such page" in page.text) == (404, True)
    assert_error(owner.app.get(f"/s/{token[:-1]}/{'0' * 32}"), 404, "share_not_found")
    assert_error(owner.app.get(f"/s/{token}/{'0' * 32}"), 404, "file_not_found")
    limited = open_page(owner.app, f"/s/{token[:-1]}")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "60")
    assert open_page(owner.app, made["url"]).status_code == 200, "the limit is for unknown links"


def test_an_album_page_follows_the_album(owner, monkeypatch):
    first, second = owner.make_files(2)
    album = owner.album(first, name="Harbour")
    made = share(owner, album=album)
    token = made["url"].rpartition("/")[2]
    assert (made["album"], made["album_name"], made["files"]) == (album, "Harbour", None)
    assert "<h1>Harbour</h1>" in open_page(owner.app, made["url"]).text
    owner.call("POST", f"/v1/albums/{album}/files", {"files": [second]})
    links = files_on(open_page(owner.app, made["url"]).text, token)
    assert len(links) == 2
    monkeypatch.setattr(page_routes, "FILES_PER_PAGE", 1)
    assert files_on(open_page(owner.app, made["url"]).text, token) == links[:1]
    assert files_on(open_page(owner.app, f"{made['url']}?page=2").text, token) == links[1:]
    owner.call("DELETE", f"/v1/albums/{album}/files", {"files": [owner.items(album)[0]["id"]]})
    assert_error(owner.app.get(links[0]), 404, "file_not_found")
    assert owner.app.get(links[1]).status_code == 200


def test_shares_are_listed_for_their_user_only(owner, add_person):
    (file,) = owner.make_files()
    older, newer = share(owner, files=[file]), share(owner, files=[file], title="new")
    page = owner.call("GET", "/v1/shares", limit=1).json()
    assert (page["data"], page["has_more"]) == ([newer], True)
    assert owner.call("GET", "/v1/shares", after=newer["id"]).json()["data"] == [older]
    bob = add_person("bob")
    assert bob.call("GET", "/v1/shares").json()["data"] == []
    assert_error(bob.call("DELETE", f"/v1/shares/{older['id']}"), 404, "share_not_found")
    assert_error(bob.call("POST", "/v1/shares", {"files": [file]}), 404, "file_not_found", "files")
    album = owner.album(file)
    assert_error(bob.call("POST", "/v1/shares", {"album": album}), 404, "album_not_found")
    owner.invite(album, bob, "contributor")
    assert_error(bob.call("POST", "/v1/shares", {"album": album}), 403, "forbidden")
    session = Person("", "", new_key(), owner.app, owner.engine)
    assert_error(session.call("POST", "/v1/shares", {"files": [file]}), 403, "forbidden")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "files"),
        ({"files": ["file_1"], "album": "album_1"}, "invalid_value", "files"),
        ({"files": ["nonsense"]}, "invalid_value", "files.0"),
        ({"files": ["file_1"], "expires_in": 59}, "invalid_value", "expires_in"),
        ({"files": ["file_1"], "expires_in": 91 * DAY}, "invalid_value", "expires_in"),
        ({"files": ["file_1"], "expires_at": 1}, "invalid_value", "expires_at"),
        ({"files": ["file_1"], "expires_at": 10**11, "expires_in": 60}, "invalid_value", "expires_at"),
    ],
    ids=["nothing", "both", "no-id", "too-short", "too-long", "past", "two-ends"],
)
def test_invalid_shares_are_refused(owner, fields, code, param):
    assert_error(owner.call("POST", "/v1/shares", fields), 400, code, param)
    assert owner.call("GET", "/v1/shares").json()["data"] == []


def test_operators_bound_and_turn_off_share_links(owner, engine, monkeypatch):
    (file,) = owner.make_files()
    monkeypatch.setattr(shares, "MOST_SHARES", 1)
    made = share(owner, files=[file])
    assert_error(owner.call("POST", "/v1/shares", {"files": [file]}), 400, "share_limit")
    monkeypatch.setattr(shares, "MOST_SHARES", 3)
    engine.configure(SHARE_MAX_DAYS="2")
    assert share(owner, files=[file])["expires_at"] <= time.time() + 2 * DAY
    too_long = owner.call("POST", "/v1/shares", {"files": [file], "expires_in": 3 * DAY})
    assert "2 days" in assert_error(too_long, 400, "invalid_value", "expires_in")
    engine.configure(SHARE_MAX_DAYS="0")
    assert_error(owner.call("POST", "/v1/shares", {"files": [file]}), 403, "shares_off")
    assert open_page(owner.app, made["url"]).status_code == 404
    assert owner.call("DELETE", f"/v1/shares/{made['id']}").status_code == 200


def test_a_shared_video_has_a_player_with_its_first_frame(owner):
    (file,) = owner.make_files(kind="video")
    made = share(owner, files=[file])
    page = open_page(owner.app, made["url"]).text
    token = made["url"].rpartition("/")[2]
    (link,) = files_on(page, token)
    assert "<video" in page
    assert owner.app.get(link, headers={"Range": "bytes=0-3"}).headers["content-type"] == "video/mp4"
    assert owner.app.get(f"{link}/thumbnail").headers["content-type"] == "image/webp"


def test_logs_do_not_contain_the_link(owner, caplog):
    (file,) = owner.make_files()
    token = share(owner, files=[file])["url"].rpartition("/")[2]
    caplog.clear()
    for path in (f"/s/{token}", f"/s/{token}/{'0' * 32}", f"/s/{token}/x/y/z", f"/v1/files/{file}/content"):
        owner.app.get(path)
    ours = [record.getMessage() for record in caplog.records if record.name == "api"]
    assert len(ours) == 4
    assert not [line for line in ours if token in line or file in line]
    assert any("/s/.../" in line for line in ours)
