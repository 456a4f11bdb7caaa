"""Videos and blend images of the sandbox: drafts, records, and real files that show their inputs."""

import io
import json
import uuid

import av
import pytest
from PIL import Image

from tests.integration.worker.sandbox.test_uploads import make_image
from tests.support.sandbox_client import GENERATE, RECORDED, SandboxClient, get_violations, running_sandbox

LOCAL_ITEMS = "/mweb/v1/get_local_item_list"
RED, BLUE = (230, 20, 20), (20, 20, 230)


@pytest.fixture(scope="module")
def http():
    with running_sandbox("--seconds", "0.05", "--credits", "1000", "--video-slots", "1") as client:
        yield client


@pytest.fixture
def client(http):
    http.post("/_reset")
    return SandboxClient(http, uuid.uuid4().hex)


@pytest.fixture
def chinese(http):
    http.post("/_reset")
    return SandboxClient(http, uuid.uuid4().hex, aid="513695")


def draft(name, change, prompt=None):
    """Return a recorded request with a new id; `change` edits the abilities of its draft."""
    body = json.loads((RECORDED / f"generate.{name}.json").read_bytes())["body"]
    inside = json.loads(body["draft_content"])
    change(inside["component_list"][0]["abilities"])
    return {**body, "submit_id": str(uuid.uuid4()), "draft_content": json.dumps(inside)}


def set_upload(image, uri, size=(0, 0)):
    image |= {"image_uri": uri, "uri": uri, "width": size[0], "height": size[1]}


def video_input_of(abilities):
    return abilities["gen_video"]["text_to_video_params"]["video_gen_inputs"][0]


def text_video(prompt="the boat drifts slowly", **changes):
    return draft("video.text.request", lambda abilities: video_input_of(abilities).update(prompt=prompt, **changes))


def frame_video(first, last=None, prompt="a boat"):
    def change(abilities):
        video_input = video_input_of(abilities)
        video_input["prompt"] = prompt
        set_upload(video_input["first_frame_image"], first)
        if last:
            set_upload(video_input["end_frame_image"], last)

    return draft("video.first_last.request" if last else "video.first_frame.request", change)


def blend(name, *uris, prompt="##a hat"):
    def change(abilities):
        core = abilities["blend"]["core_param"]
        core["prompt"] = prompt
        core["large_image_info"] |= {"width": 1024, "height": 1024, "resolution_type": "1k"}
        for ability, uri in zip(abilities["blend"]["ability_list"], uris, strict=True):
            ability["image_uri_list"] = [uri]
            set_upload(ability["image_list"][0], uri)

    return draft(f"blend.request.{name}", change)


def run(client, body):
    answer = client.post(GENERATE, body)
    assert answer["ret"] == "0", get_violations(client.http)
    return client.finish(body["submit_id"])


def fetch(client, url):
    answer = client.http.get(url)
    assert answer.status_code == 200
    return answer


def frames_of(raw):
    with av.open(io.BytesIO(raw)) as media:
        return [frame.to_image() for frame in media.decode(video=0)]


def is_near(colour, expected):
    return all(abs(a - b) < 60 for a, b in zip(colour, expected, strict=True))


def versions(record):
    return record["item_list"][0]["video"]["transcoded_video"]


def test_blend_image_shows_its_references(client):
    uris = [client.upload(make_image(colour, size=(300, 300))) for colour in (RED, BLUE)]
    record = run(client, blend("us.two_refs", *uris, prompt="####both"))
    assert (record["status"], record["generate_type"], len(record["item_list"])) == (50, 12, 4)
    url = record["item_list"][0]["image"]["large_images"][0]["image_url"]
    shown = Image.open(io.BytesIO(fetch(client, url).content)).convert("RGB")
    assert shown.size == (1024, 1024)
    assert is_near(shown.getpixel((300, 512)), RED)
    assert is_near(shown.getpixel((720, 512)), BLUE)
    assert get_violations(client.http) == {}


