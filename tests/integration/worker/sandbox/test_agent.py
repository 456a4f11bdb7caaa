"""The sandbox's agent over real HTTP: each format of the stream matches its recorded fixture."""

import json
import threading
import time
import uuid

import httpx
import pytest

from tests.support.sandbox_client import RECORDED, SandboxClient, get_violations, running_sandbox

TALK = "/mweb/v1/creation_agent/v2/conversation"
QUERY = {
    "region": "US", "web_version": "7.5.0", "da_version": "3.1.3", "web_component_open_flag": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def http():
    with running_sandbox("--seconds", "0") as client:
        yield client


@pytest.fixture
def client(http):
    return SandboxClient(http, f"agent-{uuid.uuid4().int}")


def body(*texts, **changes):
    body = json.loads((RECORDED / "agent.request.json").read_bytes())["body"]
    (message,) = body["messages"]
    body["messages"] = [
        {**json.loads(json.dumps(message)), "id": str(uuid.uuid4()), "content": {"content_parts": [{"text": text}]}}
        for text in texts
    ]
    return {**body, **changes}


def head(client):
    """Return the headers of a signed call."""
    seen = {}

    class Recorder:
        def post(self, _path, **kwargs):
            seen.update(kwargs["headers"])
            return httpx.Response(200, json={})

    SandboxClient(Recorder(), client.session).post(TALK, {})
    return {**seen, "Accept": "text/event-stream"}


def pieces(client, sent, **headers):
    """Stream a response; return the time and bytes of each piece."""
    params = {"aid": "513641", **QUERY}
    with client.http.stream("POST", TALK, params=params, json=sent, headers={**head(client), **headers}) as response:
        found = [(time.monotonic(), piece) for piece in response.iter_raw()]
    return response, found


def talk(client, *texts):
    response, found = pieces(client, body(*texts))
    assert response.headers["content-type"].startswith("text/event-stream")
    return b"".join(piece for _, piece in found)


def events(raw):
    for block in raw.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def shape(value):
    """Return keys and types; parses JSON inside strings."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    if isinstance(value, str) and value.startswith("{"):
        return ("json", shape(json.loads(value)))
    return type(value).__name__


def outline(raw):
    """Return the shapes of a stream's events in order; text pieces count as one."""
    lines = []
    for name, data in events(raw):
        line = (name, shape(data), data.get("op"), data.get("status"), data.get("type"))
        if not (lines and lines[-1] == line and data.get("op") == "append"):
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("fixture", "prompt"),
    [
        ("agent.text.sse", "tell me a joke"),
        ("agent.one_image.sse", "draw a husky"),
        ("agent.two_images.sse", "draw two [[image:2]]"),
        ("agent.two_images.replace.sse", "draw two [[image:2]] [[replace]]"),
        ("agent.video.sse", "[[image:0]] a video please"),
        ("agent.rejected.sse", "no [[reject]]"),
        ("agent.truncated.sse", "a long story [[truncate]]"),
    ],
)
def test_each_format_has_the_shape_of_its_fixture(http, client, fixture, prompt):
    http.post("/_reset")
    assert outline(talk(client, prompt)) == outline((RECORDED / fixture).read_bytes())
    assert get_violations(http) == {}


def test_alternative_end_event(client):
    recorded = list(events((RECORDED / "agent.complete_event_variant.sse").read_bytes()))
    assert list(events(talk(client, "hi [[complete]]")))[-1] == recorded[-1]


def test_events_are_split_inside_multibyte_characters(client):
    _, found = pieces(client, body("你好 🛶"))
    cut = 0
    for _, piece in found:
        try:
            piece.decode()
        except UnicodeDecodeError:
            cut += 1
    assert cut >= 4


def test_words_are_streamed_one_by_one_with_pauses(client):
    _, found = pieces(client, body("[[words:4]] [[pause:0.2]]"))
    assert len(found) > 12
    assert found[-1][0] - found[0][0] > 1.0


def results(raw):
    """Return the tool results of a stream."""
    for _, data in events(raw):
        if data.get("author", {}).get("role") == "tool":
            yield json.loads(data["content"]["content_parts"][0]["text"])


def test_tool_call_starts_a_job_that_can_be_polled_and_is_charged(http, client):
    first, second = results(talk(client, "draw two huskies, 16:9 [[image:2]]"))
    record = client.finish(first["submit_id"])
    assert record["status"] == 50
    assert record["history_record_id"] == first["history_id"]
    assert len(record["item_list"]) == 1
    assert client.finish(second["submit_id"])["status"] == 50
    ledger = http.get("/_ledger").json()
    assert [c["submit_id"] for c in ledger["charges"] if c["account"] == client.name] == [
        first["submit_id"], second["submit_id"],
    ]  # fmt: skip


