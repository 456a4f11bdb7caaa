"""Video tasks of the Ark interface: their states over time, and what a client sees of them."""

import math
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.ark.requests import VideoOrder
from worker.sandbox.scripts import Script

FINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_PIXELS_PER_TOKEN = 1024
_FPS = 24


@dataclass
class Task:
    """A task of a main account. `clip_seconds` = of its reference videos, which count as output does."""

    main: str
    order: VideoOrder
    script: Script
    created_at: float
    start_at: float
    finish_at: float
    failure: str = ""
    clip_seconds: float = 0.0
    id: str = field(default_factory=lambda: f"cgt-{time.strftime('%Y%m%d%H%M%S')}-{secrets.token_hex(4)}")
    cancelled_at: float | None = None
    life: float | None = None  # seconds, instead of the ordered ones
    video_url: str = ""
    last_frame_url: str = ""

    @property
    def ends_at(self) -> float:
        """When it expires, if it is not finished."""
        return self.created_at + (self.order.life if self.life is None else self.life)

    def status(self, now: float) -> str:
        if self.cancelled_at is not None:
            return "cancelled"
        if now < self.finish_at and now >= self.ends_at:
            return "expired"
        if now < self.start_at:
            return "queued"
        if now < self.finish_at:
            return "running"
        return "failed" if self.failure else "succeeded"

    @property
    def tokens(self) -> int:
        """What a success costs: one frame more than the length has."""
        frames = math.ceil((self.order.seconds + self.clip_seconds) * _FPS) + 1
        return math.ceil(self.order.width * self.order.height * frames / _PIXELS_PER_TOKEN)

    def moments(self) -> list[float]:
        """Return when its state changes, in order."""
        end = self.ends_at
        return sorted({min(self.start_at, end), min(self.finish_at, end)})

    def view(self, now: float, *, echoes: bool) -> dict[str, Any]:
        """Return the task as GET and lists show it. `echoes` = with the values that a client can recognise it by."""
        order, status = self.order, self.status(now)
        body: dict[str, Any] = {
            "id": self.id,
            "model": order.model,
            "status": status,
            "created_at": int(self.created_at),
            "updated_at": int(min(max(self.created_at, self.finish_at if status in FINAL else self.start_at), now)),
            "service_tier": "flex" if order.flex else "default",
        }
        if echoes:
            body["execution_expires_after"] = order.life
            body["safety_identifier"] = order.safety_identifier
        if status == "failed":
            body["error"] = {"code": self.failure, "message": "The task failed."}
        if status == "succeeded":
            frame = {"last_frame_url": self.last_frame_url} if order.last_frame else {}
            body |= {
                "content": {"video_url": self.video_url, **frame},
                "usage": {"completion_tokens": self.tokens, "total_tokens": self.tokens},
                "seed": order.seed if order.seed >= 0 else 1276,
                "resolution": order.resolution,
                "ratio": order.ratio,
                "duration": order.seconds,
                "framespersecond": _FPS,
                "generate_audio": order.audio,
                "draft": order.draft,
                "priority": order.priority,
            }
            if order.draft_of:
                body["draft_task_id"] = order.draft_of
        return body
