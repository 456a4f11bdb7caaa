"""The sandbox as its clients use it: a separate process, called over real HTTP."""

import io
import json
import time
import uuid

import httpx
import pytest
from PIL import Image

from tests.support.sandbox_client import GENERATE, POLL, ROOT, SandboxClient, running_sandbox
from tests.support.servers.http_servers import running_app
from worker.sandbox.options import CONTROL_HEADER
from worker.sandbox.server import create_app

CONTROL_CALLS = (("GET", "/_ledger"), ("GET", "/_faults"), ("POST", "/_faults"), ("POST", "/_reset"))
RECORDED = json.loads((ROOT / "tests/fixtures/sandbox/generate.image.request.us.json").read_bytes())["body"]
CREDIT = "/commerce/v1/benefits/user_credit"
RECEIVE = "/commerce/v1/benefits/credit_receive"
HISTORY = "/commerce/v1/benefits/user_credit_history"
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)


def order(prompt="a boat", *, count=None, size=None, **core):
    """Return a recorded submit with another prompt, count or size and a new submit id."""
    body = {**RECORDED, "submit_id": str(uuid.uuid4())}
    draft = json.loads(body["draft_content"])
    abilities = draft["component_list"][0]["abilities"]
    abilities["generate"]["core_param"] |= {"prompt": prompt, **core}
    if size:
        width, height, resolution = size
        info = {"type": "", "id": "", "width": width, "height": height, "resolution_type": resolution}
        abilities["generate"]["core_param"]["large_image_info"] = info
    if count:
        abilities["gen_option"]["gen_count"] = count
    return {**body, "draft_content": json.dumps(draft)}


class Client(SandboxClient):
    """One account's calls, with helpers for image jobs."""

    def submit(self, body):
        return self.call(GENERATE, body).json()

    def poll(self, *submit_ids):
        return self.call(POLL, {"submit_ids": list(submit_ids)}).json()["data"]

    def credits(self):
        return sum(self.call(CREDIT, {}).json()["data"]["credit"].values())

    def finish_job(self, body):
        """Poll until the job has a final status and return its record."""
        return self.finish(body["submit_id"])

    def run(self, prompt, **more):
        body = order(prompt, **more)
        assert self.submit(body)["ret"] == "0"
        return self.finish_job(body)


@pytest.fixture(scope="module")
def http():
    with running_sandbox("--seconds", "0.1", "--credits", "1000") as client:
        yield client


@pytest.fixture
def session():
    return uuid.uuid4().hex


@pytest.fixture
def client(http, session):
    return Client(http, session)


def account_in(http, client):
    return http.get("/_ledger").json()["accounts"][client.name]


def lines_of(http, client, part="submits"):
    return [line for line in http.get("/_ledger").json()[part] if line["account"] == client.name]


def large(item):
    return item["image"]["large_images"][0]


def test_job_passes_all_states(client):
    body = order("a boat [[seconds:0.4]]")
    record = client.submit(body)["data"]["aigc_data"]
    assert (record["status"], record["item_list"], record["total_image_count"]) == (20, [], 0)
    seen = []
    for _ in range(200):
        record = client.poll(body["submit_id"])[body["submit_id"]]
        state = (record["status"], len(record["item_list"]))
        if not seen or seen[-1] != state:
            seen.append(state)
        if record["status"] == 50:
            break
        time.sleep(0.01)
    assert [state for state in seen if state != (45, 4)] == [(42, 0), (45, 0), (50, 4)]
    assert record["finish_time"] > 0
    assert record["total_image_count"] == record["finished_image_count"] == 4


def test_batch_poll_accepts_both_ids_and_hides_other_accounts_jobs(http, client):
    first, second = order(), order()
    history_id = client.submit(first)["data"]["aigc_data"]["history_record_id"]
    client.submit(second)
    body = {"submit_ids": [second["submit_id"], "unknown"], "history_ids": [history_id, "123"]}
    assert set(client.call(POLL, body).json()["data"]) == {second["submit_id"], history_id}
    other = Client(http, "other" + uuid.uuid4().hex)
    assert other.call(POLL, body).json()["data"] == {}


