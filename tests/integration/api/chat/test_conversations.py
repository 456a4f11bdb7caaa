"""Conversations that the platform keeps: what a request in one answers, its turns, and the list."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.api_client import ApiClient, assert_error
from tests.support.media_files import encode_image
from tests.support.platform import eventually

CHAT, LIST = "/v1/chat/completions", "/v1/conversations"
CASTLES = "Tell me about castles of stone of stone of stone of stone…"


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as one:
        yield one


def send(client: ApiClient, text: str | list[Any], conversation: Any = "new", **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    body = {"model": "agent", "messages": [{"role": "user", "content": text}], "conversation": conversation, **fields}
    return client.http.post(CHAT, json=body, headers=headers)


def begin(client: ApiClient, text: str, **fields: Any) -> str:
    """Begin a conversation and return its id."""
    answer = send(client, text, **fields)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-conversation-id"]


def turns(client: ApiClient, conversation: str) -> list[dict[str, Any]]:
    answer = client.http.get(f"{LIST}/{conversation}/turns")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def titles(client: ApiClient, **query: Any) -> list[str]:
    return [row["title"] for row in client.http.get(LIST, params=query).json()["data"]]


def sent_messages(client: ApiClient, turn: dict[str, Any]) -> list[str]:
    """The texts that the agent received for this turn."""
    return [row["text"] for row in client.job(turn["id"])["input"]["messages"]]


def test_request_gets_what_was_said_before(client: ApiClient) -> None:
    conversation = begin(client, "my name is Bo")
    answer = send(client, "what is my name?", conversation)
    assert answer.headers["x-conversation-id"] == conversation
    first, second = turns(client, conversation)
    assert sent_messages(client, second) == ["my name is Bo", first["content"], "what is my name?"]
    assert [row["messages"] for row in (first, second)] == [
        [{"role": "user", "content": "my name is Bo"}],
        [{"role": "user", "content": "what is my name?"}],
    ]
    assert (first["finish_reason"], first["cut_off"], first["answering"]) == ("stop", False, False)
    assert client.job(second["id"])["input"]["conversation"] == conversation


def test_system_message_of_the_beginning_stays(client: ApiClient) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    conversation = begin(client, "", messages=messages)
    send(client, "and now?", conversation)
    assert sent_messages(client, turns(client, conversation)[1])[0] == "Be brief.\n\nhello"
    assert titles(client) == ["hello"]


def test_results_of_the_agent_are_jobs_of_the_turn(client: ApiClient) -> None:
    conversation = begin(client, "draw [[image:2]]")
    (turn,) = turns(client, conversation)
    assert [job["status"] for job in turn["results"]] == ["completed", "completed"]
    assert all(job["parent"] == turn["id"] and job["output"] for job in turn["results"])
    assert "/v1/files/" not in turn["content"], "the text is what the agent wrote"


def test_image_model_changes_the_picture_of_the_turn_before(client: ApiClient) -> None:
    data = b64encode(encode_image("PNG")).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    conversation = begin(client, "a boat", model="jimeng-4.0", n=1)
    send(client, "make it darker", conversation, model="jimeng-4.0", n=1)
    send(client, [{"type": "text", "text": "a castle like this"}, picture], conversation, model="jimeng-4.0", n=1)
    first, second, third = turns(client, conversation)
    assert (first["kind"], first["model"], first["content"]) == ("image", "jimeng-4.0", "")
    assert [job["id"] for job in first["results"]] == [first["id"]]
    follow_up = client.job(second["id"])["input"]["follow_up"]
    assert (follow_up["decision"], follow_up["of"]) == ("edit", "the last answer")
    assert [turn["inputs"] for turn in (first, second, third)] == [0, 1, 1]
    # The agent reads text only: it gets no links of pictures.
    send(client, "thanks", conversation)
    assert sent_messages(client, turns(client, conversation)[3]) == [
        "a boat",
        "make it darker",
        "a castle like this",
        "thanks",
    ]


def test_edited_message_stands_in_place_of_the_newest(client: ApiClient) -> None:
    conversation = begin(client, "one")
    send(client, "two", conversation)
    first, second = turns(client, conversation)
    answer = send(client, "three", {"id": conversation, "replaces": second["id"]})
    assert answer.status_code == 200
    shown = turns(client, conversation)
    assert [turn["messages"][0]["content"] for turn in shown] == ["one", "three"]
    assert sent_messages(client, shown[1]) == ["one", first["content"], "three"]
    error = send(client, "four", {"id": conversation, "replaces": first["id"]})
    assert_error(error, 400, "invalid_value", "conversation.replaces")


def test_cut_off_answer_is_continued(client: ApiClient) -> None:
    conversation = begin(client, "tell me a story [[truncate]]")
    (cut,) = turns(client, conversation)
    assert (cut["finish_reason"], cut["cut_off"]) == ("length", True)
    assert cut["content"]
    assert send(client, "Go on.", {"id": conversation, "continues": cut["id"]}).status_code == 200
    _, rest = turns(client, conversation)
    assert (rest["continues"], rest["cut_off"]) == (True, False)
    assert sent_messages(client, rest) == ["tell me a story [[truncate]]", cut["content"], "Go on."]
    error = send(client, "Go on.", {"id": conversation, "continues": rest["id"]})
    assert_error(error, 400, "invalid_value", "conversation.continues")
    # Editing the message replaces its answer and what continued it.
    send(client, "tell me a joke", {"id": conversation, "replaces": cut["id"]})
    assert [turn["messages"][0]["content"] for turn in turns(client, conversation)] == ["tell me a joke"]


def test_busy_conversation_takes_no_other_message_but_repeats_join(client: ApiClient) -> None:
    key = {"Idempotency-Key": "first"}
    started = send(client, "hi [[pause:1]] [[words:5]]", headers=key, **{"async": True})
    assert started.status_code == 202, started.text
    conversation = started.headers["x-conversation-id"]
    assert turns(client, conversation)[0]["answering"] is True
    assert_error(send(client, "more", conversation), 409, "conversation_busy", "conversation")
    assert_error(client.http.delete(f"{LIST}/{conversation}"), 409, "conversation_busy")
    repeated = send(client, "hi [[pause:1]] [[words:5]]", headers=key, **{"async": True})
    assert (repeated.json()["id"], repeated.headers["x-conversation-id"]) == (started.json()["id"], conversation)
    with client.http.stream("GET", f"{LIST}/{conversation}/stream") as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "词0 词1 词2 词3 词4 "
    assert turns(client, conversation)[0]["answering"] is False
    assert len(client.http.get(LIST).json()["data"]) == 1


def test_list_is_searched_renamed_and_deleted(client: ApiClient) -> None:
    boats, castles = (
        begin(client, "draw [[image:1]] boats"),
        begin(client, "Tell me   about\ncastles" + " of stone" * 9),
    )
    assert titles(client) == [CASTLES, "draw [[image:1]] boats"]
    assert titles(client, q="BOATS") == ["draw [[image:1]] boats"]
    assert titles(client, q="you said") == [CASTLES], "answers are searched"
    page = client.http.get(LIST, params={"limit": 1}).json()
    assert (page["has_more"], page["last_id"]) == (True, castles)
    assert client.http.get(LIST, params={"limit": 1, "after": castles}).json()["first_id"] == boats
    renamed = client.http.patch(f"{LIST}/{boats}", json={"title": "  Two \n boats "})
    assert renamed.json()["title"] == client.http.get(f"{LIST}/{boats}").json()["title"] == "Two boats"
    send(client, "more", boats)
    assert titles(client)[0] == "Two boats", "the newest activity comes first"
    made = turns(client, boats)[0]
    # The caller may read the end of an answer just before its job is final.
    eventually(lambda: client.http.delete(f"{LIST}/{boats}").json().get("deleted"), what="it is deleted")
    assert titles(client) == [CASTLES]
    assert client.http.get(f"/v1/jobs/{made['id']}").status_code == 404
    assert client.http.get(f"/v1/jobs/{made['results'][0]['id']}").status_code == 200, "pictures stay"
    assert_error(client.http.get(f"{LIST}/{boats}/turns"), 404, "conversation_not_found")
    assert_error(send(client, "hi", boats), 404, "conversation_not_found")


def test_conversations_of_others_are_unknown(client: ApiClient, api_platform) -> None:
    conversation = begin(client, "hello")
    job = turns(client, conversation)[0]["id"]
    with ApiClient(api_platform) as other:
        for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/turns"), ("GET", "/stream")):
            answer = other.http.request(
                method, f"{LIST}/{conversation}{path}", json={"title": "x"} if method == "PATCH" else None
            )
            assert_error(answer, 404, "conversation_not_found")
        assert_error(send(other, "hi", conversation), 404, "conversation_not_found")
        assert_error(send(other, "hi", {"id": conversation, "replaces": job}), 404, "conversation_not_found")
        assert titles(other) == []
    assert len(turns(client, conversation)) == 1


@pytest.mark.parametrize(
    ("conversation", "param"),
    [
        (17, "conversation"),
        ({"id": "new", "replaces": "job_1"}, "conversation"),
        ({"id": "new", "more": 1}, "conversation.more"),
        ({}, "conversation.id"),
    ],
)
def test_invalid_conversation_is_refused(client: ApiClient, conversation: Any, param: str) -> None:
    answer = send(client, "hi", conversation)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param, answer.text
    assert titles(client) == []


def test_refused_request_leaves_no_conversation(client: ApiClient) -> None:
    assert send(client, "x" * 200_000).status_code == 400
    assert titles(client) == []
