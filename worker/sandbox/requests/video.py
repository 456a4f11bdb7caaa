"""Reads video drafts: from text, a first frame, first and last frame, or materials (`unified_edit_input`)."""

from typing import Any

from worker.sandbox.models.video_models import (
    CREDITS_PER_SECOND,
    RATIOS,
    VIDEO_MODELS,
    VideoModel,
    closest_ratio,
    video_size,
)
from worker.sandbox.requests.fields import (
    AccountUploads,
    RefusedError,
    as_objects,
    get_object,
    is_int,
    is_uuid,
    is_version,
    require,
    single_object,
)
from worker.sandbox.requests.order import Order, VideoOptions
from worker.sandbox.uploads.file_inspection import FileInfo, Thumbnail

_OMNI_FEATURE = "AIGC_Video_UnifiedEdit"
_MAX_MATERIALS = {"image": 9, "video": 3, "audio": 3}
_MAX_VIDEO_SECONDS = 15.5  # 15 s plus rounding of containers


def prompt_of(video_input: dict[str, Any]) -> str:
    """Return the prompt of an INPUT. With materials it consists of the texts in `meta_list`."""
    omni = video_input.get("unified_edit_input")
    if not isinstance(omni, dict):
        return str(video_input.get("prompt") or "")
    entries = omni.get("meta_list") or []
    return "".join(str(one.get("text") or "") for one in entries if isinstance(one, dict))


def read_video(
    body: dict[str, Any],
    draft: dict[str, Any],
    component: dict[str, Any],
    *,
    site: str | None,
    uploads: AccountUploads,
) -> Order:
    require(component.get("generate_type") == "gen_video", "generate_type is not gen_video")
    require(component.get("process_type") == 1, "process_type is not 1")
    job = get_object(get_object(component, "abilities"), "gen_video")
    require(job.get("video_task_extra") == body.get("metrics_extra"), "video_task_extra is not the metrics_extra")
    params = get_object(job, "text_to_video_params")
    extend = get_object(body, "extend")
    model = _model(params.get("model_req_key"), extend.get("root_model"), site)
    _check_commerce(extend, model)
    video_input = single_object(params.get("video_gen_inputs"), "video_gen_inputs")
    seconds, resolution = _check_input(video_input, model)
    require(is_int(params.get("seed")), "seed is not an integer")
    require(params.get("priority") == 0, "priority is not 0")
    ratio = params.get("video_aspect_ratio")
    require(ratio in RATIOS, f"video_aspect_ratio {str(ratio)[:12]!r} is unknown")
    first, last, materials = _references(video_input, draft, model, uploads)
    if first:
        ratio = closest_ratio(first.width, first.height)
    width, height = video_size(resolution, str(ratio))
    video = VideoOptions(
        seconds=seconds,
        resolution=resolution,
        ratio=str(ratio),
        fps=video_input["fps"],
        first=first.thumbnail if first else None,
        last=last.thumbnail if last else None,
    )
    return Order(
        submit_id=body["submit_id"],
        prompt=prompt_of(video_input),
        model=model,
        seed=params["seed"],
        width=width,
        height=height,
        count=1,
        price=CREDITS_PER_SECOND * seconds,
        kind="video",
        references=materials,
        video=video,
    )


def _model(key: object, root_model: object, site: str | None) -> VideoModel:
    require(isinstance(key, str) and key == root_model, "model_req_key is not extend.root_model")
    model = VIDEO_MODELS.get(str(key))
    if model is None:
        raise RefusedError("1000", f"video model {str(key)[:80]!r} is unknown")
    require(site is None or site in model.sites, f"video model {key!r} is not available in {site}")
    return model


def _check_commerce(extend: dict[str, Any], model: VideoModel) -> None:
    info = get_object(extend, "m_video_commerce_info")
    expected = {"resource_id": "generate_video", "resource_id_type": "str", "resource_sub_type": "aigc"}
    wrong = [name for name, value in expected.items() if info.get(name) != value]
    require(not wrong, f"m_video_commerce_info is wrong in {', '.join(wrong)}")
    benefit = str(info.get("benefit_type"))
    require(benefit in model.benefits, f"benefit_type {benefit[:80]!r} is not one of {model.key}")
    require(is_int(info.get("amount", 0)), "m_video_commerce_info.amount is not an integer")
    require(extend.get("m_video_commerce_info_list") == [info], "m_video_commerce_info_list does not repeat the info")


