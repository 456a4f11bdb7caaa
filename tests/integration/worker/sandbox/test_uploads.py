"""Uploads to the sandbox in the four stages of the protocol, and errors in each stage."""

import io
import json
import uuid

import pytest
from PIL import Image, PngImagePlugin

from tests.support.sandbox_client import RECORDED, SandboxClient, get_violations, running_sandbox, signed_headers
from tests.unit.worker.sandbox.test_response_shapes import shape


def make_image(colour=(250, 0, 0), size=(64, 96), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_bytes())


@pytest.fixture(scope="module")
def http():
    with running_sandbox("--seconds", "0.05") as client:
        yield client


@pytest.fixture
def client(http):
    http.post("/_reset")
    return SandboxClient(http, uuid.uuid4().hex)


def test_upload_stages_match_the_recorded_ones(http, client):
    token = client.token()
    assert shape({**token}) == shape(recorded("get_upload_token.image.sg")["data"])
    assert token["upload_domain"] == f"{http.base_url.host}:{http.base_url.port}"
    raw = make_image()
    applied = client.apply(token, len(raw)).json()
    address = applied["Result"]["UploadAddress"]
    assert address.pop("UploadHost") == address["UploadHosts"][0]
    assert shape(applied) == shape(recorded("apply_image_upload"))
    stored = client.send(address, raw).json()
    assert shape(stored) == shape(recorded("tos_upload.ok"))
    done = client.commit(token, address["SessionKey"]).json()
    assert shape(done) == shape(recorded("commit_image_upload"))
    facts = done["Result"]["PluginResult"][0]
    assert (facts["ImageWidth"], facts["ImageHeight"], facts["ImageFormat"]) == (64, 96, "png")
    assert get_violations(http) == {}


CHINA, INTERNATIONAL = "513695", "513641"


@pytest.mark.parametrize("aid", [CHINA, INTERNATIONAL])
@pytest.mark.parametrize("size", [10, 1_048_576])
def test_upload_address_has_both_spellings_of_its_host(http, aid, size):
    http.post("/_reset")  # other tests of this module may have run before and left violations on purpose
    client = SandboxClient(http, uuid.uuid4().hex, aid=aid)
    token = client.token()
    addresses = [client.apply(token, size).json()["Result"]["UploadAddress"] for _ in range(3)]
    assert all(one["UploadHosts"] == [one["UploadHost"]] for one in addresses)
    assert get_violations(http) == {}


@pytest.mark.parametrize("session", ["singular-{}", "cn-singular-{}", "SINGULAR {}"])
def test_scripted_account_gets_the_singular_host_only(http, session):
    client = SandboxClient(http, session.format(uuid.uuid4().hex), aid=CHINA)
    token, raw = client.token(), make_image()
    applied = client.apply(token, len(raw)).json()
    applied["Result"].pop("RequestId")
    assert shape(applied) == shape(recorded("apply_image_upload.singular_host"))
    address = applied["Result"]["UploadAddress"]
    assert client.send(address, raw).json()["code"] == 2000
    assert client.commit(token, address["SessionKey"]).json()["Result"]["Results"][0]["UriStatus"] == 2000


def test_equal_bytes_get_separate_addresses(client):
    assert client.upload(make_image()) != client.upload(make_image())


def test_callers_of_upstream_hosts_get_upstream_hosts(http, client):
    token = client.token(**{"X-Orig-Host": "mweb-api-sg.capcut.com"})
    assert token["upload_domain"] == "imagex-normal-sg.capcutapi.com"
    query = f"Action=ApplyImageUpload&FileSize=9&ServiceId={token['space_name']}&Version=2018-08-01"
    headers = signed_headers(token, "GET", query, extra={"host": token["upload_domain"]})
    for host, status in ((token["upload_domain"], 200), ("imagex.bytedanceapi.com", 403)):
        answer = http.get(f"/?{query}", headers={**headers, "host": "egress.test", "X-Orig-Host": host})
        assert answer.status_code == status
    answer = client.token(scene=1, **{"X-Orig-Host": "mweb-api-sg.capcut.com"})
    assert shape(answer) == shape(recorded("get_upload_token.video")["data"])


