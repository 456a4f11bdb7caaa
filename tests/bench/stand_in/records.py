"""Jobs of the stand-in, and their records as JSON text. A record is built once per status, so a poll only joins bytes."""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

_FIRST_HISTORY = 8_000_000_000_000
_FIRST_ITEM = 7_500_000_000_000_000_000
_MAX_ITEMS = 16
_PREVIEWS = (360, 480, 720, 1080, 2400, 4096)
_WORKING, _ALMOST_DONE, DONE = 42, 45, 50
# In recorded runs about the last third has status 45 with an empty list.
_EARLY_SHARE = 0.6


@dataclass
class Job:
    """One accepted generation. Times in unix seconds."""

    account: str
    submit_id: str
    prompt: str
    model: str
    kind: str  # image or video
    count: int
    number: int
    at: float
    finish_at: float
    base: str  # address under which the client reached us
    size: int
    _texts: dict[int, bytes] = field(default_factory=dict)

    @property
    def history_id(self) -> str:
        return str(_FIRST_HISTORY + self.number)

    def status(self, now: float) -> int:
        if now >= self.finish_at:
            return DONE
        share = (now - self.at) / (self.finish_at - self.at)
        return _WORKING if share < _EARLY_SHARE else _ALMOST_DONE

    def text(self, status: int) -> bytes:
        """Return the record in this status as JSON."""
        found = self._texts.get(status)
        if found is None:
            found = self._texts[status] = orjson.dumps(self._record(status))
        return found

    def items(self) -> list[dict[str, Any]]:
        """Return the results."""
        return [self._item(index) for index in range(self.count)]

    def _record(self, status: int) -> dict[str, Any]:
        done = status == DONE
        finish_time = int(self.finish_at) if done else 0
        counted = self.kind == "image" and status != 20
        return {
            "generate_type": 1 if self.kind == "image" else 10,
            "history_record_id": self.history_id,
            "origin_history_record_id": None,
            "created_time": round(self.at, 3),
            "item_list": self.items() if done else [],
            "origin_item_list": [],
            "task": {
                "task_id": self.history_id,
                "submit_id": self.submit_id,
                "aid": 0,
                "status": status,
                "finish_time": finish_time,
                "history_id": self.history_id,
                "task_payload": None,
                "original_input": None,
                "req_first_frame_image": None,
            },
            "mode": "workbench",
            "uid": self.account,
            "status": status,
            "history_group_key": self.prompt,
            "history_group_key_md5": hashlib.md5(self.prompt.encode(), usedforsecurity=False).hexdigest(),
            "submit_id": self.submit_id,
            "generate_id": f"{int(self.at)}STANDIN{self.number:09X}",
            "finish_time": finish_time,
            "model_info": {"model_name": self.model, "model_req_key": self.model},
            "forecast_generate_cost": 8,
            "forecast_queue_cost": 0,
            "fail_code": "",
            "fail_msg": "",
            "fail_starling_key": "",
            "fail_starling_message": "",
            "queue_info": {
                "queue_idx": 0,
                "priority": 3,
                "queue_status": 2,
                "queue_length": 0,
                "polling_config": {"interval_seconds": 30, "timeout_seconds": 86_400},
            },
            "total_image_count": self.count if counted else 0,
            "finished_image_count": self.count if counted and done else 0,
        }

    def _item(self, index: int) -> dict[str, Any]:
        item_id = str(_FIRST_ITEM + self.number * _MAX_ITEMS + index)
        expires = int(time.time()) + 2_000_000
        name = f"{self.base}/_media/{self.history_id}-{index}"
        link = f"?x-expires={expires}&x-signature=c3RhbmQtaW4%3D"
        common = {
            "id": item_id,
            "effect_id": item_id,
            "effect_type": 9 if self.kind == "image" else 53,
            "title": "",
            "description": self.prompt,
            "cover_url": f"{name}.webp{link}&preview=360",
            "item_urls": [""],
            "create_time": int(self.finish_at),
            "status": 144,
            "aspect_ratio": 1.0,
            "has_published": False,
            "cover_url_map": {str(side): f"{name}.webp{link}&preview={side}" for side in _PREVIEWS},
            "local_item_id": item_id,
        }
        if self.kind == "video":
            source = {"width": 256, "height": 256, "duration": 5, "video_url": f"{name}.mp4{link}", "format": "mp4"}
            video = {
                "video_id": f"v0{item_id}",
                "duration": 5,
                "duration_ms": 5000,
                "transcoded_video": {"origin": source},
            }
            return {"common_attr": common, "author": None, "video": video}
        large = {
            "image_uri": f"tos-stand-in/{self.history_id}-{index}",
            "image_url": f"{name}.webp{link}",
            "width": self.size,
            "height": self.size,
            "format": "webp",
            "smart_crop_loc": None,
        }
        return {"common_attr": common, "author": None, "image": {"format": "webp", "large_images": [large]}}
