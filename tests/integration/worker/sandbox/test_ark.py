"""The Ark interface of the sandbox as its clients use it, and its answers as our provider reads them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from worker.sandbox.ark.routes import HOSTS, PREFIX
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


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ark-blocked", (401, "InvalidAccountStatus")),
        ("ark-unpaid", (403, "OperationDenied.ServiceOverdue")),
        ("ark-limited", (429, "AccountRateLimitExceeded")),
        ("ark-denied", (403, "AccessDenied")),
        ("ark-trial", (429, "QuotaExceeded")),
        ("ark-quota", (429, "QuotaExceeded")),
        ("ark-spent", (429, "SetLimitExceeded")),
    ],
)
def test_customers_that_are_refused(http: httpx.Client, key: str, expected: tuple[int, str]) -> None:
    assert code(video(http, "waves", key=key)) == expected
    assert code(image(http, "a boat", key=key)) == expected
    assert control(http, "GET", "/_ark/ledger")["totals"]["tokens"] == 0


def test_limits_of_a_person_of_4k_and_of_bursts(http: httpx.Client) -> None:
    def states(key: str, n: int, **values: Any) -> list[str]:
        names = [video(http, "[[seconds:60]] x", key=key, **values).json()["id"] for _ in range(n)]
        headers = {"Authorization": f"Bearer {key}"}
        return [http.get(f"{TASKS}/{name}", headers=headers).json()["status"] for name in names]

    assert states("ark-personal", 4) == ["running"] * 3 + ["queued"]
    large = {"model": "dreamina-seedance-2-0-260128", "resolution": "4k"}
    assert states("ark-large", 2, **large) == ["running", "queued"]
    burst = [video(http, "x", key="ark-burst") for _ in range(4)]
    assert [answer.status_code for answer in burst] == [200, 200, 200, 429]
    assert code(burst[-1]) == (429, "RequestBurstTooFast")
    full = [video(http, "[[hang]] x", key="ark-full") for _ in range(4)]
    assert code(full[-1]) == (429, "QuotaExceeded")


def test_reads_are_limited_to_twenty_a_second(http: httpx.Client) -> None:
    created = video(http, "x", key="ark-reads").json()["id"]
    headers = {"Authorization": "Bearer ark-reads"}
    # Enough calls to be faster than the limit on a slow machine too.
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: http.get(f"{TASKS}/{created}", headers=headers).status_code, range(200)))
    assert codes.count(200) >= 20
    assert 429 in codes


def test_answers_are_lost_at_random_but_the_ledger_knows_them(http: httpx.Client) -> None:
    setting = {"creates": 0.5, "images": 0.5, "seed": 4, "how": ["reset", "empty"]}
    headers = {CONTROL_HEADER: TOKEN}
    assert http.post("/_ark/lost", json=setting, headers=headers).json()["creates"] == 0.5
    assert http.post("/_ark/lost", json={"everything": 1}, headers=headers).status_code == 400
    arrived = 0
    for n in range(20):
        try:
            arrived += bool(video(http, f"x {n}", key=f"ark-lost{n}").content)
        except httpx.HTTPError:
            continue
    ledger = control(http, "GET", "/_ark/ledger")
    assert ledger["totals"]["tasks"] == 20
    assert ledger["totals"]["lost_creates"] == 20 - arrived
    assert 0 < arrived < 20


def test_answers_are_not_lost_without_the_token(http: httpx.Client) -> None:
    assert http.post("/_ark/lost", json={"creates": 1}).status_code == 403


def test_ledger_knows_what_each_call_costs(http: httpx.Client) -> None:
    image(http, "x", size="1024x1024")
    image(http, "[[refused:1]] x")
    pro = {"model": "dola-seedream-5-0-pro-260628", "size": "2048x2048"}
    image(http, "x", image=["https://a.example/1.png", "https://a.example/2.png"], **pro)
    body = {"model": "dreamina-seedance-2-0-260128", "resolution": "720p", "duration": 5}
    video(http, "x", **body)
    video(http, "[[fail:InternalServiceError]] x", **body)
    ledger = control(http, "GET", "/_ark/ledger")
    assert [call["cost"] for call in ledger["images"]] == [18.0, 0.0, 93.0]
    # 1280 x 720 pixels, 121 images, 7 dollars per million tokens.
    assert [(task["currency"], task["cost"]) for task in ledger["videos"]] == [("USD", 762.3), ("USD", 0)]


def test_inputs_on_this_machine_are_fetched(http: httpx.Client, url: str) -> None:
    assert code(image(http, "x", image=f"{url}/_health")) == (400, "InvalidImageURL.InvalidFormat")
    link = image(http, "x").json()["data"][0]["url"]
    assert image(http, "y", image=link).status_code == 200
    clip = [{"type": "video_url", "video_url": {"url": link}, "role": "reference_video"}]
    assert code(video(http, "x", content=clip)) == (400, "InvalidParameter")


def test_final_takes_everything_from_its_draft(http: httpx.Client) -> None:
    model = {"model": "dreamina-seedance-2-5-260628"}
    draft = video(http, "a draft", draft=True, ratio="9:16", duration=6, **model).json()["id"]
    content = [{"type": "draft_task", "draft_task": {"id": draft}}]
    assert code(video(http, "", content=content, **model)) == (400, "InvalidParameter")
    body = {**model, "content": content, "resolution": "1080p", "watermark": False}
    final = http.post(TASKS, json=body).json()["id"]
    task = http.get(f"{TASKS}/{final}").json()
    assert (task["ratio"], task["duration"], task["resolution"]) == ("9:16", 6, "1080p")
    assert task["draft_task_id"] == draft
    assert code(http.post(TASKS, json=body | {"content": [content[0] | {"draft_task": {"id": final}}]})) == (
        404,
        "NotFound.TaskNotFound",
    )


def test_old_parameters_in_a_prompt_are_a_violation(http: httpx.Client) -> None:
    assert video(http, "waves --rs 1080p").status_code == 200
    assert control(http, "GET", "/_ark/ledger")["violations"] == {"PromptFlags": 1}


def test_stream_breaks_off_after_some_images(http: httpx.Client) -> None:
    lite = {"model": "seedream-5-0-260128", "size": "2048x2048", "sequential_image_generation": "auto"}
    body = PICTURE | lite | {"prompt": "[[cut:1]] x", "stream": True}
    body["sequential_image_generation_options"] = {"max_images": 3}
    lines: list[str] = []
    with pytest.raises(httpx.HTTPError), http.stream("POST", IMAGES, json=body) as response:
        lines.extend(response.iter_lines())
    events = list(parse_events(lines))
    assert [type(event) for event in events] == [StreamedImage]
    assert control(http, "GET", "/_ark/ledger")["totals"]["images"] == 3


def test_set_ends_at_an_error_of_the_service(http: httpx.Client) -> None:
    lite = {"model": "seedream-5-0-260128", "size": "2048x2048", "sequential_image_generation": "auto"}
    answer = parse_images(image(http, "[[partial:2]] [[broken]] x", **lite).json())
    assert [item.error.code if item.error else None for item in answer.items] == [None, "InternalServiceError"]
    assert answer.generated == 1


def test_task_that_expires_file_that_comes_late_and_links_that_end(http: httpx.Client) -> None:
    expired = video(http, "[[hang]] [[life:0]] x").json()["id"]
    assert http.get(f"{TASKS}/{expired}").json()["status"] == "expired"
    late = video(http, "[[notready:60]] late").json()["id"]
    answer = http.get(http.get(f"{TASKS}/{late}").json()["content"]["video_url"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "video_not_ready")
    ended = video(http, "[[expires:0]] ended").json()["id"]
    assert http.get(http.get(f"{TASKS}/{ended}").json()["content"]["video_url"]).status_code == 403


def test_regions_behind_one_address(http: httpx.Client) -> None:
    tasks = TASKS.removeprefix("/ark")
    china, abroad = ({"X-Orig-Host": host} for host in HOSTS)
    body = VIDEO | {"content": [{"type": "text", "text": "x"}]}
    assert http.post(tasks, json=body, headers=abroad).status_code == 200
    assert code(http.post(tasks, json=body, headers=china)) == (404, "InvalidEndpointOrModel.NotFound")
    chinese = body | {"model": "doubao-seedance-2-0-mini-260615"}
    assert http.post(tasks, json=chinese, headers=china).status_code == 200
    assert http.post(tasks, json=body).status_code == 404


def test_lists_that_lag_behind(http: httpx.Client) -> None:
    video(http, "x", key="ark-lag")
    assert http.get(TASKS, headers={"Authorization": "Bearer ark-lag"}).json()["items"] == []
