"""The Dreamina / Jimeng client: each method is one endpoint of the private web API, as the engine's Provider.

What upstream demands of a browser beyond that (protocol section 12) is not imitated: such a refusal is reported.
"""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx
import orjson

from worker.core import catalog_overrides
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.settings import Settings
from worker.providers.base import (
    Account,
    AgentEvent,
    Conversation,
    CreditHistory,
    Credits,
    ImageOrder,
    Listening,
    LiveImageModel,
    LiveModels,
    LiveVideoModel,
    Material,
    NotSentError,
    Record,
    Reference,
    ResultRef,
    Submitted,
    VideoOrder,
)
from worker.providers.dreamina.agent_stream import AgentReader, conversation_body
from worker.providers.dreamina.credit_history import read_history
from worker.providers.dreamina.error_codes import clean
from worker.providers.dreamina.http import Wire, refusal
from worker.providers.dreamina.image_requests import image_body
from worker.providers.dreamina.job_records import (
    fail_fields,
    find_items,
    find_records,
    item_id,
    parse_record,
    queue_of,
    record_id,
    video_result,
)
from worker.providers.dreamina.model_list import image_models, video_models
from worker.providers.dreamina.regions import PROBES, Site, probe_site, read_cluster, site_for
from worker.providers.dreamina.request_drafts import Stamp
from worker.providers.dreamina.signing import web_id
from worker.providers.dreamina.uploads import TokenCall, Uploads
from worker.providers.dreamina.video_requests import video_body

