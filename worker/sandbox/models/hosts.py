"""Upstream's hosts: which paths live on which, and which clusters they serve.

A host only matters when the client came through an egress origin and told the true one in `X-Orig-Host`.
"""

import re
from dataclasses import dataclass

AID_CHINA = "513695"
AID_ABROAD = "513641"
HINTS = ("us", "jp", "sg", "hk", "cn")
IDC_OF_HOME = {"us": "useast5", "jp": "alisg", "sg": "alisg", "hk": "hk"}


@dataclass(frozen=True)
class Host:
    place: str
    homes: frozenset[str]
    families: frozenset[str]
    aid: str = AID_ABROAD


def _abroad(place: str, homes: set[str], *families: str) -> Host:
    return Host(place, frozenset(homes), frozenset(families))


_ASIA = {"jp", "sg", "hk"}
HOSTS = {
    "jimeng.jianying.com": Host("cn", frozenset({"cn"}), frozenset({"mweb", "commerce", "passport"}), aid=AID_CHINA),
    "dreamina-api.us.capcut.com": _abroad("us", {"us"}, "mweb", "passport"),
    "dreamina-api-us-ttp2.us.capcut.com": _abroad("us", {"us"}, "mweb", "passport"),
    "commerce.us.capcut.com": _abroad("us", {"us"}, "commerce"),
    "commerce-us-ttp2.us.capcut.com": _abroad("us", {"us"}, "commerce"),
    "mweb-api-sg.capcut.com": _abroad("asia", _ASIA, "mweb", "passport"),
    "commerce-api-sg.capcut.com": _abroad("asia", _ASIA, "commerce"),
    "dreamina.capcut.com": _abroad("any", {"us", *_ASIA}, "lv"),
}

# Uploads: the gateway of each place, the one for videos and sounds, and the store that takes the bytes.
UPLOAD_HOSTS = {
    "cn": "imagex.bytedanceapi.com",
    "us": "imagex16-normal-us-ttp.capcutapi.us",
    "asia": "imagex-normal-sg.capcutapi.com",
}
VOD_HOST = "vod.bytedanceapi.com"
STORE_HOST = "tos-upload.example.test"


def place_of(home: str | None, aid: str) -> str:
    """The place of an account that was met without the name of a host."""
    if aid == AID_CHINA:
        return "cn"
    return "us" if home == "us" else "asia"


def family_of(path: str) -> str:
    return path.split("/", 2)[1]


def home_of(session: str) -> str | None:
    """The cluster a session id hints at; None lives everywhere."""
    parts = re.split(r"[^0-9a-z]+", session.lower())
    return next((hint for hint in HINTS if hint in parts), None)


def probe_succeeds(home: str | None, idc: str) -> bool:
    return home is None or IDC_OF_HOME.get(home) == idc


def location_of(home: str | None) -> dict[str, object]:
    """`data.location` of user_info: country, data centre and the domains a client derives its hosts from."""
    home = home or "us"
    if home == "us":
        web, commerce, frontier, tts = "edit-api-us", "commerce.us", "frontier.us", "web-edit.us"
    else:
        web, commerce, frontier, tts = "edit-api-sg", "commerce-api-sg", "frontier-sg", "web-edit-sg"
    return {
        "code": home.upper(),
        "web_idc": IDC_OF_HOME[home],
        "domain": {
            "web_domain": f"https://{web}.capcut.com",
            "commerce_domain": f"https://{commerce}.capcut.com",
            "frontier_domain": f"wss://{frontier}.capcut.com",
            "tts_domain": f"wss://{tts}.capcut.com",
        },
    }
