"""Request bodies of submits (protocol section 6), shaped as the browser sends them (fixtures generate.image.*)."""

import os
from dataclasses import dataclass
from typing import Any

import orjson

from worker.core.catalog import Catalog, ImageModel, Size
from worker.providers.dreamina.regions import Site
from worker.providers.provider import ImageOrder

_MIN_VERSION = "3.0.2"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one submit different from the next: its key, the moment, the draft version of the settings."""

    submit_key: str
    milliseconds: int
    version: str


def image_body(order: ImageOrder, catalog: Catalog, site: Site, stamp: Stamp) -> bytes:
    """The whole JSON body of a text-to-picture submit."""
    model = catalog.image_model(order.model)
    key = model.upstream_key("cn" if site.cn else "world")
    size = _size(order, model, site)
    count = order.count if model.counts else None
    core = _core_param(order, key, size, catalog.ratios[size.ratio])
    return orjson.dumps(
        {
            "extend": {"root_model": key},
            "submit_id": stamp.submit_key,
            "metrics_extra": _metrics(stamp.submit_key, key, size.resolution, count, model.default_count),
            "draft_content": _draft(core, count, stamp),
            "http_common_info": {"aid": site.aid},
        }
    )


def _size(order: ImageOrder, model: ImageModel, site: Site) -> Size:
    # Real US accounts only: the sandbox carries the country US but draws what it is told.
    if model.only_us and site.region == "US" and not site.direct:
        return model.only_us
    return Size(order.width, order.height, order.ratio, order.resolution)


def _core_param(order: ImageOrder, key: str, size: Size, ratio_number: int) -> dict[str, Any]:
    own, large = _uuids(2)
    return {
        "type": "",
        "id": own,
        "model": key,
        "prompt": order.prompt,
        "negative_prompt": order.negative_prompt,
        "seed": order.seed,
        "sample_strength": order.sample_strength,
        "image_ratio": ratio_number,
        "large_image_info": {
            "type": "",
            "id": large,
            "height": size.height,
            "width": size.width,
            "resolution_type": size.resolution,
        },
        "intelligent_ratio": False,
        "generate_type": 0,
    }


def _draft(core: dict[str, Any], count: int | None, stamp: Stamp) -> str:
    own, component, metadata, abilities, generate, option = _uuids(6)
    gen_option: dict[str, Any] = {"type": "", "id": option, "generate_all": False}
    if count is not None:
        gen_option["gen_count"] = count
    return _json(
        {
            "type": "draft",
            "id": own,
            "min_version": _MIN_VERSION,
            "min_features": [],
            "is_from_tsn": True,
            "version": stamp.version,
            "main_component_id": component,
            "component_list": [
                {
                    "type": "image_base_component",
                    "id": component,
                    "min_version": _MIN_VERSION,
                    "aigc_mode": "workbench",
                    "metadata": {
                        "type": "",
                        "id": metadata,
                        "created_platform": 3,
                        "created_platform_version": "",
                        "created_time_in_ms": str(stamp.milliseconds),
                        "created_did": "",
                    },
                    "generate_type": "generate",
                    "abilities": {
                        "type": "",
                        "id": abilities,
                        "generate": {"type": "", "id": generate, "core_param": core},
                        "gen_option": gen_option,
                    },
                }
            ],
        }
    )


def _metrics(submit_key: str, key: str, resolution: str, count: int | None, default_count: int) -> str:
    """Telemetry, except `benefitCount`: it declares how many pictures will be charged (section 6.3)."""
    scene = {
        "type": "image",
        "scene": "ImageBasicGenerate",
        "modelReqKey": key,
        "resolutionType": resolution,
        "abilityList": [],
        "reportParams": {
            "enterSource": "generate",
            "vipSource": "generate",
            "extraVipFunctionKey": f"{key}-{resolution}",
            "useVipFunctionDetailsReporterHoc": True,
        },
        "benefitCount": count or default_count,
    }
    return _json(
        {
            "promptSource": "custom",
            "generateCount": count or 1,
            "enterFrom": "click",
            "position": "page_bottom_box",
            "sceneOptions": _json([scene]),
            "isBoxSelect": False,
            "isCutout": False,
            "generateId": submit_key,
            "isRegenerate": False,
        }
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _uuids(number: int) -> list[str]:
    """Random version 4 UUIDs from one read of the random source; `uuid.uuid4()` costs several times as much."""
    digits = os.urandom(16 * number).hex()
    return [
        f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
        for h in (digits[i : i + 32] for i in range(0, 32 * number, 32))
    ]
