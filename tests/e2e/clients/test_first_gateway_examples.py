"""The curl examples of the first gateway's README, word for word, with international session ids of every site."""

import io
import json
import re
import shlex
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.api_client import ApiClient, new_session
from tests.support.platform import ROOT
from worker.core.media.video import inspect_video

COMMANDS = re.findall(
    r"^# (.+)\n(curl (?:.+\n)+)",
    (ROOT / "tests/fixtures/clients/first_gateway.sh").read_text(encoding="utf-8"),
    re.MULTILINE,
)
# The session as the README sends it, without a region (the US are detected), and with the region of each other site.
SESSIONS = {
    "bare": ("caller-us-", "{}"),
    "us": ("caller-us-", "us-{}"),
    "asia": ("caller-sg-", "sg-{}"),
    "japan": ("caller-jp-", "{}:jp"),
}


def run_curl(command: str, client: ApiClient, key: str, frames: list[str]) -> httpx.Response:
    """Send what the command would send; only address, session id and the placeholder pictures are replaced."""
    for placeholder in ("YOUR_SESSION_ID", "<sessionid>"):
        command = command.replace(placeholder, key)
    for name, link in zip(("first_frame.jpg", "end_frame.jpg"), frames, strict=True):
        command = command.replace(f"https://example.com/{name}", link)
    words = shlex.split(command.replace("\\\n", " ").replace("http://localhost:8000", client.platform.url))
    options = dict.fromkeys(("-X", "-d"), "")
    headers: dict[str, str] = {}
    rest = iter(words[1:])
    for word in rest:
        if word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word in options:
            options[word] = next(rest)
        elif word != "-N":
            url = word
    with httpx.Client(timeout=60, trust_env=False) as http:
        return http.request(options["-X"], url, headers=headers, content=options["-d"].encode())


@pytest.fixture(params=SESSIONS)
def key(request: pytest.FixtureRequest) -> str:
    hint, form = SESSIONS[request.param]
    return form.format(new_session(hint))


def result_links(answer: dict[str, Any]) -> list[str]:
    if "data" in answer:
        return [item["url"] for item in answer["data"]]
    content = answer["choices"][0]["message"]["content"]
    return list(dict.fromkeys(re.findall(r"(?:\]\(|src=\")(http[^)\"]+)", content)))


@pytest.mark.parametrize(("title", "command"), COMMANDS, ids=[title for title, _ in COMMANDS])
def test_example_works_unchanged(multi_region_platform, key, title, command):
    with ApiClient(multi_region_platform, key) as client:
        made = client.generate_images(n=1, model="jimeng-4.0").json()["data"][0]["url"]
        response = run_curl(command, client, key, [made, made])
        assert response.status_code == 200, response.text
        if '"stream": true' in command:
            assert response.headers["content-type"].startswith("text/event-stream")
            chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
            assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
            assert response.text.rstrip().endswith("data: [DONE]")
            return
        job = client.job(response.headers["x-job-id"])
        assert (job["status"], job["input"]["prompt"]) == (
            "completed",
            "跑起来" if "video" in command else "少女祈祷中...",
        )
        links = result_links(response.json())
        files = [httpx.get(link, trust_env=False) for link in links]
        if "video" in command:
            facts = inspect_video(io.BytesIO(files[0].content))
            assert round(facts.milliseconds / 1000) == 5
            assert job["model"] == "jimeng-video-3.0-pro"
        else:
            assert len(files) == 4
            assert {Image.open(io.BytesIO(one.content)).size for one in files} == {(5404, 3040)}


def test_every_example_of_the_readme_is_here():
    assert len(COMMANDS) == 5
    assert [title for title, _ in COMMANDS].count("对话接口（视频生成）") == 1
