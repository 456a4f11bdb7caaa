"""Jobs as the OpenAI images response."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from api.http.responses import seconds_of
from api.jobs.serialization import base64_of, file_url, safety_echo
from worker.db.jobs.queries import JobView


def image_answer(
    views: list[JobView],
    *,
    n: int,
    response_format: str | None,
    base: str,
    echoed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """OpenAI's ImagesResponse from the jobs of one request, at most n pictures. `echoed` = what it tells back as is."""
    files = [item for view in views for item in view.files][:n]
    if response_format == "b64_json":
        data = [{"b64_json": base64_of(f.key), "revised_prompt": None} for f in files]
    else:
        data = [{"url": file_url(base, f.id), "revised_prompt": None} for f in files]
    first = files[0]
    return {
        "created": seconds_of(views[0].job.created_at),
        "data": data,
        "size": f"{first.width}x{first.height}",
        "output_format": first.mime.partition("/")[2],
        **echoed,
        **safety_echo(views[0]),
    }
