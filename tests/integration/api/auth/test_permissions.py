"""Every route of the OpenAPI document, asked by nobody, with a wrong key, as a stranger, as a viewer, by a narrowed key."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key

# Answers for anybody: links in chats are opened by browsers, probes and documents bring no key.
OPEN = {"/healthz", "/readyz", "/metrics", "/ping", "/v1/files/{file_id}/content", "/v1/files/{file_id}/thumbnail"}
# They take the session ids that the request brings, and change nothing of ours.
ABOUT_SESSIONS = {"/token/check", "/token/points", "/token/receive"}
# Signing in and out: everybody's own.
OWN_SESSION = {"/console/session"}
NOT_OFFERED = {"/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/characters"}


@pytest.fixture(scope="module")
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture(scope="module")
def routes(admin) -> list[tuple[str, str]]:
    paths = httpx.get(f"{admin.platform.url}/openapi.json", trust_env=False).json()["paths"]
    found = [(method.upper(), path) for path, item in paths.items() for method in item if path not in OPEN]
    assert len(found) > 30
    return found


@pytest.fixture(scope="module")
def key_of(admin) -> Callable[..., str]:
    def make(*, role: str = "member", **fields: Any) -> str:
        name = f"user-{random.SystemRandom().randrange(10**12)}"
        assert admin.http.post("/admin/v1/users", json={"name": name, "role": role}).status_code == 201
        answer = admin.http.post("/admin/v1/keys", json={"user": name, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    return make


def ask(client: ApiClient, method: str, path: str, key: str | None, ids: dict[str, str] | None = None) -> httpx.Response:
    """The route with ids in its path and no body that it could do something with."""
    known = ids or {}
    filled = re.sub(
        r"{(\w+)}", lambda found: known.get(found[1], f"{found[1].removesuffix('_id')}_{uuid4().hex}"), path
    )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = None if method in {"GET", "HEAD", "DELETE"} else {}
    request = {"headers": headers, "json": body, "trust_env": False, "timeout": 60}
    with httpx.stream(method, client.platform.url + filled, **request) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):  # one of all jobs never ends
            answer.read()
    return answer


def code_of(answer: httpx.Response) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 and answer.content else None


def test_without_a_valid_key_every_route_is_closed(admin, routes):
    open_ones = []
    for method, path in routes:
        if path == "/token/check":  # its body names the session
            continue
        nobody, wrong = ask(admin, method, path, None), ask(admin, method, path, "sk-dreamery-wrong")
        told = [nobody.status_code, code_of(nobody), wrong.status_code, code_of(wrong)]
        expected = [401, "missing_api_key", 401, "invalid_api_key"]
        if method == "HEAD":
            expected[1] = expected[3] = None
        if told != expected:
            open_ones.append((method, path, told))
    assert open_ones == []


def test_a_viewer_changes_nothing(admin, routes, key_of):
    keys = {"viewer": key_of(role="viewer"), "reader": key_of(scopes=["read"])}
    passed = []
    for method, path in routes:
        if method in {"GET", "HEAD"} or path in ABOUT_SESSIONS | OWN_SESSION | NOT_OFFERED:
            continue
        for name, key in keys.items():
            answer = ask(admin, method, path, key)
            if (answer.status_code, code_of(answer)) != (403, "forbidden"):
                passed.append((name, method, path, answer.status_code, code_of(answer)))
    assert passed == []


# What a key may read that was made for making only: what it made itself. Models, and who one is, are for everybody who
# has a key.
# The secret signs what is sent to the `webhook` of its jobs.
FOR_ALL_KEYS = ("/v1/models", "/console/session")
OF_ITS_OWN = {
    "/v1/jobs", "/v1/videos", "/v1/video/generations", "/v1/usage", "/v1/webhooks/secret", "/v1/files/archive",
    *FOR_ALL_KEYS,
}  # fmt: skip


def test_without_the_scope_read_a_key_reads_only_what_it_made(admin, routes, key_of):
    keys = {"maker": key_of(scopes=["generate"]), "admin": key_of(role="admin", scopes=["admin"])}
    read = []
    for method, path in routes:
        if method not in {"GET", "HEAD"}:
            continue
        own = any(path == root or path.startswith(f"{root}/") for root in OF_ITS_OWN)
        for name, key in keys.items():
            allowed = own if name == "maker" else path.startswith(("/admin/", *FOR_ALL_KEYS))
            answer = ask(admin, method, path, key)
            if (answer.status_code == 403) == allowed:
                read.append((name, method, path, answer.status_code, code_of(answer)))
    assert read == [], read


def test_keys_of_one_user_see_each_others_jobs_only_with_the_scope_read(admin):
    name = f"user-{random.SystemRandom().randrange(10**12)}"
    admin.http.post("/admin/v1/users", json={"name": name})

    def key(**fields: Any) -> dict[str, Any]:
        return admin.http.post("/admin/v1/keys", json={"user": name, **fields}).json()

    maker = key(scopes=["generate"])
    with (
        admin.as_caller(maker["key"]) as narrow,
        admin.as_caller(key(scopes=["read"])["key"]) as reader,
        admin.as_caller(key()["key"]) as whole,
    ):
        mine, theirs = narrow.wait_for_end(narrow.start_job()["id"])["id"], whole.start_job()["id"]
        video = whole.http.post("/v1/videos", json={"prompt": "a boat"}).json()["id"]
        assert [job["id"] for job in narrow.http.get("/v1/jobs").json()["data"]] == [mine]
        assert narrow.http.get("/v1/videos").json()["data"] == []
        # What it cannot see it cannot change either.
        for method, path in [
            ("GET", f"/v1/jobs/{theirs}"),
            ("GET", f"/v1/jobs/{theirs}/events"),
            ("GET", f"/v1/jobs/{theirs}/timeline"),
            ("POST", f"/v1/jobs/{theirs}/cancel"),
            ("POST", f"/v1/jobs/{theirs}/retry"),
            ("DELETE", f"/v1/jobs/{theirs}"),
            ("GET", f"/v1/videos/{video}"),
            ("GET", f"/v1/videos/{video}/content"),
            ("GET", f"/v1/video/generations/{video}"),
            ("DELETE", f"/v1/videos/{video}"),
        ]:
            assert narrow.http.request(method, path).status_code == 404, (method, path)
        for client in (reader, whole):
            assert {job["id"] for job in client.http.get("/v1/jobs").json()["data"]} >= {mine, theirs}
        # Events of all the user's jobs would tell what the key may not read.
        assert_error(narrow.http.post("/v1/webhooks/endpoints", json={"url": "https://example.com/h"}), 403, "forbidden")
        fresh = admin.http.post(f"/admin/v1/keys/{maker['id']}/rotate").json()["key"]
        with admin.as_caller(fresh) as rotated:
            assert [job["id"] for job in rotated.http.get("/v1/jobs").json()["data"]] == [mine], "of its line"


def test_a_strangers_things_are_not_there(admin, routes, key_of):
    """One user's picture, video and endpoint, asked for by another user, by a viewer and by session ids."""
    with admin.as_caller(key_of()) as owner:
        job = owner.start_job()["id"]
        video = owner.http.post("/v1/videos", json={"prompt": "a boat"}).json()["id"]
        hook = owner.http.post("/v1/webhooks/endpoints", json={"url": "https://example.com/hook"}).json()["id"]
        owner.http.post(f"/v1/webhooks/endpoints/{hook}/test")
        deliveries = owner.http.get("/v1/webhooks/deliveries").json()["data"]
        ids = {"job_id": job, "video_id": video, "task_id": video, "endpoint_id": hook}
        ids |= {"delivery_id": deliveries[0]["id"]} if deliveries else {}
        assert deliveries, "a test event has a delivery"
        seen, asked = [], set()
        for method, path in routes:
            # Who is no admin is refused under /admin/ whatever is asked for.
            if path.startswith("/admin/") or not (wanted := set(re.findall(r"{(\w+)}", path)) & set(ids)):
                continue
            asked |= wanted
            for key in (key_of(), new_key(), *([key_of(role="viewer")] if method in {"GET", "HEAD"} else [])):
                answer = ask(admin, method, path, key, ids)
                # A remix without a prompt is told so before the video is looked for.
                if answer.status_code != 404 and code_of(answer) != "missing_required_parameter":
                    seen.append((method, path, answer.status_code, answer.text[:200]))
        assert seen == []
        assert asked == set(ids)
        assert owner.job(job)["id"] == job
        assert owner.http.get(f"/v1/videos/{video}").status_code == 200


