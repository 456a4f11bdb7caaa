"""Shared parts of all submit bodies (protocol sections 6.1 and 6.2): ids, the draft envelope, image objects."""

import os
import time
from dataclasses import dataclass
from typing import Any

import orjson

from worker.providers.base import Reference


@dataclass(frozen=True, slots=True)
class SubmitContext:
    """The values that differ per submit: its key, the time, and the draft version from the settings."""

    submit_key: str
    milliseconds: int
    version: str

    @classmethod
    def now(cls, submit_key: str, version: str) -> "SubmitContext":
        """Return the values of a submit at this moment."""
        return cls(submit_key, int(time.time() * 1000), version)


def build_draft(
    component: dict[str, Any], context: SubmitContext, *, min_version: str, min_features: tuple[str, ...] = ()
) -> str:
    """Return `draft_content`: one component in its envelope, as a JSON string (upstream refuses an object: 1002)."""
    return to_json(
        {
            "type": "draft",
            "id": uuids(1)[0],
            "min_version": min_version,
            "min_features": list(min_features),
            "is_from_tsn": True,
            "version": context.version,
            "main_component_id": component["id"],
            "component_list": [component],
        }
    )


def build_metadata(context: SubmitContext) -> dict[str, Any]:
    """Return where and when the draft was created."""
    return {
        "type": "",
        "id": uuids(1)[0],
        "created_platform": 3,
        "created_platform_version": "",
        "created_time_in_ms": str(context.milliseconds),
        "created_did": "",
    }


def build_image(reference: Reference) -> dict[str, Any]:
    """Return the IMAGE object of section 6.2. Upstream also accepts sizes of zero."""
    return {
        "type": "image",
        "id": uuids(1)[0],
        "source_from": "upload",
        "platform_type": 1,
        "name": "",
        "image_uri": reference.uri,
        "width": reference.width,
        "height": reference.height,
        "format": reference.format,
        "uri": reference.uri,
    }


def to_json(value: Any) -> str:
    """Return compact JSON, as the web page sends it."""
    return orjson.dumps(value).decode()


def uuids(number: int) -> list[str]:
    """Return random version 4 UUIDs from one read of the random source; `uuid.uuid4()` is several times slower."""
    digits = os.urandom(16 * number).hex()
    return [
        f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
        for h in (digits[i : i + 32] for i in range(0, 32 * number, 32))
    ]