def _check_input(video_input: dict[str, Any], model: VideoModel) -> tuple[int, str]:
    """Validate the plain fields of an INPUT and return its seconds and resolution."""
    require(is_uuid(video_input.get("id")), "video_gen_inputs id is not a UUID")
    require(is_version(video_input.get("min_version")), "video_gen_inputs min_version is missing")
    require(isinstance(video_input.get("prompt"), str), "video_gen_inputs prompt is not a string")
    require(video_input.get("video_mode") == 2, "video_mode is not 2")
    fps = video_input.get("fps")
    require(is_int(fps) and 1 <= int(fps or 0) <= 60, "fps is not in 1..60")
    require(video_input.get("idip_meta_list") == [], "idip_meta_list is not an empty array")
    length = video_input.get("duration_ms")
    require(is_int(length), "duration_ms is not an integer")
    allowed = [second * 1000 for second in model.seconds]
    require(length in allowed, f"duration_ms {length} is not one of {model.key}: {allowed}")
    resolution = video_input.get("resolution", model.resolutions[0])
    require(resolution in model.resolutions, f"resolution {str(resolution)[:12]!r} is not one of {model.key}")
    return int(length or 0) // 1000, str(resolution)


def _references(
    video_input: dict[str, Any], draft: dict[str, Any], model: VideoModel, uploads: AccountUploads
) -> tuple[FileInfo | None, FileInfo | None, tuple[Thumbnail, ...]]:
    """Return first frame, last frame and material thumbnails. Frames and materials exclude each other."""
    frames = [
        uploads.image(get_object(video_input, name), name) if name in video_input else None
        for name in ("first_frame_image", "end_frame_image")
    ]
    require(frames[1] is None or model.end_frame, f"{model.key} does not accept end_frame_image")
    if "unified_edit_input" not in video_input:
        require(frames[0] or video_input["prompt"].strip(), "the prompt is empty and there is no first frame")
        return frames[0], frames[1], ()
    require(not any(frames), "unified_edit_input together with frames")
    require(model.omni, f"{model.key} does not accept unified_edit_input")
    require(_OMNI_FEATURE in draft.get("min_features", []), f"min_features lacks {_OMNI_FEATURE}")
    require(video_input["prompt"] == "", "the prompt next to unified_edit_input is not empty")
    omni = get_object(video_input, "unified_edit_input")
    materials = as_objects(omni.get("material_list"), "material_list")
    kinds = [str(one.get("material_type")) for one in materials]
    contents = [
        _material(one, kind, index, uploads) for index, (one, kind) in enumerate(zip(materials, kinds, strict=True))
    ]
    _check_limits(kinds, contents)
    _check_meta(as_objects(omni.get("meta_list"), "meta_list"), kinds)
    return None, None, tuple(one.thumbnail for one in contents if one.thumbnail)


def _material(material: dict[str, Any], kind: str, index: int, uploads: AccountUploads) -> FileInfo:
    name = f"material_list[{index}]"
    require(kind in _MAX_MATERIALS, f"{name}.material_type {kind[:20]!r} is unknown")
    require(is_uuid(material.get("id")), f"{name}.id is not a UUID")
    info = get_object(material, f"{kind}_info")
    if kind == "image":
        return uploads.image(info, f"{name}.image_info")
    file_info = uploads.media(info, f"{name}.{kind}_info")
    require((file_info.thumbnail is None) == (kind == "audio"), f"{name}: the upload is not of type {kind}")
    require(is_int(info.get("duration")), f"{name}.{kind}_info.duration is not whole milliseconds")
    return file_info


def _check_limits(kinds: list[str], contents: list[FileInfo]) -> None:
    require(kinds, "material_list is empty")
    for kind, limit in _MAX_MATERIALS.items():
        require(kinds.count(kind) <= limit, f"more than {limit} materials of type {kind}")
    seconds = sum(one.seconds for one, kind in zip(contents, kinds, strict=True) if kind == "video")
    require(seconds <= _MAX_VIDEO_SECONDS, f"reference videos of {seconds:.1f} s in total, 15 s are allowed")


def _check_meta(entries: list[dict[str, Any]], kinds: list[str]) -> None:
    require(entries, "meta_list is empty")
    for index, entry in enumerate(entries):
        kind, text = entry.get("meta_type"), entry.get("text")
        require(isinstance(text, str), f"meta_list[{index}].text is not a string")
        if kind != "text":
            material = get_object(entry, "material_ref").get("material_idx")
            fits = is_int(material) and 0 <= int(material or 0) < len(kinds) and kinds[int(material or 0)] == kind
            require(fits and text == "", f"meta_list[{index}] does not name a material of type {str(kind)[:20]}")