def test_wrong_signature_is_refused_like_the_recorded_one(http, client):
    token = client.token()
    forged = client.apply({**token, "secret_access_key": "x"}, 10)
    assert forged.status_code == 403
    assert shape(forged.json()) == shape(recorded("apply_image_upload.error"))
    for change in ({"access_key_id": "AKTPnobody"}, {"session_token": "STS2other"}):
        assert "Error" in client.apply({**token, **change}, 10).json()["ResponseMetadata"]
    assert "Error" in client.apply(token, 0).json()["ResponseMetadata"]
    query = f"Action=CommitImageUpload&ServiceId={token['space_name']}&Version=2018-08-01"
    changed = http.post(f"/?{query}", content=b"{}", headers=signed_headers(token, "POST", query, b'{"a":1}'))
    assert changed.json()["ResponseMetadata"]["Error"]["Code"] == "SignatureDoesNotMatch"
    assert http.get(f"/?{query}").status_code == 400
    found = get_violations(http)
    assert found["SignatureDoesNotMatch"] == 2
    assert found["InvalidAccessKeyId"] == found["InvalidSecurityToken"] == found["InvalidParameter"] == 1


def test_the_store_checks_crc_size_and_authorization(http, client):
    token, raw = client.token(), make_image()
    address = client.apply(token, len(raw)).json()["Result"]["UploadAddress"]
    assert client.send(address, raw, **{"Content-CRC32": "d4a1185"}).json() == recorded("tos_upload.crc_mismatch")
    assert client.send(address, raw + b"x").json()["code"] == 4012
    assert client.send(address, raw, Authorization="SpaceKey/else").status_code == 403
    assert "Error" in client.commit(token, address["SessionKey"]).json()["ResponseMetadata"]
    assert get_violations(http)["tos 4013"] == 1


def test_commit_requires_readable_bytes_and_own_session_key(http, client):
    token, raw = client.token(), b"not an image"
    address = client.apply(token, len(raw)).json()["Result"]["UploadAddress"]
    assert client.send(address, raw).json()["code"] == 2000
    assert client.commit(token, address["SessionKey"]).json()["ResponseMetadata"]["Error"]["Code"] == "InvalidFormat"
    other = SandboxClient(http, uuid.uuid4().hex)
    answer = other.commit(other.token(), address["SessionKey"]).json()
    assert answer["ResponseMetadata"]["Error"]["Code"] == "InvalidSessionKey"
    assert client.post("/mweb/v1/get_upload_token", {"scene": 9})["ret"] == "1000"


def test_faults_apply_to_upload_gateways(http, client):
    token, raw = client.token(), make_image()
    http.post("/_faults", json={"http_500": 1, "paths": ["/upload/v1"]})
    try:
        address = client.apply(token, len(raw)).json()["Result"]["UploadAddress"]
        assert client.send(address, raw).status_code == 500
    finally:
        http.post("/_faults", json={})
    assert client.send(address, raw).json()["code"] == 2000


# --- the content check of an upload ---

CHECK = "/mweb/v1/algo_proxy"


def check(client, uri, *, change=None, entrance=None):
    """Send the recorded content check of an upload with changed fields."""
    recorded = json.loads((RECORDED / "algo_proxy.request.json").read_bytes())
    query = {"babi_param": entrance or recorded["query_extra"]["babi_param"]}
    body = {**recorded["body"], "file_list": [{"file_uri": uri}], **(change or {})}
    return client.post(CHECK, body, query=query)["ret"]


def test_content_check_is_scripted_by_the_image_comment(client):
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", "[[refuse:2003]]")
    Image.new("RGB", (32, 32), "red").save(out, "PNG", pnginfo=info)
    assert check(client, client.upload(make_image())) == "0"
    assert check(client, client.upload(out.getvalue())) == "2003"
    assert get_violations(client.http) == {}


def test_invalid_content_check_is_refused(http, client):
    uri = client.upload(make_image())
    other = SandboxClient(http, uuid.uuid4().hex)
    for change in ({"scene": "x"}, {"req_key": "x"}, {"options": {}}, {"req_params": 1}, {"file_list": []}):
        assert check(client, uri, change=change) == "1000"
    assert check(client, uri, entrance="{}") == "1000"
    assert check(client, "tos-cn-i-tb4s082cfz/unknown") == "1000"
    assert check(other, uri) == "1000"
    assert get_violations(http)["1000"] == 8
