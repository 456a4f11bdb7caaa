"""Finished results as records list them: image items here, video items in `video_items.py`."""

from typing import Any

from worker.sandbox.jobs import Job
from worker.sandbox.results.drawing import ImageDrawing
from worker.sandbox.results.media import ResultStore
from worker.sandbox.results.video_items import LINK_SECONDS, PREVIEW_SECONDS, display_text, video_items

GENERATE_TYPES = {"image": 1, "blend": 12, "video": 10}
_PREVIEWS = (360, 480, 720, 1080, 2400, 4096)


def list_items(
    job: Job, now: float, results: ResultStore, base: str, *, download: bool = False
) -> list[dict[str, Any]]:
    """Return the items of a job. `download` = for `get_local_item_list`, where videos have their original size."""
    if job.order.video:
        return video_items(job, now, results, base, links="origin" if download else job.script.video_links)
    return _image_items(job, now, results, base)


def _image_items(job: Job, now: float, results: ResultStore, base: str) -> list[dict[str, Any]]:
    order, text = job.order, display_text(job.order)
    keys = [
        results.add(
            ImageDrawing(
                text=text,
                # Few variants, so that a benchmark with one prompt uses the cache.
                colour=(order.seed + index) % 4,
                label=f"{index + 1} / {order.count}",
                width=order.width,
                height=order.height,
                format=job.script.image_format,
                references=order.references,
            )
        )
        for index in range(job.result_count)
    ]
    return [_item(job, index, key, now=now, results=results, base=base) for index, key in enumerate(keys)]


def _item(job: Job, index: int, key: str, *, now: float, results: ResultStore, base: str) -> dict[str, Any]:
    order, script = job.order, job.script
    uri = f"tos-sandbox/{key}"
    link_seconds = script.link_seconds
    large = results.link(base, key, now + (LINK_SECONDS if link_seconds is None else link_seconds))
    preview = results.link(base, key, now + (PREVIEW_SECONDS if link_seconds is None else link_seconds))
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
            "format": script.image_format,
            "large_images": [
                {
                    "image_uri": uri,
                    "image_url": large(0, script.image_format),
                    "width": order.width,
                    "height": order.height,
                    "format": script.image_format,
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
