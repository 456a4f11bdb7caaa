"""Finished videos as records list them: the older form with `origin`, the newer one with a ladder of sizes."""

import json
from typing import Any

from worker.sandbox.jobs import Job
from worker.sandbox.requests.image import MARK
from worker.sandbox.requests.order import Film, Order
from worker.sandbox.results.drawing import Picture
from worker.sandbox.results.media import Gallery
from worker.sandbox.results.video_files import FRAMES_PER_SECOND, Clip
from worker.sandbox.scripts import plain_text

LINK_SECONDS = 25 * 86_400
PREVIEW_SECONDS = 80 * 60
_VIDEO_SECONDS = 7 * 86_400
_STEPS = (360, 480, 720, 1080)


def shown_text(order: Order) -> str:
    """The prompt without scripts, and without the marks that stand for references."""
    text = plain_text(order.prompt)
    return text.replace(MARK, "").strip() if order.kind == "blend" else text


def video_items(job: Job, now: float, gallery: Gallery, base: str, *, origin: bool) -> list[dict[str, Any]]:
    order, film = job.order, job.order.film
    if film is None or not job.made:
        return []
    text, colour = shown_text(order), order.seed % 4
    clip = Clip(
        text=text,
        colour=colour,
        width=order.width,
        height=order.height,
        seconds=film.seconds,
        first=film.first,
        last=film.last,
        pasted=order.pasted,
    )
    cover = Picture(
        text=text,
        colour=colour,
        label=f"{film.seconds} s",
        width=order.width,
        height=order.height,
        format="jpeg",
        pasted=order.pasted,
        backdrop=film.first,
    )
    lives = job.script.link_seconds
    clip_key, cover_key = gallery.keep(clip), gallery.keep(cover)
    link = gallery.video_link(base, clip_key, now + (_VIDEO_SECONDS if lives is None else lives))
    preview = gallery.link(base, cover_key, now + (PREVIEW_SECONDS if lives is None else lives))
    short = min(order.width, order.height)
    if origin:
        steps = {"origin": short}
    else:
        steps = {f"{lines}p": lines for lines in _STEPS if lines < short} | {f"{short}p": short}
    versions = {name: _version(name, clip.scaled(lines), link(lines)) for name, lines in steps.items()}
    poster = preview(0, "jpeg")
    return [_item(job, film, versions, cover_url=poster, cover_uri=f"tos-sandbox/{cover_key}", key=clip_key)]


def _version(name: str, clip: Clip, url: str) -> dict[str, Any]:
    return {
        "vid": "",
        "fps": FRAMES_PER_SECOND,
        "width": clip.width,
        "height": clip.height,
        "duration": 0,
        "video_url": url,
        "cover_url": "",
        "format": "mp4",
        "definition": name,
        "logo_type": "",
        "encryption_key": "",
        # The file is made when it is first fetched; nothing true can be told about its bytes here.
        "md5": "",
        "size": 0,
        "video_id": "",
    }


def _item(
    job: Job, film: Film, versions: dict[str, Any], *, cover_url: str, cover_uri: str, key: str
) -> dict[str, Any]:
    order = job.order
    item_id = job.item_id(0)
    lengths = {"play_info_duration": film.seconds, "v_duration": film.seconds, "a_duration": 0}
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
            "duration": film.seconds,
            "origin_video": None,
            "transcoded_video": versions,
            "video_size_type": 3,
            "cover_uri": cover_uri,
            "transcode_status": 1,
            "duration_ms": film.seconds * 1000,
            "watermark_type": 1,
            "cover_url": cover_url,
            "duration_info": json.dumps(lengths, separators=(",", ":")),
            "vda_status": 10,
            "has_audio": False,
            "is_mute": False,
        },
        "aigc_image_params": {
            # 32 was seen on videos between two frames.
            "generate_type": 32 if film.last else 10,
            "first_generate_type": 10,
            "text2video_params": {
                "video_gen_inputs": [_input(order, film)],
                "video_aspect_ratio": film.ratio,
                "seed": order.seed,
                "task_scene": "",
                "priority": 0,
                "model_req_key": order.model.key,
            },
        },
    }


def _input(order: Order, film: Film) -> dict[str, Any]:
    return {
        "prompt": order.prompt,
        "lens_motion_type": "",
        "motion_speed": "",
        "vid": "",
        "ending_control": "",
        "pre_task_id": "0",
        "audio_vid": "",
        "video_mode": 2,
        "fps": film.fps,
        "duration_ms": film.seconds * 1000,
        "template_id": "0",
    }
