"""What the request bodies of all submits share (protocol sections 6.1 and 6.2): ids, the frame of a draft, pictures."""

import os
from dataclasses import dataclass
from typing import Any

import orjson

from worker.providers.base import Reference


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one submit different from the next: its key, the moment, the draft version of the settings."""

    submit_key: str
    milliseconds: int
    version: str


def draft(component: dict[str, Any], stamp: Stamp, *, min_version: str, min_features: tuple[str, ...] = ()) -> str:
    """`draft_content`: one component in its frame. A JSON string, for an object is refused with 1002."""
    return to_json(
        {
            "type": "draft",
            "id": uuids(1)[0],
            "min_version": min_version,
            "min_features": list(min_features),
            "is_from_tsn": True,
            "version": stamp.version,
            "main_component_id": component["id"],
            "component_list": [component],
        }
    )


def metadata(stamp: Stamp) -> dict[str, Any]:
    """Where and when the draft was made."""
    return {
        "type": "",
        "id": uuids(1)[0],
        "created_platform": 3,
        "created_platform_version": "",
        "created_time_in_ms": str(stamp.milliseconds),
        "created_did": "",
    }


def picture(reference: Reference) -> dict[str, Any]:
    """The IMAGE object of section 6.2; zero sizes were accepted too."""
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
    """Compact JSON text, as the page makes it."""
    return orjson.dumps(value).decode()


def uuids(number: int) -> list[str]:
    """Random version 4 UUIDs from one read of the random source; `uuid.uuid4()` costs several times as much."""
    digits = os.urandom(16 * number).hex()
    return [
        f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
        for h in (digits[i : i + 32] for i in range(0, 32 * number, 32))
    ]
