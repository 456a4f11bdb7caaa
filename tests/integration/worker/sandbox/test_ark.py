"""The Ark interface of the sandbox as its clients use it, and its answers as our provider reads them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.platform import eventually
from tests.support.servers.http_servers import running_app
from worker.providers.ark.image_stream import StreamCompleted, StreamedImage, parse_events
from worker.providers.ark.responses import Task, TaskStatus, parse_error, parse_images, parse_task, parse_task_page
from worker.sandbox.ark.routes import PREFIX
from worker.sandbox.options import CONTROL_HEADER, Options
from worker.sandbox.server import create_app

FIXTURES = Path(__file__).parents[3] / "fixtures" / "ark"
IMAGES, TASKS = f"{PREFIX}/images/generations", f"{PREFIX}/contents/generations/tasks"
TOKEN = "a-control-token"
PICTURE = {"model": "dola-seedream-5-0-flash-260915", "size": "1024x1024", "watermark": False, "response_format": "url"}
VIDEO = {
    "model": "dreamina-seedance-2-0-mini-260615",
    "resolution": "480p",
    "ratio": "16:9",
    "duration": 4,
    "watermark": False,
    "execution_expires_after": 151337,
    "safety_identifier": "u.t",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_app(create_app(Options(seconds=0.0, control_token=TOKEN))) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer ark-test"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        control(client, "POST", "/_ark/reset")
        yield client


def control(http: httpx.Client, method: str, path: str) -> Any:
    return http.request(method, path, headers={CONTROL_HEADER: TOKEN}).raise_for_status().json()


def image(http: httpx.Client, prompt: str, key: str = "ark-test", **values: Any) -> httpx.Response:
    return http.post(IMAGES, json=PICTURE | {"prompt": prompt} | values, headers={"Authorization": f"Bearer {key}"})


def video(http: httpx.Client, prompt: str, key: str = "ark-test", **values: Any) -> httpx.Response:
    body = VIDEO | {"content": [{"type": "text", "text": prompt}]} | values
    return http.post(TASKS, json=body, headers={"Authorization": f"Bearer {key}"})


def code(response: httpx.Response) -> tuple[int, str]:
    error = parse_error(response.json())
    assert error is not None
    return response.status_code, error.code


CREATING = [path for kind in ("image-", "video-create-", "stream-") for path in sorted(FIXTURES.glob(f"{kind}*.json"))]


@pytest.mark.parametrize("path", CREATING, ids=lambda path: path.stem)
def test_recorded_requests_are_accepted(http: httpx.Client, path: Path) -> None:
    fixture = json.loads(path.read_text())
    body = fixture["request"]["body"]
    body.pop("callback_url", None)
    if "image" in body:
        body["image"] = "https://dreamery.example/a.png"
    if path.stem == "video-create-final":
        draft = video(http, "a draft", draft=True, model=body["model"], duration=5).json()["id"]
        body["content"][0]["draft_task"]["id"] = draft
    response = http.post(PREFIX + fixture["request"]["path"], json=body)
    assert response.status_code == 200, response.text
    assert control(http, "GET", "/_ark/ledger")["violations"] == {}


def test_images_are_made_and_charged_once(http: httpx.Client) -> None:
    answer = parse_images(image(http, "a boat").json())
    assert answer.generated == 1
    link = answer.items[0].url
    assert link is not None
    content = http.get(link)
    assert content.headers["content-type"] == "image/jpeg"
    assert content.content[:3] == b"\xff\xd8\xff"
    ledger = control(http, "GET", "/_ark/ledger")
    assert (ledger["totals"]["image_calls"], ledger["totals"]["images"]) == (1, 1)


def test_sets_layers_and_refused_images(http: httpx.Client) -> None:
    lite = {"model": "seedream-5-0-260128", "size": "2048x2048", "sequential_image_generation": "auto"}
    options = {"sequential_image_generation_options": {"max_images": 3}}
    answer = parse_images(image(http, "[[refused:1]] boats", **lite, **options).json())
    assert [item.error is None for item in answer.items] == [False, True, True]
    assert answer.generated == 2
    layers = parse_images(image(http, "split", image="https://a.example/b.png", layer_decomposition=True).json())
    assert [item.layer.index for item in layers.items if item.layer] == [0, 1, 2]


def test_stream_of_images(http: httpx.Client) -> None:
    body = {"model": "seedream-4-5-251128", "size": "2K", "stream": True, "sequential_image_generation": "auto"}
    text = image(http, "boats", sequential_image_generation_options={"max_images": 2}, **body).text
    *images, end = parse_events(text.splitlines())
    assert [event.index for event in images if isinstance(event, StreamedImage)] == [0, 1]
    assert isinstance(end, StreamCompleted)
    assert end.answer.generated == 2


def test_video_from_create_to_file(http: httpx.Client) -> None:
    created = video(http, "[[seconds:0.5]] waves").json()
    assert created["safety_identifier"] == "u.t"
    task = parse_task(http.get(f"{TASKS}/{created['id']}").json())
    assert task.status is TaskStatus.RUNNING
    eventually(lambda: read(http, created["id"]).status is TaskStatus.SUCCEEDED, what="the video is finished")
    task = read(http, created["id"])
    assert task.video_url is not None
    assert (task.safety_identifier, task.expires_after) == ("u.t", 151337)
    content = http.get(task.video_url)
    assert content.headers["content-type"] == "video/mp4"
    ledger = control(http, "GET", "/_ark/ledger")
    assert ledger["totals"]["tasks"] == 1
    assert ledger["totals"]["tokens"] == task.tokens


def read(http: httpx.Client, name: str) -> Task:
    return parse_task(http.get(f"{TASKS}/{name}").json())


def test_one_list_covers_many_tasks_once_a_second(http: httpx.Client) -> None:
    names = [video(http, f"waves {n}").json()["id"] for n in range(3)]
    query = [("filter.task_ids", name) for name in names[:2]]
    page = parse_task_page(http.get(TASKS, params=query).json())
    assert sorted(task.id for task in page.tasks) == sorted(names[:2])
    assert page.total == 2
    assert code(http.get(TASKS)) == (429, "RateLimitExceeded.EndpointRPMExceeded")
    other = http.get(TASKS, headers={"Authorization": "Bearer ark-other"})
    assert parse_task_page(other.json()).tasks == ()


def test_keys_of_one_customer_share_tasks_and_limits(http: httpx.Client) -> None:
    created = video(http, "waves", key="ark-main.one").json()["id"]
    second = {"Authorization": "Bearer ark-main.two"}
    assert http.get(f"{TASKS}/{created}", headers=second).status_code == 200
    assert code(http.get(f"{TASKS}/{created}", headers={"Authorization": "Bearer ark-x"})) == (
        404,
        "NotFound.TaskNotFound",
    )
    assert http.get(TASKS, headers={"Authorization": "Bearer ark-main.one"}).status_code == 200
    assert http.get(TASKS, headers=second).status_code == 429


def test_only_queued_tasks_are_cancelled(http: httpx.Client) -> None:
    queued = video(http, "[[queue:60]] waves").json()["id"]
    running = video(http, "[[seconds:60]] waves").json()["id"]
    done = video(http, "waves").json()["id"]
    assert http.delete(f"{TASKS}/{queued}").status_code == 200
    assert parse_task(http.get(f"{TASKS}/{queued}").json()).status is TaskStatus.CANCELLED
    assert code(http.delete(f"{TASKS}/{running}")) == (403, "OperationDenied.Running")
    assert http.delete(f"{TASKS}/{done}").status_code == 200
    assert http.get(f"{TASKS}/{done}").status_code == 404


def test_answer_that_is_lost_is_found_by_its_keys(http: httpx.Client) -> None:
    with pytest.raises(httpx.HTTPError):
        video(http, "[[reset:after]] waves", safety_identifier="u.lost")
    [task] = parse_task_page(http.get(TASKS, params={"filter.model": VIDEO["model"]}).json()).tasks
    assert (task.safety_identifier, task.expires_after) == ("u.lost", 151337)
    with pytest.raises(httpx.HTTPError):
        image(http, "[[reset:after]] a boat")
    assert control(http, "GET", "/_ark/ledger")["totals"]["images"] == 1


def test_account_whose_lists_do_not_show_the_keys(http: httpx.Client) -> None:
    created = video(http, "waves", key="ark-noecho").json()["id"]
    task = parse_task(http.get(f"{TASKS}/{created}", headers={"Authorization": "Bearer ark-noecho"}).json())
    assert (task.safety_identifier, task.expires_after) == (None, None)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ark-dead", (401, "AuthenticationError")),
        ("ark-overdue", (403, "AccountOverdueError")),
        ("ark-closed", (404, "ModelNotOpen")),
        ("ark-endpoints", (404, "InvalidEndpointOrModel.ModelIDAccessDisabled")),
    ],
)
def test_keys_that_are_refused(http: httpx.Client, key: str, expected: tuple[int, str]) -> None:
    assert code(video(http, "waves", key=key)) == expected


def test_endpoints_of_an_account(http: httpx.Client) -> None:
    assert video(http, "waves", key="ark-endpoints", model="ep-seedance-2-0-mini-260615").status_code == 200
    headers = {"Authorization": "Bearer ark-custom"}
    assert code(http.get(TASKS, headers=headers)) == (403, "AccessDenied")
    assert http.get(TASKS, headers=headers, params={"filter.model": "ep-x"}).status_code == 200


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": 3}, "InvalidParameter.UnsupportedParameter"),
        ({"service_tier": "flex"}, "InvalidParameter.UnsupportedParameter"),
        ({"watermark": True}, "InvalidParameter"),
        ({"duration": 16}, "InvalidParameter"),
        ({"resolution": "4k"}, "InvalidParameter"),
        ({"execution_expires_after": 10}, "InvalidParameter"),
        ({"content": [{"type": "image_url", "image_url": {"url": "https://a.example/b"}}]}, "InvalidParameter"),
        ({"model": "doubao-seedance-1-0-pro-250528"}, "InvalidEndpointOrModel.NotFound"),
        ({"content": []}, "MissingParameter.content"),
    ],
)
def test_video_requests_that_are_refused(http: httpx.Client, values: dict[str, Any], expected: str) -> None:
    assert code(video(http, "waves", **values))[1] == expected


def test_clips_are_taken_by_link_only_and_modes_do_not_mix(http: httpx.Client) -> None:
    clip = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}, "role": "reference_video"}
    assert code(video(http, "x", content=[clip])) == (400, "InvalidParameter")
    frame = {"type": "image_url", "image_url": {"url": "https://a.example/b"}, "role": "first_frame"}
    mixed = [frame, clip | {"video_url": {"url": "https://a.example/c"}}]
    assert code(video(http, "x", content=mixed)) == (400, "InvalidParameter")


@pytest.mark.parametrize("path", [IMAGES, TASKS])
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"model": 3}', b'{"model": "x", "content": [3]}'])
def test_bodies_that_cannot_be_read(http: httpx.Client, path: str, raw: bytes) -> None:
    assert http.post(path, content=raw).status_code in {400, 404}


def test_scripts_refuse_and_fail(http: httpx.Client) -> None:
    assert code(video(http, "[[refuse:ServerOverloaded]] x")) == (429, "ServerOverloaded")
    created = video(http, "[[fail:OutputVideoSensitiveContentDetected]] x").json()["id"]
    task = parse_task(http.get(f"{TASKS}/{created}").json())
    assert task.error is not None
    assert task.error.code == "OutputVideoSensitiveContentDetected"
    assert control(http, "GET", "/_ark/ledger")["totals"]["tokens"] == 0


def test_task_expires(http: httpx.Client) -> None:
    created = video(http, "[[hang]] x", execution_expires_after=3600).json()["id"]
    assert parse_task(http.get(f"{TASKS}/{created}").json()).status is TaskStatus.RUNNING


def test_callbacks_tell_of_each_change(http: httpx.Client) -> None:
    seen: list[str] = []

    async def receive(request: Request) -> Response:
        seen.append((await request.json())["status"])
        return Response(status_code=204)

    with running_app(Starlette(routes=[Route("/hook", receive, methods=["POST"])])) as receiver:
        video(http, "[[queue:1]] [[seconds:1]] x", callback_url=f"{receiver}/hook")
        eventually(lambda: "succeeded" in seen, what="the last callback")
    assert seen == ["queued", "running", "succeeded"]


def test_ledger_needs_the_control_token(http: httpx.Client) -> None:
    assert http.get("/_ark/ledger").status_code == 403
    assert http.post("/_ark/reset").status_code == 403


def test_limit_of_images_a_minute(http: httpx.Client) -> None:
    codes = [
        image(http, "x", image="https://a.example/b.png", layer_decomposition=True, key="ark-fast").status_code
        for _ in range(31)
    ]
    assert codes.count(200) == 29
    assert codes[-1] == 429
