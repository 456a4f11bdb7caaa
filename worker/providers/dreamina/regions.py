"""The hosts of each region (protocol section 1.1) and the cluster of an international session (1.2)."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from worker.core.catalog import provider_overrides
from worker.core.errors import DreameryError
from worker.core.settings import get_settings
from worker.providers.dreamina.signing import web_id

CN_SITE = "https://jimeng.jianying.com"
WORLD_SITE = "https://dreamina.capcut.com"
ASIA_MWEB = "https://mweb-api-sg.capcut.com"
ASIA_COMMERCE = "https://commerce-api-sg.capcut.com"
US_MWEB = "https://dreamina-api.us.capcut.com"
US_COMMERCE = "https://commerce.us.capcut.com"
AID_CN = 513695
AID_WORLD = 513641
# Values of the `cc-target-idc` cookie; the first success in this order counts (section 1.2).
PROBES = ("alisg", "hk", "useast5", "sg1")

_EDIT_HOST = re.compile(r"edit-api-([a-z0-9-]+)\.capcut\.com$")
_AUTHORITY = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?")
_COUNTRY = re.compile(r"[A-Z]{2}")
# Our field names where they differ from those of the operator's file.
_FIELD_NAMES = {"upload_service": "service"}
_IDC = re.compile(r"[a-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class Site:
    """One column of the host table. `direct` = contacted at its own URL even if UPSTREAM_ORIGIN is set."""

    site: str
    mweb: str
    commerce: str
    aid: int
    region: str
    web_id_param: str
    lan: str
    loc: str
    idc: str
    cn: bool = False
    direct: bool = False
    # Overrides from the operator's file; "" and () = use the built-in values.
    upload: str = ""
    service: str = ""
    vod: str = ""
    vod_service: str = "dreamina"
    cookies: tuple[tuple[str, str], ...] = ()
    query: str = ""

    @property
    def upload_host(self) -> str:
        """Return the ImageX host to use if the upload token names none."""
        if self.upload:
            return self.upload
        if self.direct:
            return authority(self.site)
        if self.cn:
            return "imagex.bytedanceapi.com"
        return "imagex16-normal-us-ttp.capcutapi.us" if self.region == "US" else "imagex-normal-sg.capcutapi.com"

    @property
    def upload_service(self) -> str:
        """Return the ImageX service id to use if the upload token names none."""
        return self.service or ("tb4s082cfz" if self.cn else "wopfjsm1ax")

    @property
    def vod_host(self) -> str:
        """Return the host for video and audio if the upload token names none; outside CN it is not confirmed."""
        return self.vod or (authority(self.site) if self.direct else "vod.bytedanceapi.com")

    @property
    def aws_region(self) -> str:
        """Return the region name of upload signatures (section 5.5)."""
        if self.cn:
            return "cn-north-1"
        return "us-east-1" if self.region == "US" else "ap-southeast-1"

    def upload_origin(self, host: str) -> str:
        """Return the origin of an upload host: https, except for the sandbox, which is its own upload host."""
        return self.site if self.direct and host == authority(self.site) else f"https://{host}"


def _world(country: str, mweb: str, commerce: str, idc: str) -> Site:
    return Site(
        site=WORLD_SITE,
        mweb=mweb,
        commerce=commerce,
        aid=AID_WORLD,
        region=country,
        web_id_param="web_id",
        lan="ja" if country == "JP" else "en",
        loc=country.lower(),
        idc=idc,
    )


# The idc of SG, HK and JP comes from the recorded user_info of the SG hosts.
SITES: dict[str, Site] = {
    "cn": Site(CN_SITE, CN_SITE, CN_SITE, AID_CN, "cn", "webId", "zh-Hans", "cn", idc="", cn=True),
    "us": _world("US", US_MWEB, US_COMMERCE, "useast5"),
    "sg": _world("SG", ASIA_MWEB, ASIA_COMMERCE, "alisg"),
    "hk": _world("HK", ASIA_MWEB, ASIA_COMMERCE, "alisg"),
    "jp": _world("JP", ASIA_MWEB, ASIA_COMMERCE, "alisg"),
}


def site_for(region: str, cluster: dict[str, str] | None, sandbox_url: str) -> Site:
    """Return the site of an account. Region `auto` needs a cluster from `read_cluster`."""
    if region == "sandbox":
        return _sandbox(sandbox_url)
    if region != "auto":
        return _with_overrides(SITES[region], region)
    if not cluster:
        raise DreameryError("internal_error", detail="an account of region auto was used before its host look-up")
    try:
        return _cluster_site(cluster["country"], cluster["mweb"], cluster["commerce"], cluster["idc"])
    except KeyError as missing:
        raise DreameryError("internal_error", detail=f"stored cluster without {missing}") from missing


def probe_site(idc: str) -> Site:
    """Return the site of a look-up probe; only the cookie differs."""
    return _cluster_site("US", WORLD_SITE, WORLD_SITE, idc)


def read_cluster(body: dict[str, Any], idc: str) -> dict[str, str] | None:
    """Return the hosts in a `user_info` response to the probe `idc`, ready to store; None = the probe failed.

    `idc` stays as probed, because the session works there (section 11, row 20).
    """
    if body.get("errmsg") != "success":
        return None
    location = _dict(_dict(body.get("data")).get("location"))
    domain = _dict(location.get("domain"))
    country = str(location.get("code") or "US").upper()
    country = country if _COUNTRY.fullmatch(country) else "US"
    return {
        "country": country,
        "idc": idc,
        "mweb": _mweb_of(authority(domain.get("web_domain")), country),
        "commerce": _origin(domain.get("commerce_domain")) or ASIA_COMMERCE,
    }


def _mweb_of(web_domain: str, country: str) -> str:
    match = _EDIT_HOST.search(web_domain)
    if not match:
        return US_MWEB if country == "US" else ASIA_MWEB
    key = match.group(1)
    if key.startswith("us"):
        return f"https://dreamina-api.{key.partition('-')[0]}.capcut.com"
    return f"https://mweb-api-{key}.capcut.com"


def authority(value: Any) -> str:
    """Return host and port of a domain with or without a scheme; "" if it is invalid."""
    if not isinstance(value, str):
        return ""
    host = value.strip().lower().rpartition("://")[2].partition("/")[0]
    return host if _AUTHORITY.fullmatch(host) else ""


def _origin(value: Any) -> str:
    host = authority(value)
    return f"https://{host}" if host else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _cluster_site(country: str, mweb: str, commerce: str, idc: str) -> Site:
    if not _IDC.fullmatch(idc):
        raise DreameryError("internal_error", detail="stored cluster with a bad idc")
    return _with_overrides(_world(country, mweb, commerce, idc), "auto")


def _with_overrides(site: Site, region: str) -> Site:
    """Return the site with the overrides of the operator's file."""
    overrides = provider_overrides.hosts(get_settings().catalog_file, "dreamina", region)
    if not overrides:
        return site
    changes: dict[str, Any] = {_FIELD_NAMES.get(name, name): value for name, value in overrides.items()}
    if "cookies" in changes:
        changes["cookies"] = tuple(changes["cookies"].items())
    if "query" in changes:
        changes["query"] = urlencode(changes["query"])
    return replace(site, **changes)


@lru_cache(maxsize=8)
def _sandbox(url: str) -> Site:
    if not url:
        raise DreameryError("invalid_value", "Region `sandbox` is not available: no sandbox is running here.")
    return Site(url, url, url, AID_WORLD, "US", "web_id", "en", "us", idc="useast5", direct=True)


@lru_cache(maxsize=1024)
def site_query(site: Site, da_version: str, web_version: str, flags: str) -> str:
    """Return the query of `/mweb/` calls without the web id (section 2.1)."""
    return (
        f"aid={site.aid}&device_platform=web&region={site.region}&da_version={da_version}&os=windows{flags}"
        f"&web_version={web_version}&aigc_features=app_lip_sync"
    )


def site_target(path: str, query: str, site: Site, session: str) -> str:
    """Return path and query of a call with this session."""
    extra = f"&{site.query}" if site.query else ""
    return f"{path}?{query}&{site.web_id_param}={web_id(session)}{extra}"
