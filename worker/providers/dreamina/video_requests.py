"""Request bodies of video submits (protocol section 7): text, first frame, first and last frame, omni reference.

They are shaped as the fixtures generate.video.* show them; what differs between models is in the catalog.
"""

from typing import Any

import orjson

from worker.core.catalog.models import Catalog, VideoModel
from worker.providers.base import Material, PromptPart, VideoOrder
from worker.providers.dreamina.regions import Site
from worker.providers.dreamina.request_drafts import Stamp, draft, metadata, picture, to_json, uuids

_MIN_VERSION = "3.0.5"
_MIN_VERSION_OMNI = "3.3.9"
_OMNI_FEATURE = "AIGC_Video_UnifiedEdit"
_MATERIAL_NUMBERS = {"image": 1, "video": 2, "audio": 3}


def video_body(order: VideoOrder, catalog: Catalog, site: Site, stamp: Stamp) -> bytes:
    """The whole JSON body of a video submit."""
    model = catalog.video_model(order.model)
    metrics = _metrics(order, model, stamp)
    omni = bool(order.materials)
    features = (*model.features, *((_OMNI_FEATURE,) if omni else ()))
    return orjson.dumps(
        {
            "extend": {"root_model": model.key, **_commerce(order, model)},
            "submit_id": stamp.submit_key,
            "metrics_extra": metrics,
            "draft_content": draft(
                _component(order, model, metrics, stamp),
                stamp,
                min_version=_min_version(order, model),
                min_features=features,
            ),
            "http_common_info": {"aid": site.aid},
        }
    )


def _min_version(order: VideoOrder, model: VideoModel) -> str:
    return model.min_version or (_MIN_VERSION_OMNI if order.materials else _MIN_VERSION)


def _commerce(order: VideoOrder, model: VideoModel) -> dict[str, Any]:
    """What the job is charged as (section 7.3). Unknown = not declared: a guess could be charged as something else."""
    benefit = order.benefit or model.benefit_for(
        seconds=order.seconds, resolution=order.resolution, omni=bool(order.materials)
    )
    if not benefit:
        return {}
    info: dict[str, Any] = {
        "benefit_type": benefit,
        "resource_id": "generate_video",
        "resource_id_type": "str",
        "resource_sub_type": "aigc",
    }
    if model.amount:
        # Output seconds and those of the videos it is made from; upstream checks it, the price is its own.
        inputs = sum(m.milliseconds for m in order.materials if m.kind == "video")
        info["amount"] = order.seconds + -(-inputs // 1000)
    return {"m_video_commerce_info": info, "m_video_commerce_info_list": [info]}


def _component(order: VideoOrder, model: VideoModel, metrics: str, stamp: Stamp) -> dict[str, Any]:
    component, abilities, gen_video, params = uuids(4)
    return {
        "type": "video_base_component",
        "id": component,
        "min_version": "1.0.0",
        "aigc_mode": "workbench",
        "metadata": metadata(stamp),
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
                    "video_gen_inputs": [_input(order, model)],
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


def _input(order: VideoOrder, model: VideoModel) -> dict[str, Any]:
    """The INPUT object of section 7.1. With materials the prompt is empty: its text is in the meta list."""
    one: dict[str, Any] = {
        "type": "",
        "id": uuids(1)[0],
        "min_version": _min_version(order, model),
        "prompt": "" if order.materials else order.prompt,
        "video_mode": 2,
        "fps": order.fps,
        "duration_ms": order.seconds * 1000,
    }
    if model.sends_resolution:
        one["resolution"] = order.resolution
    if model.draft_mode:
        one["is_draft_mode"] = True
    if order.first_frame:
        one["first_frame_image"] = picture(order.first_frame)
    if order.end_frame:
        one["end_frame_image"] = picture(order.end_frame)
    if order.materials:
        one["unified_edit_input"] = _unified_edit(order)
    one["idip_meta_list"] = []
    return one


def _unified_edit(order: VideoOrder) -> dict[str, Any]:
    """Materials and the prompt that refers to them (section 7.2)."""
    parts = order.parts or (PromptPart(text=order.prompt),)
    return {
        "type": "",
        "id": uuids(1)[0],
        "material_list": [_material(material) for material in order.materials],
        "meta_list": [_meta(part, order.materials) for part in parts],
    }


def _material(material: Material) -> dict[str, Any]:
    own, inner = uuids(2)
    entry: dict[str, Any] = {"type": "", "id": own, "material_type": material.kind}
    if material.kind == "image" and material.image:
        entry["image_info"] = picture(material.image)
        return entry
    info: dict[str, Any] = {"type": material.kind, "id": inner, "source_from": "upload"}
    if material.kind == "video":
        info |= {
            "name": material.name,
            "vid": material.vid,
            "fps": 0,
            "width": material.width,
            "height": material.height,
            "duration": material.milliseconds,
        }
    else:
        info |= {"vid": material.vid, "duration": material.milliseconds, "name": material.name}
    entry[f"{material.kind}_info"] = info
    return entry


def _meta(part: PromptPart, materials: tuple[Material, ...]) -> dict[str, Any]:
    if part.material is None:
        return {"meta_type": "text", "text": part.text}
    kind = materials[part.material].kind
    return {"meta_type": kind, "text": "", "material_ref": {"material_idx": part.material}}


def _metrics(order: VideoOrder, model: VideoModel, stamp: Stamp) -> str:
    """Telemetry, sent twice: as `metrics_extra` and inside the draft (section 7.1)."""
    scene: dict[str, Any] = {"type": "video", "scene": "BasicVideoGenerateButton"}
    if model.sends_resolution:
        scene["resolution"] = order.resolution
    scene |= {
        "modelReqKey": model.key,
        "videoDuration": order.seconds,
        "materialTypes": [_MATERIAL_NUMBERS[material.kind] for material in order.materials],
        "reportParams": {
            "enterSource": "generate",
            "vipSource": "generate",
            "extraVipFunctionKey": f"{model.key}-{order.resolution}" if model.sends_resolution else model.key,
            "useVipFunctionDetailsReporterHoc": True,
        },
    }
    return to_json(
        {
            "promptSource": "custom",
            "isDefaultSeed": 1,
            "originSubmitId": stamp.submit_key,
            "isRegenerate": False,
            "enterFrom": "click",
            "position": "page_bottom_box",
            "functionMode": "omni_reference" if order.materials else "first_last_frames",
            "sceneOptions": to_json([scene]),
        }
    )