def test_partial_results(client):
    record = client.run("[[partial:1]]")
    assert (record["status"], len(record["item_list"])) == (50, 1)
    assert (record["total_image_count"], record["finished_image_count"]) == (4, 1)


def test_hang_queue_and_absent_scripts(client):
    hanging, queued, absent = order("[[hang]]"), order("[[queue:9]]"), order("[[absent:2]]")
    for body in (hanging, queued, absent):
        assert client.submit(body)["ret"] == "0"
    time.sleep(0.15)
    assert client.poll(hanging["submit_id"])[hanging["submit_id"]]["status"] == 42
    waiting = client.poll(queued["submit_id"])[queued["submit_id"]]["queue_info"]
    assert waiting["queue_status"] == 1
    assert 1 <= waiting["queue_idx"] <= 9
    assert [len(client.poll(absent["submit_id"])) for _ in range(3)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [("[[fail:10]]", 10, "2005"), ("[[fail:2038]]", 30, "2038"), ("[[fail:40]]", 40, "2004"), ("[[keyonly]]", 30, "")],
)
def test_scripted_failures_are_charged(client, script, status, code):
    record = client.run(script)
    assert (record["status"], record["fail_code"], record["item_list"]) == (status, code, [])
    assert record["fail_starling_key"]
    assert client.credits() == 992


@pytest.mark.parametrize(
    ("script", "ret"), [("[[fail:1310]]", "1310"), ("[[fail:-6]]", "-6"), ("[[refuse:2038]]", "2038")]
)
def test_scripted_refusals_are_free(http, client, script, ret):
    body = order(script)
    assert client.submit(body)["ret"] == ret
    assert client.poll(body["submit_id"]) == {}
    assert client.credits() == 1000
    [line] = lines_of(http, client)
    assert (line["accepted"], line["ret"], line["charged"]) == (False, ret, 0)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_reset_script_breaks_the_connection(client, moment):
    prompt = f"{uuid.uuid4()} [[reset:{moment}]]"
    first, second = order(prompt), order(prompt)
    with pytest.raises(BROKEN):
        client.submit(first)
    assert bool(client.poll(first["submit_id"])) == (moment == "after")
    assert client.credits() == (992 if moment == "after" else 1000)
    assert client.submit(second)["ret"] == "0"


@pytest.mark.parametrize(
    ("script", "status", "stored"),
    [("[[http:500]]", 500, 0), ("[[html]]", 502, 0), ("[[empty]]", 200, 0), ("[[empty:after]]", 200, 1)],
)
def test_other_faults_happen_once_per_prompt(client, script, status, stored):
    prompt = f"{uuid.uuid4()} {script}"
    lost = order(prompt)
    answer = client.call(GENERATE, lost)
    assert answer.status_code == status
    assert '"ret"' not in answer.text
    assert len(client.poll(lost["submit_id"])) == stored
    assert client.submit(order(prompt))["ret"] == "0"


def test_latency_delays_every_response(client):
    for _ in range(2):
        begin = time.monotonic()
        assert client.submit(order("[[latency:0.15]]"))["ret"] == "0"
        assert time.monotonic() - begin >= 0.15


@pytest.mark.parametrize(
    ("word", "submit", "read"),
    [
        ("dead", "1015", "1015"),
        ("broke", "1006", "0"),
        ("limited", "1018", "0"),
        ("punished", "1018", "0"),
        ("shark", "-6", "0"),
    ],
)
def test_session_id_words_control_the_account(http, session, word, submit, read):
    client = Client(http, f"{word}-{session}")
    assert client.submit(order())["ret"] == submit
    assert client.call(POLL, {"submit_ids": ["x"]}).json()["ret"] == read
    assert client.call(CREDIT, {}).json()["ret"] == read
    assert client.call(RECEIVE, {}).json()["ret"] == (submit if word in {"dead", "shark"} else "0")


def test_busy_account_runs_one_job_at_a_time(http, session):
    client = Client(http, f"busy-{session}")
    first = order()
    assert client.submit(first)["ret"] == "0"
    assert client.submit(order())["ret"] == "1310"
    client.finish_job(first)
    assert client.submit(order())["ret"] == "0"
    assert account_in(http, client)["max_in_flight"] == 1


