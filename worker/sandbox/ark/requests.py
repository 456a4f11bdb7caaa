"""Checks the bodies of Ark calls as upstream does: unknown fields, missing roles and mixed modes are refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from worker.sandbox.ark.models import IMAGES, RATIOS, VIDEOS, ImageModel, VideoModel, base_name, frame, is_sold
from worker.sandbox.ark.refusals import RefusedError

_SIZE = re.compile(r"(\d{2,5})x(\d{2,5})")
_CLASS_SIDES = {"1K": 1024, "1.5K": 1536, "2K": 2048, "3K": 3072, "4K": 4096}
_LINK = re.compile(r"https?://\S{3,4000}|asset://[\w-]{1,100}")
_DATA = re.compile(r"data:(image|audio)/[a-z0-9.+-]{1,40};base64,[A-Za-z0-9+/=]+")
_ROLES = {"image_url": "reference_image", "video_url": "reference_video", "audio_url": "reference_audio"}
_FRAMES = ("first_frame", "last_frame")
_CHOSEN_SECONDS = 10
_LIFE = range(3600, 259_201)
# Old parameters at the end of a text, which upstream still obeys: a client of ours must not send them.
_FLAG = re.compile(
    r"(?<!\S)--(?:rs|rt|dur|fps|seed|cf|wm|resolution|ratio|duration|framespersecond|camerafixed|watermark)\b"
)
# What the final of a draft may send; everything else comes from the draft.
_OF_A_FINAL = {
    *("model", "content", "resolution", "return_last_frame", "output_format", "watermark", "service_tier"),
    *("execution_expires_after", "priority", "callback_url", "safety_identifier"),
}


@dataclass(frozen=True)
class ImageOrder:
    model: str
    prompt: str
    width: int
    height: int
    format: str
    inputs: int
    most: int = 1  # images of a set
    layers: bool = False
    stream: bool = False
    base64: bool = False
    background: str = ""
    public: str = ""  # the id of the model, also if an endpoint of the account was sent
    links: tuple[tuple[str, str], ...] = ()  # inputs by link, with their kind
    has_flags: bool = False  # the prompt holds old parameters


@dataclass(frozen=True)
class VideoOrder:
    model: str
    prompt: str
    resolution: str
    ratio: str
    seconds: int
    width: int
    height: int
    clips: int
    life: int
    callback_url: str = ""
    safety_identifier: str = ""
    last_frame: bool = False
    audio: bool = True
    draft: bool = False
    draft_of: str = ""
    flex: bool = False
    priority: int = 0
    seed: int = -1
    public: str = ""
    links: tuple[tuple[str, str], ...] = ()
    has_flags: bool = False


def read_image_order(body: dict[str, Any], endpoints: dict[str, str]) -> ImageOrder:
    """Check the body of an image call. Raises RefusedError."""
    name, public, model = _find(body, IMAGES, endpoints)
    _check_fields(body, model.fields)
    prompt = _text(body, "prompt")
    images = body.get("image", [])
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or len(images) > model.references:
        raise RefusedError("InvalidParameter", f"at most {model.references} images are accepted", param="image")
    for link in images:
        if not isinstance(link, str) or not (_LINK.fullmatch(link) or _DATA.fullmatch(link)):
            raise RefusedError("InvalidImageURL.InvalidFormat", "the image cannot be read", param="image")
    width, height = _image_size(body.get("size", "2K"), model)
    options = body.get("sequential_image_generation_options") or {}
    most = options.get("max_images", 15) if body.get("sequential_image_generation") == "auto" else 1
    if not isinstance(most, int) or not 1 <= most <= 15 - (len(images) if most > 1 else 0):
        raise RefusedError("InvalidParameter", "max_images", param="sequential_image_generation_options")
    layers = body.get("layer_decomposition") is True
    if layers and len(images) != 1:
        raise RefusedError("InvalidParameter", "layers need one image", param="image")
    background = body.get("background", "")
    if background == "transparent" and body.get("output_format", "jpeg") == "jpeg":
        raise RefusedError("InvalidParameter", "a transparent background needs png", param="background")
    return ImageOrder(
        model=name,
        prompt=prompt,
        width=width,
        height=height,
        format=body.get("output_format", "jpeg"),
        inputs=len(images),
        most=most,
        layers=layers,
        stream=body.get("stream") is True,
        base64=body.get("response_format") == "b64_json",
        background=background,
        public=public,
        links=tuple((link, "image") for link in images if not link.startswith("data:")),
        has_flags=_FLAG.search(prompt) is not None,
    )


def read_video_order(body: dict[str, Any], endpoints: dict[str, str]) -> VideoOrder:
    """Check the body of a create call. Raises RefusedError."""
    name, public, model = _find(body, VIDEOS, endpoints)
    _check_fields(body, model.fields)
    content = body.get("content")
    if not isinstance(content, list) or not content or not all(isinstance(item, dict) for item in content):
        raise RefusedError("MissingParameter.content", "content is required", param="content", violation=True)
    if body.get("watermark") is not False:
        raise RefusedError("InvalidParameter", "this sandbox wants watermark false", param="watermark", violation=True)
    drafts = [(item.get("draft_task") or {}).get("id", "") for item in content if item.get("type") == "draft_task"]
    if drafts and (set(body) - _OF_A_FINAL or len(content) > 1):
        raise RefusedError("InvalidParameter", "the rest comes from the draft", param="content", violation=True)
    roles = _roles(content, model)
    resolution, ratio = body.get("resolution", "720p"), body.get("ratio", "adaptive")
    if resolution not in model.resolutions or ratio not in RATIOS:
        raise RefusedError("InvalidParameter", f"resolution {resolution}, ratio {ratio}", param="resolution")
    seconds, task_type = body.get("duration", model.default_seconds), body.get("omni_reference_task_type", "auto")
    least, most = model.seconds
    if not isinstance(seconds, int) or not (seconds == -1 or least <= seconds <= most):
        raise RefusedError("InvalidParameter", f"duration {seconds}", param="duration")
    if task_type in {"edit", "extend"} and ("reference_video" not in roles or ratio != "adaptive"):
        raise RefusedError("InvalidParameter.TaskTypeConstraint", f"{task_type} needs a clip", param="content")
    if body.get("draft") is True and resolution != "480p":
        raise RefusedError("InvalidParameter", "a draft is 480p", param="resolution")
    if body.get("tools") and roles:
        raise RefusedError("InvalidParameter", "web_search takes no images, videos or audio", param="tools")
    life = body.get("execution_expires_after", 172_800)
    if life not in _LIFE:
        raise RefusedError("InvalidParameter", "execution_expires_after", param="execution_expires_after")
    flex = body.get("service_tier") == "flex"
    prompt = " ".join(item.get("text", "") for item in content if item.get("type") == "text")
    width, height = frame(public, resolution, ratio)
    return VideoOrder(
        model=name,
        prompt=prompt,
        resolution=resolution,
        ratio="16:9" if ratio == "adaptive" else ratio,
        # A length that the model chooses is longer than the shortest one.
        seconds=_CHOSEN_SECONDS if seconds == -1 else seconds,
        width=width,
        height=height,
        clips=roles.count("reference_video"),
        life=life,
        callback_url=body.get("callback_url", ""),
        safety_identifier=body.get("safety_identifier", ""),
        last_frame=body.get("return_last_frame") is True,
        audio=body.get("generate_audio") is not False,
        draft=body.get("draft") is True,
        draft_of=drafts[0] if drafts else "",
        flex=flex,
        priority=body.get("priority", 0),
        seed=body.get("seed", -1),
        public=public,
        links=tuple(_links(content)),
        has_flags=_FLAG.search(prompt) is not None,
    )


def final_of(order: VideoOrder, draft: VideoOrder) -> VideoOrder:
    """Return the order of the final of a draft: what it may not say itself comes from the draft."""
    width, height = frame(order.public, order.resolution, draft.ratio)
    return replace(
        order,
        prompt=draft.prompt,
        ratio=draft.ratio,
        seconds=draft.seconds,
        width=width,
        height=height,
        clips=draft.clips,
        audio=draft.audio,
        seed=draft.seed,
    )


def _links(content: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for item in content:
        kind = str(item.get("type"))
        link = str((item.get(kind) or {}).get("url")) if kind in _ROLES else ""
        if link.startswith("http"):
            yield link, kind.removesuffix("_url")


def _find(body: dict[str, Any], models: dict[str, Any], endpoints: dict[str, str]) -> tuple[str, str, Any]:
    """Return the id as it was sent, the public id, and its model. `endpoints` = own endpoints of the account."""
    sent = body.get("model")
    if not isinstance(sent, str) or not sent:
        raise RefusedError("MissingParameter.model", "model is required", param="model", violation=True)
    public = endpoints.get(sent, sent)
    model = models.get(base_name(public)) if is_sold(public) else None
    if model is None:
        message = f"The model or endpoint {sent[:80]} does not exist"
        raise RefusedError("InvalidEndpointOrModel.NotFound", message, param="model")
    return sent, public, model


def _check_fields(body: dict[str, Any], fields: frozenset[str]) -> None:
    unknown = set(body) - fields - {"model"}
    if unknown:
        name = min(unknown)
        message = f"the parameter {name} is not supported by this model"
        raise RefusedError("InvalidParameter.UnsupportedParameter", message, param=name, violation=True)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RefusedError(f"MissingParameter.{name}", f"{name} is required", param=name, violation=True)
    return value


def _image_size(size: Any, model: ImageModel) -> tuple[int, int]:
    if size in model.classes:
        return _CLASS_SIDES[size], _CLASS_SIDES[size]
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise RefusedError("InvalidParameter", f"size {size!r}", param="size")
    width, height = int(match[1]), int(match[2])
    if not model.least <= width * height <= model.most or not 1 / 16 <= width / height <= 16:
        raise RefusedError("InvalidParameter", f"size {size} is out of range", param="size")
    return width, height


def _roles(content: list[dict[str, Any]], model: VideoModel) -> list[str]:
    """Return the roles of the inputs. Raises RefusedError for missing roles, mixed modes and too many inputs."""
    roles: list[str] = []
    for item in content:
        kind = str(item.get("type"))
        if kind in {"text", "draft_task"}:
            continue
        link, role = str((item.get(kind) or {}).get("url")), str(item.get("role"))
        allowed = {_ROLES.get(kind, ""), *(_FRAMES if kind == "image_url" else ())}
        if role not in allowed:
            message = f"role must be specified for {kind} contents"
            raise RefusedError("InvalidParameter", message, param="content.role", violation=True)
        if not _LINK.fullmatch(link) and (kind == "video_url" or not _DATA.fullmatch(link)):
            raise RefusedError("InvalidParameter", f"{kind}: web url expected", param="content", violation=True)
        roles.append(role)
    if set(roles) & set(_FRAMES) and len(set(roles) - set(_FRAMES)):
        raise RefusedError("InvalidParameter", "first/last frame content cannot be mixed with references")
    if roles == ["last_frame"] or roles.count("first_frame") > 1 or ("last_frame" in roles and not model.last_frame):
        raise RefusedError("InvalidParameter", "the frames do not fit this model", param="content")
    images, videos, sounds = counts = tuple(roles.count(role) for role in _ROLES.values())
    if any(count > most for count, most in zip(counts, model.references, strict=True)):
        raise RefusedError("InvalidParameter", "too many references", param="content")
    if sounds and not model.audio_alone and not images + videos:
        raise RefusedError("InvalidParameter", "audio cannot be the only reference", param="content")
    return roles
