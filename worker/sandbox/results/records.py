"""The record of a job in the response of a poll."""

import hashlib
import math
from typing import Any

from worker.sandbox.jobs import QUEUE_POSITION_SECONDS, Job
from worker.sandbox.responses import INPUT_KEY
from worker.sandbox.results.image_items import GENERATE_TYPES, list_items
from worker.sandbox.results.media import ResultStore
from worker.sandbox.scripts import Script

_FAILURE_TEXTS = {
    "2004": ("web_fail2generate_output_block", "The result did not pass review."),
    "2204": ("web_fail2generate_copyright_block", "The generated image did not pass review."),
    "2003": ("web_fail2generate_inputimagerisk", "The picture may break the rules."),
    "2005": (INPUT_KEY, "The text may violate the rules."),
    "2002": ("web_other_error", "Generation failed. Try again later."),
}
_TEXT_CODES = {"1063", "2038", "2050"}
_IMAGE_CODES = {"1159", "2039", "2040", "2041", "2042", "2044", "2048", "2203"}


def _failure(script: Script) -> tuple[str, str, str]:
    """Return fail_code, fail_starling_key and fail_starling_message of a failed job."""
    code = script.fail_code
    if script.key_only:
        return "", INPUT_KEY, "The text does not meet the platform rules."
    if script.ending == "100":
        return "", "", ""
    if code in _TEXT_CODES:
        return code, INPUT_KEY, "The text does not meet the platform rules. Change it and try again."
    if code in _IMAGE_CODES:
        return code, "web_fail2generate_inputimagerisk", "The picture does not meet the platform rules."
    return code, *_FAILURE_TEXTS.get(code, _FAILURE_TEXTS["2002"])


def _queue(job: Job, now: float) -> dict[str, Any]:
    waiting = now < job.start_at
    position = max(1, math.ceil((job.start_at - now) / QUEUE_POSITION_SECONDS)) if waiting else 0
    return {
        "queue_idx": position,
        "priority": 3,
        "queue_status": 1 if waiting else 2,
        "queue_length": position + 300 if waiting else 0,
        "polling_config": {"interval_seconds": 30, "timeout_seconds": 86_400},
    }


def record(job: Job, now: float, *, results: ResultStore, base: str, fresh: bool = False) -> dict[str, Any]:
    """Return the record of a job; `fresh` = in the response of the submit."""
    status = 20 if fresh else job.status(now)
    ended = status not in {20, 42, 45}
    failed = ended and status != 50
    finish_time = int(job.finish_at) if ended and status != 100 else 0
    done = status == 50 or (status == 45 and now >= job.finish_at)
    fail_code, fail_key, fail_message = _failure(job.script) if failed else ("", "", "")
    order, history_id = job.order, job.history_id
    has_counters = order.kind != "video"  # the counters of a video stay 0
    return {
        "generate_type": GENERATE_TYPES[order.kind],
        "history_record_id": history_id,
        "origin_history_record_id": None,
        "created_time": round(job.accepted_at, 3),
        "item_list": list_items(job, now, results, base) if done else [],
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
        # Upstream's forecast is higher than the price; clients must not report it as a charge.
        "forecast_generate_cost": order.price * 5 + 3,
        "forecast_queue_cost": max(0, round(job.start_at - now)),
        "fail_code": fail_code,
        "fail_msg": "",
        "fail_starling_key": fail_key,
        "fail_starling_message": fail_message,
        "queue_info": _queue(job, now),
        "total_image_count": order.count if has_counters and status != 20 else 0,
        "finished_image_count": job.result_count if has_counters and done else 0,
    }
