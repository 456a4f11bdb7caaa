"""Background calls of chat front ends: detection and answers."""

import json
from typing import Any

import pytest

from api.chat.client_probes import detect_agent_probe, detect_client_probe
from api.chat.schemas import ChatRequest

HISTORY = (
    "<chat_history>\nUSER: draw a **red boat** on a lake -ra 16:9\nASSISTANT: ![image](http://a/b)\nUSER: now at night\n"
    "</chat_history>"
)


def detect(*messages: tuple[str, Any] | str, **fields: Any) -> Any:
    messages_json = [one if isinstance(one, tuple) else ("user", one) for one in messages]
    body = {"messages": [{"role": role, "content": content} for role, content in messages_json], **fields}
    return detect_client_probe(ChatRequest.model_validate(body))


@pytest.mark.parametrize(
    ("form", "kind", "answer"),
    [
        ('Write a short title with an emoji.\nJSON format: { "title": "your title" }', "title",
         {"title": "Draw a red boat on a"}),
        ('Give 1-3 broad tags.\nJSON format: { "tags": ["tag1", "tag2"] }', "tags", {"tags": ["Pictures"]}),
        ('Suggest what the user may ask next.\nJSON format: { "follow_ups": ["One?"] }', "follow-ups",
         {"follow_ups": []}),
        ('Find out whether a search is needed.\n{ "queries": ["one"] }', "queries", {"queries": []}),
        ('Describe a picture for this.\n{ "prompt": "Your description" }', "prompt", {"prompt": "now at night"}),
        ('Complete the text.\n{ "text": "<completion>" }', "completion", {"text": ""}),
    ],
)  # fmt: skip
def test_task_is_answered_with_its_json(form: str, kind: str, answer: dict[str, Any]) -> None:
    probe = detect(f"### Task:\n{form}\n### Chat History:\n{HISTORY}")
    assert probe.kind == kind
    assert json.loads(probe.answer) == answer


def test_tasks_without_json_are_answered() -> None:
    assert detect("  ### Task:\nReflect the mood with one emoji.\nMessage: great").answer == "🖼️"
    assert detect(f"### Task:\nWrite a title, plain.\n{HISTORY}").answer == "Draw a red boat on a"
    assert "Nothing was generated" in detect("### Task:\nAnswer from the context. <context>a</context>").answer


TITLE_REQUESTS = [
    # NextChat: at the end of the conversation
    [("user", "a red boat"), ("assistant", "![image](http://a/b)"),
     ("user", "Please generate a four to five word title summarizing our conversation without any punctuation.")],
    [("user", "a red boat"), ("assistant", "x"),
     ("user", "用四到五个字直接返回这句话的简要主题，不要解释、不要标点、不要多余文本")],
    # LibreChat: the conversation is quoted
    [("user", ("Provide a concise, 5-word-or-less title for the conversation. Only return the title.\n\nConversation:\n"
              "User: a red boat\nAI: ![image](x)"))],
    [("system", "Please generate a concise title for the conversation, in its language, with no punctuation."),
     ("user", '||>User:\n"a red boat"\n||>Response:\n"done"')],
    # LobeChat, Cherry Studio: the instruction is the system message
    [("system", ("You are an assistant skilled in conversation. You need to summarize the user's conversation into a "
                "title within 10 words")), ("user", "user: a red boat\nassistant: ok")],
    [("system", "You are a professional conversation summarizer. Generate a concise title."),
     ("user", "user: a red boat")],
    [("system", "你是一名擅长会话的助理，你需要将用户的会话总结为 10 个字以内的标题"), ("user", "用户：a red boat")],
    [("system", "You summarize the conversation into a topic of 10 words or less."),
     ("user", '[{"role": "user", "mainText": "a red boat"}]')],
]  # fmt: skip


@pytest.mark.parametrize("messages", TITLE_REQUESTS, ids=range(len(TITLE_REQUESTS)))
def test_title_request_is_answered_with_a_title(messages: list[tuple[str, str]]) -> None:
    probe = detect(*messages)
    assert (probe.kind, probe.answer) == ("title", "A red boat")


def test_summary_request_is_detected() -> None:
    words = "Summarize the discussion briefly in 200 words or less to use as a prompt for future context."
    assert detect("a boat", ("assistant", "x"), ("system", words)).kind == "summary"
    assert (
        detect("a boat", ("assistant", "x"), ("system", "简要总结一下对话内容，用作后续的上下文提示")).kind == "summary"
    )


@pytest.mark.parametrize("text", ["hi", "Hello!", "test", " ping ", "你好", "测试。"])
def test_first_greeting_is_a_connection_test(text: str) -> None:
    assert detect(text).answer == "ok"
    assert detect([{"type": "text", "text": text}]).answer == "ok"
    assert detect(("system", "test"), text).answer == "ok"
    assert detect("a boat", ("assistant", "![image](http://a/b)"), text) is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_small_token_limit_is_a_connection_test(name: str) -> None:
    assert detect("a red boat", **{name: 1}).answer == "ok"
    assert detect("a red boat", **{name: 16}).answer == "ok"
    for unlimited in (17, 4096, 0, -1, None):
        assert detect("a red boat", **{name: unlimited}) is None


