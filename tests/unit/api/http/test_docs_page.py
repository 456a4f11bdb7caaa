"""The page /docs: complete in both languages, and safe with any address."""

import re
import tomllib
from importlib.resources import files

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.http.docs.openapi import install_openapi
from api.http.docs.page import _render
from api.http.errors import install_error_handlers


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(title="Dreamery", docs_url=None)
    install_openapi(app)
    install_error_handlers(app)
    return TestClient(app)


def test_language_is_chosen_by_the_query_then_by_the_header(client: TestClient) -> None:
    def lang(query: str, header: str) -> str | None:
        text = client.get(f"/docs{query}", headers={"Accept-Language": header}).text
        found = re.search(r'<html lang="([^"]+)"', text)
        return found and found[1]

    assert lang("", "zh-CN,zh;q=0.9,en;q=0.8") == "zh-CN"
    assert lang("", "en,zh;q=0.5") == lang("?lang=xx", "de") == "en"
    assert (lang("?lang=en", "zh"), lang("?lang=zh", "en")) == ("en", "zh-CN")


def test_every_text_and_client_is_in_both_languages() -> None:
    content = tomllib.loads((files("api.http.docs") / "page.toml").read_text("utf-8"))
    both = [
        *content["texts"].values(),
        *content["rules"],
        *(each["steps"] for each in content["clients"] if "steps" in each),
    ]
    assert all(set(text) == {"en", "zh"} and all(text.values()) for text in both)
    assert all(each.get("steps") or each.get("code") for each in content["clients"])
    pages = {language: _render("https://api.example", language) for language in ("en", "zh")}
    for page in pages.values():
        assert "${" not in page
        assert page.count("<details") == len(content["clients"])
        assert page.count("<dt>") == len(content["rules"]) + 1
    assert not re.search("[\u4e00-\u9fff]", pages["en"].replace("中文", ""))


def test_address_is_escaped_and_its_path_is_kept() -> None:
    page = _render('https://api.example/sub"><img src=x>', "en")
    assert "<img" not in page
    assert '<a href="/sub' in page
    assert "https://api.example/sub" in page


def test_only_the_files_of_the_page_are_served(client: TestClient) -> None:
    page = client.get("/docs").text
    for name in re.findall(r'(?:src|href)="/docs/([^"]+)"', page):
        assert client.get(f"/docs/{name}").status_code == 200, name
    for name in ("page.py", "page.toml", "page.html", "__init__.py", "redoc.standalone.js"):
        assert client.get(f"/docs/{name}").status_code == 404, name
