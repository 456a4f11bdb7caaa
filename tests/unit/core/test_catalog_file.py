"""The operator's file: what it changes, and complaints that name file, model and field."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.platform import ROOT
from worker.core import catalog_file
from worker.core.catalog import Catalog, get_catalog
from worker.core.settings import Settings, get_settings
from worker.providers.dreamina.regions import SITES, site_for


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for cached in (get_settings, get_catalog, catalog_file.hosts):
        cached.cache_clear()
    yield
    for cached in (get_settings, get_catalog, catalog_file.hosts):
        cached.cache_clear()


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str) -> Catalog:
    return Catalog(catalog_file.load(written(folder, text), catalog_file.shipped_data()))


def test_the_documented_example_does_what_it_says(monkeypatch, tmp_path):
    [example] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/models.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(written(tmp_path, example)))
    catalog = get_catalog()
    assert catalog.image_model(None).id == "jimeng-5.0"
    assert catalog.image_model("jimeng-4.6").where == {"cn", "asia"}
    assert catalog.image_model("jimeng-4.6").key == "high_aes_general_v42"
    new = catalog.image_model("seedream-6")
    assert (new.id, new.key_cn, new.counts) == ("jimeng-6.0", "high_aes_general_v60", (1, 2, 3, 4))
    assert catalog.image_model("gpt-image-1") is new
    assert catalog.image_model("house-style").id == "jimeng-4.6"
    assert catalog.image_model("dall-e-3").id == "jimeng-4.0"
    with pytest.raises(Exception, match="Unknown model 'dall-e-2'"):
        catalog.image_model("dall-e-2")
    assert catalog.nearest_size(new, 8000, 8000).width == 8192
    assert site_for("us", None, "").mweb == "https://dreamina-api-us-ttp2.us.capcut.com"
    assert site_for("us", None, "").site == SITES["us"].site
    assert site_for("sg", None, "") == SITES["sg"]


def test_without_a_file_hard_coded_names_mean_the_default_model(monkeypatch):
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", "")
    catalog = get_catalog()
    assert {catalog.image_model(name).id for name in catalog_file.HARD_CODED} == {catalog.default_image_model}
    assert {catalog.video_model(name).id for name in catalog_file.HARD_CODED_VIDEOS} == {catalog.default_video_model}
    assert catalog_file.shipped_data()["image"][0]["aliases"] == ["jimeng-image-4.0"]


def test_a_model_may_take_a_hard_coded_name(tmp_path):
    catalog = loaded(
        tmp_path,
        '[[image]]\nid = "gpt-image-2"\nname = "x"\nkey = "k"\nwhere = ["us"]\nresolutions = ["1k"]\ncounts = []',
    )
    assert catalog.image_model("gpt-image-2").key == "k"


NEW = '[[image]]\nid = "new"\nname = "x"\nkey = "k"\nwhere = ["us"]\nresolutions = ["1k"]\ncounts = []\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[image]", "is not TOML"),
        ('[[image]]\nname = "x"', "image number 1, field 'id': must be a text"),
        ('[[image]]\nid = "new"\nkey = "k"', "image 'new': is new and needs also 'name', 'where'"),
        (
            '[[image]]\nid = "jimeng-4.0"\ncolour = "x"',
            "image 'jimeng-4.0', field 'colour': is not known; known are id",
        ),
        ('[[image]]\nid = "jimeng-4.0"\nkey = 5', "image 'jimeng-4.0', field 'key': must look like"),
        (
            '[[image]]\nid = "jimeng-4.0"\nwhere = ["mars"]',
            "field 'where': 'mars' is not known; known are asia, cn, us",
        ),
        ('[[image]]\nid = "jimeng-4.0"\nwhere = []', "field 'where': must not be empty"),
        ('[[image]]\nid = "jimeng-4.0"\nresolutions = ["9k"]', "field 'resolutions': '9k' is not known"),
        ('[[image]]\nid = "jimeng-4.0"\ncounts = [0]', "field 'counts': must hold numbers above 0"),
        ('[[image]]\nid = "jimeng-4.0"\ncounts = ["1"]', "field 'counts': must look like"),
        ('[[image]]\nid = "jimeng-4.0"\naliases = ["jimeng-4.1"]', "'jimeng-4.1' is already a name of 'jimeng-4.1'"),
        (NEW + 'only_us = { ratio = "1:1" }', "image 'new', field 'only_us': must look like"),
        ("[image]\na = 1", "image: must be a list of tables"),
        ("[modles]", "modles: is not known here; known are image"),
        ('default_image_model = "nothing"', "default_image_model: names no model: 'nothing'"),
        ("aliases = 5", "aliases: must be a table"),
        ('[aliases]\n"x" = "nothing"', "aliases.'x': names no model: 'nothing'"),
        ('[aliases]\n"x" = 5', "aliases.'x': names no model: 5"),
        ('[aliases]\n"jimeng-4.0" = "jimeng-4.1"', "is the id of a model"),
        ('[sizes."8k"]\n"1:1" = [1, 1]', "sizes.'8k': has no size for 3:4"),
        ('[sizes."8k"]\n"5:1" = [1, 1]', "unknown ratio '5:1'"),
        ('[sizes."2k"]\n"1:1" = [1, -1]', "must be \\[width, height\\]"),
        ('[sizes]\n"2k" = 1', "must be a table of ratio"),
        ("[hosts.mars]", "hosts.mars: unknown region"),
        ("[hosts]\nus = 1", "hosts.us: must be a table"),
        ('[hosts.us]\nvod = "x"', "hosts.us, field 'vod': is not known"),
        ('[hosts.us]\nmweb = "x.org/y"', "hosts.us, field 'mweb': must be an origin"),
    ],
)
def test_a_mistake_names_file_model_and_field(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(catalog_file.CatalogFileError, match=told) as caught:
        catalog_file.load(path, catalog_file.shipped_data())
    assert str(caught.value).startswith(f"{path}: ")


def test_a_wrong_file_stops_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMERY_CATALOG_FILE", str(tmp_path / "none.toml"))
    with pytest.raises(ValidationError, match=r"none\.toml: cannot be read"):
        Settings()