def test_other_accounts_uploads_are_refused(http, client):
    other = SandboxClient(http, uuid.uuid4().hex)
    uri = other.upload(make_image())
    for body in (blend("us.two_refs", uri, uri), frame_video(uri), frame_video("tos-alisg-i-wopfjsm1ax/unknown")):
        assert client.post(GENERATE, body)["ret"] == "1000"
    assert get_violations(http)["1000"] == 3
    assert "upload of this account" in get_violations(http)["details"][-1]["detail"]


def test_text_video_is_a_real_file(client):
    record = run(client, text_video())
    assert (record["generate_type"], record["total_image_count"], record["finished_image_count"]) == (10, 0, 0)
    video = record["item_list"][0]["video"]
    origin = versions(record)["origin"]
    answer = fetch(client, origin["video_url"])
    assert answer.headers["content-type"] == "video/mp4"
    raw = answer.content
    assert len(raw) < 400_000
    assert raw.find(b"moov") < raw.find(b"mdat")
    with av.open(io.BytesIO(raw)) as media:
        stream = media.streams.video[0]
        assert (stream.codec_context.name, stream.format.name) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (origin["width"], origin["height"]) == (1280, 720)
        assert media.duration == pytest.approx(video["duration_ms"] * 1000, rel=0.01)
    frames = frames_of(raw)
    assert len(frames) == 20
    assert frames[0].tobytes() != frames[-1].tobytes()
    assert fetch(client, record["item_list"][0]["common_attr"]["cover_url"]).headers["content-type"] == "image/jpeg"
    ledger = client.http.get("/_ledger").json()
    assert ledger["accounts"][client.name]["charged"] == 25
    assert get_violations(client.http) == {}


def test_scripted_records_have_one_form_and_item_list_has_the_original(client):
    first, second = (run(client, text_video(f"boat [[links:{form}]]")) for form in ("origin", "sizes"))
    assert list(versions(first)) == ["origin"]
    assert list(versions(second)) == ["360p", "480p", "720p"]
    small = frames_of(fetch(client, versions(second)["360p"]["video_url"]).content)[0]
    assert small.size == (640, 360)
    item_ids = [record["item_list"][0]["common_attr"]["id"] for record in (first, second)]
    body = {"item_id_list": [*item_ids, "7"], "pack_item_opt": {"scene": 1, "need_data_integrity": True}}
    for name in ("item_list", "item_list", "local_item_list"):
        items = client.post(LOCAL_ITEMS, body)["data"][name]
        assert [item["common_attr"]["id"] for item in items] == item_ids
        assert all("origin" in item["video"]["transcoded_video"] for item in items)
    other = SandboxClient(client.http, uuid.uuid4().hex)
    assert other.post(LOCAL_ITEMS, body)["data"]["item_list"] == []


def test_first_and_last_frame_are_shown_and_set_the_ratio(client):
    red, blue = (client.upload(make_image(colour, size=(600, 800))) for colour in (RED, BLUE))
    record = run(client, frame_video(red, blue))
    origin = versions(record)["origin"]
    assert (origin["width"], origin["height"]) == (720, 960)
    frames = frames_of(fetch(client, origin["video_url"]).content)
    assert is_near(frames[0].getpixel((360, 400)), RED)
    assert is_near(frames[-1].getpixel((360, 400)), BLUE)
    # An older parser reads `origin`, a newer one the largest size: both must lead to the same video.
    assert set(versions(record)) == {"origin", "360p", "480p", "720p"}
    assert fetch(client, versions(record)["720p"]["video_url"]).content == fetch(client, origin["video_url"]).content
    cover = Image.open(io.BytesIO(fetch(client, record["item_list"][0]["video"]["cover_url"]).content))
    assert is_near(cover.convert("RGB").getpixel((360, 400)), RED)
    assert record["item_list"][0]["aigc_image_params"]["generate_type"] == 32


