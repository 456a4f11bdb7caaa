"""Follow-ups in a chat on a running platform: which picture is changed, what the user sees, and the override."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.api_client import ApiClient, assert_error
from tests.support.chat.chat_stream_checks import ParsedStream, check_stream

CHAT = "/v1/chat/completions"
MODEL = "jimeng-4.0:1k"
OLD_MODEL = "jimeng-2.0-pro"  # takes no pictures


@pytest.fixture
def client(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform) as client:
        yield client


def ask(
    client: ApiClient, messages: list[dict[str, Any]], *, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    return client.http.post(CHAT, json={"model": MODEL, "n": 1, "messages": messages, **fields}, headers=headers)


def stream(client: ApiClient, messages: list[dict[str, Any]], **fields: Any) -> tuple[ParsedStream, dict[str, Any]]:
    response = ask(client, messages, stream=True, **fields)
    assert response.status_code == 200, response.text
    return check_stream(response.content), client.job(response.headers["x-job-id"])["input"]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def size_of(link: str) -> int:
    return len(httpx.get(link, trust_env=False).content)


def two_boats(client: ApiClient) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a chat with an answer of two pictures as our API gives it, and their links."""
    answer = ask(client, [user("a boat on a lake")], n=2).json()["choices"][0]["message"]
    links = [image["image_url"]["url"] for image in answer["images"]]
    assert len(links) == 2
    return [user("a boat on a lake"), answer], links


def test_follow_up_changes_the_picture_that_it_names_and_says_so(client):
    before, links = two_boats(client)
    parsed, shown = stream(client, [*before, user("the second one, a bit darker")])
    assert (
        f"Changing picture 2 of the last answer (the message names an earlier picture): {links[1]}" in parsed.lines[0]
    )
    assert shown["follow_up"]["decision"] == "edit"
    assert (shown["follow_up"]["image"], shown["follow_up"]["of"]) == (2, "the last answer")
    [mark] = shown["images"]
    assert mark["bytes"] == size_of(links[1])


def test_message_with_a_subject_of_its_own_makes_a_new_picture_and_says_so(client):
    before, _ = two_boats(client)
    parsed, shown = stream(client, [*before, user("将军骑马")])
    assert ". A new picture (" in parsed.lines[0]
    assert (shown["follow_up"]["decision"], shown["images"]) == ("new", [])


def test_answer_without_a_stream_says_what_was_decided(client):
    before, links = two_boats(client)
    response = ask(client, [*before, user("背景换成雪山")])
    message = response.json()["choices"][0]["message"]
    assert message["reasoning_content"].startswith("Changing picture 1 of the last answer (")
    [mark] = client.job(response.headers["x-job-id"])["input"]["images"]
    assert mark["bytes"] == size_of(links[0])
    fresh = ask(client, [*before, user("a cat")]).json()["choices"][0]["message"]
    assert fresh["reasoning_content"].startswith("A new picture (")
    first = ask(client, [user("a cat")])
    assert "follow_up" not in client.job(first.headers["x-job-id"])["input"]


def test_picture_is_found_in_the_images_that_we_return(client):
    before, links = two_boats(client)
    before[1]["content"] = "Here it is."
    _, shown = stream(client, [*before, user("without the boat")])
    [mark] = shown["images"]
    assert mark["bytes"] == size_of(links[0])


def test_caller_chooses_the_picture(client):
    before, links = two_boats(client)
    for fields, headers, expected in (
        ({"dreamery_edit": 2}, None, [size_of(links[1])]),
        ({}, {"X-Dreamery-Edit": "last"}, [size_of(links[0])]),
        ({"dreamery_edit": "2"}, {"X-Dreamery-Edit": "2"}, [size_of(links[1])]),
    ):
        response = ask(client, [*before, user("a cat")], headers=headers, **{"async": True, **fields})
        assert response.status_code == 202, response.text
        shown = client.job(response.json()["id"])["input"]
        assert [mark["bytes"] for mark in shown["images"]] == expected
        assert shown["follow_up"]["reason"] == "the caller requested it"
    response = ask(client, [*before, user("a bit darker")], headers={"X-Dreamery-Edit": "none"}, **{"async": True})
    assert client.job(response.json()["id"])["input"]["images"] == []


def test_invalid_choice_creates_no_job(client):
    before, _ = two_boats(client)
    messages = [*before, user("a bit darker")]
    jobs = len(client.http.get("/v1/jobs").json()["data"])
    for fields, headers, param in (
        ({"dreamery_edit": "first"}, None, "dreamery_edit"),
        ({"dreamery_edit": 3}, None, "dreamery_edit"),
        ({"dreamery_edit": -1}, None, "dreamery_edit"),
        ({}, {"X-Dreamery-Edit": "maybe"}, "X-Dreamery-Edit"),
        ({"dreamery_edit": False}, {"X-Dreamery-Edit": "last"}, "dreamery_edit"),
    ):
        assert_error(ask(client, messages, headers=headers, **fields), 400, "invalid_value", param)
    assert_error(ask(client, [*before, user("make picture 7 darker")]), 400, "invalid_value", "messages")
    assert_error(ask(client, [user("a cat")], dreamery_edit=True), 400, "invalid_value", "dreamery_edit")
    agent = ask(client, messages, model="agent", dreamery_edit=True)
    assert_error(agent, 400, "unsupported_parameter", "dreamery_edit")
    assert len(client.http.get("/v1/jobs").json()["data"]) == jobs


def test_video_starts_from_the_picture(client):
    before, links = two_boats(client)
    response = ask(client, [*before, user("animate picture 2")], model="jimeng-video-3.0", **{"async": True})
    assert response.status_code == 202, response.text
    shown = client.job(response.json()["id"])["input"]
    assert shown["follow_up"]["image"] == 2
    [mark] = shown["images"]
    assert mark["bytes"] == size_of(links[1])
    client.cancel(response.json()["id"])


def test_model_without_references_makes_a_new_picture_and_says_so(client):
    before, _ = two_boats(client)
    parsed, shown = stream(client, [*before, user("a bit darker")], model=OLD_MODEL)
    assert f"A new picture (model {OLD_MODEL} takes no pictures)" in parsed.lines[0]
    assert (shown["follow_up"]["decision"], shown["images"]) == ("new", [])
    refused = ask(client, [*before, user("a bit darker")], model=OLD_MODEL, dreamery_edit=True)
    assert_error(refused, 400, "unsupported_parameter", "messages")
