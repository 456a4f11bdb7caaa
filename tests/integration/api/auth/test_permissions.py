"""Permissions of every route in the OpenAPI document: no key, invalid key, other user, viewer, restricted key."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key

# Public: browsers open links in chats, and probes send no key.
PUBLIC = {
    "/healthz", "/readyz", "/metrics", "/ping", "/v1/files/{file_id}/content", "/v1/files/{file_id}/thumbnail",
    # What they send proves who they are.
    "/console/session/password", "/console/session/invitation", "/console/session/invitation/look",
}  # fmt: skip
# They use the session ids of the request and change no data of the platform.
SESSION_CHECKS = {"/token/check", "/token/points", "/token/receive"}
# Sign-in and sign-out, allowed for every role.
OWN_SESSION = {"/console/session"}
NOT_OFFERED = {"/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/characters"}


@pytest.fixture(scope="module")
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture(scope="module")
def routes(admin) -> list[tuple[str, str]]:
    paths = httpx.get(f"{admin.platform.url}/openapi.json", trust_env=False, timeout=60).json()["paths"]
    found = [(method.upper(), path) for path, item in paths.items() for method in item if path not in PUBLIC]
    assert len(found) > 30
    return found


@pytest.fixture(scope="module")
def create_key(admin) -> Callable[..., str]:
    def create(*, role: str = "member", **fields: Any) -> str:
        name = f"user-{random.SystemRandom().randrange(10**12)}"
        assert admin.http.post("/admin/v1/users", json={"name": name, "role": role}).status_code == 201
        answer = admin.http.post("/admin/v1/keys", json={"user": name, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    return create


def send(
    client: ApiClient, method: str, path: str, key: str | None, ids: dict[str, str] | None = None
) -> httpx.Response:
    """Call a route with ids in its path and an empty body, so that it changes nothing."""
    known = ids or {}
    filled = re.sub(
        r"{(\w+)}", lambda found: known.get(found[1], f"{found[1].removesuffix('_id')}_{uuid4().hex}"), path
    )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = None if method in {"GET", "HEAD", "DELETE"} else {}
    request = {"headers": headers, "json": body, "trust_env": False, "timeout": 60}
    with httpx.stream(method, client.platform.url + filled, **request) as answer:
        if not answer.headers.get("content-type", "").startswith(
            "text/event-stream"
        ):  # the stream of all jobs does not end
            answer.read()
    return answer


# The vendor's interface has the vendor's codes.
VENDOR = "/api/v3/"
VENDOR_CODES = {
    "missing_api_key": "AuthenticationError",
    "invalid_api_key": "AuthenticationError",
    "forbidden": "AccessDenied",
}


def code_of(answer: httpx.Response) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 and answer.content else None


def code_at(path: str, code: str) -> str:
    """The code of a refusal at this path."""
    return VENDOR_CODES[code] if path.startswith(VENDOR) else code


def test_every_private_route_requires_a_valid_key(admin, routes):
    unprotected = []
    for method, path in routes:
        if path == "/token/check":  # its body contains the session id
            continue
        anonymous, invalid = send(admin, method, path, None), send(admin, method, path, "sk-dreamery-wrong")
        result = [anonymous.status_code, code_of(anonymous), invalid.status_code, code_of(invalid)]
        expected = [401, code_at(path, "missing_api_key"), 401, code_at(path, "invalid_api_key")]
        if method == "HEAD":
            expected[1] = expected[3] = None
        if result != expected:
            unprotected.append((method, path, result))
    assert unprotected == []


def test_viewer_and_read_only_key_cannot_change_anything(admin, routes, create_key):
    keys = {"viewer": create_key(role="viewer"), "reader": create_key(scopes=["read"])}
    allowed_calls = []
    for method, path in routes:
        if method in {"GET", "HEAD"} or path in SESSION_CHECKS | OWN_SESSION | NOT_OFFERED:
            continue
        for name, key in keys.items():
            answer = send(admin, method, path, key)
            if (answer.status_code, code_of(answer)) != (403, code_at(path, "forbidden")):
                allowed_calls.append((name, method, path, answer.status_code, code_of(answer)))
    assert allowed_calls == []


# A key with only `generate` may read what it created itself. Every key may read models, notices and its own session. The
# webhook secret signs what is sent to the `webhook` of its jobs.
FOR_ALL_KEYS = ("/v1/models", "/v1/notices", "/console/session")
OWN_RESULTS = {
    "/v1/jobs", "/v1/videos", "/v1/video/generations", "/v1/usage", "/v1/files", "/v1/batches", "/v1/results",
    "/api/v3/contents/generations/tasks",
    *FOR_ALL_KEYS,
}  # fmt: skip


def test_key_without_read_scope_reads_only_its_own_jobs(admin, routes, create_key):
    keys = {"generator": create_key(scopes=["generate"]), "admin": create_key(role="admin", scopes=["admin"])}
    mismatches = []
    for method, path in routes:
        if method not in {"GET", "HEAD"}:
            continue
        own = any(path == root or path.startswith(f"{root}/") for root in OWN_RESULTS)
        for name, key in keys.items():
            allowed = own if name == "generator" else path.startswith(("/admin/", *FOR_ALL_KEYS))
            answer = send(admin, method, path, key)
            if (answer.status_code == 403) == allowed:
                mismatches.append((name, method, path, answer.status_code, code_of(answer)))
    assert mismatches == [], mismatches


def test_read_scope_is_needed_to_see_jobs_of_other_keys_of_the_user(admin):
    name = f"user-{random.SystemRandom().randrange(10**12)}"
    admin.http.post("/admin/v1/users", json={"name": name})

    def key(**fields: Any) -> dict[str, Any]:
        return admin.http.post("/admin/v1/keys", json={"user": name, **fields}).json()

    generator = key(scopes=["generate"])
    with (
        admin.as_caller(generator["key"]) as restricted,
        admin.as_caller(key(scopes=["read"])["key"]) as reader,
        admin.as_caller(key()["key"]) as full,
    ):
        own, other = restricted.wait_for_end(restricted.start_job()["id"])["id"], full.start_job()["id"]
        video = full.http.post("/v1/videos", json={"prompt": "a boat"}).json()["id"]
        assert [job["id"] for job in restricted.http.get("/v1/jobs").json()["data"]] == [own]
        assert restricted.http.get("/v1/videos").json()["data"] == []
        # A job that the key cannot see cannot be changed either.
        for method, path in [
            ("GET", f"/v1/jobs/{other}"),
            ("GET", f"/v1/jobs/{other}/events"),
            ("GET", f"/v1/jobs/{other}/timeline"),
            ("POST", f"/v1/jobs/{other}/cancel"),
            ("POST", f"/v1/jobs/{other}/retry"),
            ("DELETE", f"/v1/jobs/{other}"),
            ("GET", f"/v1/videos/{video}"),
            ("GET", f"/v1/videos/{video}/content"),
            ("GET", f"/v1/video/generations/{video}"),
            ("DELETE", f"/v1/videos/{video}"),
        ]:
            assert restricted.http.request(method, path).status_code == 404, (method, path)
        for client in (reader, full):
            assert {job["id"] for job in client.http.get("/v1/jobs").json()["data"]} >= {own, other}
        # An endpoint would receive events of jobs that the key may not read.
        assert_error(
            restricted.http.post("/v1/webhooks/endpoints", json={"url": "https://example.com/h"}), 403, "forbidden"
        )
        fresh = admin.http.post(f"/admin/v1/keys/{generator['id']}/rotate").json()["key"]
        with admin.as_caller(fresh) as rotated:
            assert [job["id"] for job in rotated.http.get("/v1/jobs").json()["data"]] == [own], (
                "a rotated key keeps its jobs"
            )


def test_other_users_resources_return_404(admin, routes, create_key):
    """Image, video and webhook endpoint of one user, requested by another user, a viewer and session ids."""
    with admin.as_caller(create_key()) as owner:
        job = owner.start_job()["id"]
        video = owner.http.post("/v1/videos", json={"prompt": "a boat"}).json()["id"]
        hook = owner.http.post("/v1/webhooks/endpoints", json={"url": "https://example.com/hook"}).json()["id"]
        owner.http.post(f"/v1/webhooks/endpoints/{hook}/test")
        deliveries = owner.http.get("/v1/webhooks/deliveries").json()["data"]
        album = owner.http.post("/v1/albums", json={"name": "boats"}).json()["id"]
        file = owner.wait_for_end(job)["output"][0]["url"].split("/")[-2]
        share = owner.http.post("/v1/shares", json={"files": [file]}).json()["id"]
        ids = {
            "job_id": job,
            "video_id": video,
            "task_id": video,
            "endpoint_id": hook,
            "album_id": album,
            "share_id": share,
        }
        ids |= {"delivery_id": deliveries[0]["id"]} if deliveries else {}
        assert deliveries, "a test event has a delivery"
        visible, requested = [], set()
        for method, path in routes:
            # Everything under /admin/ is forbidden for other roles, whatever the id.
            if path.startswith("/admin/") or not (names := set(re.findall(r"{(\w+)}", path)) & set(ids)):
                continue
            requested |= names
            for key in (create_key(), new_key(), *([create_key(role="viewer")] if method in {"GET", "HEAD"} else [])):
                answer = send(admin, method, path, key, ids)
                # A body without its fields is rejected before the object is looked up.
                if answer.status_code != 404 and code_of(answer) not in {"missing_required_parameter", "invalid_json"}:
                    visible.append((method, path, answer.status_code, answer.text[:200]))
        assert visible == []
        assert requested == set(ids)
        assert owner.job(job)["id"] == job
        assert owner.http.get(f"/v1/videos/{video}").status_code == 200


def test_key_limited_to_models_cannot_use_others(admin, create_key):
    restricted = create_key(models=["jimeng-4.0"])
    chat = {"messages": [{"role": "user", "content": "a boat"}]}
    image = "data:image/png;base64,iVBORw0KGgo="
    bodies = [
        (IMAGES, {"prompt": "a", "model": "jimeng-3.0"}),
        ("/v1/images/edits", {"prompt": "a", "model": "jimeng-3.0", "image": image}),
        ("/v1/images/compositions", {"prompt": "a", "model": "jimeng-3.0", "image": image}),
        ("/v1/videos", {"prompt": "a"}),
        ("/v1/videos/generations", {"prompt": "a"}),
        ("/v1/video/generations", {"prompt": "a"}),
        ("/v1/chat/completions", {"model": "jimeng-3.0", **chat}),
        ("/v1/chat/completions", {"model": "jimeng-video-3.0", "stream": True, **chat}),
        ("/v1/chat/completions", {"model": "agent", **chat}),
    ]
    with admin.as_caller(restricted) as caller:
        for path, body in bodies:
            assert_error(caller.http.post(path, json=body), 403, "model_not_allowed", "model")
        assert caller.http.get("/v1/jobs").json()["data"] == []
        assert caller.generate_images("a boat", n=1, model="jimeng-4.0").status_code == 200


def test_retry_and_remix_respect_the_models_of_the_key(admin):
    name = f"user-{random.SystemRandom().randrange(10**12)}"
    admin.http.post("/admin/v1/users", json={"name": name})
    unrestricted, restricted = (
        admin.http.post("/admin/v1/keys", json={"user": name, **limits}).json()["key"]
        for limits in ({}, {"models": ["jimeng-4.0"]})
    )
    with admin.as_caller(unrestricted) as one, admin.as_caller(restricted) as other:
        image = one.wait_for_end(one.start_job(model="jimeng-3.0")["id"])["id"]
        video = one.http.post("/v1/videos", json={"prompt": "a boat"}).json()["id"]
        one.wait_for_end(video.replace("video_", "job_"))
        assert_error(other.http.post(f"/v1/jobs/{image}/retry"), 403, "model_not_allowed", "model")
        assert_error(
            other.http.post(f"/v1/videos/{video}/remix", json={"prompt": "b"}), 403, "model_not_allowed", "model"
        )
