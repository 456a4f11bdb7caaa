"""Video drafts: from text, a first frame, first and last frame, or materials (`unified_edit_input`)."""

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
    Belongings,
    RefusedError,
    child,
    is_int,
    is_uuid,
    is_version,
    need,
    objects,
    only_one,
)
from worker.sandbox.requests.order import Film, Order
from worker.sandbox.uploads.file_inspection import Contents, Thumb

_OMNI_FEATURE = "AIGC_Video_UnifiedEdit"
_MOST = {"image": 9, "video": 3, "audio": 3}
_MOST_VIDEO_SECONDS = 15.5  # fifteen, and what containers round up


def prompt_of(given: dict[str, Any]) -> str:
    """The prompt of one INPUT; with materials it is cut into the texts of `meta_list`."""
    omni = given.get("unified_edit_input")
    if not isinstance(omni, dict):
        return str(given.get("prompt") or "")
    entries = omni.get("meta_list") or []
    return "".join(str(one.get("text") or "") for one in entries if isinstance(one, dict))


def read_video(
    body: dict[str, Any],
    draft: dict[str, Any],
    component: dict[str, Any],
    *,
    place: str | None,
    owner: Belongings,
) -> Order:
    need(component.get("generate_type") == "gen_video", "generate_type is not gen_video")
    need(component.get("process_type") == 1, "process_type is not 1")
    job = child(child(component, "abilities"), "gen_video")
    need(job.get("video_task_extra") == body.get("metrics_extra"), "video_task_extra is not the metrics_extra")
    params = child(job, "text_to_video_params")
    extend = child(body, "extend")
    model = _model(params.get("model_req_key"), extend.get("root_model"), place)
    _check_commerce(extend, model)
    given = only_one(params.get("video_gen_inputs"), "video_gen_inputs")
    seconds, resolution = _check_input(given, model)
    need(is_int(params.get("seed")), "seed is not an integer")
    need(params.get("priority") == 0, "priority is not 0")
    ratio = params.get("video_aspect_ratio")
    need(ratio in RATIOS, f"video_aspect_ratio {str(ratio)[:12]!r} is unknown")
    first, last, materials = _pictures(given, draft, model, owner)
    if first:
        ratio = closest_ratio(first.width, first.height)
    width, height = video_size(resolution, str(ratio))
    film = Film(
        seconds=seconds,
        resolution=resolution,
        ratio=str(ratio),
        fps=given["fps"],
        first=first.thumb if first else None,
        last=last.thumb if last else None,
    )
    return Order(
        submit_id=body["submit_id"],
        prompt=prompt_of(given),
        model=model,
        seed=params["seed"],
        width=width,
        height=height,
        count=1,
        price=CREDITS_PER_SECOND * seconds,
        kind="video",
        pasted=materials,
        film=film,
    )


def _model(key: object, root_model: object, place: str | None) -> VideoModel:
    need(isinstance(key, str) and key == root_model, "model_req_key is not extend.root_model")
    model = VIDEO_MODELS.get(str(key))
    if model is None:
        raise RefusedError("1000", f"video model {str(key)[:80]!r} is unknown")
    need(place is None or place in model.places, f"video model {key!r} is not on offer in {place}")
    return model


def _check_commerce(extend: dict[str, Any], model: VideoModel) -> None:
    info = child(extend, "m_video_commerce_info")
    wanted = {"resource_id": "generate_video", "resource_id_type": "str", "resource_sub_type": "aigc"}
    wrong = [name for name, value in wanted.items() if info.get(name) != value]
    need(not wrong, f"m_video_commerce_info is wrong in {', '.join(wrong)}")
    benefit = str(info.get("benefit_type"))
    need(benefit in model.benefits, f"benefit_type {benefit[:80]!r} is not one of {model.key}")
    need(is_int(info.get("amount", 0)), "m_video_commerce_info.amount is not an integer")
    need(extend.get("m_video_commerce_info_list") == [info], "m_video_commerce_info_list does not repeat the info")


