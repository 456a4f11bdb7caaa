"""Error messages in the caller's language; no other part of a response depends on it."""

import re
from contextvars import copy_context

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.http.errors import select_language
from worker.core.errors import ERRORS
from worker.core.settings import get_settings

CHINESE = re.compile(r"[\u4e00-\u9fff]{2}")
# Names of fields and models, and words that an error quotes, are at most two in a row.
ENGLISH_WORDS = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("language"))
        patch.setenv("DREAMERY_MASTER_KEY", "a key for tests only")
        patch.setenv("DREAMERY_SESSION_TOKENS", "on")
        patch.setenv("DREAMERY_SANDBOX_URL", "http://127.0.0.1:1")
        patch.setenv("DREAMERY_LOG_LEVEL", "error")
        get_settings.cache_clear()
        yield TestClient(create_app(), headers={"Authorization": "Bearer me:sandbox"})
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("header", "chinese"),
    [
        ("zh", True),
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("ZH-Hant-TW", True),
        ("en;q=0.5, zh-CN;q=0.9", True),
        ("en-US,en;q=0.9,zh;q=0.8", False),
        ("zh;q=0", False),
        ("zh;q=x", False),
        ("zhuang", False),
        ("*", False),
        ("", False),
        (";;,,q=", False),
    ],
)
def test_accept_language_selects_chinese(header, chinese):
    # In its own context, because the language belongs to a request and all tests share this thread.
    assert copy_context().run(select_language, header).chinese is chinese


def test_error_message_is_in_chinese_on_request(client):
    english = client.get("/v1/models/gpt-9")
    chinese = client.get("/v1/models/gpt-9", headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert english.status_code == chinese.status_code == 404
    assert english.headers["vary"] == chinese.headers["vary"] == "Origin, Accept-Language"
    one, other = english.json()["error"], chinese.json()["error"]
    assert {**one, "message": ""} == {**other, "message": ""}
    # A whole Chinese sentence with the details of the English one.
    assert other["message"].startswith("模型 'gpt-9' 不存在。`GET /v1/models` 列出可用的模型")
    assert "Unknown" not in other["message"]


def test_error_without_details_has_only_the_table_text(client):
    headers = {"Accept-Language": "zh", "Authorization": ""}
    assert client.get("/v1/models", headers=headers).json()["error"]["message"] == ERRORS["missing_api_key"].message_zh


def test_response_without_error_does_not_vary_by_language(client):
    answer = client.get("/v1/models", headers={"Accept-Language": "zh"})
    assert "Accept-Language" not in answer.headers["vary"]


def test_framework_and_middleware_errors_are_translated(client):
    headers = {"Accept-Language": "zh"}
    for response in (
        client.get("/nowhere", headers=headers),
        client.post("/v1/images/generations", content=b"{", headers=headers),
        client.post("/v1/images/generations", content=b"x" * 1_000_001, headers=headers),
    ):
        error = response.json()["error"]
        assert CHINESE.search(error["message"])
        assert not ENGLISH_WORDS.search(error["message"]), error["message"]