def test_json_format_is_answered_with_json() -> None:
    assert json.loads(detect("a red boat", response_format={"type": "json_object"}).answer) == {"title": "A red boat"}
    tags = 'Give tags as {"tags": ["a"]}'
    assert json.loads(detect(tags, response_format={"type": "json_object"}).answer) == {"tags": ["Pictures"]}
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "emoji": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "mood": {"enum": ["good", "bad"]},
            "inner": {"type": "object", "properties": {"n": {"type": ["integer", "null"]}, "yes": {"type": "boolean"}}},
        },
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(detect("a red boat", response_format=wanted).answer) == {
        "title": "A red boat", "emoji": "", "tags": [], "mood": "good", "inner": {"n": 0, "yes": False},
    }  # fmt: skip
    assert detect("a red boat", response_format={"type": "text"}) is None


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def test_tools_without_image_request_are_answered() -> None:
    assert "Nothing was generated" in detect("what is the weather in Paris?", tools=TOOLS).answer
    for prompt in (
        "draw a boat",
        "A picture of rain",
        "画一只猫",
        "a boat -ra 16:9",
        "make it blue",
        "a boat [[hang]]",
    ):
        assert detect(prompt, tools=TOOLS) is None, prompt
    assert detect("what is the weather in Paris?", tools=[]) is None
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    assert detect([{"type": "text", "text": "brighter"}, part], tools=TOOLS) is None


@pytest.mark.parametrize(
    "text",
    [
        "a red paper boat on a calm lake",
        "hi there, a boat",
        "create a title card for a chat app, short words",
        "a short comic about a conversation between two cats, with a title on top",
        "生成一张主题为春天的海报，写四个字",
        "a poster with the word test",
        "a comic: summarize the plot in 4 panels",
        "Task: draw a boat",
        "### A heading\na boat",
    ],
)
def test_generation_requests_are_not_probes(text: str) -> None:
    assert detect(text) is None
    assert detect(("system", "You are a helpful assistant."), text, max_tokens=4096) is None


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("x" * 500, "X" + "x" * 47),
        ("画" * 100, "画" * 24),
        ("![image](http://a/b) [[seconds:3]] -re 2k", "New chat"),
        ("one two three four five six seven", "One two three four five six"),
        ('"Quoted."', "Quoted"),
    ],
)
def test_titles_are_shortened(text: str, title: str) -> None:
    wanted = '### Task:\nTitle as { "title": "x" }\n<chat_history>\nUSER: '
    assert json.loads(detect(f"{wanted}{text}\n</chat_history>").answer)["title"] == title


@pytest.mark.parametrize(
    "text", ["user:\n" * 3000, "title " * 3000, "<chat_history>" * 2000, "[(" * 5000, '"text": "' * 2000]
)
def test_hostile_texts_are_classified_quickly(text: str) -> None:
    import time

    started = time.process_time()
    detect(text, response_format={"type": "json_object"}, tools=TOOLS)
    detect(f"### Task: {text}")
    assert time.process_time() - started < 1.0


def detect_for_agent(*messages: Any, **more: Any) -> Any:
    messages_json = [{"role": role, "content": text} for role, text in messages]
    return detect_agent_probe(ChatRequest.model_validate({"model": "agent", "messages": messages_json, **more}))


def test_agent_probes_are_titles_tasks_and_connection_tests() -> None:
    title = detect_for_agent(("user", f'### Task:\nTitle as {{ "title": "x" }}\n{HISTORY}'))
    assert json.loads(title.answer) == {"title": "Draw a red boat on a"}
    assert detect_for_agent(("user", '### Task:\nSuggest. { "follow_ups": [] }')).answer == '{"follow_ups": []}'
    assert detect_for_agent(("user", "tell me a joke"), max_tokens=16).answer == "ok"
    for messages in TITLE_REQUESTS:
        assert detect_for_agent(*messages).kind == "title"


def test_other_agent_messages_are_not_probes() -> None:
    json_form = {"type": "json_object"}
    assert detect_for_agent(("user", "hi")) is None
    assert detect_for_agent(("user", "what is the weather in Paris?"), tools=TOOLS, max_tokens=17) is None
    assert detect_for_agent(("user", "three colours"), response_format=json_form, max_completion_tokens=0) is None
    assert detect_for_agent(("user", "### Task:\nWrite a poem about rain.")) is None
    assert detect_for_agent(("user", "a"), ("assistant", "b"), ("user", "summarize our chat in 50 words")) is None