def _check_input(given: dict[str, Any], model: VideoModel) -> tuple[int, str]:
    """Seconds and resolution of an INPUT whose plain fields are all right."""
    need(is_uuid(given.get("id")), "video_gen_inputs id is not a UUID")
    need(is_version(given.get("min_version")), "video_gen_inputs min_version is missing")
    need(isinstance(given.get("prompt"), str), "video_gen_inputs prompt is not a string")
    need(given.get("video_mode") == 2, "video_mode is not 2")
    fps = given.get("fps")
    need(is_int(fps) and 1 <= int(fps or 0) <= 60, "fps is not in 1..60")
    need(given.get("idip_meta_list") == [], "idip_meta_list is not an empty array")
    length = given.get("duration_ms")
    need(is_int(length), "duration_ms is not an integer")
    allowed = [second * 1000 for second in model.seconds]
    need(length in allowed, f"duration_ms {length} is not one of {model.key}: {allowed}")
    resolution = given.get("resolution", model.resolutions[0])
    need(resolution in model.resolutions, f"resolution {str(resolution)[:12]!r} is not one of {model.key}")
    return int(length or 0) // 1000, str(resolution)


def _pictures(
    given: dict[str, Any], draft: dict[str, Any], model: VideoModel, owner: Belongings
) -> tuple[Contents | None, Contents | None, tuple[Thumb, ...]]:
    """First frame, last frame, materials: none of them, frames, or materials; never both."""
    frames = [
        owner.image(child(given, name), name) if name in given else None
        for name in ("first_frame_image", "end_frame_image")
    ]
    need(frames[1] is None or model.end_frame, f"{model.key} takes no end_frame_image")
    if "unified_edit_input" not in given:
        need(frames[0] or given["prompt"].strip(), "the prompt is empty and there is no first frame")
        return frames[0], frames[1], ()
    need(not any(frames), "unified_edit_input together with frames")
    need(model.omni, f"{model.key} takes no unified_edit_input")
    need(_OMNI_FEATURE in draft.get("min_features", []), f"min_features lacks {_OMNI_FEATURE}")
    need(given["prompt"] == "", "the prompt beside unified_edit_input is not empty")
    omni = child(given, "unified_edit_input")
    materials = objects(omni.get("material_list"), "material_list")
    kinds = [str(one.get("material_type")) for one in materials]
    contents = [
        _material(one, kind, index, owner) for index, (one, kind) in enumerate(zip(materials, kinds, strict=True))
    ]
    _check_limits(kinds, contents)
    _check_meta(objects(omni.get("meta_list"), "meta_list"), kinds)
    return None, None, tuple(one.thumb for one in contents if one.thumb)


def _material(material: dict[str, Any], kind: str, index: int, owner: Belongings) -> Contents:
    name = f"material_list[{index}]"
    need(kind in _MOST, f"{name}.material_type {kind[:20]!r} is unknown")
    need(is_uuid(material.get("id")), f"{name}.id is not a UUID")
    info = child(material, f"{kind}_info")
    if kind == "image":
        return owner.image(info, f"{name}.image_info")
    found = owner.media(info, f"{name}.{kind}_info")
    need((found.thumb is None) == (kind == "audio"), f"{name}: the upload is not of type {kind}")
    need(is_int(info.get("duration")), f"{name}.{kind}_info.duration is not whole milliseconds")
    return found


def _check_limits(kinds: list[str], contents: list[Contents]) -> None:
    need(kinds, "material_list is empty")
    for kind, most in _MOST.items():
        need(kinds.count(kind) <= most, f"more than {most} materials of type {kind}")
    seconds = sum(one.seconds for one, kind in zip(contents, kinds, strict=True) if kind == "video")
    need(seconds <= _MOST_VIDEO_SECONDS, f"reference videos of {seconds:.1f} s together, 15 s are allowed")


def _check_meta(entries: list[dict[str, Any]], kinds: list[str]) -> None:
    need(entries, "meta_list is empty")
    for index, entry in enumerate(entries):
        kind, text = entry.get("meta_type"), entry.get("text")
        need(isinstance(text, str), f"meta_list[{index}].text is not a string")
        if kind != "text":
            place = child(entry, "material_ref").get("material_idx")
            fits = is_int(place) and 0 <= int(place or 0) < len(kinds) and kinds[int(place or 0)] == kind
            need(fits and text == "", f"meta_list[{index}] does not name a material of type {str(kind)[:20]}")
