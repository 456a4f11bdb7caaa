"""The operator's catalog file: its changes, and errors that name file, model and field."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.platform import ROOT
from tests.support.recorded_upstream import KEY, SESSION, ScriptedUpstream, make_order
from worker.core import catalog_overrides
from worker.core.catalog import provider_overrides
from worker.core.catalog.models import Catalog, get_catalog
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.core.settings import Settings, get_settings
from worker.providers.base import Account
from worker.providers.dreamina.regions import SITES, site_for
from worker.providers.dreamina.signing import sign


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for cached in (get_settings, get_catalog, provider_overrides.hosts):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog, provider_overrides.hosts):
        cached.cache_clear()


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str) -> Catalog:
    return Catalog(catalog_overrides.load(written(folder, text), catalog_overrides.shipped_data()))


def test_documented_example_changes_the_catalog(monkeypatch, tmp_path):
    [example] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/models.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(written(tmp_path, example)))
    catalog = get_catalog()
    assert catalog.image_model(None).id == "jimeng-5.0"
    assert catalog.image_model("jimeng-4.6").where == {"cn", "asia"}
    assert catalog.image_model("jimeng-4.6").key == "high_aes_general_v42"
    new = catalog.image_model("seedream-6")
    assert (new.id, new.upstream_key("cn"), new.counts) == ("jimeng-6.0", "high_aes_general_v60", (1, 2, 3, 4))
    assert catalog.image_model("gpt-image-1") is new
    assert catalog.image_model("house-style").id == "jimeng-4.6"
    assert catalog.image_model("dall-e-3").id == "jimeng-4.0"
    with pytest.raises(Exception, match="Unknown model 'dall-e-2'"):
        catalog.image_model("dall-e-2")
    assert catalog.nearest_size(new, 8000, 8000).width == 8192
    assert site_for("us", None, "").mweb == "https://dreamina-api-us-ttp2.us.capcut.com"
    assert site_for("us", None, "").site == SITES["us"].site
    assert site_for("sg", None, "") == SITES["sg"]
    assert site_for("cn", None, "").cookies == (("s_v_web_id", "verify_of_my_browser"),)
    assert site_for("cn", None, "").query == "msToken=of-my-browser"
    constants = provider_overrides.constants(get_settings().catalog_file, {}, "dreamina")
    assert (constants["appvr"], constants["da_version"]) == ("8.5.0", "3.3.28")
    assert constants["web_version"] == "7.5.0"


def test_hard_coded_names_mean_the_default_model_without_a_file(monkeypatch):
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", "")
    catalog = get_catalog()
    assert {catalog.image_model(name).id for name in catalog_overrides.HARD_CODED_IMAGE_MODELS} == {
        catalog.default_image_model
    }
    assert {catalog.video_model(name).id for name in catalog_overrides.HARD_CODED_VIDEO_MODELS} == {
        catalog.default_video_model
    }
    assert catalog_overrides.shipped_data()["image"][0]["aliases"] == ["jimeng-image-4.0"]


def test_model_can_use_a_hard_coded_name(tmp_path):
    catalog = loaded(
        tmp_path,
        '[[image]]\nid = "gpt-image-2"\nname = "x"\nkey = "k"\nwhere = ["us"]\nresolutions = ["1k"]\ncounts = []',
    )
    assert catalog.image_model("gpt-image-2").key == "k"


def test_operator_patterns_come_before_the_shipped_ones(tmp_path):
    catalog = loaded(
        tmp_path,
        '[aliases]\n"flux-*" = "jimeng-4.5"\n"my-*" = "jimeng-video-3.5-pro"\n"imagen-*" = ""\n"gpt-image-1" = ""',
    )
    assert catalog.image_model("flux-pro").id == "jimeng-4.5"
    assert catalog.video_model("my-clip").id == "jimeng-video-3.5-pro"
    assert catalog.image_model("gpt-image-2-2026-04-21").id == catalog.default_image_model
    assert not catalog.knows_image("imagen-4"), "the operator removed the pattern"
    assert not catalog.knows_image("gpt-image-1"), "no pattern brings a removed name back"


NEW = '[[image]]\nid = "new"\nname = "x"\nkey = "k"\nwhere = ["us"]\nresolutions = ["1k"]\ncounts = []\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[image]", "is not TOML"),
        ('[[image]]\nname = "x"', "image number 1, field 'id': must be a string"),
        ('[[image]]\nid = "new"\nkey = "k"', "image 'new': is a new model and also needs 'name', 'where'"),
        (
            '[[image]]\nid = "jimeng-4.0"\ncolour = "x"',
            "image 'jimeng-4.0', field 'colour': is unknown; allowed are id",
        ),
        ('[[image]]\nid = "jimeng-4.0"\nkey = 5', "image 'jimeng-4.0', field 'key': must have the form"),
        (
            '[[image]]\nid = "jimeng-4.0"\nwhere = ["mars"]',
            "field 'where': 'mars' is unknown; allowed are asia, cn, us",
        ),
        ('[[image]]\nid = "jimeng-4.0"\nwhere = []', "field 'where': must not be empty"),
        ('[[image]]\nid = "jimeng-4.0"\nresolutions = ["9k"]', "field 'resolutions': '9k' is unknown"),
        ('[[image]]\nid = "jimeng-4.0"\ncounts = [0]', "field 'counts': must contain positive numbers"),
        ('[[image]]\nid = "jimeng-4.0"\ncounts = ["1"]', "field 'counts': must have the form"),
        ('[[image]]\nid = "jimeng-4.0"\naliases = ["jimeng-4.1"]', "'jimeng-4.1' is already a name of 'jimeng-4.1'"),
        (NEW + 'only_us = { ratio = "1:1" }', "image 'new', field 'only_us': must have the form"),
        ("[image]\na = 1", "image: must be a list of tables"),
        ("[modles]", "modles: is unknown; allowed are image"),
        ('default_image_model = "nothing"', "default_image_model: is not a model: 'nothing'"),
        ("aliases = 5", "aliases: must be a table"),
        ('[aliases]\n"x" = "nothing"', "aliases.'x': is not a model: 'nothing'"),
        ('[aliases]\n"x" = 5', "aliases.'x': is not a model: 5"),
        ('[aliases]\n"jimeng-4.0" = "jimeng-4.1"', "is the id of a model"),
        ('[sizes."8k"]\n"1:1" = [1, 1]', "sizes.'8k': is missing a size for 3:4"),
        ('[sizes."8k"]\n"5:1" = [1, 1]', "unknown ratio '5:1'"),
        ('[sizes."2k"]\n"1:1" = [1, -1]', "must be \\[width, height\\]"),
        ('[sizes]\n"2k" = 1', "must be a table of ratio"),
        ("[hosts.mars]", "hosts.mars: unknown region"),
        ("[hosts]\nus = 1", "hosts.us: must be a table"),
        ('[hosts.us]\nmars = "x"', "hosts.us, field 'mars': is unknown"),
        ('[hosts.us]\nvod = "https://x"', "hosts.us, field 'vod': must be a host"),
        ("[hosts.us]\nupload = 5", "hosts.us, field 'upload': must be a host"),
        ('[hosts.us]\nupload_service = "a b"', "field 'upload_service': must be a service id"),
        ('[hosts.us]\naid = "513"', "hosts.us, field 'aid': must be a number"),
        ('[hosts.us]\ncookies = "a=b"', "field 'cookies': must be a table"),
        ('[hosts.us]\ncookies = { sessionid = "x" }', "field 'cookies': 'sessionid' cannot be set"),
        ('[hosts.us]\nquery = { "a&b" = "x" }', "field 'query': 'a&b' cannot be set"),
        ('[hosts.us]\nquery = { webId = "x" }', "field 'query': 'webId' cannot be set"),
        ('[hosts.us]\ncookies = { a = "x; y=z" }', "the value of 'a' must be a string"),
        (
            '[hosts.auto]\nmweb = "https://x.org"',
            "hosts.auto, field 'mweb': cannot be set, because upstream reports the hosts",
        ),
        ("wire = 5", "wire: must be a table"),
        ('[wire]\nmoon = "1"', "wire, field 'moon': is unknown"),
        ('[wire]\nappvr = "8.4.0\\n"', "wire, field 'appvr': must be a string"),
        ("[wire]\nda_version = 3.3", "wire, field 'da_version': must be a string"),
        ('[hosts.us]\nmweb = "x.org/y"', "hosts.us, field 'mweb': must be an origin"),
        ("providers = 5", "providers: must be a table"),
        ("[providers.nobody]", "providers.nobody: unknown provider; allowed are dreamina, ark"),
        ("[providers.ark.moon]", "providers.ark.moon: is unknown; allowed are hosts, wire"),
        ("[providers.ark]\nwire = 5", "providers.ark.wire: must be a table"),
        (
            '[providers.ark.hosts.us]\napi = "https://x.org"',
            "providers.ark.hosts.us: unknown region; allowed are cn, intl",
        ),
        ('[providers.ark.hosts.cn]\napi = "x.org"', "providers.ark.hosts.cn, field 'api': must be an origin"),
        ('[providers.ark.wire]\nappvr = "1"', "providers.ark.wire, field 'appvr': is unknown"),
    ],
)
def test_error_names_file_model_and_field(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(catalog_overrides.CatalogFileError, match=message) as caught:
        catalog_overrides.load(path, catalog_overrides.shipped_data())
    assert str(caught.value).startswith(f"{path}: ")


def test_invalid_file_stops_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(tmp_path / "none.toml"))
    with pytest.raises(ValidationError, match=r"none\.toml: cannot be read"):
        Settings()


FILE = """
[hosts.cn]
aid = 513999
cookies = { "s_v_web_id" = "my-browser", "store-region" = "cn-sh" }
query = { "msToken" = "a/b==" }
[hosts.us]
mweb = "https://mweb.us.example.test"
commerce = "https://commerce.us.example.test"
upload = "imagex.us.example.test"
upload_service = "service1"
vod = "vod.us.example.test"
[hosts.auto]
cookies = { "cc-target-idc" = "elsewhere" }
vod = "vod.auto.example.test"
[wire]
appvr = "9.9.9"
da_version = "4.0.1"
web_version = "8.0.0"
sdk_version = "50.0.0"
user_agent = "My Browser/1.0"
"""


def test_file_values_are_sent_upstream(monkeypatch, tmp_path):
    path = written(tmp_path, FILE)
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(path))
    script = ScriptedUpstream("generate.image.response.json", catalog_file=path)
    event_loop.run(
        script.provider.submit_image(Account(id="a", region="cn", session=SESSION), make_order(), submit_key=KEY)
    )
    cn = script.last_request
    assert (cn.headers["appid"], cn.url.params["aid"]) == ("513999", "513999")
    assert json.loads(cn.content)["http_common_info"] == {"aid": 513999}
    assert (cn.headers["appvr"], cn.headers["app-sdk-version"]) == ("9.9.9", "50.0.0")
    assert cn.headers["user-agent"] == "My Browser/1.0"
    assert cn.headers["sign"] == sign(cn.url.path, "9.9.9", int(cn.headers["device-time"]))
    assert (cn.url.params["da_version"], cn.url.params["web_version"]) == ("4.0.1", "8.0.0")
    assert json.loads(json.loads(cn.content)["draft_content"])["version"] == "4.0.1"
    assert cn.url.params["msToken"] == "a/b=="
    cookies = dict(pair.split("=", 1) for pair in cn.headers["cookie"].split("; "))
    assert (cookies["s_v_web_id"], cookies["store-region"], cookies["sessionid"]) == ("my-browser", "cn-sh", SESSION)
    with pytest.raises(DreameryError):
        event_loop.run(script.provider.fetch_credits(Account(id="a", region="us", session=SESSION)))
    assert script.last_request.url.host == "commerce.us.example.test"
    assert "msToken" not in script.last_request.url.params
    us = site_for("us", None, "")
    assert (us.mweb, us.upload_host, us.upload_service) == (
        "https://mweb.us.example.test", "imagex.us.example.test", "service1",
    )  # fmt: skip
    assert us.vod_host == "vod.us.example.test"
    cluster = {"country": "JP", "idc": "alisg", "mweb": "https://m.test", "commerce": "https://c.test"}
    auto = site_for("auto", cluster, "")
    assert (auto.mweb, auto.vod_host, auto.region) == ("https://m.test", "vod.auto.example.test", "JP")
    with pytest.raises(DreameryError):
        event_loop.run(script.provider.fetch_credits(Account(id="a", region="auto", session=SESSION, cluster=cluster)))
    assert "cc-target-idc=elsewhere" in script.last_request.headers["cookie"]


def test_shipped_catalog_is_unchanged_without_a_file():
    for region, site in SITES.items():
        assert site_for(region, None, "") == site
    assert SITES["cn"].upload_host == "imagex.bytedanceapi.com"
    assert (SITES["us"].vod_host, SITES["us"].upload_service) == ("vod.bytedanceapi.com", "wopfjsm1ax")