US = {"X-Orig-Host": "dreamina-api.us.capcut.com"}
# The parsers of public clients, older ones first: each reads one place of an item.
PARSERS = {
    "origin": lambda video: video["transcoded_video"]["origin"]["video_url"],
    "largest size": lambda video: max(
        ((int(name[:-1]), one["video_url"]) for name, one in video["transcoded_video"].items() if name[-1] == "p")
    )[1],
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("form", ["first_last", "first_frame", "text"])
def test_us_video_is_readable_by_older_and_newer_parsers(http, form, parser):
    http.post("/_reset")
    client = SandboxClient(http, f"us-{uuid.uuid4().hex}")
    uris = [client.upload(make_image(colour, size=(320, 180))) for colour in (RED, BLUE)]
    body = {
        "first_last": lambda: frame_video(*uris),
        "first_frame": lambda: frame_video(uris[0]),
        "text": text_video,
    }[form]()
    assert client.post(GENERATE, body, **US)["ret"] == "0"
    [item] = client.finish(body["submit_id"])["item_list"]
    with av.open(io.BytesIO(fetch(client, PARSERS[parser](item["video"])).content)) as media:
        assert (media.streams.video[0].width, media.streams.video[0].height) == (1280, 720)


def test_omni_reference_materials(chinese):
    raw = fetch(
        chinese, versions(run(chinese, draft("video.seedance_mini.request.cn", lambda _: None)))["origin"]["video_url"]
    ).content
    done = chinese.upload_video(raw)
    meta = done["VideoMeta"]
    assert (meta["Width"], meta["Height"], meta["Codec"], meta["Format"]) == (1280, 720, "h264", "MP4")
    uri = chinese.upload(make_image(RED, size=(400, 400)))

    def change(abilities, vid=done["Vid"]):
        materials = video_input_of(abilities)["unified_edit_input"]["material_list"]
        set_upload(materials[0]["image_info"], uri, (400, 400))
        materials[1]["video_info"]["vid"] = vid

    body = draft("video.omni.request.cn", change)
    record = run(chinese, body)
    assert record["history_group_key"] == "use  as the first frame and copy the motion of "
    frame = frames_of(fetch(chinese, list(versions(record).values())[-1]["video_url"]).content)[3]
    assert is_near(frame.getpixel((480, 360)), RED)
    assert get_violations(chinese.http) == {}
    unknown = draft("video.omni.request.cn", lambda abilities: change(abilities, "v0unknown"))
    assert chinese.post(GENERATE, unknown)["ret"] == "1000"


def test_video_slots_limit_concurrent_videos(client):
    assert client.post(GENERATE, text_video("a [[hang]]"))["ret"] == "0"
    assert client.post(GENERATE, text_video("b"))["ret"] == "1310"
    record = run(client, json.loads((RECORDED / "generate.image.request.us.json").read_bytes())["body"])
    assert record["status"] == 50


@pytest.mark.parametrize(
    ("script", "status"), [("[[fail:40]]", 40), ("[[fail:2039]]", 30), ("[[keyonly]]", 30), ("[[fail:100]]", 100)]
)
def test_failure_scripts_work_for_videos(client, script, status):
    record = run(client, text_video(f"boat {script}"))
    assert (record["status"], record["item_list"]) == (status, [])


def test_refusal_and_queue_scripts_work_for_videos(client):
    assert client.post(GENERATE, text_video("[[refuse:4013]]"))["ret"] == "4013"
    body = text_video("[[queue:3]][[seconds:0]]")
    assert client.post(GENERATE, body)["data"]["aigc_data"]["queue_info"]["queue_status"] == 1
    fault_response = text_video("x", duration_ms=7000)
    assert client.post(GENERATE, fault_response)["ret"] == "1000"


def test_video_links_expire(client):
    record = run(client, text_video("boat [[expires:0]]"))
    assert client.http.get(versions(record)["origin"]["video_url"]).status_code == 403