def test_flaky_account_fails_sometimes(http, session):
    client = Client(http, f"flaky-{session}")
    good = 0
    for _ in range(60):
        try:
            answer = client.call(CREDIT, {})
            good += answer.status_code == 200 and bool(answer.content)
        except BROKEN:
            continue
    assert 20 < good < 60


def test_daily_gift_is_received_once_and_spent(http, session):
    client = Client(http, f"gift-{session}")
    assert client.credits() == 0
    assert client.submit(order())["ret"] == "1006"
    assert [client.call(RECEIVE, {}).json()["data"]["receive_quota"] for _ in range(2)] == [60, 0]
    body = order(count=2, size=(4096, 4096, "4k"))
    assert client.submit(body)["ret"] == "0"
    assert client.credits() == 52
    [spent] = client.call(HISTORY, {"count": 20, "cursor": "0"}).json()["data"]["records"]
    assert (spent["amount"], spent["submit_id"]) == (8, body["submit_id"])


@pytest.mark.parametrize(
    ("size", "actual_size", "image_format"),
    [
        ((1328, 1328, "1k"), (1328, 1328), "jpeg"),
        ((2560, 1440, "2k"), (2560, 1440), "png"),
        ((2048, 2048, "4k"), (5404, 3040), "jpeg"),
        ((1024, 576, "1k"), (1024, 576), "webp"),
        ((2048, 2048, "2k"), (2048, 2048), "webp"),
        ((4096, 4096, "4k"), (4096, 4096), "webp"),
    ],
)
def test_images_have_the_declared_size_and_format(http, client, size, actual_size, image_format):
    record = client.run(f"一艘小船 with a very long tail {'x' * 400} [[format:{image_format}]]", size=size, count=1)
    [item] = record["item_list"]
    entry = large(item)
    assert (entry["width"], entry["height"], entry["format"]) == (*actual_size, image_format)
    answer = http.get(entry["image_url"])
    assert answer.headers["content-type"] == f"image/{image_format}"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.size, image.format) == (actual_size, image_format.upper())
    with Image.open(io.BytesIO(http.get(item["common_attr"]["cover_url"]).content)) as preview:
        assert max(preview.size) == 360


def test_large_image_is_png_and_webp_copies_go_up_to_4096_pixels(http, client):
    [item] = client.run("a boat", size=(4096, 4096, "4k"), count=1)["item_list"]
    assert (item["image"]["format"], large(item)["format"]) == ("png", "png")
    assert http.get(large(item)["image_url"]).headers["content-type"] == "image/png"
    copies = item["common_attr"]["cover_url_map"]
    for side in ("480", "2400", "4096"):
        answer = http.get(copies[side])
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.format, image.size) == ("WEBP", (int(side), int(side)))


def test_images_differ_within_a_job_and_repeat_between_jobs(http, client):
    first, second = (client.run("same", seed=2_500_000_001, size=(1024, 576, "1k")) for _ in range(2))
    bytes_of = [[http.get(large(item)["image_url"]).content for item in one["item_list"]] for one in (first, second)]
    assert len(set(bytes_of[0])) == 4
    assert bytes_of[0] == bytes_of[1]


def test_links_expire_and_cannot_be_forged(http, client):
    short = large(client.run("[[expires:0]]", count=1)["item_list"][0])["image_url"]
    assert http.get(short).status_code == 403
    link = large(client.run("a boat", count=1)["item_list"][0])["image_url"]
    url = httpx.URL(link)
    assert http.get(url.copy_set_param("x-expires", "9999999999")).status_code == 403
    assert http.get(url.copy_set_param("x-signature", "0")).status_code == 403
    assert http.get(url.copy_with(query=None)).status_code == 403
    assert http.get(link).status_code == 200


