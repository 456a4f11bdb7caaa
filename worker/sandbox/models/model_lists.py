"""The model lists that upstream returns, built from the tables that also validate the drafts."""

from typing import Any

from worker.sandbox.models.image_models import IMAGE_MODELS, SIZES, ImageModel
from worker.sandbox.models.video_models import RATIOS, VIDEO_MODELS, VideoModel


def image_models(site: str | None) -> dict[str, Any]:
    return {
        "model_list": [_image_entry(model) for model in IMAGE_MODELS.values() if site is None or site in model.sites]
    }


def video_models(site: str | None) -> dict[str, Any]:
    return {
        "model_list": [_video_entry(model) for model in VIDEO_MODELS.values() if site is None or site in model.sites]
    }


def _image_entry(model: ImageModel) -> dict[str, Any]:
    limit = [{"max_image_num": model.references, "ability_name": "byte_edit"}] if model.references else []
    preferred = "2k" if "2k" in model.resolutions else model.resolutions[0]
    entry: dict[str, Any] = {
        "model_name": model.name,
        "model_req_key": model.key,
        "model_tip": f"{model.name} of the sandbox",
        "is_new_model": False,
        "feats": ["t2i", "byte_edit"] if model.references else ["t2i"],
        "default_resolution_type": preferred,
        "sample_steps": {"steps": 16, "min": 10, "max": 41},
        "input_image_limit": limit,
        "resolution_map": {name: _resolution(name) for name in model.resolutions},
    }
    # Models that always make four do not list counts.
    if not model.always_four:
        entry |= {"generate_count_options": list(range(1, model.max_count + 1)), "default_generate_count": 4}
    return entry


def _resolution(name: str) -> dict[str, Any]:
    return {
        "resolution_name": name.upper(),
        "image_ratio_sizes": [
            {"ratio_type": number, "width": width, "height": height}
            for number, (width, height) in enumerate(SIZES[name], start=1)
        ],
    }


def _video_entry(model: VideoModel) -> dict[str, Any]:
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
