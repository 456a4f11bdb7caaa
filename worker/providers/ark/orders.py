"""Turns orders of the engine into calls: the account's name of the model, files as part of the body or as links."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence

from worker.core.catalog.prompts.mentions import name_inputs, name_of_input
from worker.core.catalog.prompts.vendor_flags import remove_vendor_flags
from worker.core.concurrency.event_loop import in_files_thread
from worker.core.errors import DreameryError
from worker.core.security.callback_tokens import callback_url
from worker.providers.ark.image_requests import ImageCall
from worker.providers.ark.models import PROVIDER, VideoModel, built_in_models, model_id
from worker.providers.ark.recovery_keys import keys_of
from worker.providers.ark.video_requests import ADAPTIVE, Input, VideoCall
from worker.providers.base import Account, ImageOrder, InputFile, VideoOrder

# Larger pictures and sounds go as links, if the platform has a public address.
LARGEST_IN_BODY = 10_000_000
# A body may have 64 MB, and base64 takes four bytes for three.
_LARGEST_BODY = 46_000_000
_OPTIONAL_FORMATS = {"png", "jpeg"}
NO_PUBLIC_ADDRESS = (
    "This upstream opens reference videos by their links, and the platform has no public address. "
    "Ask an administrator to set DREAMERY_PUBLIC_URL."
)


async def image_call(account: Account, order: ImageOrder) -> ImageCall:
    """Return the call of an image order."""
    model = built_in_models().find_image(order.model)
    if model is None:
        raise _unknown_model(order.model)
    options = order.options
    wanted = options.get("output_format")
    can_choose = "output_format" in model.fields and wanted in _OPTIONAL_FORMATS
    count = order.count or 1
    prompt, _ = remove_vendor_flags(order.prompt, model.prompt_flags)
    inputs = await _links(order.inputs)
    return ImageCall(
        model=model,
        model_id=model_id(account, model.id),
        prompt=prompt,
        size=str(options.get("size_class") or f"{order.width}x{order.height}"),
        images=tuple(one.url for one in inputs),
        output_format=wanted if can_choose else None,
        background=options.get("background"),
        layers=bool(options.get("layers")),
        max_images=count if options.get("series") else 1,
        stream=model.streams,
        web_search=bool(options.get("web_search")),
        optimize=options.get("optimize"),
        seed=order.seed if order.seed >= 0 else None,
        safety_identifier=_user(order.user),
    )


async def video_call(account: Account, order: VideoOrder, *, submit_key: str, public_url: str) -> VideoCall:
    """Return the call of a video order."""
    model = built_in_models().find_video(order.model)
    if model is None:
        raise _unknown_model(order.model)
    options = order.options
    output = options.get("output_format")
    audio = options.get("generate_audio")
    return VideoCall(
        model=model,
        model_id=model_id(account, model.id),
        mode=str(options.get("mode") or _mode_of(order.inputs)),
        keys=keys_of(submit_key, _user(order.user)),
        resolution=order.resolution,
        prompt=_prompt(model, order),
        ratio=order.ratio or ADAPTIVE,
        seconds=order.seconds,
        inputs=await _links(order.inputs),
        draft_of=options.get("draft_of"),
        generate_audio=model.makes_audio if audio is None else bool(audio),
        seed=order.seed if order.seed >= 0 else None,
        camera_fixed=options.get("camera_fixed"),
        return_last_frame=bool(options.get("return_last_frame")),
        output_format=output if output and "output_format" in model.fields else None,
        flex=options.get("service_tier") == "flex",
        priority=options.get("priority"),
        web_search=bool(options.get("web_search")),
        callback_url=_callback(model, submit_key, public_url),
    )


def has_links(inputs: Sequence[InputFile]) -> bool:
    """Whether one of the pictures goes as a link."""
    return any(one.kind == "image" and _goes_as_link(one) for one in inputs)


def _unknown_model(name: str) -> DreameryError:
    return DreameryError("model_not_found", detail=f"no data about the model {name}")


def _user(user: str) -> str:
    return (user or hashlib.sha256(b"").hexdigest())[:40]


def _callback(model: VideoModel, submit_key: str, public_url: str) -> str | None:
    # Upstream calls https only.
    secure = public_url.startswith("https://")
    return (
        callback_url(public_url, submit_key, provider=PROVIDER) if secure and "callback_url" in model.fields else None
    )


def _mode_of(inputs: Sequence[InputFile]) -> str:
    roles = {one.role for one in inputs}
    if not roles:
        return "text"
    if "first_frame" in roles:
        return "first_last" if "end_frame" in roles else "first"
    return "reference"


def _prompt(model: VideoModel, order: VideoOrder) -> str:
    """Return the prompt as the model reads it, without flags that would change size or price."""
    if not order.parts:
        counts = Counter(one.kind for one in order.inputs if one.role == "reference")
        return remove_vendor_flags(name_inputs(order.prompt, model.mention, counts), model.prompt_flags)[0]
    numbers, seen = [], Counter[str]()
    for one in order.inputs:
        seen[one.kind] += 1
        numbers.append((one.kind, seen[one.kind]))
    pieces = [
        part.text if part.material is None else name_of_input(model.mention, *numbers[part.material])
        for part in order.parts
    ]
    return remove_vendor_flags("".join(pieces), model.prompt_flags)[0]


async def _links(inputs: Sequence[InputFile]) -> tuple[Input, ...]:
    """Return what stands for each input in the body. Raises `invalid_video` for a video without a public address."""
    room, links = _LARGEST_BODY, []
    for one in inputs:
        if one.kind == "video" and one.link is None:
            raise DreameryError("invalid_video", NO_PUBLIC_ADDRESS)
        if one.link is not None and (_goes_as_link(one) or one.size > room):
            links.append(Input(one.kind, one.link))
            continue
        room -= one.size
        links.append(Input(one.kind, await in_files_thread(_data_url, one)))
    return tuple(links)


def _goes_as_link(one: InputFile) -> bool:
    return one.link is not None and (one.kind == "video" or one.size >= LARGEST_IN_BODY)


def _data_url(one: InputFile) -> str:
    with one.open() as content:
        data = base64.b64encode(content.read()).decode()
    return f"data:{one.media_type.lower()};base64,{data}"