def test_a_key_for_some_models_creates_with_no_other(admin, key_of):
    narrow = key_of(models=["jimeng-4.0"])
    say = {"messages": [{"role": "user", "content": "a boat"}]}
    picture = "data:image/png;base64,iVBORw0KGgo="
    bodies = [
        (IMAGES, {"prompt": "a", "model": "jimeng-3.0"}),
        ("/v1/images/edits", {"prompt": "a", "model": "jimeng-3.0", "image": picture}),
        ("/v1/images/compositions", {"prompt": "a", "model": "jimeng-3.0", "image": picture}),
        ("/v1/videos", {"prompt": "a"}),
        ("/v1/videos/generations", {"prompt": "a"}),
        ("/v1/video/generations", {"prompt": "a"}),
        ("/v1/chat/completions", {"model": "jimeng-3.0", **say}),
        ("/v1/chat/completions", {"model": "jimeng-video-3.0", "stream": True, **say}),
        ("/v1/chat/completions", {"model": "agent", **say}),
    ]
    with admin.as_caller(narrow) as caller:
        for path, body in bodies:
            assert_error(caller.http.post(path, json=body), 403, "model_not_allowed", "model")
        assert caller.http.get("/v1/jobs").json()["data"] == []
        assert caller.generate_images("a boat", n=1, model="jimeng-4.0").status_code == 200


def test_retry_and_remix_keep_to_the_models_of_the_key(admin):
    name = f"user-{random.SystemRandom().randrange(10**12)}"
    admin.http.post("/admin/v1/users", json={"name": name})
    wide, narrow = (
        admin.http.post("/admin/v1/keys", json={"user": name, **limits}).json()["key"]
        for limits in ({}, {"models": ["jimeng-4.0"]})
    )
    with admin.as_caller(wide) as one, admin.as_caller(narrow) as other:
        drawn = one.wait_for_end(one.start_job(model="jimeng-3.0")["id"])["id"]
        video = one.http.post("/v1/videos", json={"prompt": "a boat"}).json()["id"]
        one.wait_for_end(video.replace("video_", "job_"))
        assert_error(other.http.post(f"/v1/jobs/{drawn}/retry"), 403, "model_not_allowed", "model")
        assert_error(other.http.post(f"/v1/videos/{video}/remix", json={"prompt": "b"}), 403, "model_not_allowed", "model")
