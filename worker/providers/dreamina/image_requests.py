"""Request bodies of image submits (protocol section 6): from text, and from other images (`blend`, 6.5).

They have the form that the browser sends (fixtures generate.image.* and generate.blend.*).
"""

from typing import Any

import orjson

from worker.core.catalog.models import DEFAULT_COUNT, Catalog, ImageModel, Size
from worker.core.catalog.prompts.prompt_flags import requested_series_count
from worker.providers.base import ImageOrder
from worker.providers.dreamina.regions import Site
from worker.providers.dreamina.request_drafts import (
    SubmitContext,
    build_draft,
    build_image,
    build_metadata,
    to_json,
    uuids,
)
from worker.providers.dreamina.wire_models import only_size_in_us, ratio_number

_MIN_VERSION = "3.0.2"
_MIN_VERSION_BLEND = "3.2.9"
_PLACEHOLDER = "##"


def build_image_body(order: ImageOrder, catalog: Catalog, site: Site, context: SubmitContext) -> bytes:
    """Return the JSON body of an image submit."""
    # A model that is only in upstream's list comes with its key; the order then contains all that is known of it.
    model = None if order.key else (catalog.find_image(order.model) or catalog.image_model(order.model))
    key = model.upstream_key("cn" if site.cn else "world") if model else order.key
    size = _size(order, model, site)
    count = order.count if model is None or model.counts else None
    # An explicit count means variations; the length of a series is in the prompt (section 6.7).
    in_series = model is not None and model.series and count is None and not order.references
    series = in_series and requested_series_count(order.prompt) is not None
    core = _core_param(order, key, size, ratio_number(size.ratio))
    component = _component(order, core, count, context)
    return orjson.dumps(
        {
            "extend": {"root_model": key},
            "submit_id": context.submit_key,
            "metrics_extra": _metrics(
                context.submit_key,
                key,
                resolution=size.resolution,
                count=count,
                charged=None if series else count or (model.default_count if model else DEFAULT_COUNT),
                abilities=_ability_reports(order, site),
            ),
            "draft_content": build_draft(
                component, context, min_version=_MIN_VERSION_BLEND if order.references else _MIN_VERSION
            ),
            "http_common_info": {"aid": site.aid},
        }
    )


def _size(order: ImageOrder, model: ImageModel | None, site: Site) -> Size:
    # Only for real US accounts: the sandbox also has the country US, but makes any size.
    if model and site.region == "US" and not site.direct and (only := only_size_in_us(model)):
        return only
    return Size(order.width, order.height, order.ratio, order.resolution)


def _core_param(order: ImageOrder, key: str, size: Size, ratio_number: int) -> dict[str, Any]:
    core_id, size_id = uuids(2)
    blend = bool(order.references)
    core: dict[str, Any] = {"type": "", "id": core_id, "model": key}
    # Each reference has one placeholder, before the text and in the order of the abilities (section 6.5).
    core["prompt"] = _PLACEHOLDER * len(order.references) + order.prompt
    if not blend or order.negative_prompt:
        core["negative_prompt"] = order.negative_prompt
    if not blend:
        core["seed"] = order.seed
    core |= {
        "sample_strength": order.sample_strength,
        "image_ratio": ratio_number,
        "large_image_info": {
            "type": "",
            "id": size_id,
            "height": size.height,
            "width": size.width,
            "resolution_type": size.resolution,
        },
        "intelligent_ratio": False,
    }
    if not blend:
        core["generate_type"] = 0
    return core


def _component(order: ImageOrder, core: dict[str, Any], count: int | None, context: SubmitContext) -> dict[str, Any]:
    component, abilities, option = uuids(3)
    kind = "blend" if order.references else "generate"
    gen_option: dict[str, Any] = {"type": "", "id": option, "generate_all": False}
    if count is not None:
        gen_option["gen_count"] = count
    return {
        "type": "image_base_component",
        "id": component,
        "min_version": _MIN_VERSION,
        "aigc_mode": "workbench",
        "metadata": build_metadata(context),
        "generate_type": kind,
        "abilities": {
            "type": "",
            "id": abilities,
            kind: _blend(order, core) if order.references else {"type": "", "id": uuids(1)[0], "core_param": core},
            "gen_option": gen_option,
        },
    }


def _blend(order: ImageOrder, core: dict[str, Any]) -> dict[str, Any]:
    """Return the ability that makes an image from images, with a placeholder for each (section 6.2)."""
    blend_id, postedit = uuids(2)
    return {
        "type": "",
        "id": blend_id,
        "min_version": _MIN_VERSION_BLEND,
        "min_features": [],
        "core_param": core,
        "ability_list": [
            {
                "type": "",
                "id": uuids(1)[0],
                "name": "byte_edit",
                "image_uri_list": [reference.uri],
                "image_list": [build_image(reference)],
                "strength": order.sample_strength,
            }
            for reference in order.references
        ],
        "prompt_placeholder_info_list": [
            {"type": "", "id": placeholder_id, "ability_index": index}
            for index, placeholder_id in enumerate(uuids(len(order.references)))
        ],
        "postedit_param": {"type": "", "id": postedit, "generate_type": 0},
    }


def _ability_reports(order: ImageOrder, site: Site) -> list[dict[str, Any]]:
    """Return the telemetry of a blend: the page reports each image with its URL in the browser (section 6.3)."""
    return [
        {
            "abilityName": "byte_edit",
            "strength": order.sample_strength,
            "source": {"imageUrl": f"blob:{site.site}/{blob_id}"},
        }
        for blob_id in uuids(len(order.references))
    ]


def _metrics(
    submit_key: str,
    key: str,
    *,
    resolution: str,
    count: int | None,
    charged: int | None,
    abilities: list[dict[str, Any]],
) -> str:
    """Return the telemetry. Only `benefitCount` matters: it declares how many images are charged (section 6.3).

    A series (`charged` None) declares none, because only the model knows its length (section 6.7).
    """
    scene: dict[str, Any] = {
        "type": "image",
        "scene": "ImageBasicGenerate" if charged else "ImageMultiGenerate",
        "modelReqKey": key,
        "resolutionType": resolution,
        "abilityList": abilities,
        "reportParams": {
            "enterSource": "generate",
            "vipSource": "generate",
            "extraVipFunctionKey": f"{key}-{resolution}",
            "useVipFunctionDetailsReporterHoc": True,
        },
    }
    if charged:
        scene["benefitCount"] = charged
    origin = {} if charged else dict.fromkeys(("templateId", "templateSource", "lastRequestId", "originRequestId"), "")
    return to_json(
        {
            "promptSource": "custom",
            "generateCount": count or 1,
            "enterFrom": "click",
            "position": "page_bottom_box",
            "sceneOptions": to_json([scene]),
            "isBoxSelect": False,
            "isCutout": False,
            "generateId": submit_key,
            "isRegenerate": False,
            **origin,
        }
    )
