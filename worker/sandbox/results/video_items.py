"""Finished videos as records list them: the older form with `origin` and the newer one with several sizes, together."""

import json
from typing import Any

from worker.sandbox.jobs import Job
from worker.sandbox.requests.image import REFERENCE_MARK
from worker.sandbox.requests.order import Order, VideoOptions
from worker.sandbox.results.drawing import ImageDrawing
from worker.sandbox.results.media import ResultStore
from worker.sandbox.results.video_files import FRAMES_PER_SECOND, VideoDrawing
from worker.sandbox.scripts import plain_text

LINK_SECONDS = 25 * 86_400
PREVIEW_SECONDS = 80 * 60
_VIDEO_SECONDS = 7 * 86_400
_SHORT_SIDES = (360, 480, 720, 1080)


def display_text(order: Order) -> str:
    """Return the prompt without scripts and reference marks."""
    text = plain_text(order.prompt)
    return text.replace(REFERENCE_MARK, "").strip() if order.kind == "blend" else text


def video_items(job: Job, now: float, results: ResultStore, base: str, *, links: str) -> list[dict[str, Any]]:
    order, video = job.order, job.order.video
    if video is None or not job.result_count:
        return []
    text, colour = display_text(order), order.seed % 4
    drawing = VideoDrawing(
        text=text,
        colour=colour,
        width=order.width,
        height=order.height,
        seconds=video.seconds,
        first=video.first,
        last=video.last,
        references=order.references,
    )
    cover = ImageDrawing(
        text=text,
        colour=colour,
        label=f"{video.seconds} s",
        width=order.width,
        height=order.height,
        format="jpeg",
        references=order.references,
        background=video.first,
    )
    link_seconds = job.script.link_seconds
    clip_key, cover_key = results.add(drawing), results.add(cover)
    link = results.video_link(base, clip_key, now + (_VIDEO_SECONDS if link_seconds is None else link_seconds))
    preview = results.link(base, cover_key, now + (PREVIEW_SECONDS if link_seconds is None else link_seconds))
    short = min(order.width, order.height)
    sizes = {} if links == "sizes" else {"origin": short}
    if links != "origin":
        sizes |= {f"{lines}p": lines for lines in _SHORT_SIDES if lines < short} | {f"{short}p": short}
    versions = {name: _version(name, drawing.scaled(lines), link(lines)) for name, lines in sizes.items()}
    poster = preview(0, "jpeg")
    return [_item(job, video, versions, cover_url=poster, cover_uri=f"tos-sandbox/{cover_key}", key=clip_key)]


def _version(name: str, drawing: VideoDrawing, url: str) -> dict[str, Any]:
    return {
        "vid": "",
        "fps": FRAMES_PER_SECOND,
        "width": drawing.width,
        "height": drawing.height,
        "duration": 0,
        "video_url": url,
        "cover_url": "",
        "format": "mp4",
        "definition": name,
        "logo_type": "",
        "encryption_key": "",
        # The file is rendered at its first download, so checksum and size are unknown.
        "md5": "",
        "size": 0,
        "video_id": "",
    }


def _item(
    job: Job, video: VideoOptions, versions: dict[str, Any], *, cover_url: str, cover_uri: str, key: str
) -> dict[str, Any]:
    order = job.order
    item_id = job.item_id(0)
    lengths = {"play_info_duration": video.seconds, "v_duration": video.seconds, "a_duration": 0}
    return {
        "common_attr": {
            "id": item_id,
            "effect_id": item_id,
            "effect_type": 53,
            "title": "",
            "description": "",
            "cover_url": cover_url,
            "item_urls": [""],
            "create_time": int(job.finish_at),
            "status": 144,
            "aspect_ratio": round(order.width / order.height, 4),
            "has_published": False,
            "local_item_id": item_id,
        },
        "author": None,
        "video": {
            "video_id": f"v0{key[:14]}",
            "duration": video.seconds,
            "origin_video": None,
            "transcoded_video": versions,
            "video_size_type": 3,
            "cover_uri": cover_uri,
            "transcode_status": 1,
            "duration_ms": video.seconds * 1000,
            "watermark_type": 1,
            "cover_url": cover_url,
            "duration_info": json.dumps(lengths, separators=(",", ":")),
            "vda_status": 10,
            "has_audio": False,
            "is_mute": False,
        },
        "aigc_image_params": {
            # Recorded videos with two frames have 32.
            "generate_type": 32 if video.last else 10,
            "first_generate_type": 10,
            "text2video_params": {
                "video_gen_inputs": [_input(order, video)],
                "video_aspect_ratio": video.ratio,
                "seed": order.seed,
                "task_scene": "",
                "priority": 0,
                "model_req_key": order.model.key,
            },
        },
    }


def _input(order: Order, video: VideoOptions) -> dict[str, Any]:
    return {
        "prompt": order.prompt,
        "lens_motion_type": "",
        "motion_speed": "",
        "vid": "",
        "ending_control": "",
        "pre_task_id": "0",
        "audio_vid": "",
        "video_mode": 2,
        "fps": video.fps,
        "duration_ms": video.seconds * 1000,
        "template_id": "0",
    }
