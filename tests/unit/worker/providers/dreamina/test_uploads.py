"""The four steps of an upload (protocol section 5) against recorded responses."""

import io
import json
import zlib
from typing import Any

import httpx
import pytest

from tests.support.recorded_upstream import SESSION, ScriptedUpstream, load_fixture, make_account
from tests.support.servers.fake_clock import use_clock
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.providers.base import Material, NotSentError, Reference
from worker.providers.dreamina import uploads
from worker.providers.dreamina.signing import AwsCredentials, canonical_query, sign_aws_request

DATA = b"hello world"
URI = "tos-cn-i-tb4s082cfz/0000000000000000000000000000aaaa"
KEYS = AwsCredentials("AKTPSYNTHETICACCESSKEY0001", "SYNTHETIC/secret+key/0001", "STS2SYNTHETICSESSIONTOKEN0001")


class UploadServer:
    """An upstream that accepts uploads; the response of each step can be replaced."""

    def __init__(self, region: str = "cn", **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "token": load_fixture(f"get_upload_token.image.{region if region in {'cn', 'us'} else 'sg'}.json"),
            "apply": load_fixture("apply_image_upload.json"),
            "put": load_fixture("tos_upload.ok.json"),
            "commit": load_fixture("commit_image_upload.json"),
            **answers,
        }
        self.steps: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("get_upload_token"):
            step = "token"
        elif request.url.path.startswith("/upload/v1/"):
            step = "put"
        else:
            step = "apply" if request.method == "GET" else "commit"
        self.steps.append(step)
        answer = self.answers[step]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def upload(region: str = "cn", data: Any = DATA, **answers: Any) -> tuple[Reference, ScriptedUpstream, UploadServer]:
    steps = UploadServer(region, **answers)
    script = ScriptedUpstream(steps)
    return event_loop.run(script.provider.upload_image(make_account(region), data, name="cat.png")), script, steps


def upload_error(**answers: Any) -> DreameryError:
    with pytest.raises(DreameryError) as caught:
        upload(**answers)
    failure = caught.value
    assert "SYNTHETIC" not in f"{failure!r} {failure.message} {failure.detail}"
    assert "upload of cat.png" in str(failure.detail)
    return failure


# --- signatures (section 5.5) ---


@pytest.mark.parametrize(
    ("method", "query", "body", "signature"),
    [
        (
            "GET",
            {
                "Version": "2018-08-01",
                "Action": "ApplyImageUpload",
                "FileSize": "1048576",
                "ServiceId": "tb4s082cfz",
            },
            b"",
            "4bdc6f4eb237a22d94ec56668f24d12db579b2f89730f6650c205fae09991fbd",
        ),
        (
            "POST",
            {"Action": "CommitImageUpload", "ServiceId": "tb4s082cfz", "Version": "2018-08-01"},
            b'{"SessionKey":"U1lOVEhFVElDX1NFU1NJT05fS0VZ"}',
            "e5b8abca1ed8b76cbd0788aa711a5e1b093eaf1cc1e77d588174909c4c55c10a",
        ),
    ],
)
def test_signature_matches_published_vectors(method, query, body, signature):
    headers = sign_aws_request(
        KEYS, method, query, body, moment="20231114T221320Z", region="cn-north-1", service="imagex"
    )
    assert headers["authorization"].endswith(f"Signature={signature}")
    if method == "POST":
        recorded = load_fixture("commit_image_upload.request.json")["headers"]
        assert recorded["x-amz-content-sha256"] == headers["x-amz-content-sha256"]
        assert recorded["authorization"].replace("<hex>", signature) == headers["authorization"]


def test_canonical_query_is_escaped_and_sorted():
    assert canonical_query({"b": "1 2/~", "A": "é"}) == "A=%C3%A9&b=1%202%2F~"


def test_credentials_are_not_in_repr():
    assert repr(KEYS) == "AwsCredentials()"


# --- the steps ---


