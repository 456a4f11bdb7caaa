"""The Dreamina / Jimeng client: implements `Provider`, one endpoint of the private web API per method.

It does not imitate the further checks of a browser (protocol section 12); a refusal because of them is reported.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx
import orjson

from worker.core.catalog import provider_overrides
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.observability.faults import before_sending
from worker.core.settings import Settings
from worker.providers.base import (
    Account,
    Capabilities,
    Found,
    ImageOrder,
    LookupResult,
    Material,
    NotSentError,
    OpenOrder,
    Provider,
    Record,
    Reference,
    ResultRef,
    Submitted,
    VideoOrder,
)
from worker.providers.conversation import AgentEvent, Conversation, KeepAlive
from worker.providers.credits import CreditHistory, Credits
from worker.providers.dreamina.agent_stream import AgentStreamParser, build_conversation_body
from worker.providers.dreamina.credit_history import parse_credits, parse_history, parse_received
from worker.providers.dreamina.error_codes import clean
from worker.providers.dreamina.http import UpstreamHttp, refusal
from worker.providers.dreamina.image_requests import build_image_body
from worker.providers.dreamina.job_records import (
    find_items,
    find_records,
    parse_record,
    read_fail_fields,
    read_item_id,
    read_queue,
    read_record_id,
    read_video_result,
)
from worker.providers.dreamina.model_list import parse_image_models, parse_video_models
from worker.providers.dreamina.regions import PROBES, Site, probe_site, read_cluster, site_for, site_query, site_target
from worker.providers.dreamina.request_drafts import SubmitContext
from worker.providers.dreamina.uploads import FetchUploadToken, Uploader
from worker.providers.dreamina.video_requests import build_video_body
from worker.providers.live_models import LiveImageModel, LiveModels, LiveVideoModel

_GENERATE = "/mweb/v1/aigc_draft/generate"
_HISTORY = "/mweb/v1/get_history_by_ids"
_UPLOAD_ACCESS = "/mweb/v1/get_upload_token"
_ITEMS = "/mweb/v1/get_local_item_list"
_CHECK = "/mweb/v1/algo_proxy"
# Telemetry: where on the page the check happens (section 2.1).
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
# Texts of a refused check whose code is not a content code.
_RISK_TEXTS = ("risk not pass", "detected risk")
_IMAGE_CONFIG = "/mweb/v1/get_common_config"
_VIDEO_CONFIG = "/mweb/v1/video_generate/get_common_config"
_CONVERSATION = "/mweb/v1/creation_agent/v2/conversation"
_USER_INFO = "/lv/v1/user/web/user_info"
_CREDIT = "/commerce/v1/benefits/user_credit"
_CREDIT_HISTORY = "/commerce/v1/benefits/user_credit_history"
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


def create(settings: Settings) -> Provider:
    """Return the provider."""
    return DreaminaProvider(settings)


class DreaminaProvider:
    """Implements `Provider`. One instance per process, shared by all threads."""

    def __init__(self, settings: Settings, *, transport: httpx.MockTransport | None = None) -> None:
        self._http = UpstreamHttp(settings, transport)
        self._uploader = Uploader(self._http)
        self._sandbox_url = settings.sandbox_url or settings.upstream_origin
        constants = provider_overrides.constants(settings.catalog_file, settings.provider_constants, "dreamina")
        self._da_version, self._web_version = constants["da_version"], constants["web_version"]
        self._agent_da_version = constants["agent_da_version"]
        self._conversation_seconds, self._conversation_gap = (
            settings.conversation_timeout_seconds,
            settings.conversation_idle_timeout_seconds,
        )
        self._catalog = get_catalog()
        self._capabilities = Capabilities(
            hosts=self,
            uploads=self,
            better_videos=self,
            agent=self,
            balance=self,
            ledger=self,
            daily_credits=self,
            live_models=self,
            lookup=self,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What it has."""
        return self._capabilities

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    async def look_up_hosts(self, account: Account) -> dict[str, str]:
        """Send four probes in parallel and return the first success in list order (section 1.2).

        If all fail, raises upstream's error if all probes agree, else `upstream_session_expired`;
        `upstream_unreachable` if no probe got a response.
        """
        probes = [asyncio.create_task(self._probe(account, idc)) for idc in PROBES]
        try:
            failures: list[DreameryError] = []
            for probe in probes:
                try:
                    return await probe
                except DreameryError as failure:
                    failures.append(failure)
        finally:
            for probe in probes:
                probe.cancel()
            await asyncio.gather(*probes, return_exceptions=True)
        unreachable = {"upstream_unreachable", "proxy_unreachable"}
        answered = {failure.code: failure for failure in failures if failure.code not in unreachable}
        if not answered:
            raise failures[0]
        if len(answered) == 1:
            raise next(iter(answered.values()))
        raise DreameryError("upstream_session_expired", detail="probes answered: " + ", ".join(sorted(answered)))

    async def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Section 6. One call, never repeated here. A response without a record or a reason is unclear."""
        with before_sending():
            site, context = self._site(account), SubmitContext.now(submit_key, self._da_version)
            body = build_image_body(order, self._catalog, site, context)
        return await self._submit(account, site, body)

    async def submit_video(self, account: Account, order: VideoOrder, *, submit_key: str) -> Submitted:
        """Section 7; like `submit_image`."""
        with before_sending():
            site, context = self._site(account), SubmitContext.now(submit_key, self._da_version)
            body = build_video_body(order, self._catalog, site, context)
        return await self._submit(account, site, body)

    async def _submit(self, account: Account, site: Site, body: bytes) -> Submitted:
        query = site_query(site, self._da_version, self._web_version, "&web_component_open_flag=1")
        answer = await self._http.call(
            account, site, site.mweb, site_target(_GENERATE, query, site, account.session), body
        )
        found = answer.get("data")
        data = found if isinstance(found, dict) else {}
        record = inner if isinstance(inner := data.get("aigc_data"), dict) else data
        upstream_id = read_record_id(record)
        if upstream_id:
            position, forecast = read_queue(record)
            return Submitted(upstream_id, position, forecast)
        fail_code, key, _, _ = read_fail_fields(data, record)
        if fail_code not in {"", "0"} or key:
            raise refusal("", answer, account)
        raise DreameryError("upstream_unreachable", detail=f"{_GENERATE}: accepted, but without history_record_id")

    async def upload_image(
        self, account: Account, data: bytes | BinaryIO, *, name: str, seconds: float | None = None
    ) -> Reference:
        """Section 5. `name` only appears in error details; upstream never receives the file name."""
        site = self._site(account)
        with _upload_failures(name):
            return await self._uploader.upload_image(
                account, site, data, self._token_fetcher(account, site, 2), seconds=seconds
            )

    async def upload_media(
        self, account: Account, data: bytes | BinaryIO, *, kind: str, name: str, seconds: float | None = None
    ) -> Material:
        """Section 5.7; like `upload_image`."""
        site = self._site(account)
        fetch_token = self._token_fetcher(account, site, 1)
        with _upload_failures(name):
            return await self._uploader.upload_media(account, site, data, fetch_token, kind=kind, seconds=seconds)

    async def check_image(self, account: Account, reference: Reference) -> None:
        """Section 5.6: check the content of one upload, on the Chinese site only."""
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
            answer = await self._mweb(account, _CHECK, body, _CHECK_ENTRANCE)
        except DreameryError as failure:
            text = failure.detail or ""
            if failure.code != "content_policy_violation" and _is_risk(text):
                raise DreameryError("content_policy_violation", detail=text) from None
            raise
        text = str(answer.get("errmsg") or "")
        if _is_risk(text):
            raise DreameryError("content_policy_violation", detail=clean(text))

    def _token_fetcher(self, account: Account, site: Site, scene: int) -> FetchUploadToken:
        async def fetch_token(seconds: float) -> dict[str, Any]:
            query = site_query(site, self._da_version, self._web_version, "")
            target = site_target(_UPLOAD_ACCESS, query, site, account.session)
            body = orjson.dumps({"scene": scene})
            data = (await self._http.call(account, site, site.mweb, target, body, seconds=seconds)).get("data")
            return data if isinstance(data, dict) else {}

        return fetch_token

    async def fetch_records(self, account: Account, orders: list[OpenOrder]) -> dict[str, Record]:
        """Section 8. One call for all orders; the caller limits their number."""
        if not orders:
            return {}
        submit_keys = [order.submit_key for order in orders]
        answer = await self._mweb(account, _HISTORY, orjson.dumps({"submit_ids": submit_keys}))
        records = find_records(submit_keys, answer)
        if records is None:
            raise DreameryError("upstream_unreachable", detail=f"{_HISTORY}: an answer without a map of records")
        return {key: parse_record(key, raw) for key, raw in records.items()}

    def can_look_up(self, kind: str) -> bool:
        """The history has all kinds."""
        return kind in {"image", "video"}

    async def look_up(self, account: Account, order: OpenOrder, *, owned: Collection[str] = ()) -> LookupResult:
        """The history finds an order by the submit key; what it does not have did not arrive."""
        del owned  # a submit key belongs to one order
        record = (await self.fetch_records(account, [order])).get(order.submit_key)
        return LookupResult(Found.FOUND if record else Found.ABSENT, record)

    async def find_better_video(self, account: Account, result: ResultRef) -> ResultRef:
        """Section 8.4. After a failure `result` is returned, which is still usable."""
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
            items = find_items(await self._mweb(account, _ITEMS, body))
        except DreameryError:
            return result
        better = next(
            (ref for item in items if read_item_id(item) == result.item_id and (ref := read_video_result(item))), None
        )
        if better is None or _area(better) < _area(result):
            return result
        return replace(
            better, seconds=better.seconds or result.seconds, poster_url=better.poster_url or result.poster_url
        )

    async def converse(
        self, account: Account, order: Conversation, *, conversation_id: str
    ) -> AsyncGenerator[AgentEvent]:
        """Section 9."""
        site, parser = self._site(account), AgentStreamParser(account)
        # The only call whose region is not that of the account (section 9.1).
        query = (
            f"aid={site.aid}&device_platform=web&region=US&web_version={self._web_version}"
            f"&da_version={self._agent_da_version}&web_component_open_flag=1"
        )
        target = site_target(_CONVERSATION, query, site, account.session)
        body = build_conversation_body(order, conversation_id, int(time.time() * 1000))
        chunks = self._http.stream(
            account, site, site.mweb, target, body, seconds=self._conversation_seconds, gap=self._conversation_gap
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                for event in parser.feed(chunk):
                    yield event
                yield KeepAlive()
                if parser.over:
                    break
        for event in parser.close():
            yield event

    async def list_models(self, account: Account) -> LiveModels:
        """Section 10.3. A list that fails leaves its kind empty; raises only if both lists fail."""
        images: tuple[LiveImageModel, ...] = ()
        videos: tuple[LiveVideoModel, ...] = ()
        failure: DreameryError | None = None
        try:
            flags = "&needCache=true&needRefresh=false"
            body = b'{"is_client_filter":false,"need_beta_model":true}'
            images = parse_image_models(await self._mweb(account, _IMAGE_CONFIG, body, flags))
        except DreameryError as caught:
            failure = caught
        try:
            body = b'{"scene":"generate_video","params":{"needCache":true}}'
            videos = parse_video_models(await self._mweb(account, _VIDEO_CONFIG, body))
        except DreameryError as caught:
            if failure:
                raise failure from caught
        return LiveModels(images=images, videos=videos)

    async def check_account(self, account: Account) -> int:
        """The credits call needs a valid session and costs nothing (section 4.2)."""
        return (await self.fetch_credits(account)).total

    async def fetch_credits(self, account: Account) -> Credits:
        """Section 4.3: read `data.credit`, else the JSON string `response`."""
        return parse_credits(await self._commerce(account, _CREDIT, b"{}"))

    async def fetch_credit_history(self, account: Account, *, cursor: str = "0") -> CreditHistory:
        """Section 4.5."""
        body = orjson.dumps({"count": 50, "cursor": cursor})
        return parse_history(await self._commerce(account, _CREDIT_HISTORY, body))

    async def receive_credits(self, account: Account) -> int:
        """Section 4.4. A second call on the same day is harmless and returns 0."""
        return parse_received(await self._commerce(account, _RECEIVE, b'{"time_zone":"Asia/Shanghai"}'))

    def _site(self, account: Account) -> Site:
        return site_for(account.region, account.cluster, self._sandbox_url)

    async def _mweb(self, account: Account, path: str, body: bytes, flags: str = "") -> dict[str, Any]:
        site = self._site(account)
        query = site_query(site, self._da_version, self._web_version, flags)
        return await self._http.call(account, site, site.mweb, site_target(path, query, site, account.session), body)

    async def _commerce(self, account: Account, path: str, body: bytes) -> dict[str, Any]:
        site = self._site(account)
        query = f"aid={site.aid}&device_platform=web&region={site.region}"
        return await self._http.call(
            account, site, site.commerce, site_target(path, query, site, account.session), body
        )

    async def _probe(self, account: Account, idc: str) -> dict[str, str]:
        site = probe_site(idc)
        target = site_target(_USER_INFO, f"aid={site.aid}&device_platform=web", site, account.session)
        answer = await self._http.call(account, site, site.site, target, _USER_INFO_BODY)
        cluster = read_cluster(answer, idc)
        if cluster is None:
            raise DreameryError("upstream_session_expired", detail=f"{_USER_INFO}: errmsg is not success")
        return cluster


@contextmanager
def _upload_failures(name: str) -> Iterator[None]:
    """Add the file name to the error detail. Uploads cost nothing, so an unreachable upstream is never unclear."""
    try:
        yield
    except DreameryError as failure:
        failure.detail = f"upload of {clean(name)}: {failure.detail or failure.message}"
        if failure.code == "upstream_unreachable" and not isinstance(failure, NotSentError):
            raise NotSentError(failure.detail) from None
        raise


def _is_risk(text: str) -> bool:
    return any(risk in text.lower() for risk in _RISK_TEXTS)


def _area(result: ResultRef) -> int:
    return (result.width or 0) * (result.height or 0)