def test_ledger_contains_everything_but_session_ids(http, client):
    body = order("a boat")
    assert [client.submit(body)["ret"] for _ in range(2)] == ["0", "0"]
    client.finish_job(body)
    client.submit({**order(), "draft_content": {}})
    ledger = http.get("/_ledger").json()
    assert client.session not in json.dumps(ledger)
    lines = [line for line in ledger["submits"] if line["account"] == client.name]
    assert [(line["accepted"], line["ret"], line["charged"]) for line in lines] == [
        (True, "0", 8),
        (True, "0", 8),
        (False, "1002", 0),
    ]
    # Every third job keeps status 45 for a moment after its images are listed.
    assert lines[0]["status"] in {45, 50}
    assert lines[0] | {"at": 0, "finish_at": 0, "status": 50} == {
        "submit_id": body["submit_id"],
        "account": client.name,
        "at": 0,
        "prompt": "a boat",
        "model": "high_aes_general_v40",
        "count": 4,
        "accepted": True,
        "ret": "0",
        "charged": 8,
        "finish_at": 0,
        "status": 50,
    }
    assert lines[0]["finish_at"] - lines[0]["at"] == pytest.approx(0.1)
    assert [charge["amount"] for charge in lines_of(http, client, "charges")] == [8, 8]
    account = ledger["accounts"][client.name]
    assert (account["submits"], account["charged"], account["credits"], account["max_in_flight"]) == (3, 16, 984, 2)
    assert ledger["polls"][client.name]["max_ids"] == 1
    assert (
        ledger["polls"][client.name]["min_gap_seconds"] is None or ledger["polls"][client.name]["min_gap_seconds"] > 0
    )
    assert ledger["submit_gaps"][client.name] > 0
    assert ledger["totals"]["duplicate_submit_ids"] >= 1
    assert ledger["violations"]["1002"] >= 1
    assert ledger["calls"][GENERATE] >= 3
    assert not {"submits", "charges"} & set(http.get("/_ledger?summary=1").json())


def test_faults_can_be_switched_on_and_off(http, client):
    try:
        assert http.post("/_faults", json={"reset_after": 1, "paths": [GENERATE], "seed": 3}).status_code == 200
        body = order()
        with pytest.raises(BROKEN):
            client.submit(body)
        assert client.poll(body["submit_id"])
        assert http.post("/_faults", json={"http_500": 1, "paths": ["/_media"]}).json() == http.get("/_faults").json()
        record = client.run("a boat", count=1)
        assert http.get(large(record["item_list"][0])["image_url"]).status_code == 500
        assert http.post("/_faults", json={"surprise": 1}).status_code == 400
    finally:
        assert http.post("/_faults", json={}).json() == {}
    assert http.get(large(record["item_list"][0])["image_url"]).status_code == 200


def test_reset_clears_all_state(http, client):
    body = order()
    client.submit(body)
    assert http.post("/_reset").status_code == 200
    ledger = http.get("/_ledger").json()
    assert ledger["accounts"] == {}
    assert ledger["totals"]["submits_seen"] == 0
    assert ledger["violations"] == {}
    assert client.poll(body["submit_id"]) == {}


@pytest.mark.parametrize("headers", [{CONTROL_HEADER: ""}, {CONTROL_HEADER: "guessed"}, {CONTROL_HEADER: "ü"}])
def test_control_routes_require_the_token(http, client, headers):
    body = order()
    client.submit(body)
    before = http.get("/_ledger").json()["totals"]
    encoded = {name: value.encode() for name, value in headers.items()}
    for method, path in CONTROL_CALLS:
        assert http.request(method, path, headers=encoded, json={"http_500": 1}).status_code == 403, path
    assert http.get("/_ledger").json()["totals"] == before
    assert http.get("/_faults").json() == {}
    assert httpx.get(f"{http.base_url}/_health", trust_env=False).status_code == 200


def test_sandbox_without_a_token_has_no_control_routes():
    with running_app(create_app()) as url:
        for method, path in CONTROL_CALLS:
            for sent in ({}, {CONTROL_HEADER: ""}):
                assert httpx.request(method, url + path, headers=sent, trust_env=False).status_code == 403


def test_unknown_paths_return_the_edge_page(http):
    for answer in (http.get("/"), http.post("/mweb/v1/unknown"), http.get(GENERATE)):
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