@pytest.mark.parametrize(
    ("region", "host", "service", "aws_region"),
    [
        ("cn", "imagex.bytedanceapi.com", "tb4s082cfz", "cn-north-1"),
        ("us", "imagex16-normal-us-ttp.capcutapi.us", "wopfjsm1ax", "us-east-1"),
        ("jp", "imagex-normal-sg.capcutapi.com", "wopfjsm1ax", "ap-southeast-1"),
    ],
)
@pytest.mark.parametrize("names_host", [True, False])
def test_image_upload(region, host, service, aws_region, names_host):
    answers = {}
    if not names_host:
        token = load_fixture("get_upload_token.image.cn.json")
        for name in ("space_name", "service_id", "upload_domain"):
            token["data"].pop(name)
        answers["token"] = token
    reference, script, steps = upload(region, **answers)
    assert reference == Reference(URI, 1024, 1536, "png")
    assert steps.steps == ["token", "apply", "put", "commit"]
    token, apply, put, commit = script.requests
    assert json.loads(token.content) == {"scene": 2}
    assert SESSION in token.headers["cookie"]
    assert (apply.url.host, apply.url.params["ServiceId"]) == (host, service)
    assert apply.url.params["FileSize"] == str(len(DATA))
    assert ("device_platform" in apply.url.params) == (region != "cn")
    for request in (apply, commit):
        assert f"/{aws_region}/imagex/aws4_request" in request.headers["authorization"]
        query = dict(request.url.params)
        expected = sign_aws_request(
            KEYS,
            request.method,
            query,
            request.content,
            moment=request.headers["x-amz-date"],
            region=aws_region,
            service="imagex",
        )
        assert {name: request.headers[name] for name in expected} == expected
        assert request.url.query.decode() == canonical_query(query)
    assert str(put.url) == f"https://tos-upload.example.test/upload/v1/{URI}"
    assert put.content == DATA
    assert put.headers["authorization"] == "SpaceKey/tb4s082cfz/1/:version:v2:SYNTHETIC"
    assert put.headers["content-crc32"] == "0d4a1185"
    assert json.loads(commit.content) == {"SessionKey": "U1lOVEhFVElDX1NFU1NJT05fS0VZ"}
    assert commit.headers["content-type"] == "application/json"
    for request in script.requests[1:]:
        assert "cookie" not in request.headers
        assert SESSION not in f"{request.url} {request.headers}"


def test_single_upload_host_and_commit_without_sizes():
    commit = load_fixture("commit_image_upload.json")
    del commit["Result"]["PluginResult"]
    reference, script, _ = upload(apply=load_fixture("apply_image_upload.singular_host.json"), commit=commit)
    assert script.requests[2].url.host == "tos-upload.example.test"
    assert reference == Reference(URI, 0, 0, "")


def test_file_is_sent_in_chunks_with_its_size():
    data = bytes(range(256)) * 4000
    file = io.BytesIO(data)
    file.seek(17)
    _, script, _ = upload(data=file)
    put = script.requests[2]
    assert put.content == data
    assert (put.headers["content-length"], "transfer-encoding" in put.headers) == (str(len(data)), False)
    assert put.headers["content-crc32"] == f"{zlib.crc32(data):08x}"


def test_checksum_keeps_leading_zeros():
    data = next(bytes([n, m]) for n in range(256) for m in range(256) if zlib.crc32(bytes([n, m])) < 0x01000000)
    _, script, _ = upload(data=data)
    assert len(script.requests[2].headers["content-crc32"]) == 8


# --- failures ---


def test_upload_that_is_not_stored_fails():
    assert upload_error(put=load_fixture("tos_upload.crc_mismatch.json")).code == "upstream_error"
    commit = load_fixture("commit_image_upload.json")
    commit["Result"]["Results"][0]["UriStatus"] = 4000
    assert upload_error(commit=commit).code == "upstream_error"


def test_refused_signature_has_its_own_code():
    failure = upload_error(apply=load_fixture("apply_image_upload.error.json"))
    assert failure.code == "upstream_sign_error"
    assert "SignatureDoesNotMatch" in str(failure.detail)


@pytest.mark.parametrize("step", ["token", "apply", "put", "commit"])
@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("no"), httpx.ReadTimeout("slow"), httpx.Response(502, text="<html>")]
)
def test_unreachable_upload_host_is_never_unclear(step, answer):
    assert isinstance(upload_error(**{step: answer}), NotSentError)


@pytest.mark.parametrize("step", ["apply", "put", "commit"])
def test_busy_upload_host_raises_rate_limit(step):
    assert upload_error(**{step: httpx.Response(429, text="slow down")}).code == "rate_limit_exceeded"


def test_expired_session_is_reported_by_the_token_call():
    assert upload_error(token=load_fixture("error.login_expired.json")).code == "upstream_session_expired"