def test_agent_starts_video_jobs(client):
    (result,) = results(talk(client, "[[image:0]] [[video]]"))
    assert result["resource_type"] == "video"
    record = client.finish(result["submit_id"])
    assert record["item_list"][0]["video"]


def test_job_scripts_apply_to_agent_jobs(client):
    (result,) = results(talk(client, "draw a boat [[fail:2004]]"))
    assert client.finish(result["submit_id"])["fail_code"] == "2004"


def test_leak_repeat_and_lost_scripts(client):
    raw = talk(client, "draw [[image:2]] [[leak]] [[repeat]] [[lost]]")
    (result,) = results(raw)
    calls = [data for _, data in events(raw) if data.get("op") == "add"]
    assert len(calls) == 4
    leaked = [data["value"] for _, data in events(raw) if data.get("op") == "append" and "submit_id" in data["value"]]
    assert [json.loads(text)["submit_id"] for text in leaked] == [result["submit_id"]]


def test_account_without_credits_starts_no_job(http):
    poor = SandboxClient(http, f"broke-{uuid.uuid4().int}")
    assert list(results(talk(poor, "draw a boat"))) == []


def test_refusals_without_a_stream(http, client):
    for script, code in (("[[json:1015]]", "1015"), ("[[refuse:1310]]", "1310"), ("[[fail:1018]]", "1018")):
        response, found = pieces(client, body(f"hi {script}"))
        assert response.headers["content-type"] == "application/json"
        assert json.loads(b"".join(piece for _, piece in found))["ret"] == code
    dead = SandboxClient(http, f"dead-{uuid.uuid4().int}")
    assert json.loads(pieces(dead, body("hi"))[1][0][1])["ret"] == "1015"


def test_connection_cut_after_some_words(http, client):
    received = []
    with (
        http.stream(
            "POST", TALK, params={"aid": "513641", **QUERY}, json=body("a b c [[cut]]"), headers=head(client)
        ) as response,
        pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)),
    ):
        received.extend(response.iter_raw())
    assert b'"append"' in b"".join(received)
    (line,) = [c for c in http.get("/_ledger").json()["conversations"] if c["account"] == client.name]
    assert line["ended"] == "cut"


def test_disconnected_client_starts_no_further_jobs(http, client):
    with http.stream(
        "POST", TALK, params={"aid": "513641", **QUERY}, json=body("draw a boat [[pause:0.2]]"), headers=head(client)
    ) as response:
        next(response.iter_raw())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        ledger = http.get("/_ledger").json()
        if any(c["account"] == client.name and c["ended"] for c in ledger["conversations"]):
            break
        threading.Event().wait(0.05)
    assert not [c for c in ledger["charges"] if c["account"] == client.name]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b.update(version="2.0.0"), "version"),
        (lambda b: b.update(conversation_id="x"), "conversation_id"),
        (lambda b: b.update(messages=[]), "messages"),
        (lambda b: b.update(more=1), "three fields"),
        (lambda b: b["messages"][0].update(tools=None), "tools"),
        (lambda b: b["messages"][0].update(create_time=1700000000), "create_time"),
        (lambda b: b["messages"][0]["author"].update(role="system"), "role"),
        (lambda b: b["messages"][0]["content"].update(content_parts=[{"text": " "}]), "has no text"),
        (lambda b: b["messages"][0]["metadata"].update(conversation_id="y"), "metadata.conversation_id"),
    ],
)
def test_invalid_request_is_refused_and_recorded(http, client, change, reason):
    http.post("/_reset")
    sent = body("hi")
    change(sent)
    _, found = pieces(client, sent)
    assert json.loads(b"".join(piece for _, piece in found))["ret"] == "1000"
    assert reason in get_violations(http)["details"][0]["detail"]


def test_missing_accept_header_is_recorded(http, client):
    http.post("/_reset")
    pieces(client, body("hi"), Accept="application/json")
    assert get_violations(http)["1000"] == 1
    http.post("/_reset")


def test_results_support_range_requests(http, client):
    (result,) = results(talk(client, "draw a boat"))
    link = client.finish(result["submit_id"])["item_list"][0]["image"]["large_images"][0]["image_url"]
    whole = http.get(link)
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(whole.content)
    for byte_range, first, last in (
        ("0-9", 0, 9),
        ("10-", 10, size - 1),
        ("-7", size - 7, size - 1),
        (f"5-{size * 2}", 5, size - 1),
    ):
        part = http.get(link, headers={"Range": f"bytes={byte_range}"})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.content == whole.content[first : last + 1]
    assert http.get(link, headers={"Range": f"bytes={size}-"}).status_code == 416
    assert http.get(link, headers={"Range": "bytes=0-1,4-5"}).content == whole.content
    assert http.get(link + "0", headers={"Range": "bytes=0-1"}).status_code == 403
