"""What upstream measured of a finished order, in the form that settles it (`worker.core.catalog.money.charge_of`)."""

from collections.abc import Sequence
from typing import Any

from worker.providers.ark.responses import ImageAnswer, ImageItem, Task


def task_usage(task: Task) -> dict[str, Any]:
    """Return the usage of a video; empty = upstream has not reported it."""
    return {} if task.tokens is None else {"tokens": task.tokens}


def image_usage(items: Sequence[ImageItem], answer: ImageAnswer | None, *, inputs: int = 0) -> dict[str, Any]:
    """Return the usage of an image call. `answer` None = a cut stream: what arrived was charged, the rest is unclear.

    `inputs` = the reference images of the order, which count unless upstream reports another number.
    """
    arrived = [item for item in items if item.error is None]
    areas = [(item.width or 0) * (item.height or 0) for item in arrived]
    generated = len(arrived) if answer is None else answer.generated
    reported = answer.inputs if answer is not None and answer.inputs else inputs
    return {"images": generated, "inputs": reported, "areas": areas}
