"""Which chats are calls of front ends that nobody wants drawn, and what they are answered."""

import json
from typing import Any

import pytest

from api.chat.client_probes import detect_agent_probe, detect_client_probe
from api.chat.schemas import ChatRequest

HISTORY = (
    "<chat_history>\nUSER: draw a **red boat** on a lake -ra 16:9\nASSISTANT: ![image](http://a/b)\nUSER: now at night\n"
    "</chat_history>"
)


def read(*messages: tuple[str, Any] | str, **fields: Any) -> Any:
    told = [one if isinstance(one, tuple) else ("user", one) for one in messages]
    body = {"messages": [{"role": role, "content": content} for role, content in told], **fields}
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
def test_tasks_get_the_json_they_want(form: str, kind: str, answer: dict[str, Any]) -> None:
    found = read(f"### Task:\n{form}\n### Chat History:\n{HISTORY}")
    assert found.kind == kind
    assert json.loads(found.answer) == answer


def test_other_tasks_are_answered_too() -> None:
    assert read("  ### Task:\nReflect the mood with one emoji.\nMessage: great").answer == "🖼️"
    assert read(f"### Task:\nWrite a title, plain.\n{HISTORY}").answer == "Draw a red boat on a"
    assert "Nothing was made" in read("### Task:\nAnswer from the context. <context>a</context>").answer


NAMINGS = [
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


@pytest.mark.parametrize("messages", NAMINGS, ids=range(len(NAMINGS)))
def test_who_names_a_chat_gets_a_name(messages: list[tuple[str, str]]) -> None:
    found = read(*messages)
    assert (found.kind, found.answer) == ("title", "A red boat")


def test_a_summary_for_later_turns() -> None:
    words = "Summarize the discussion briefly in 200 words or less to use as a prompt for future context."
    assert read("a boat", ("assistant", "x"), ("system", words)).kind == "summary"
    assert (
        read("a boat", ("assistant", "x"), ("system", "简要总结一下对话内容，用作后续的上下文提示")).kind == "summary"
    )


@pytest.mark.parametrize("text", ["hi", "Hello!", "test", " ping ", "你好", "测试。"])
def test_a_greeting_alone_is_a_test_of_the_connection(text: str) -> None:
    assert read(text).answer == "ok"
    assert read([{"type": "text", "text": text}]).answer == "ok"
    assert read(("system", "test"), text).answer == "ok"
    assert read("a boat", ("assistant", "![image](http://a/b)"), text) is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_few_tokens_are_a_test(name: str) -> None:
    assert read("a red boat", **{name: 1}).answer == "ok"
    assert read("a red boat", **{name: 16}).answer == "ok"
    for unlimited in (17, 4096, 0, -1, None):
        assert read("a red boat", **{name: unlimited}) is None


def test_json_is_answered_with_json() -> None:
    assert json.loads(read("a red boat", response_format={"type": "json_object"}).answer) == {"title": "A red boat"}
    tags = 'Give tags as {"tags": ["a"]}'
    assert json.loads(read(tags, response_format={"type": "json_object"}).answer) == {"tags": ["Pictures"]}
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
    assert json.loads(read("a red boat", response_format=wanted).answer) == {
        "title": "A red boat", "emoji": "", "tags": [], "mood": "good", "inner": {"n": 0, "yes": False},
    }  # fmt: skip
    assert read("a red boat", response_format={"type": "text"}) is None


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def test_tools_without_a_wish_for_a_picture() -> None:
    assert "Nothing was made" in read("what is the weather in Paris?", tools=TOOLS).answer
    for wish in ("draw a boat", "A picture of rain", "画一只猫", "a boat -ra 16:9", "make it blue", "a boat [[hang]]"):
        assert read(wish, tools=TOOLS) is None, wish
    assert read("what is the weather in Paris?", tools=[]) is None
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    assert read([{"type": "text", "text": "brighter"}, part], tools=TOOLS) is None


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
def test_wishes_are_left_alone(text: str) -> None:
    assert read(text) is None
    assert read(("system", "You are a helpful assistant."), text, max_tokens=4096) is None


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("x" * 500, "X" + "x" * 47),
        ("画" * 100, "画" * 24),
        ("![image](http://a/b) [[seconds:3]] -re 2k", "New chat"),
        ("one two three four five six seven", "One two three four five six"),
        ('"Quoted."', "Quoted"),
    ],
)
def test_titles_are_short(said: str, title: str) -> None:
    wanted = '### Task:\nTitle as { "title": "x" }\n<chat_history>\nUSER: '
    assert json.loads(read(f"{wanted}{said}\n</chat_history>").answer)["title"] == title


@pytest.mark.parametrize(
    "text", ["user:\n" * 3000, "title " * 3000, "<chat_history>" * 2000, "[(" * 5000, '"text": "' * 2000]
)
def test_hostile_texts_take_no_time(text: str) -> None:
    import time

    started = time.process_time()
    read(text, response_format={"type": "json_object"}, tools=TOOLS)
    read(f"### Task: {text}")
    assert time.process_time() - started < 1.0


def read_for_agent(*messages: Any, **more: Any) -> Any:
    told = [{"role": role, "content": said} for role, said in messages]
    return detect_agent_probe(ChatRequest.model_validate({"model": "agent", "messages": told, **more}))


def test_titles_and_tests_are_no_conversations_with_the_agent() -> None:
    title = read_for_agent(("user", f'### Task:\nTitle as {{ "title": "x" }}\n{HISTORY}'))
    assert json.loads(title.answer) == {"title": "Draw a red boat on a"}
    assert read_for_agent(("user", '### Task:\nSuggest. { "follow_ups": [] }')).answer == '{"follow_ups": []}'
    assert read_for_agent(("user", "tell me a joke"), max_tokens=16).answer == "ok"
    for messages in NAMINGS:
        assert read_for_agent(*messages).kind == "title"


def test_the_agent_is_asked_whatever_it_can_answer() -> None:
    json_form = {"type": "json_object"}
    assert read_for_agent(("user", "hi")) is None
    assert read_for_agent(("user", "what is the weather in Paris?"), tools=TOOLS, max_tokens=17) is None
    assert read_for_agent(("user", "three colours"), response_format=json_form, max_completion_tokens=0) is None
    assert read_for_agent(("user", "### Task:\nWrite a poem about rain.")) is None
    assert read_for_agent(("user", "a"), ("assistant", "b"), ("user", "summarize our chat in 50 words")) is None
