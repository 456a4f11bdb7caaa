"""The Dreamina / Jimeng client: each method is one endpoint of the private web API, as the engine's Provider.

What upstream demands of a browser beyond that (protocol section 12) is not imitated: such a refusal is reported.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import httpx
import orjson

from worker.core.catalog import get_catalog
from worker.core.errors import DreameryError
from worker.core.settings import Settings
from worker.providers.dreamina.drafts import Stamp, image_body
from worker.providers.dreamina.records import fail_fields, find_records, parse_record, queue_of, record_id
from worker.providers.dreamina.regions import PROBES, Site, probe_site, read_cluster, site_for
from worker.providers.dreamina.signing import web_id
from worker.providers.dreamina.wire import Wire, refusal
from worker.providers.provider import Account, Credits, ImageOrder, Record, Reference, Submitted

_GENERATE = "/mweb/v1/aigc_draft/generate"
_HISTORY = "/mweb/v1/get_history_by_ids"
_USER_INFO = "/lv/v1/user/web/user_info"
_CREDIT = "/commerce/v1/benefits/user_credit"
_RECEIVE = "/commerce/v1/benefits/credit_receive"
_USER_INFO_BODY = orjson.dumps(
    {
        "sem_info": {
            "is_sem": False,
            "medium": "Direct",
            "register_source": "direct",
            "register_second_source": "enter_url",
        }
    }
)


class DreaminaProvider:
    """Implements `Provider`; one instance per process, shared by all threads."""

    def __init__(self, settings: Settings, *, transport: httpx.BaseTransport | None = None) -> None:
        self._wire = Wire(settings, transport)
        self._sandbox_url = settings.sandbox_url or settings.upstream_origin
        self._da_version = settings.upstream_da_version
        self._web_version = settings.upstream_web_version
        self._catalog = get_catalog()

    def close(self) -> None:
        """Close all connections; for the end of the process."""
        self._wire.close()

    def locate(self, account: Account) -> dict[str, str]:
        """Four probes in parallel, first success in list order (section 1.2).

        None succeeded: what upstream said when it said one thing, else `upstream_session_expired`;
        `upstream_unreachable` when no probe got an answer.
        """
        pool = ThreadPoolExecutor(max_workers=len(PROBES), thread_name_prefix="locate")
        try:
            failures: list[DreameryError] = []
            for probe in [pool.submit(self._probe, account, idc) for idc in PROBES]:
                try:
                    return probe.result()
                except DreameryError as failure:
                    failures.append(failure)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        answered = {failure.code: failure for failure in failures if failure.code != "upstream_unreachable"}
        if not answered:
            raise failures[0]
        if len(answered) == 1:
            raise next(iter(answered.values()))
        raise DreameryError("upstream_session_expired", detail="probes answered: " + ", ".join(sorted(answered)))

    def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Section 6. One call, never repeated here. Unclear when the answer names neither a record nor a reason."""
        site = self._site(account)
        stamp = Stamp(submit_key, int(time.time() * 1000), self._da_version)
        body = image_body(order, self._catalog, site, stamp)
        query = _query(site, self._da_version, self._web_version, "&web_component_open_flag=1")
        answer = self._wire.call(account, site, site.mweb, _target(_GENERATE, query, site, account), body)
        data = answer.get("data")
        data = data if isinstance(data, dict) else {}
        record = data.get("aigc_data")
        record = record if isinstance(record, dict) else data
        upstream_id = record_id(record)
        if upstream_id:
            position, forecast = queue_of(record)
            return Submitted(upstream_id, position, forecast)
        fail_code, key, _, _ = fail_fields(data, record)
        if fail_code not in {"", "0"} or key:
            raise refusal("", answer, account)
        raise DreameryError("upstream_unreachable", detail=f"{_GENERATE}: accepted, but without history_record_id")

    def upload_image(self, account: Account, data: bytes, *, name: str) -> Reference:
        """Not offered by this provider; the job is told so before anything is ordered."""
        message = "Pictures cannot be uploaded to this upstream."
        raise DreameryError("unsupported_parameter", message, detail=f"{name} of {len(data)} bytes for {account.id}")

    def ask(self, account: Account, submit_keys: list[str]) -> dict[str, Record]:
        """Section 8. One call for all keys; the caller bounds their number."""
        if not submit_keys:
            return {}
        site = self._site(account)
        query = _query(site, self._da_version, self._web_version, "")
        body = orjson.dumps({"submit_ids": submit_keys})
        answer = self._wire.call(account, site, site.mweb, _target(_HISTORY, query, site, account), body)
        found = find_records(submit_keys, answer)
        if found is None:
            raise DreameryError("upstream_unreachable", detail=f"{_HISTORY}: an answer without a map of records")
        return {key: parse_record(key, raw) for key, raw in found.items()}

    def credits(self, account: Account) -> Credits:
        """Section 4.3: `data.credit`, else the JSON string `response`."""
        answer = self._commerce(account, _CREDIT, b"{}")
        credit = _credit(answer.get("data")) or _credit(_from_json(answer.get("response")))
        if credit is None:
            raise DreameryError("upstream_error", detail=f"{_CREDIT}: an answer without credits")
        return Credits(
            gift=_amount(credit.get("gift_credit")),
            purchase=_amount(credit.get("purchase_credit")),
            vip=_amount(credit.get("vip_credit")),
        )

    def receive_credits(self, account: Account) -> int:
        """Section 4.4. Asking twice a day is harmless: the second answer is 0."""
        answer = self._commerce(account, _RECEIVE, b'{"time_zone":"Asia/Shanghai"}')
        data = answer.get("data")
        data = data if isinstance(data, dict) else _from_json(answer.get("response"))
        return _amount(data.get("receive_quota")) if isinstance(data, dict) else 0

    def _site(self, account: Account) -> Site:
        return site_for(account.region, account.cluster, self._sandbox_url)

    def _commerce(self, account: Account, path: str, body: bytes) -> dict[str, Any]:
        site = self._site(account)
        query = f"aid={site.aid}&device_platform=web&region={site.region}"
        return self._wire.call(account, site, site.commerce, _target(path, query, site, account), body)

    def _probe(self, account: Account, idc: str) -> dict[str, str]:
        site = probe_site(idc)
        target = _target(_USER_INFO, f"aid={site.aid}&device_platform=web", site, account)
        answer = self._wire.call(account, site, site.site, target, _USER_INFO_BODY)
        cluster = read_cluster(answer, idc)
        if cluster is None:
            raise DreameryError("upstream_session_expired", detail=f"{_USER_INFO}: errmsg is not success")
        return cluster


@lru_cache(maxsize=1024)
def _query(site: Site, da_version: str, web_version: str, flags: str) -> str:
    """The query of `/mweb/` calls but for the web id (section 2.1)."""
    return (
        f"aid={site.aid}&device_platform=web&region={site.region}&da_version={da_version}&os=windows{flags}"
        f"&web_version={web_version}&aigc_features=app_lip_sync"
    )


def _target(path: str, query: str, site: Site, account: Account) -> str:
    return f"{path}?{query}&{site.web_id_param}={web_id(account.session)}"


def _credit(data: Any) -> dict[str, Any] | None:
    credit = data.get("credit") if isinstance(data, dict) else None
    return credit if isinstance(credit, dict) else None


def _from_json(text: Any) -> Any:
    try:
        return orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return None


def _amount(value: Any) -> int:
    return max(int(value), 0) if isinstance(value, int | float) and abs(value) < 2**53 else 0