_GENERATE = "/mweb/v1/aigc_draft/generate"
_HISTORY = "/mweb/v1/get_history_by_ids"
_MAY_UPLOAD = "/mweb/v1/get_upload_token"
_ITEMS = "/mweb/v1/get_local_item_list"
_CHECK = "/mweb/v1/algo_proxy"
# Where on the page the check is made (section 2.1); telemetry.
_CHECK_ENTRANCE = "&babi_param=" + quote(
    orjson.dumps(
        {
            "scenario": "image_video_generation",
            "feature_key": "aigc_to_image",
            "feature_entrance": "to-generate",
            "feature_entrance_detail": "to-generate-algo_proxy",
        }
    ),
    safe="",
)
# How the check words a refusal whose code is not one of content.
_RISK_WORDS = ("risk not pass", "detected risk")
_IMAGE_CONFIG = "/mweb/v1/get_common_config"
_VIDEO_CONFIG = "/mweb/v1/video_generate/get_common_config"
_CONVERSATION = "/mweb/v1/creation_agent/v2/conversation"
_USER_INFO = "/lv/v1/user/web/user_info"
_CREDIT = "/commerce/v1/benefits/user_credit"
_SPENT = "/commerce/v1/benefits/user_credit_history"
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
        self._uploads = Uploads(self._wire)
        self._sandbox_url = settings.sandbox_url or settings.upstream_origin
        told = catalog_overrides.wire(settings.catalog_file)
        self._da_version = told.get("da_version", settings.upstream_da_version)
        self._agent_da_version = told.get("agent_da_version", settings.upstream_agent_da_version)
        self._web_version = told.get("web_version", settings.upstream_web_version)
        self._talk_seconds, self._talk_gap = settings.talk_seconds, settings.talk_gap_seconds
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
        away = {"upstream_unreachable", "proxy_unreachable"}
        answered = {failure.code: failure for failure in failures if failure.code not in away}
        if not answered:
            raise failures[0]
        if len(answered) == 1:
            raise next(iter(answered.values()))
        raise DreameryError("upstream_session_expired", detail="probes answered: " + ", ".join(sorted(answered)))

    def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Section 6. One call, never repeated here. Unclear when the answer names neither a record nor a reason."""
        site = self._site(account)
        return self._submit(account, site, image_body(order, self._catalog, site, self._stamp(submit_key)))

    def submit_video(self, account: Account, order: VideoOrder, *, submit_key: str) -> Submitted:
        """Section 7; like `submit_image`."""
        site = self._site(account)
        return self._submit(account, site, video_body(order, self._catalog, site, self._stamp(submit_key)))

    def _stamp(self, submit_key: str) -> Stamp:
        return Stamp(submit_key, int(time.time() * 1000), self._da_version)

    def _submit(self, account: Account, site: Site, body: bytes) -> Submitted:
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

    def upload_image(
        self, account: Account, data: bytes | BinaryIO, *, name: str, seconds: float | None = None
    ) -> Reference:
        """Section 5. `name` is for the details of failures only: upstream is not told how callers call their files."""
        site = self._site(account)
        with _upload_failures(name):
            return self._uploads.image(account, site, data, self._token_call(account, site, 2), seconds=seconds)

    def upload_media(
        self, account: Account, data: bytes | BinaryIO, *, kind: str, name: str, seconds: float | None = None
    ) -> Material:
        """Section 5.7; like `upload_image`."""
        site = self._site(account)
        ask_token = self._token_call(account, site, 1)
        with _upload_failures(name):
            return self._uploads.media(account, site, data, ask_token, kind=kind, seconds=seconds)

    def check_image(self, account: Account, reference: Reference) -> None:
        """Section 5.6: a content check of one upload, on the Chinese site only."""
        site = self._site(account)
        if not site.cn:
            return
        body = orjson.dumps(
            {
                "scene": "image_face_ip",
                "options": {"ip_check": True},
                "req_key": "benchmark_test_user_upload_image_input",
                "file_list": [{"file_uri": reference.uri}],
                "req_params": {},
            }
        )
        try:
            answer = self._mweb(account, _CHECK, body, _CHECK_ENTRANCE)
        except DreameryError as failure:
            words = failure.detail or ""
            if failure.code != "content_policy_violation" and _is_risk(words):
                raise DreameryError("content_policy_violation", detail=words) from None
            raise
        words = str(answer.get("errmsg") or "")
        if _is_risk(words):
            raise DreameryError("content_policy_violation", detail=clean(words))

    def _token_call(self, account: Account, site: Site, scene: int) -> TokenCall:
        def ask_token(left: float) -> dict[str, Any]:
            query = _query(site, self._da_version, self._web_version, "")
            target = _target(_MAY_UPLOAD, query, site, account)
            body = orjson.dumps({"scene": scene})
            given = self._wire.call(account, site, site.mweb, target, body, seconds=left).get("data")
            return given if isinstance(given, dict) else {}

        return ask_token

    def ask(self, account: Account, submit_keys: list[str]) -> dict[str, Record]:
        """Section 8. One call for all keys; the caller bounds their number."""
        if not submit_keys:
            return {}
        answer = self._mweb(account, _HISTORY, orjson.dumps({"submit_ids": submit_keys}))
        found = find_records(submit_keys, answer)
        if found is None:
            raise DreameryError("upstream_unreachable", detail=f"{_HISTORY}: an answer without a map of records")
        return {key: parse_record(key, raw) for key, raw in found.items()}

    def better_video(self, account: Account, result: ResultRef) -> ResultRef:
        """Section 8.4. Whatever goes wrong here, `result` is still good."""
        if not result.item_id:
            return result
        body = orjson.dumps(
            {
                "item_id_list": [result.item_id],
                "pack_item_opt": {"scene": 1, "need_data_integrity": True},
                "is_for_video_download": True,
            }
        )
        try:
            items = find_items(self._mweb(account, _ITEMS, body))
        except DreameryError:
            return result
        found = next((ref for item in items if item_id(item) == result.item_id and (ref := video_result(item))), None)
        if found is None or _area(found) < _area(result):
            return result
        return replace(found, seconds=found.seconds or result.seconds, poster_url=found.poster_url or result.poster_url)

    def converse(self, account: Account, order: Conversation, *, conversation_id: str) -> Generator[AgentEvent]:
        """Section 9."""
        site, reader = self._site(account), AgentReader(account)
        # The one call whose region is not that of the account (section 9.1).
        query = (
            f"aid={site.aid}&device_platform=web&region=US&web_version={self._web_version}"
            f"&da_version={self._agent_da_version}&web_component_open_flag=1"
        )
        target = _target(_CONVERSATION, query, site, account)
        body = conversation_body(order, conversation_id, int(time.time() * 1000))
        pieces = self._wire.stream(
            account, site, site.mweb, target, body, seconds=self._talk_seconds, gap=self._talk_gap
        )
        with closing(pieces):
            for piece in pieces:
                yield from reader.feed(piece)
                yield Listening()
                if reader.over:
                    break
        yield from reader.close()

    def list_models(self, account: Account) -> LiveModels:
        """Section 10.3. One list that cannot be had leaves its kind empty; an error when neither can."""
        images: tuple[LiveImageModel, ...] = ()
        videos: tuple[LiveVideoModel, ...] = ()
        failure: DreameryError | None = None
        try:
            flags = "&needCache=true&needRefresh=false"
            body = b'{"is_client_filter":false,"need_beta_model":true}'
            images = image_models(self._mweb(account, _IMAGE_CONFIG, body, flags))
        except DreameryError as caught:
            failure = caught
        try:
            videos = video_models(
                self._mweb(account, _VIDEO_CONFIG, b'{"scene":"generate_video","params":{"needCache":true}}')
            )
        except DreameryError as caught:
            if failure:
                raise failure from caught
        return LiveModels(images=images, videos=videos)

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

    def credit_history(self, account: Account, *, cursor: str = "0") -> CreditHistory:
        """Section 4.5."""
        return read_history(self._commerce(account, _SPENT, orjson.dumps({"count": 50, "cursor": cursor})))

    def receive_credits(self, account: Account) -> int:
        """Section 4.4. Asking twice a day is harmless: the second answer is 0."""
        answer = self._commerce(account, _RECEIVE, b'{"time_zone":"Asia/Shanghai"}')
        data = answer.get("data")
        data = data if isinstance(data, dict) else _from_json(answer.get("response"))
        return _amount(data.get("receive_quota")) if isinstance(data, dict) else 0

    def _site(self, account: Account) -> Site:
        return site_for(account.region, account.cluster, self._sandbox_url)

    def _mweb(self, account: Account, path: str, body: bytes, flags: str = "") -> dict[str, Any]:
        site = self._site(account)
        query = _query(site, self._da_version, self._web_version, flags)
        return self._wire.call(account, site, site.mweb, _target(path, query, site, account), body)

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


@contextmanager
def _upload_failures(name: str) -> Iterator[None]:
    """Name the file in the detail of a failure. Uploads cost nothing, so being unreachable is never unclear."""
    try:
        yield
    except DreameryError as failure:
        failure.detail = f"upload of {clean(name)}: {failure.detail or failure.message}"
        if failure.code == "upstream_unreachable" and not isinstance(failure, NotSentError):
            raise NotSentError(failure.detail) from None
        raise


@lru_cache(maxsize=1024)
def _query(site: Site, da_version: str, web_version: str, flags: str) -> str:
    """The query of `/mweb/` calls but for the web id (section 2.1)."""
    return (
        f"aid={site.aid}&device_platform=web&region={site.region}&da_version={da_version}&os=windows{flags}"
        f"&web_version={web_version}&aigc_features=app_lip_sync"
    )


def _target(path: str, query: str, site: Site, account: Account) -> str:
    own = f"&{site.query}" if site.query else ""
    return f"{path}?{query}&{site.web_id_param}={web_id(account.session)}{own}"


def _is_risk(words: str) -> bool:
    return any(word in words.lower() for word in _RISK_WORDS)


def _area(result: ResultRef) -> int:
    return (result.width or 0) * (result.height or 0)


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
