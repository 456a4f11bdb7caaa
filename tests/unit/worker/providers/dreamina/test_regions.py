"""Hosts per region and the cluster look-up (protocol sections 1.1 and 1.2)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.recorded_upstream import load_fixture
from worker.core.errors import DreameryError
from worker.providers.dreamina.regions import read_cluster, site_for


@pytest.mark.parametrize(
    ("region", "mweb", "commerce", "aid", "value", "lan", "loc"),
    [
        ("cn", "https://jimeng.jianying.com", "https://jimeng.jianying.com", 513695, "cn", "zh-Hans", "cn"),
        ("us", "https://dreamina-api.us.capcut.com", "https://commerce.us.capcut.com", 513641, "US", "en", "us"),
        ("sg", "https://mweb-api-sg.capcut.com", "https://commerce-api-sg.capcut.com", 513641, "SG", "en", "sg"),
        ("hk", "https://mweb-api-sg.capcut.com", "https://commerce-api-sg.capcut.com", 513641, "HK", "en", "hk"),
        ("jp", "https://mweb-api-sg.capcut.com", "https://commerce-api-sg.capcut.com", 513641, "JP", "ja", "jp"),
        ("sandbox", "http://127.0.0.1:9", "http://127.0.0.1:9", 513641, "US", "en", "us"),
    ],
)
def test_host_table(region, mweb, commerce, aid, value, lan, loc):
    site = site_for(region, None, "http://127.0.0.1:9")
    assert (site.mweb, site.commerce, site.aid, site.region, site.lan, site.loc) == (
        mweb,
        commerce,
        aid,
        value,
        lan,
        loc,
    )
    assert site.web_id_param == ("webId" if region == "cn" else "web_id")


@pytest.mark.parametrize(
    ("name", "country", "mweb", "commerce"),
    [
        ("us", "US", "https://dreamina-api.us.capcut.com", "https://commerce.us.capcut.com"),
        ("us_ttp2", "US", "https://dreamina-api.us.capcut.com", "https://commerce-us-ttp2.us.capcut.com"),
        ("sg", "SG", "https://mweb-api-sg.capcut.com", "https://commerce-api-sg.capcut.com"),
        ("jp", "JP", "https://mweb-api-sg.capcut.com", "https://commerce-api-sg.capcut.com"),
    ],
)
def test_cluster_is_read_stored_and_used(name, country, mweb, commerce):
    cluster = json.loads(json.dumps(read_cluster(load_fixture(f"user_info.{name}.json"), "alisg")))
    assert cluster == {"country": country, "idc": "alisg", "mweb": mweb, "commerce": commerce}
    site = site_for("auto", cluster, "")
    assert (site.mweb, site.commerce, site.region, site.idc) == (mweb, commerce, country, "alisg")


@pytest.mark.parametrize("scheme", ["", "https://", "http://", "HTTPS://"])
def test_domains_may_have_a_scheme(scheme):
    domain = {"web_domain": f"{scheme}edit-api-sg.capcut.com", "commerce_domain": f"{scheme}commerce-x.capcut.com/"}
    body = {"errmsg": "success", "data": {"location": {"code": "hk", "domain": domain}}}
    assert read_cluster(body, "hk") == {
        "country": "HK",
        "idc": "hk",
        "mweb": "https://mweb-api-sg.capcut.com",
        "commerce": "https://commerce-x.capcut.com",
    }


@pytest.mark.parametrize(
    ("location", "mweb"),
    [({}, "https://dreamina-api.us.capcut.com"), ({"code": "JP"}, "https://mweb-api-sg.capcut.com")],
)
def test_country_selects_hosts_without_domains(location, mweb):
    cluster = read_cluster({"errmsg": "success", "data": {"location": location}}, "sg1")
    assert cluster is not None
    assert cluster["mweb"] == mweb
    assert cluster["commerce"] == "https://commerce-api-sg.capcut.com"


def test_probe_of_the_wrong_datacenter_fails():
    assert read_cluster(load_fixture("user_info.wrong_idc.json"), "hk") is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["location", "domain", "code"]), inner),
    max_leaves=8,
)


@given(_json, st.text(max_size=40), st.text(max_size=40))
def test_invalid_user_info_never_yields_a_foreign_host(data, web, commerce):
    domain = {"web_domain": web, "commerce_domain": commerce}
    for body in ({"errmsg": "success", "data": data}, {"errmsg": "success", "data": {"location": {"domain": domain}}}):
        cluster = read_cluster(body, "sg1")
        assert cluster is not None
        assert cluster["mweb"].startswith("https://")
        assert not set(cluster["commerce"]) & set(" /\\@?#\r\n\t") - {"/"}
        assert cluster["commerce"].count("/") == 2


@pytest.mark.parametrize(
    ("region", "cluster", "code"),
    [
        ("auto", None, "internal_error"),
        ("auto", {"country": "US"}, "internal_error"),
        ("sandbox", None, "invalid_value"),
    ],
)
def test_unusable_region_raises_a_clear_error(region, cluster, code):
    with pytest.raises(DreameryError) as caught:
        site_for(region, cluster, "")
    assert caught.value.code == code
