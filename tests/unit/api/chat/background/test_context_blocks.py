"""Text of front ends is removed from a message, so that only the prompt is drawn."""

import time

import pytest

from api.chat.background.detection import strip_context
from api.chat.prompt_extraction import extract_prompt
from api.chat.schemas import ChatRequest

PROMPT = "a lighthouse at dawn"
FILE = '<file name="notes.txt" type="file"/>'


@pytest.mark.parametrize(
    "text",
    [
        f"<attached_files>\n{FILE}\n</attached_files>\n{PROMPT}",
        f"<attached_files>\n{FILE}\n</attached_files>\n{PROMPT}\n<attached_files>{FILE}</attached_files>",
        f'<Attached_Files count="1">{FILE}</Attached_Files>{PROMPT}',
        (
            "### Task:\nRespond to the user query using the provided context, incorporating inline citations.\n"
            f'<context>\n<source id="1">a bridge</source>\n</context>\n\n<user_query>\n{PROMPT}\n</user_query>'
        ),
        (
            "### Task:\nRespond to the user query using the provided context, incorporating inline citations.\n"
            f'### Output:\nClear.\n\n<context>\n<source id="1">a bridge</source>\n</context>\n{PROMPT}'
        ),
        (
            f"{PROMPT}\n\n<!-- SYSTEM CONTEXT (NOT PART OF USER QUERY) -->\n<files_info>a bridge</files_info>\n"
            "<!-- END SYSTEM CONTEXT -->"
        ),
        f"{PROMPT}\n\n<knowledge_base_qa_info>\na bridge <user_query>{PROMPT}</user_query></knowledge_base_qa_info>",
        (
            f"{PROMPT}\n\n<ATTACHMENT_FILE>\n<FILE_NAME>a.txt</FILE_NAME>\n<FILE_CONTENT>\na bridge\n</FILE_CONTENT>\n"
            "</ATTACHMENT_FILE>\n"
        ),
        (
            "Please answer the question based on the reference materials\n\n## Citation Rules:\n- cite\n\n"
            f"## My question is:\n\n{PROMPT}\n\n## Reference Materials:\n\na bridge"
        ),
        f"## user sent a file: a.txt\n<content>\n```\na bridge\n```\n</content>\n{PROMPT}",
        f'<document name="a.txt" type="text/plain">a bridge</document>\n\n{PROMPT}',
        f"<system-reminder>be nice</system-reminder>{PROMPT}<environment_details>a bridge</environment_details>",
    ],
)
def test_front_ends_block_is_not_drawn(text: str) -> None:
    assert strip_context(text) == PROMPT
    body = ChatRequest.model_validate({"messages": [{"role": "user", "content": text}]})
    assert extract_prompt(body).text == PROMPT
    parts = [{"type": "text", "text": text}]
    assert extract_prompt(ChatRequest.model_validate({"messages": [{"role": "user", "content": parts}]})).text == PROMPT


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        "a sign that says <attached_files>",
        "<b>bold</b> letters, <documentary> style",
        "### Task: draw a boat",
        "the words </attached_files> on a wall",
    ],
)
def test_other_text_is_kept(text: str) -> None:
    assert strip_context(text) == text


@pytest.mark.parametrize("text", ["<attached_files>" * 20_000, "<document " * 30_000, "</document>" * 20_000])
def test_many_tags_are_read_quickly(text: str) -> None:
    started = time.process_time()
    strip_context(text)
    assert time.process_time() - started < 2.0
