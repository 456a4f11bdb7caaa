"""A generation job: where it stands at a given moment, and the record a poll shows."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.accounts import Account
from worker.sandbox.checks import Order
from worker.sandbox.media import Gallery, Picture
from worker.sandbox.scenes import Script, plain_text
from worker.sandbox.wire import INPUT_KEY

QUEUE_STEP = 0.5
# Recorded runs: roughly the last third of a run is status 45 with an empty list.
_THINKING_SHARE = 0.6
_LINGER_SECONDS = 0.6
_LINK_SECONDS = 25 * 86_400
_PREVIEW_SECONDS = 80 * 60
_PREVIEWS = (360, 720, 1080, 2400)
_FIRST_HISTORY = 9_000_000_000_000
_FIRST_ITEM = 7_600_000_000_000_000_000

_FAILURE_TEXTS = {
    "2004": ("web_fail2generate_output_block", "The result did not pass review."),
    "2204": ("web_fail2generate_copyright_block", "The generated image did not pass review."),
    "2003": ("web_fail2generate_inputimagerisk", "The picture may break the rules."),
    "2005": (INPUT_KEY, "The text may violate the rules."),
    "2002": ("web_other_error", "Generation failed. Try again later."),
}
_TEXT_CODES = {"1063", "2038", "2050"}
_PICTURE_CODES = {"1159", "2039", "2040", "2041", "2042", "2044", "2048", "2203"}


@dataclass
class Job:
    account: Account
    order: Order
    script: Script
    number: int
    accepted_at: float
    start_at: float
    finish_at: float
    generate_id: str
    # Every third job shows its items for a moment while the status is still 45.
    lingers: bool = False
    asked: int = field(default=0)

    @property
    def history_id(self) -> str:
        return str(_FIRST_HISTORY + self.number)

    @property
    def made(self) -> int:
        partial = self.script.partial
        return self.order.count if partial is None else min(partial, self.order.count)

    def hidden(self) -> bool:
        """Count one poll that asks for this job; true while its script keeps it absent."""
        self.asked += 1
        return self.asked <= self.script.absent

    def status(self, now: float) -> int:
        if now < self.start_at:
            return 20
        if now < self.finish_at:
            share = (now - self.start_at) / (self.finish_at - self.start_at)
            return 42 if math.isinf(self.finish_at) or share < _THINKING_SHARE else 45
        if self.script.ending == "50" and self.lingers and now < self.finish_at + _LINGER_SECONDS:
            return 45
        return int(self.script.ending)


def _failure(script: Script) -> tuple[str, str, str]:
    """fail_code, fail_starling_key, fail_starling_message of a job that failed."""
    code = script.fail_code
    if script.key_only:
        return "", INPUT_KEY, "The text does not meet the platform rules."
    if script.ending == "100":
        return "", "", ""
    if code in _TEXT_CODES:
        return code, INPUT_KEY, "The text does not meet the platform rules. Change it and try again."
    if code in _PICTURE_CODES:
        return code, "web_fail2generate_inputimagerisk", "The picture does not meet the platform rules."
    return code, *_FAILURE_TEXTS.get(code, _FAILURE_TEXTS["2002"])


def _queue(job: Job, now: float) -> dict[str, Any]:
    waiting = now < job.start_at
    place = max(1, math.ceil((job.start_at - now) / QUEUE_STEP)) if waiting else 0
    return {
        "queue_idx": place,
        "priority": 3,
        "queue_status": 1 if waiting else 2,
        "queue_length": place + 300 if waiting else 0,
        "polling_config": {"interval_seconds": 30, "timeout_seconds": 86_400},
    }


def record(job: Job, now: float, *, gallery: Gallery, base: str, fresh: bool = False) -> dict[str, Any]:
    """The record as upstream shows it; `fresh` is the one inside the answer of the submit."""
    status = 20 if fresh else job.status(now)
    ended = status not in {20, 42, 45}
    failed = ended and status != 50
    finish_time = int(job.finish_at) if ended and status != 100 else 0
    done = status == 50 or (status == 45 and now >= job.finish_at)
    fail_code, fail_key, fail_message = _failure(job.script) if failed else ("", "", "")
    order, history_id = job.order, job.history_id
    return {
        "generate_type": 1,
        "history_record_id": history_id,
        "origin_history_record_id": None,
        "created_time": round(job.accepted_at, 3),
        "item_list": _items(job, now, gallery, base) if done else [],
        "origin_item_list": [],
        "task": {
            "task_id": history_id,
            "submit_id": order.submit_id,
            "aid": 0,
            "status": status,
            "finish_time": finish_time,
            "history_id": history_id,
            "task_payload": None,
            "original_input": None,
            "req_first_frame_image": None,
        },
        "mode": "workbench",
        "uid": job.account.uid,
        "status": status,
        "history_group_key": order.prompt,
        "history_group_key_md5": hashlib.md5(order.prompt.encode()).hexdigest(),
        "submit_id": order.submit_id,
        "generate_id": job.generate_id,
        "finish_time": finish_time,
        "model_info": {"model_name": order.model.name, "model_req_key": order.model.key},
        # Upstream's forecast overstates the price; a client must not report it as a charge.
        "forecast_generate_cost": order.price * 5 + 3,
        "forecast_queue_cost": max(0, round(job.start_at - now)),
        "fail_code": fail_code,
        "fail_msg": "",
        "fail_starling_key": fail_key,
        "fail_starling_message": fail_message,
        "queue_info": _queue(job, now),
        "total_image_count": 0 if status == 20 else order.count,
        "finished_image_count": job.made if done else 0,
    }


def _items(job: Job, now: float, gallery: Gallery, base: str) -> list[dict[str, Any]]:
    order, text = job.order, plain_text(job.order.prompt)
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
            )
        )
        for index in range(job.made)
    ]
    return [_item(job, index, key, now=now, gallery=gallery, base=base) for index, key in enumerate(keys)]


def _item(job: Job, index: int, key: str, *, now: float, gallery: Gallery, base: str) -> dict[str, Any]:
    order, script = job.order, job.script
    uri = f"tos-sandbox/{key}"
    lives = script.link_seconds
    large = gallery.link(base, key, now + (_LINK_SECONDS if lives is None else lives))
    preview = gallery.link(base, key, now + (_PREVIEW_SECONDS if lives is None else lives))
    item_id = str(_FIRST_ITEM + job.number * 10 + index)
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
            "generate_type": 1,
            "first_generate_type": 1,
            "text2image_params": {
                "prompt": order.prompt,
                "user_negative_prompt": "",
                "seed": order.seed,
                "model_config": {"model_name": order.model.name, "model_req_key": order.model.key},
            },
        },
    }
