"""The lists of models as upstream tells them at run time, made from the same tables that check the drafts."""

from typing import Any

from worker.sandbox.models.image_models import MODELS, SIZES, Model
from worker.sandbox.models.video_models import RATIOS, VIDEO_MODELS, VideoModel


def pictures(place: str | None) -> dict[str, Any]:
    return {"model_list": [_picture(model) for model in MODELS.values() if place is None or place in model.places]}


def videos(place: str | None) -> dict[str, Any]:
    return {"model_list": [_video(model) for model in VIDEO_MODELS.values() if place is None or place in model.places]}


def _picture(model: Model) -> dict[str, Any]:
    limit = [{"max_image_num": model.references, "ability_name": "byte_edit"}] if model.references else []
    preferred = "2k" if "2k" in model.resolutions else model.resolutions[0]
    shown: dict[str, Any] = {
        "model_name": model.name,
        "model_req_key": model.key,
        "model_tip": f"{model.name} of the sandbox",
        "is_new_model": False,
        "feats": ["t2i", "byte_edit"] if model.references else ["t2i"],
        "default_resolution_type": preferred,
        "sample_steps": {"steps": 16, "min": 10, "max": 41},
        "input_image_limit": limit,
        "resolution_map": {name: _bucket(name) for name in model.resolutions},
    }
    # Models that always make four do not declare a count.
    if not model.always_four:
        shown |= {"generate_count_options": list(range(1, model.most + 1)), "default_generate_count": 4}
    return shown


def _bucket(name: str) -> dict[str, Any]:
    return {
        "resolution_name": name.upper(),
        "image_ratio_sizes": [
            {"ratio_type": number, "width": width, "height": height}
            for number, (width, height) in enumerate(SIZES[name], start=1)
        ],
    }


def _video(model: VideoModel) -> dict[str, Any]:
    feats = ["support_first_image"]
    feats += ["support_end_image"] if model.end_frame else []
    feats += ["support_unified_edit"] if model.omni else []
    basic = {
        "resource_sub_type": "aigc",
        "resource_id_type": "str",
        "resource_id": "generate_video",
        "benefit_type": model.benefits[0],
        "amount": 0,
    }
    return {
        "model_name": model.name,
        "model_req_key": model.key,
        "feats": feats,
        "duration_option": list(model.seconds),
        "video_aspect_ratio_option": list(RATIOS),
        "fps": 24,
        "commercial_config": {"commerce_info_map": {"basic": basic}},
    }
