"""The MCP server with the official client: streamable HTTP, `dreamery mcp`, and an agent framework."""

import asyncio
import base64
import json
import random

import anyio
import httpx
import pytest
from mcp.shared.exceptions import MCPError

from tests.e2e.clients.mcp_client import ERAS, Progress, User, connect, error_of, start_command, text_of
from tests.support.api_client import ApiClient, new_key
from tests.support.client_environments import run

PICTURE = {"prompt": "a red boat", "n": 1, "resolution": "1k"}
ASK_ALWAYS = {"x-confirm-above": "0"}


@pytest.fixture
def caller(api_platform):
    with ApiClient(api_platform) as caller:
        yield caller


@pytest.fixture(scope="module")
def admin(api_platform):
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


async def download(url: str) -> bytes:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        return (await http.get(url)).content


def create_key(admin: ApiClient, **fields: object) -> str:
    name = f"mcp-{random.SystemRandom().randrange(10**12)}"
    assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    answer = admin.http.post("/admin/v1/keys", json={"user": name, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


@pytest.mark.parametrize("era", ERAS)
def test_picture_is_made_changed_and_read(api_platform, caller, era):
    async def session() -> None:
        async with connect(api_platform, caller.key, era=era) as client:
            progress = Progress()
            made = await client.call_tool("make_picture", PICTURE, progress_callback=progress)
            [job] = made.structured_content["jobs"]
            [file] = job["files"]
            assert (made.structured_content["done"], job["status"], job["currency"]) == (True, "completed", "credits")
            assert job["id"] in progress.seen[0][1]
            values = [value for value, _ in progress.seen]
            assert values == sorted(set(values)), "each notification has a larger value"
            assert values[-1] == 100
            kinds = [block.type for block in made.content]
            assert kinds == ["text", "text", "resource_link", "resource_link", "image"]
            assert json.loads(made.content[1].text) == made.structured_content
            assert (made.content[3].uri, made.content[3].mime_type) == (file["uri"], file["mime_type"])
            read = await client.read_resource(file["uri"])
            assert base64.b64decode(read.contents[0].blob) == await download(file["url"])
            changed = await client.call_tool("edit_picture", {**PICTURE, "prompt": "at night", "images": [file["uri"]]})
            assert len(caller.job(changed.structured_content["jobs"][0]["id"])["input"]["images"]) == 1
            listed = [resource.uri for resource in (await client.list_resources()).resources]
            assert listed[0] == "dreamery://models"
            assert job["uri"] in listed
            whole = await client.read_resource(job["uri"])
            assert json.loads(whole.contents[0].text)["id"] == job["id"]

    asyncio.run(session())


def test_tools_that_read(api_platform, caller):
    async def session() -> None:
        async with connect(api_platform, caller.key) as client:
            models = (await client.call_tool("list_models", {"kind": "video"})).structured_content["models"]
            assert {model["kind"] for model in models} == {"video"}
            wanted = {"tool": "make_video", "arguments": {"prompt": "waves", "model": models[0]["id"]}}
            estimate = (await client.call_tool("estimate", wanted)).structured_content
            assert estimate["cost"] > 0
            assert not caller.submits()
            balance = (await client.call_tool("balance", {})).structured_content
            assert [account["problem"] for account in balance["accounts"]] == [None]
            assert not (await client.call_tool("list_jobs", {})).structured_content["jobs"]

    asyncio.run(session())


def test_video_continues_after_the_wait_and_is_cancelled(api_platform, caller):
    async def session() -> None:
        async with connect(api_platform, caller.key) as client:
            begun = await client.call_tool("make_video", {"prompt": "waves [[seconds:60]]", "wait_seconds": 0})
            [job] = begun.structured_content["jobs"]
            assert not begun.structured_content["done"]
            assert f"wait_for_job with job_id {job['id']}" in text_of(begun)
            waited = await client.call_tool("wait_for_job", {"job_id": job["id"], "wait_seconds": 1})
            assert waited.structured_content["jobs"][0]["status"] in {"queued", "in_progress"}
            cancelled = await client.call_tool("cancel_job", {"job_id": job["id"]})
            assert cancelled.structured_content["id"] == job["id"]
            ended = await client.call_tool("wait_for_job", {"job_id": job["id"]})
            assert ended.is_error
            assert ended.structured_content["jobs"][0]["status"] == "cancelled"

    asyncio.run(session())


@pytest.mark.parametrize("era", ERAS)
def test_lost_call_does_not_lose_its_job(api_platform, caller, era):
    wanted = {**PICTURE, "prompt": "a boat [[seconds:2]]"}

    async def lose(progress: Progress) -> None:
        async with connect(api_platform, caller.key, era=era) as client:
            await client.call_tool("make_picture", wanted, progress_callback=progress)

    async def session() -> list[str]:
        progress = Progress()
        async with anyio.create_task_group() as lost:
            lost.start_soon(lose, progress)
            await progress.began.wait()
            lost.cancel_scope.cancel()
        async with connect(api_platform, caller.key, era=era) as client:
            job_id = progress.seen[0][1].removeprefix("Accepted: ")
            found = await client.call_tool("wait_for_job", {"job_id": job_id})
            assert found.structured_content["jobs"][0]["status"] == "completed"
            repeated = await client.call_tool("make_picture", wanted)
            assert repeated.structured_content["jobs"][0]["id"] == job_id, "it is not paid twice"
            other = await client.call_tool("make_picture", {**wanted, "wait_seconds": 0})
            return [other.structured_content["jobs"][0]["id"], job_id]

    # The second one was answered, so the third one is a new request.
    expected = asyncio.run(session())
    assert [job["id"] for job in caller.http.get("/v1/jobs").json()["data"]] == expected


def test_repeat_with_the_same_key_is_paid_once(api_platform, caller):
    async def session() -> None:
        async with connect(api_platform, caller.key) as client:
            wanted = {**PICTURE, "idempotency_key": "one"}
            first, second = [await client.call_tool("make_picture", wanted) for _ in range(2)]
            assert first.structured_content["jobs"][0]["id"] == second.structured_content["jobs"][0]["id"]
            other = await client.call_tool("make_picture", {**wanted, "prompt": "a blue boat"})
            assert error_of(other)["code"] == "idempotency_key_reuse"

    asyncio.run(session())
    assert len(caller.submits()) == 1


def test_user_agrees_or_not_in_a_client_that_asks(api_platform, caller):
    async def session(user: User) -> object:
        async with connect(api_platform, caller.key, user=user, headers=ASK_ALWAYS) as client:
            return await client.call_tool("make_picture", PICTURE)

    refusing, agreeing = User("decline"), User()
    assert error_of(asyncio.run(session(refusing)))["code"] == "cost_not_confirmed"
    assert not caller.submits()
    assert not asyncio.run(session(agreeing)).is_error
    assert len(caller.submits()) == 1
    assert agreeing.questions == refusing.questions
    assert "credits" in agreeing.questions[0]


@pytest.mark.parametrize("era", ERAS)
def test_client_that_cannot_ask_confirms_by_an_argument(api_platform, caller, era):
    async def session() -> None:
        async with connect(api_platform, caller.key, era=era, headers=ASK_ALWAYS) as client:
            error = error_of(await client.call_tool("make_picture", PICTURE))
            assert (error["code"], error["param"]) == ("confirmation_required", "confirm_cost")
            cost = (
                await client.call_tool("estimate", {"tool": "make_picture", "arguments": PICTURE})
            ).structured_content
            assert cost["needs_confirmation"]
            assert f"`confirm_cost`: {cost['cost']:g}" in error["message"]
            too_little = await client.call_tool("make_picture", {**PICTURE, "confirm_cost": cost["cost"] - 0.5})
            assert error_of(too_little)["code"] == "confirmation_required"
            assert not caller.submits()
            assert not (await client.call_tool("make_picture", {**PICTURE, "confirm_cost": cost["cost"]})).is_error

    asyncio.run(session())
    assert len(caller.submits()) == 1


def test_errors_are_those_of_the_rest_api(api_platform, caller):
    async def session() -> None:
        async with connect(api_platform, caller.key, headers={"accept-language": "zh"}) as client:
            for arguments, code, param in (
                ({**PICTURE, "n": 99}, "invalid_value", "n"),
                ({**PICTURE, "model": "no-such-model"}, "model_not_found", "model"),
                ({**PICTURE, "prompt": "x" * 40_000}, "prompt_too_long", "prompt"),
                ({**PICTURE, "max_cost": 0.1}, "max_cost_exceeded", "max_cost"),
            ):
                error = error_of(await client.call_tool("make_picture", arguments))
                assert (error["code"], error["param"]) == (code, param)
                rest = caller.http.post(
                    "/v1/images/generations", json=arguments, headers={"accept-language": "zh"}
                ).json()
                if code != "max_cost_exceeded":  # a limit in credits exists for tools only
                    assert error["message"] == rest["error"]["message"]
            failed = await client.call_tool("make_picture", {**PICTURE, "prompt": "a boat [[fail:2005]]"})
            assert failed.is_error
            assert failed.structured_content["jobs"][0]["error"]["code"] == "content_policy_violation"
            assert error_of(await client.call_tool("no_such_tool", {}))["param"] == "name"

    asyncio.run(session())


def test_rights_and_budgets_of_the_key_apply(api_platform, admin):
    reader, owner = create_key(admin, scopes=["read"]), create_key(admin, limits={"jobs_per_day": 1})

    async def session() -> None:
        async with connect(api_platform, reader) as client:
            assert error_of(await client.call_tool("make_picture", PICTURE))["code"] == "forbidden"
            assert not (await client.call_tool("list_jobs", {})).is_error
        async with connect(api_platform, owner) as client:
            made = (await client.call_tool("make_picture", PICTURE)).structured_content["jobs"][0]
            error = error_of(await client.call_tool("make_picture", {**PICTURE, "prompt": "more"}))
            assert (error["code"], error["limit"]) == ("budget_exceeded", "key.jobs_per_day")
            assert (
                "'jobs per day' of this API key is reached: 1 of 1 used; this request needs 1 more." in error["message"]
            )
            assert "ask an administrator" in error["message"]
            # It resets tomorrow: an agent that repeats the call in a minute gains nothing.
            assert error["resets_at"].endswith("T00:00:00Z")
            assert "retry_after" not in error
            jobs = (await client.call_tool("list_jobs", {})).structured_content["jobs"]
            assert [job["id"] for job in jobs] == [made["id"]], "nothing was created"
            assert ", resets at " in (await client.call_tool("balance", {})).content[0].text
            limits = (await client.call_tool("balance", {})).structured_content["limits"]
            assert ("key.jobs_per_day", 0) in {(limit["name"], limit["remaining"]) for limit in limits}
        async with connect(api_platform, new_key()) as stranger:
            assert error_of(await stranger.call_tool("wait_for_job", {"job_id": made["id"]}))["code"] == "job_not_found"
            for uri in (
                made["uri"],
                made["files"][0]["uri"],
                "dreamery://jobs/job_1/../../admin",
                "file:///etc/passwd",
            ):
                with pytest.raises(MCPError):
                    await stranger.read_resource(uri)
            taken = await stranger.call_tool("edit_picture", {**PICTURE, "images": [made["files"][0]["uri"]]})
            assert error_of(taken)["code"] == "job_not_found"

    asyncio.run(session())


@pytest.mark.parametrize("era", ERAS)
def test_command_serves_a_client_that_starts_it(api_platform, caller, era):
    async def session() -> None:
        user = User()
        async with start_command(api_platform.url, caller.key, "--confirm-above", "0", era=era, user=user) as client:
            progress = Progress()
            made = await client.call_tool("make_picture", PICTURE, progress_callback=progress)
            [job] = made.structured_content["jobs"]
            assert job["status"] == "completed"
            assert progress.seen[-1] == (100, f"{job['id']}: completed")
            assert len(user.questions) == 1
            read = await client.read_resource(job["files"][0]["uri"])
            assert base64.b64decode(read.contents[0].blob) == await download(job["files"][0]["url"])
            slow = {**PICTURE, "prompt": "a boat [[seconds:3]]", "wait_seconds": 0.5}
            unfinished, repeated = [await client.call_tool("make_picture", slow) for _ in range(2)]
            assert not unfinished.structured_content["done"]
            assert repeated.structured_content["jobs"][0]["id"] == unfinished.structured_content["jobs"][0]["id"]

    asyncio.run(session())
    assert len(caller.submits()) == 2


def test_agent_of_a_framework_uses_the_tools(api_platform):
    output = run("pydantic-ai", "check.py", api_platform, new_key(), "http")
    assert "http ok" in output.splitlines()