@pytest.mark.parametrize(
    "change",
    [
        {"StoreInfos": None},
        {"UploadHosts": ["evil host/"], "UploadHost": None},
        {"SessionKey": 5},
        {"StoreInfos": [{"StoreUri": "a/../../b", "Auth": "x"}]},
        {"StoreInfos": [{"StoreUri": "a?b", "Auth": "x"}]},
        {"StoreInfos": [{"StoreUri": "a", "Auth": "x\r\nEvil: 1"}]},
    ],
)
def test_unusable_upload_address_is_refused(change):
    apply = load_fixture("apply_image_upload.json")
    apply["Result"]["UploadAddress"] |= change
    assert upload_error(apply=apply).code == "upstream_error"


@pytest.mark.parametrize("data", [b"", io.BytesIO(b"")])
def test_empty_image_is_refused_before_any_call(data):
    steps = UploadServer()
    with pytest.raises(DreameryError) as caught:
        event_loop.run(ScriptedUpstream(steps).provider.upload_image(make_account(), data, name="x"))
    assert (caught.value.code, steps.steps) == ("invalid_value", [])


def test_too_large_image_is_refused(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 10)
    with pytest.raises(DreameryError, match="MiB"):
        upload(data=DATA)
    with pytest.raises(DreameryError, match="MiB"):
        upload(data=io.BytesIO(DATA))


# --- credentials ---


def test_credentials_are_cached_per_account_and_session_for_half_their_lifetime(monkeypatch):
    now = [1000.0]
    use_clock(monkeypatch, now, uploads)
    steps = UploadServer()
    provider = ScriptedUpstream(steps).provider

    def tokens(session: str = SESSION) -> int:
        steps.steps.clear()
        event_loop.run(provider.upload_image(make_account(session=session), DATA, name="x"))
        return steps.steps.count("token")

    assert [tokens(), tokens(), tokens("OTHER"), tokens()] == [1, 0, 1, 0]
    now[0] += 1799
    assert tokens() == 0
    now[0] += 2
    assert tokens() == 1


def test_early_expired_credentials_are_renewed_once():
    error = load_fixture("apply_image_upload.error.json")
    steps = UploadServer()
    provider = ScriptedUpstream(steps).provider
    event_loop.run(provider.upload_image(make_account(), DATA, name="x"))
    steps.answers["apply"] = [error, load_fixture("apply_image_upload.json")]
    steps.steps.clear()
    event_loop.run(provider.upload_image(make_account(), DATA, name="x"))
    assert steps.steps == ["apply", "token", "apply", "put", "commit"]
    steps.answers["apply"] = error
    steps.steps.clear()
    with pytest.raises(DreameryError):
        event_loop.run(provider.upload_image(make_account(), DATA, name="x"))
    assert steps.steps == ["apply", "token", "apply"]


def test_four_upload_steps_share_one_deadline(monkeypatch):
    now = [1000.0]
    use_clock(monkeypatch, now, uploads)
    steps = UploadServer()

    def slow(request: httpx.Request) -> httpx.Response:
        now[0] += 8
        return steps(request)

    with pytest.raises(NotSentError):
        event_loop.run(ScriptedUpstream(slow).provider.upload_image(make_account(), DATA, name="x"))
    assert steps.steps == ["token", "apply", "put"]
    steps.steps.clear()
    event_loop.run(ScriptedUpstream(slow).provider.upload_image(make_account(), DATA, name="x", seconds=60))
    assert steps.steps == ["token", "apply", "put", "commit"]


# --- upload hosts ---


def test_upstream_origin_also_replaces_upload_hosts():
    steps = UploadServer()
    script = ScriptedUpstream(steps, upstream_origin="http://127.0.0.1:7777")
    event_loop.run(script.provider.upload_image(make_account(), DATA, name="x"))
    assert {f"{request.url.scheme}://{request.url.netloc.decode()}" for request in script.requests} == {
        "http://127.0.0.1:7777"
    }
    assert [request.headers["x-orig-host"] for request in script.requests] == [
        "jimeng.jianying.com",
        "imagex.bytedanceapi.com",
        "tos-upload.example.test",
        "imagex.bytedanceapi.com",
    ]
    assert script.requests[2].url.path == f"/upload/v1/{URI}"


def test_sandbox_is_its_own_upload_host():
    token, apply = load_fixture("get_upload_token.image.us.json"), load_fixture("apply_image_upload.json")
    token["data"]["upload_domain"] = "127.0.0.1:9"
    apply["Result"]["UploadAddress"]["UploadHosts"] = ["127.0.0.1:9"]
    script = ScriptedUpstream(UploadServer(token=token, apply=apply), upstream_origin="http://127.0.0.1:7777")
    event_loop.run(script.provider.upload_image(make_account("sandbox"), DATA, name="x"))
    assert {f"{request.url.scheme}://{request.url.netloc.decode()}" for request in script.requests} == {
        "http://127.0.0.1:9"
    }
    assert all("x-orig-host" not in request.headers for request in script.requests)
    del token["data"]["upload_domain"]
    event_loop.run(script.provider.upload_image(make_account("sandbox", session="B"), DATA, name="x"))
    assert {request.url.port for request in script.requests} == {9}


