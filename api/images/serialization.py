"""Jobs -> OpenAI's ImagesResponse."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from api.http.responses import unix_seconds
from api.jobs.serialization import file_url, read_base64, safety_identifier_field
from worker.db.engine import Row
from worker.db.jobs.queries import JobView


def result_files(views: list[JobView], *, n: int) -> list[Row[Any]]:
    """Return the images of a request: at most `n`, but all layers of a picture."""
    files = [item for view in views for item in view.files]
    return files if has_layers(views[0]) else files[:n]


def has_layers(view: JobView) -> bool:
    """Return whether the images of a job are layers of one picture."""
    return bool((view.job.params["order"].get("options") or {}).get("layers"))


def images_response(
    views: list[JobView],
    *,
    n: int,
    response_format: str | None,
    base: str,
    echoed_fields: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return OpenAI's ImagesResponse from the jobs of one request, with at most n images.

    `echoed_fields` = fields of the request that the answer repeats.
    """
    files = result_files(views, n=n)
    if response_format == "b64_json":
        data = [{"b64_json": read_base64(f.key), "revised_prompt": None} for f in files]
    else:
        data = [{"url": file_url(base, f.id), "revised_prompt": None} for f in files]
    first = files[0]
    return {
        "created": unix_seconds(views[0].job.created_at),
        "data": data,
        "size": f"{first.width}x{first.height}",
        "output_format": first.mime.partition("/")[2],
        **echoed_fields,
        **({"adjusted": adjusted} if (adjusted := views[0].job.params.get("adjusted")) else {}),
        **safety_identifier_field(views[0]),
    }
