"""Results as records list them: pictures here, videos next door."""

from typing import Any

from worker.sandbox.jobs import Job
from worker.sandbox.results.drawing import Picture
from worker.sandbox.results.media import Gallery
from worker.sandbox.results.video_items import LINK_SECONDS, PREVIEW_SECONDS, shown_text, video_items

GENERATE_TYPES = {"image": 1, "blend": 12, "video": 10}
_PREVIEWS = (360, 720, 1080, 2400)


def show_items(job: Job, now: float, gallery: Gallery, base: str, *, download: bool = False) -> list[dict[str, Any]]:
    """`download` = the list of `get_local_item_list`, where videos always come in their best form."""
    if job.order.film:
        return video_items(job, now, gallery, base, origin=download or job.number % 2 == 1)
    return _image_items(job, now, gallery, base)


def _image_items(job: Job, now: float, gallery: Gallery, base: str) -> list[dict[str, Any]]:
    order, text = job.order, shown_text(job.order)
    keys = [
        gallery.keep(
            Picture(
                text=text,
                # Few variants, so that a bench with one prompt lives on the cache.
                colour=(order.seed + index) % 4,
                label=f"{index + 1} / {order.count}",
                width=order.width,
                height=order.height,
                format=job.script.picture,
                pasted=order.pasted,
            )
        )
        for index in range(job.made)
    ]
    return [_item(job, index, key, now=now, gallery=gallery, base=base) for index, key in enumerate(keys)]


def _item(job: Job, index: int, key: str, *, now: float, gallery: Gallery, base: str) -> dict[str, Any]:
    order, script = job.order, job.script
    uri = f"tos-sandbox/{key}"
    lives = script.link_seconds
    large = gallery.link(base, key, now + (LINK_SECONDS if lives is None else lives))
    preview = gallery.link(base, key, now + (PREVIEW_SECONDS if lives is None else lives))
    item_id = job.item_id(index)
    return {
        "common_attr": {
            "id": item_id,
            "effect_id": item_id,
            "effect_type": 9,
            "title": "",
            "description": order.prompt,
            "cover_url": preview(360, "webp"),
            "item_urls": [""],
            "md5": "",
            "create_time": int(job.finish_at),
            "status": 144,
            "review_info": {"review_status": 1, "review_code_list": []},
            "aspect_ratio": round(order.width / order.height, 4),
            "publish_source": "user_post_mweb_item",
            "collection_ids": [],
            "extra": "",
            "has_published": False,
            "cover_url_map": {str(side): preview(side, "webp") for side in _PREVIEWS},
            "local_item_id": item_id,
            "update_time": 0,
            "cover_uri": uri,
            "smart_crop_loc": None,
            "cover_height": 360,
            "cover_width": 360,
        },
        "author": None,
        "image": {
            "format": script.picture,
            "large_images": [
                {
                    "image_uri": uri,
                    "image_url": large(0, script.picture),
                    "width": order.width,
                    "height": order.height,
                    "format": script.picture,
                    "smart_crop_loc": None,
                }
            ],
        },
        "aigc_image_params": {
            "generate_type": GENERATE_TYPES[order.kind],
            "first_generate_type": GENERATE_TYPES[order.kind],
            "text2image_params": {
                "prompt": order.prompt,
                "user_negative_prompt": "",
                "seed": order.seed,
                "model_config": {"model_name": order.model.name, "model_req_key": order.model.key},
            },
        },
    }
