"""Background calls of chat front ends: which chats they are, and what they are answered with."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from api.chat.background.detection import BackgroundCall, find_background_call, get_rules, parse_job_choice
from api.chat.schemas import ChatRequest
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

HISTORY = (
    "<chat_history>\nUSER: draw a **red boat** on a lake -ra 16:9\nASSISTANT: ![image](http://a/b)\nUSER: now at night\n"
    "</chat_history>"
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
FIXTURES = Path(__file__).parents[4] / "fixtures" / "clients"


def request(*messages: tuple[str, Any] | str, **fields: Any) -> ChatRequest:
    pairs = [one if isinstance(one, tuple) else ("user", one) for one in messages]
    body = {"messages": [{"role": role, "content": content} for role, content in pairs], **fields}
    return ChatRequest.model_validate(body)


def detect(
    *messages: tuple[str, Any] | str,
    agent: bool = False,
    choice: str | None = None,
    enabled: bool = True,
    **fields: Any,
) -> BackgroundCall | None:
    body = request(*messages, **fields)
    return find_background_call(body, agent=agent, makes="images", choice=choice, enabled=enabled)


def answered(*messages: tuple[str, Any] | str, **fields: Any) -> BackgroundCall:
    call = detect(*messages, **fields)
    assert call is not None
    return call


# --- known templates ---


@pytest.mark.parametrize(
    ("form", "kind", "answer"),
    [
        ('Write a short title with an emoji.\nJSON format: { "title": "your title" }', "title",
         {"title": "Draw a red boat on a"}),
        ('Give 1-3 broad tags.\nJSON format: { "tags": ["tag1", "tag2"] }', "tags", {"tags": ["Pictures"]}),
        ('Suggest what the user may ask next.\nJSON format: { "follow_ups": ["One?"] }', "follow_ups",
         {"follow_ups": []}),
        ('Find out whether a search is needed.\n{ "queries": ["one"] }', "queries", {"queries": []}),
        ('Describe a picture for this.\n{ "prompt": "Your description" }', "prompt", {"prompt": "now at night"}),
        ('Complete the text.\n{ "text": "<completion>" }', "autocomplete", {"text": ""}),
    ],
)  # fmt: skip
def test_task_is_answered_with_its_json(form: str, kind: str, answer: dict[str, Any]) -> None:
    call = answered(f"### Task:\n{form}\n### Chat History:\n{HISTORY}")
    assert call.kind == kind
    assert json.loads(call.answer) == answer


@pytest.mark.parametrize(
    "task",
    [
        "Write a title that starts with an emoji, plain text.",
        "Create a concise, 3-5 word title with an emoji as a title for the chat history.",
        "Erstelle einen kurzen Titel mit einem Emoji. Nur der Titel.",
        "为对话写一个标题，可以使用表情符号，只返回标题。",
    ],
)
def test_title_task_that_mentions_emoji_gets_a_title(task: str) -> None:
    call = answered(f"### Task:\n{task}\n{HISTORY}")
    assert (call.kind, call.answer) == ("title", "Draw a red boat on a")


def test_emoji_task_gets_an_emoji() -> None:
    text = (
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji.\nMessage: ```great```"
    )
    assert answered(text).answer == "🖼️"


def test_unknown_task_says_that_nothing_was_generated() -> None:
    call = answered("### Task:\nAnswer from the given notes: one, two")
    assert (call.kind, "Nothing was generated" in call.answer) == ("task", True)


TITLE_REQUESTS = [
    # NextChat: at the end of the conversation
    [("user", "a red boat"), ("assistant", "![image](http://a/b)"),
     ("user", "Please generate a four to five word title summarizing our conversation without any punctuation.")],
    [("user", "a red boat"), ("assistant", "x"),
     ("user", "用四到五个字直接返回这句话的简要主题，不要解释、不要标点、不要多余文本")],
    [("user", "a red boat"), ("assistant", "x"), ("user", "この会話に短いタイトルを付けてください。")],
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
    # Chatbox, dify, HuggingChat, RikkaHub
    [("user", ("From the chat history below, give this conversation a name. At most 10 characters.\n\n"
              "```\na red boat\n\n---------\n\ndone\n```"))],
    [("user", ("You are asked to generate a concise chat title by decomposing the user's input into two parts: "
              "“Intention” and “Subject”.\n\nUser Input:\na red boat\n"))],
    [("system", "You are a chat thread titling assistant."), ("user", 'User message: "a red boat"')],
    [("user", ("You need to summarize the conversation between user and assistant into a short title.\n\n<content>\n"
              "USER: a red boat\nASSISTANT: ok\n</content>"))],
]  # fmt: skip


@pytest.mark.parametrize("messages", TITLE_REQUESTS, ids=range(len(TITLE_REQUESTS)))
def test_title_request_is_answered_with_a_title(messages: list[tuple[str, str]]) -> None:
    call = answered(*messages)
    assert call.kind == "title"
    assert "A red boat" in call.answer
    assert call.answer == "A red boat" or json.loads(call.answer)["Your Output"] == "A red boat"


def test_each_shipped_rule_recognises_a_recorded_call() -> None:
    lines = (FIXTURES / "background_calls.jsonl").read_text(encoding="utf-8").splitlines()
    found = set()
    for line in lines:
        call = find_background_call(
            ChatRequest.model_validate(json.loads(line)["body"]), agent=False, makes="images", choice=None, enabled=True
        )
        found.add(call.rule if call else "")
    rare = {
        "open-webui-title-text", "open-webui-query-text", "librechat-title-submit", "librechat-translation",
        "lobechat-description", "cherry-studio-agent-prompt", "dify-question-answers", "dify-code",
        "dify-prompt-generator", "dify-schema", "big-agi-diagram", "big-agi-cleanup",
    }  # fmt: skip
    assert {rule.id for rule in get_rules().rules} - found == rare
    for rule in get_rules().rules:
        if rule.id in rare:
            (name, texts), *_ = rule.texts.items()
            role = "user" if name in {"user", "last"} else "system"
            call = answered(*([(role, texts[0])] if role == "user" else [(role, texts[0]), ("user", "a boat")]))
            assert call.rule == rule.id


def test_each_text_of_a_rule_is_recognised() -> None:
    for rule in get_rules().rules:
        for name, texts in rule.texts.items():
            for text in texts:
                body = [(("system"), text), "a boat"] if name in {"system", "anywhere"} else ["a boat", text]
                assert answered(*body).kind in {rule.kind, "task", "title"}, (rule.id, text)


def test_summary_request_in_a_system_message_is_answered() -> None:
    words = "Summarize the discussion briefly in 200 words or less to use as a prompt for future context."
    call = answered("a boat", ("assistant", "x"), ("system", words))
    assert (call.kind, call.answer) == ("summary", "The user asked for images. The newest request: a boat")


# --- structure ---


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        (
            "queries",
            [("system", "Rewrite the question as a standalone search query. Only the query."), "and red ones?"],
        ),
        ("memory", ["Extract lasting facts about the user. Answer in JSON.\n\nUser: I live in Lyon\nAssistant: ok"]),
        ("translation", [("system", "Du übersetzt ins Englische. Nur die Übersetzung."), "ein Leuchtturm"]),
        ("merge", ["Combine these answers into one.\n\nAnswer 1: a\nAnswer 2: b"]),
        ("follow_ups", ["Sugiere tres preguntas de seguimiento en JSON.\n\nUsuario: un barco\nAsistente: listo"]),
        ("title", ["Придумай короткое название для этой сессии.\n\nПользователь: лодка\nАссистент: готово"]),
        ("title", ["이 세션의 메시지에 제목을 붙여줘, 10자 이내.\n\n사용자: 배\n어시스턴트: 완료"]),
        ("task", ["Kutokana na gumzo hili, toa jina fupi.\n\nUser: a boat\nAssistant: done"]),
    ],
)
def test_unknown_template_is_recognised_by_its_structure(kind: str, messages: list[Any]) -> None:
    call = answered(*messages)
    assert (call.kind, call.rule) == (kind, "")


def test_system_message_with_a_small_token_limit_is_a_task_in_any_language() -> None:
    words = "பயனரின் செய்தியிலிருந்து உரையாடலுக்கு 5 சொற்களில் ஒரு தலைப்பை எழுதவும். தலைப்பை மட்டும் தரவும்."
    assert answered(("system", words), "a garden", max_tokens=30, temperature=0.1).kind == "task"


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
        '{"title": "Beacon", "style": "watercolor", "tags": ["sea"]}',
    ],
)
def test_prompt_is_not_a_background_call(text: str) -> None:
    assert detect(text) is None
    assert detect(("system", "You are a helpful assistant."), text, max_tokens=4096) is None
    assert detect(text, tools=TOOLS, tool_choice="auto") is None


@pytest.mark.parametrize("prompt", ["a lighthouse at dawn", "what is the weather in Paris?", "make it blue"])
def test_tools_do_not_keep_a_prompt_from_being_drawn(prompt: str) -> None:
    for choice in ("auto", "none", None, ""):
        assert detect(prompt, tools=TOOLS, tool_choice=choice) is None


def test_message_with_a_picture_is_a_prompt() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    text = {"type": "text", "text": "Translate the text of this message into German. Only the translation."}
    assert detect([text, part]) is None
    assert answered([text]).kind == "translation"


# --- connection tests ---


@pytest.mark.parametrize("text", ["hi", "Hello!", "test", " ping ", "你好", "测试。", "Hola", "Привет!", "こんにちは"])
def test_first_greeting_is_a_connection_test(text: str) -> None:
    assert answered(text).answer == "ok"
    assert answered([{"type": "text", "text": text}]).answer == "ok"
    assert answered(("system", "test"), text).answer == "ok"
    assert detect("a boat", ("assistant", "![image](http://a/b)"), text) is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_small_token_limit_is_a_connection_test(name: str) -> None:
    assert answered("a red boat", **{name: 1}).answer == "ok"
    assert answered("a red boat", **{name: 16}).answer == "ok"
    for unlimited in (17, 4096, 0, -1, None):
        assert detect("a red boat", **{name: unlimited}) is None


# --- forced tools and JSON ---


@pytest.mark.parametrize(
    "forced",
    [
        "required",
        "any",
        {"type": "function", "function": {"name": "weather"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
    ],
)
def test_forced_tool_is_refused(forced: Any) -> None:
    with pytest.raises(DreameryError) as caught:
        detect("a red boat", tools=TOOLS, tool_choice=forced)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tool_choice")
    assert "generates images" in str(caught.value)


def test_forced_function_of_the_older_form_is_refused() -> None:
    with pytest.raises(DreameryError) as caught:
        detect("a red boat", function_call={"name": "weather"})
    assert caught.value.param == "function_call"
    assert detect("a red boat", function_call="auto", functions=[{"name": "weather"}]) is None


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
@pytest.mark.parametrize("choice", [None, "always"])
@pytest.mark.parametrize("enabled", [True, False])
def test_json_as_response_format_is_refused(kind: str, choice: str | None, *, enabled: bool) -> None:
    with pytest.raises(DreameryError) as caught:
        detect("a city", response_format={"type": kind}, choice=choice, enabled=enabled)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "response_format")
    assert "generates images" in str(caught.value)


def test_text_as_response_format_is_accepted() -> None:
    assert detect("a red boat", response_format={"type": "text"}) is None


def test_known_template_with_a_schema_is_answered_with_its_json() -> None:
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "language": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "mood": {"enum": ["good", "bad"]},
            "inner": {"type": "object", "properties": {"n": {"type": ["integer", "null"]}, "yes": {"type": "boolean"}}},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text = "Analyze this conversation and provide:\n1. The detected language of the conversation\n\nUser: a red boat\nAI: ok"
    assert json.loads(answered(text, response_format=form).answer) == {
        "title": "A red boat", "language": "", "tags": [], "mood": "good", "inner": {"n": 0, "yes": False},
    }  # fmt: skip
    # LibreChat asks for the same with a function that must be called.
    assert answered(text, tools=TOOLS, tool_choice="required").answer == "A red boat"


# --- the caller's choice ---


def test_caller_decides_instead_of_the_detection() -> None:
    title = TITLE_REQUESTS[0]
    assert detect(*title, choice="always") is None
    assert detect("hi", choice="always") is None
    assert "Nothing was generated" in answered("a red boat", choice="never").answer
    assert answered(*title, choice="never", enabled=False).kind == "title"
    assert detect(*title, enabled=False) is None
    assert "Nothing was generated" in answered("a red boat", choice="never", agent=True).answer


def test_job_choice_is_checked() -> None:
    assert parse_job_choice(None, None) is None
    assert parse_job_choice(" Always ", None) == "always"
    assert parse_job_choice(None, "never") == "never"
    assert parse_job_choice("never", "never") == "never"
    with pytest.raises(DreameryError) as caught:
        parse_job_choice("maybe", None)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "X-Dreamery-Job")
    with pytest.raises(DreameryError) as caught:
        parse_job_choice("always", "never")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "dreamery_job")


# --- the operator's rules ---


def test_operators_rules_are_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "rules.toml"
    own.write_text(
        """
        [[rule]]
        id = "intranet-title"
        front_end = "our intranet"
        kind = "title"
        source = "intranet"
        user = "Nenne das Ding"
        answer = "{title} / {newest}"

        [[rule]]
        id = "intranet-short"
        front_end = "our intranet"
        kind = "task"
        source = "intranet"
        user_pattern = "^ding \\\\d+$"
        max_tokens_up_to = 50
        temperature_up_to = 0.5

        [[block]]
        id = "intranet-header"
        front_end = "our intranet"
        source = "intranet"
        start = "[[header"
        end = "header]]"
        """,
        encoding="utf-8",
    )
    assert detect("ding 5", max_tokens=40, temperature=0.1) is None
    monkeypatch.setenv("DREAMERY_BACKGROUND_RULES_FILE", str(own))
    get_settings.cache_clear()
    try:
        call = answered("a boat", ("assistant", "x"), "now red", ("assistant", "y"), "NENNE  das Ding")
        assert (call.rule, call.answer) == ("intranet-title", "A boat / now red")
        assert answered("[[header secret header]]\nding 5", max_tokens=40, temperature=0.1).rule == "intranet-short"
        assert detect("ding 5", max_tokens=51, temperature=0.1) is None
        assert detect("ding 5", max_tokens=40, temperature=0.6) is None
        assert answered(f"### Task:\nTitle\n{HISTORY}").rule == "open-webui-task"
    finally:
        monkeypatch.delenv("DREAMERY_BACKGROUND_RULES_FILE")
        get_settings.cache_clear()


# --- the agent ---


def test_agent_is_spared_titles_tasks_and_connection_tests() -> None:
    title = answered(f'### Task:\nTitle as {{ "title": "x" }}\n{HISTORY}', agent=True)
    assert json.loads(title.answer) == {"title": "Draw a red boat on a"}
    assert answered('### Task:\nSuggest. { "follow_ups": [] }', agent=True).answer == '{"follow_ups": []}'
    assert answered("tell me a joke", agent=True, max_tokens=16).answer == "ok"
    for messages in TITLE_REQUESTS:
        assert answered(*messages, agent=True).kind == "title"


def test_other_messages_reach_the_agent() -> None:
    json_form = {"type": "json_object"}
    assert detect("hi", agent=True) is None
    assert (
        detect("what is the weather in Paris?", agent=True, tools=TOOLS, tool_choice="required", max_tokens=17) is None
    )
    assert detect("three colours", agent=True, response_format=json_form, max_completion_tokens=0) is None
    assert detect("### Task:\nWrite a poem about rain.", agent=True) is None
    assert detect("a", ("assistant", "b"), "summarize our chat in 50 words", agent=True) is None


# --- limits ---


@pytest.mark.parametrize(
    "text",
    [
        "user:\n" * 3000,
        "title " * 3000,
        "<chat_history>" * 2000,
        "[(" * 5000,
        '"text": "' * 2000,
        "### task:" + " 'title" * 3000,
        "<a" * 9000,
        "suggest " * 4000,
        "extract " * 4000,
        "```\n" * 5000,
    ],
)
def test_hostile_texts_are_classified_quickly(text: str) -> None:
    started = time.process_time()
    detect(text, tools=TOOLS)
    detect(("system", text), "a boat")
    detect(f"### Task: {text}")
    assert time.process_time() - started < 3.0
