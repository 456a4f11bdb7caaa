"""Events of an Ark-native image stream: each image as its job ends, then the usage, then `[DONE]`."""

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.generation.response import read_job_views
from api.http.errors import error_body
from api.http.sse import sse
from api.protocols.ark.errors import vendor_error
from api.protocols.ark.serialization import image_item, images_usage, job_failure
from worker.core.errors import DreameryError
from worker.db.engine import Row
from worker.db.jobs.queries import JobView

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ArkFrames:
    """The vendor's events. `model` = as the client named it."""

    model: str
    response_format: str
    base: str
    request_id: str

    def image(self, view: JobView, item: Row[Any], index: int) -> bytes:
        """Return a `partial_succeeded` event."""
        fields = image_item(view, item, response_format=self.response_format, base=self.base)
        return self._event("partial_succeeded", {"image_index": index, **fields})

    def failed_job(self, view: JobView, index: int) -> bytes:
        """Return a `partial_failed` event for a job with an error."""
        if view.job.error_code is None:
            return b""
        return self._event("partial_failed", {"image_index": index, "error": job_failure(view.job)})

    def end(self, job_ids: list[UUID]) -> bytes:
        """Return the usage and the end mark."""
        return self._event("completed", {"usage": images_usage(read_job_views(job_ids))}) + _DONE

    def error(self, error: DreameryError) -> bytes:
        """Return the error of a call that failed after its stream began."""
        ours = error_body(error.kind, error.message, error.param)["error"]
        return sse("error", vendor_error(ours, error.status, self.request_id)) + _DONE

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        name, now = f"image_generation.{kind}", int(time.time())
        return sse(name, {"type": name, "model": self.model, "created": now, "created_at": now, **fields})
