"""What an agent writes, shown in the console (console_platform): no link runs a script, no text stops the page."""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, Route, expect

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000a49444154789c63000100000500010d0a2db40000000049454e44ae426082"
)
Show = Callable[[str], Locator]
HOSTILE = {
    "pictures": "![" * 25_000,
    "links": "[](" * 16_000,
    "brackets": "[" * 50_000,
    "opened links": "[a](" * 12_000,
    "backticks": "`" * 50_000,
    "rising backticks": " ".join("`" * n for n in range(1, 300)),
    "emphasis": "*a **a " * 7_000,
    "closing emphasis": "a**b" * 12_000,
    "quotes": ">" * 50_000,
    "lists": "- " * 25_000,
    "nested lists": "* a\n  " * 8_000,
    "tables": "|a" * 12_000 + "\n" + "|-" * 12_000,
    "spaces": "a" + " " * 49_000 + "b",
    "elements": "<a " * 16_000,
    "comments": "<!--" * 12_000,
    "addresses": "<http://" * 6_000,
}


@pytest.fixture
def show(page: Page) -> Show:
    """Shows a text as the answer of the agent."""

    def answer(text: str) -> Callable[[Route], None]:
        chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body)

    def run(text: str) -> Locator:
        page.route("**/v1/files/**", lambda route: route.fulfill(status=200, content_type="image/png", body=PIXEL))
        page.route("**/v1/chat/completions", answer(text))
        page.goto("/console")
        page.locator("label.choice-item").filter(has=page.get_by_role("radio", name="Agent", exact=True)).click()
        page.get_by_label("Message").fill("hello")
        page.keyboard.press("Enter")
        return page.locator(".message.assistant .markdown")

    return run


def test_markdown_of_an_answer_becomes_elements(show: Show) -> None:
    file = "http://elsewhere.example/v1/files/file_0000/content"
    shown = show(
        f"# Boats\n\nA *red* **boat**, `x < 1`\nsecond line\n\n- one\n- two\n\n> said\n\n```\ncode\n```\n\n![boat]({file})\n\n"
        f'<video controls src="{file}">\n{file}\n</video>\n\n[video.mp4]({file})\n\n'
        "[docs](https://example.com/a?b=1) [mail](mailto:a@example.com) ![far](https://example.com/far.png)"
    )
    for name in ("h1", "em", "strong", "ul > li", "blockquote", "pre > code", "p > br"):
        expect(shown.locator(name).first).to_be_attached()
    expect(shown.locator("img")).to_have_count(1)
    assert shown.locator("img").get_attribute("src").endswith("/v1/files/file_0000/content")
    assert "elsewhere" not in shown.locator("img").get_attribute("src"), "the page asks this server only"
    expect(shown.locator("video")).to_have_count(1)
    expect(shown).not_to_contain_text("<video")
    expect(shown.get_by_role("link", name="docs")).to_have_attribute("href", "https://example.com/a?b=1")
    expect(shown.get_by_role("link", name="mail")).to_have_attribute("href", "mailto:a@example.com")
    expect(shown.get_by_role("link", name="far")).to_have_attribute("href", "https://example.com/far.png")


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "&#106;avascript:alert(1)",
        "javascript&colon;alert(1)",
        "<java\tscript:alert(1)>",
        "\x01javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "vbscript:msgbox(1)",
        "file:///etc/passwd",
        "blob:https://example.com/1",
        "//example.com/a",
        "/console/keys",
        "javascript:alert(1)//v1/files/file_1/content",
        "data:text/html,/v1/files/file_1/content",
    ],
)
def test_link_with_another_scheme_stays_text(show: Show, page: Page, link: str) -> None:
    shown = show(f"begin [click]({link}) ![picture]({link}) <{link}>\n\n[click][1]\n\n[1]: {link}\n\nend")
    expect(shown).to_contain_text("begin")
    expect(shown).to_contain_text("end")
    hrefs = shown.locator("a, img, video").evaluate_all("all => all.map(one => one.href || one.src)")
    assert hrefs == []


def test_code_can_be_copied_as_it_is(show: Show, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = show("```js\nlet a = '<b>';\n\n  a &&= 1;\n```\n\n```\nunterminated <script>alert(1)</script>")
    expect(shown.locator("pre").nth(1)).to_have_text("unterminated <script>alert(1)</script>")
    shown.get_by_role("button", name="Copy").first.click()
    expect(shown.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "let a = '<b>';\n\n  a &&= 1;"


def test_html_of_an_answer_is_text(show: Show) -> None:
    shown = show(
        '<img src=x onerror="alert(1)"> <script>alert(1)</script>\n\n<iframe src="javascript:alert(1)"></iframe>'
    )
    expect(shown).to_contain_text("<script>alert(1)</script>")
    expect(shown.locator("img, script, iframe")).to_have_count(0)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_does_not_stop_the_page(show: Show, page: Page, name: str) -> None:
    shown = show(HOSTILE[name])
    expect(shown).to_have_count(1)
    # The page answers: the parser has ended.
    assert page.evaluate("1 + 1") == 2
    text = HOSTILE[name]
    seconds = page.evaluate(
        """async (text) => {
            const page = [...document.scripts].find((one) => one.src).src;
            const [markdown, purify] = await Promise.all(["markdown-it/markdown-it.js", "dompurify/dompurify.js"].map((name) => import(new URL(`vendor/${name}`, page).href)));
            const parser = new markdown.default({ breaks: true, maxNesting: 20 });
            const read = (part) => purify.default.sanitize(parser.render(part), { RETURN_DOM_FRAGMENT: true });
            const time = (part) => { const began = performance.now(); read(part); return performance.now() - began; };
            time(text.slice(0, 1000));
            return [Math.min(time(text.slice(0, text.length / 8)), time(text.slice(0, text.length / 8))), time(text)];
        }""",
        text,
    )
    # Eight times the text: linear is 8, quadratic 64. Small times are noise.
    assert seconds[1] < 40 * max(seconds[0], 25), seconds


def test_very_long_text_is_shown_as_it_is(show: Show) -> None:
    shown = show("[a](https://example.com) " * 3000)
    expect(shown).to_have_class("markdown plain")
    expect(shown.locator("a")).to_have_count(0)
