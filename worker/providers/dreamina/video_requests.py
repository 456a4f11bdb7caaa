"""Request bodies of video submits (protocol section 7): text, first frame, first and last frame, omni reference.

They have the form of the fixtures generate.video.*; the differences between models are in the catalog.
"""

from typing import Any

import orjson

from worker.core.catalog.models import Catalog, VideoModel
from worker.providers.base import Material, PromptPart, VideoOrder
from worker.providers.dreamina.regions import Site
from worker.providers.dreamina.request_drafts import (
    SubmitContext,
    build_draft,
    build_image,
    build_metadata,
    to_json,
    uuids,
)
from worker.providers.dreamina.wire_models import WireVideo, wire_video

_MIN_VERSION = "3.0.5"
_MIN_VERSION_OMNI = "3.3.9"
_OMNI_FEATURE = "AIGC_Video_UnifiedEdit"
_MATERIAL_NUMBERS = {"image": 1, "video": 2, "audio": 3}


def build_video_body(order: VideoOrder, catalog: Catalog, site: Site, context: SubmitContext) -> bytes:
    """Return the JSON body of a video submit."""
    model = catalog.find_video(order.model) or catalog.video_model(order.model)
    wire = wire_video(model)
    metrics = _metrics(order, model, wire, context)
    omni = bool(order.materials)
    features = (*wire.features, *((_OMNI_FEATURE,) if omni else ()))
    return orjson.dumps(
        {
            "extend": {"root_model": model.key, **_commerce(order, wire)},
            "submit_id": context.submit_key,
            "metrics_extra": metrics,
            "draft_content": build_draft(
                _component(order, model, wire, metrics, context),
                context,
                min_version=_min_version(order, wire),
                min_features=features,
            ),
            "http_common_info": {"aid": site.aid},
        }
    )


def _min_version(order: VideoOrder, wire: WireVideo) -> str:
    return wire.min_version or (_MIN_VERSION_OMNI if order.materials else _MIN_VERSION)


def _commerce(order: VideoOrder, wire: WireVideo) -> dict[str, Any]:
    """Return the declared benefit (section 7.3), or {} if it is unknown: a wrong guess could change the charge."""
    benefit = wire.benefit_for(
        seconds=order.seconds, resolution=order.resolution, omni=bool(order.materials), listed=order.listed
    )
    if not benefit:
        return {}
    info: dict[str, Any] = {
        "benefit_type": benefit,
        "resource_id": "generate_video",
        "resource_id_type": "str",
        "resource_sub_type": "aigc",
    }
    if wire.amount:
        # Seconds of the output and of the input videos; upstream checks the number but computes the price itself.
        inputs = sum(m.milliseconds for m in order.materials if m.kind == "video")
        info["amount"] = order.seconds + -(-inputs // 1000)
    return {"m_video_commerce_info": info, "m_video_commerce_info_list": [info]}


def _component(
    order: VideoOrder, model: VideoModel, wire: WireVideo, metrics: str, context: SubmitContext
) -> dict[str, Any]:
    component, abilities, gen_video, params = uuids(4)
    return {
        "type": "video_base_component",
        "id": component,
        "min_version": "1.0.0",
        "aigc_mode": "workbench",
        "metadata": build_metadata(context),
        "generate_type": "gen_video",
        "abilities": {
            "type": "",
            "id": abilities,
            "gen_video": {
                "type": "",
                "id": gen_video,
                "text_to_video_params": {
                    "type": "",
                    "id": params,
                    "video_gen_inputs": [_input(order, wire)],
                    "video_aspect_ratio": order.ratio,
                    "seed": order.seed,
                    "model_req_key": model.key,
                    "priority": 0,
                },
                "video_task_extra": metrics,
            },
        },
        "process_type": 1,
    }


def _input(order: VideoOrder, wire: WireVideo) -> dict[str, Any]:
    """Return the INPUT object of section 7.1. With materials the prompt is empty: its text is in the meta list."""
    result: dict[str, Any] = {
        "type": "",
        "id": uuids(1)[0],
        "min_version": _min_version(order, wire),
        "prompt": "" if order.materials else order.prompt,
        "video_mode": 2,
        "fps": order.fps,
        "duration_ms": order.seconds * 1000,
    }
    if wire.sends_resolution:
        result["resolution"] = order.resolution
    if wire.draft_mode:
        result["is_draft_mode"] = True
    if order.first_frame:
        result["first_frame_image"] = build_image(order.first_frame)
    if order.end_frame:
        result["end_frame_image"] = build_image(order.end_frame)
    if order.materials:
        result["unified_edit_input"] = _unified_edit(order)
    result["idip_meta_list"] = []
    return result


def _unified_edit(order: VideoOrder) -> dict[str, Any]:
    """Return the materials and the prompt that refers to them (section 7.2)."""
    parts = order.parts or (PromptPart(text=order.prompt),)
    return {
        "type": "",
        "id": uuids(1)[0],
        "material_list": [_material(material) for material in order.materials],
        "meta_list": [_meta(part, order.materials) for part in parts],
    }


def _material(material: Material) -> dict[str, Any]:
    entry_id, info_id = uuids(2)
    entry: dict[str, Any] = {"type": "", "id": entry_id, "material_type": material.kind}
    if material.kind == "image" and material.image:
        entry["image_info"] = build_image(material.image)
        return entry
    info: dict[str, Any] = {"type": material.kind, "id": info_id, "source_from": "upload"}
    if material.kind == "video":
        info |= {
            "name": material.name,
            "vid": material.upload_id,
            "fps": 0,
            "width": material.width,
            "height": material.height,
            "duration": material.milliseconds,
        }
    else:
        info |= {"vid": material.upload_id, "duration": material.milliseconds, "name": material.name}
    entry[f"{material.kind}_info"] = info
    return entry


def _meta(part: PromptPart, materials: tuple[Material, ...]) -> dict[str, Any]:
    if part.material is None:
        return {"meta_type": "text", "text": part.text}
    kind = materials[part.material].kind
    return {"meta_type": kind, "text": "", "material_ref": {"material_idx": part.material}}


def _metrics(order: VideoOrder, model: VideoModel, wire: WireVideo, context: SubmitContext) -> str:
    """Return the telemetry, which is sent twice: as `metrics_extra` and inside the draft (section 7.1)."""
    scene: dict[str, Any] = {"type": "video", "scene": "BasicVideoGenerateButton"}
    if wire.sends_resolution:
        scene["resolution"] = order.resolution
    scene |= {
        "modelReqKey": model.key,
        "videoDuration": order.seconds,
        "materialTypes": [_MATERIAL_NUMBERS[material.kind] for material in order.materials],
        "reportParams": {
            "enterSource": "generate",
            "vipSource": "generate",
            "extraVipFunctionKey": f"{model.key}-{order.resolution}" if wire.sends_resolution else model.key,
            "useVipFunctionDetailsReporterHoc": True,
        },
    }
    return to_json(
        {
            "promptSource": "custom",
            "isDefaultSeed": 1,
            "originSubmitId": context.submit_key,
            "isRegenerate": False,
            "enterFrom": "click",
            "position": "page_bottom_box",
            "functionMode": "omni_reference" if order.materials else "first_last_frames",
            "sceneOptions": to_json([scene]),
        }
    )
