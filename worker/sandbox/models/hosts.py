"""Upstream's hosts: which paths each host serves, and for which clusters.

The host matters only when the client calls through an egress origin and names the real host in `X-Orig-Host`.
"""

import re
from dataclasses import dataclass

AID_CHINA = "513695"
AID_INTERNATIONAL = "513641"
CLUSTERS = ("us", "jp", "sg", "hk", "cn")
IDC_OF_CLUSTER = {"us": "useast5", "jp": "alisg", "sg": "alisg", "hk": "hk"}


@dataclass(frozen=True)
class Host:
    site: str
    clusters: frozenset[str]
    families: frozenset[str]
    aid: str = AID_INTERNATIONAL


def _international(site: str, clusters: set[str], *families: str) -> Host:
    return Host(site, frozenset(clusters), frozenset(families))


_ASIA = {"jp", "sg", "hk"}
HOSTS = {
    "jimeng.jianying.com": Host("cn", frozenset({"cn"}), frozenset({"mweb", "commerce", "passport"}), aid=AID_CHINA),
    "dreamina-api.us.capcut.com": _international("us", {"us"}, "mweb", "passport"),
    "dreamina-api-us-ttp2.us.capcut.com": _international("us", {"us"}, "mweb", "passport"),
    "commerce.us.capcut.com": _international("us", {"us"}, "commerce"),
    "commerce-us-ttp2.us.capcut.com": _international("us", {"us"}, "commerce"),
    "mweb-api-sg.capcut.com": _international("asia", _ASIA, "mweb", "passport"),
    "commerce-api-sg.capcut.com": _international("asia", _ASIA, "commerce"),
    "dreamina.capcut.com": _international("any", {"us", *_ASIA}, "lv"),
}

# Uploads: the image gateway of each site, the gateway for video and audio, and the store for the bytes.
UPLOAD_HOSTS = {
    "cn": "imagex.bytedanceapi.com",
    "us": "imagex16-normal-us-ttp.capcutapi.us",
    "asia": "imagex-normal-sg.capcutapi.com",
}
VOD_HOST = "vod.bytedanceapi.com"
STORE_HOST = "tos-upload.example.test"


def site_of(cluster: str | None, aid: str) -> str:
    """Return the site of an account that called without a host name."""
    if aid == AID_CHINA:
        return "cn"
    return "us" if cluster == "us" else "asia"


def family_of(path: str) -> str:
    return path.split("/", 2)[1]


def cluster_of(session: str) -> str | None:
    """Return the cluster named in a session id, or None: the session is valid in all clusters."""
    parts = re.split(r"[^0-9a-z]+", session.lower())
    return next((hint for hint in CLUSTERS if hint in parts), None)


def probe_succeeds(cluster: str | None, idc: str) -> bool:
    return cluster is None or IDC_OF_CLUSTER.get(cluster) == idc


def location_of(cluster: str | None) -> dict[str, object]:
    """Return `data.location` of user_info: country, data centre and the domains from which clients derive hosts."""
    cluster = cluster or "us"
    if cluster == "us":
        web, commerce, frontier, tts = "edit-api-us", "commerce.us", "frontier.us", "web-edit.us"
    else:
        web, commerce, frontier, tts = "edit-api-sg", "commerce-api-sg", "frontier-sg", "web-edit-sg"
    return {
        "code": cluster.upper(),
        "web_idc": IDC_OF_CLUSTER[cluster],
        "domain": {
            "web_domain": f"https://{web}.capcut.com",
            "commerce_domain": f"https://{commerce}.capcut.com",
            "frontier_domain": f"wss://{frontier}.capcut.com",
            "tts_domain": f"wss://{tts}.capcut.com",
        },
    }