# --- video and audio (section 5.7) ---


def media_steps(**answers: Any) -> UploadServer:
    return UploadServer(
        **{
            "token": load_fixture("get_upload_token.video.json"),
            "apply": load_fixture("apply_upload_inner.json"),
            "commit": load_fixture("commit_upload_inner.json"),
            **answers,
        }
    )


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_media_upload(kind):
    script = ScriptedUpstream(media_steps())
    material = event_loop.run(script.provider.upload_media(make_account(), DATA, kind=kind, name="x.mp4"))
    assert material == Material(kind, upload_id="v0synthetic0001", width=1280, height=720, milliseconds=4050)
    token, apply, put, commit = script.requests
    assert json.loads(token.content) == {"scene": 1}
    query = dict(apply.url.params)
    query.pop("s")
    assert (apply.url.host, query) == (
        "vod.bytedanceapi.com",
        {
            "Action": "ApplyUploadInner",
            "FileSize": "11",
            "FileType": kind,
            "IsInner": "1",
            "SpaceName": "dreamina",
            "Version": "2020-11-19",
        },
    )
    assert "/cn-north-1/vod/aws4_request" in apply.headers["authorization"]
    assert str(put.url) == "https://vod-upload.example.test/upload/v1/tos-cn-v-000000/synthetic0001"
    assert "content-disposition" not in put.headers
    assert json.loads(commit.content) == {"SessionKey": "U1lOVEhFVElDX1NFU1NJT05fS0VZ", "Functions": []}


def test_media_without_length_and_without_id():
    commit = load_fixture("commit_upload_inner.json")
    del commit["Result"]["Results"][0]["VideoMeta"]["Duration"]
    material = event_loop.run(
        ScriptedUpstream(media_steps(commit=commit)).provider.upload_media(make_account(), DATA, kind="video", name="x")
    )
    assert material.milliseconds == 0
    del commit["Result"]["Results"][0]["Vid"]
    with pytest.raises(DreameryError) as caught:
        event_loop.run(
            ScriptedUpstream(media_steps(commit=commit)).provider.upload_media(
                make_account(), DATA, kind="video", name="x"
            )
        )
    assert caught.value.code == "upstream_error"


def test_images_and_media_use_separate_credentials():
    steps = UploadServer()
    script = ScriptedUpstream(steps)
    event_loop.run(script.provider.upload_image(make_account(), DATA, name="x"))
    media = media_steps()
    steps.answers = media.answers
    event_loop.run(script.provider.upload_media(make_account(), DATA, kind="video", name="x"))
    assert steps.steps.count("token") == 2


# --- the Chinese content check (section 5.6) ---


def run_check(answer: Any, region: str = "cn") -> ScriptedUpstream:
    script = ScriptedUpstream(answer)
    event_loop.run(script.provider.check_image(make_account(region), Reference(URI)))
    return script


def test_content_check_equals_the_recording_and_runs_in_china_only():
    fixture = load_fixture("algo_proxy.request.json")
    script = run_check(httpx.Response(200, json={"ret": "0", "errmsg": "success", "data": {}}))
    assert (script.last_request.method, script.last_request.url.path) == (fixture["method"], fixture["path"])
    assert json.loads(script.last_request.content) == fixture["body"]
    babi_param = script.last_request.url.params["babi_param"]
    assert json.loads(babi_param) == json.loads(fixture["query_extra"]["babi_param"])
    assert run_check(httpx.Response(500), "us").requests == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("error.image_content_2003.json", "content_policy_violation"),
        (httpx.Response(200, json={"ret": "1", "errmsg": "Risk not pass"}), "content_policy_violation"),
        (httpx.Response(200, json={"ret": "0", "errmsg": "detected risk"}), "content_policy_violation"),
        ("error.rate_limited.json", "rate_limit_exceeded"),
        ("error.shark.json", "upstream_risk_control"),
        (httpx.Response(502), "upstream_unreachable"),
    ],
)
def test_only_content_codes_and_risk_texts_refuse_an_image(answer: Any, code: str):
    with pytest.raises(DreameryError) as caught:
        run_check(answer)
    assert caught.value.code == code
    assert SESSION not in f"{caught.value.message} {caught.value.detail}"
