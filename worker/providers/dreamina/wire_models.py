"""What the wire needs of a model beside the catalog: `models.toml`, changed by the operator's catalog file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from worker.core.catalog.models import ImageModel, Size, VideoModel

_FILE = Path(__file__).with_name("models.toml")


@dataclass(frozen=True, slots=True)
class WireVideo:
    """A video model on the wire (protocol section 7)."""

    sends_resolution: bool = False
    amount: bool = False
    draft_mode: bool = False
    min_version: str = ""
    features: tuple[str, ...] = ()
    benefit: str = ""
    benefit_omni: str = ""
    benefit_resolution: tuple[tuple[str, str], ...] = ()
    benefit_up_to: tuple[tuple[int, str], ...] = ()

    def benefit_for(self, *, seconds: int, resolution: str, omni: bool, listed: Mapping[str, Any]) -> str:
        """Return the `benefit_type` of a job (section 7.3); "" = unknown, so none is declared.

        `listed` = the model in upstream's list for the account. It has only the standard benefit, so the exceptions by
        length, resolution or references stay.
        """
        special = self._special(seconds=seconds, resolution=resolution, omni=omni)
        if special not in {"", self.benefit} or omni:
            return special or self.benefit
        # Lists that were stored by an earlier version have it at the top.
        own = listed.get("own") or listed
        return str(own.get("benefit") or "") or self.benefit

    def _special(self, *, seconds: int, resolution: str, omni: bool) -> str:
        if omni and self.benefit_omni:
            return self.benefit_omni
        by_resolution = dict(self.benefit_resolution).get(resolution)
        by_seconds = next((benefit for limit, benefit in self.benefit_up_to if seconds <= limit), None)
        return by_resolution or by_seconds or ""


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def ratio_number(ratio: str) -> int:
    """Return upstream's number of an image ratio."""
    return int(_tables()["ratio_numbers"][ratio])


def only_size_in_us(model: ImageModel) -> Size | None:
    """Return the size that the US service makes with this model whatever is asked; None = any."""
    row = model.own.get("only_us") or _tables()["image"].get(model.id, {}).get("only_us")
    if not row:
        return None
    width, height = row["size"]
    return Size(width, height, row["ratio"], row["resolution"])


def wire_video(model: VideoModel) -> WireVideo:
    """Return what the wire needs of a video model."""
    row = {**_tables()["video"].get(model.id, {}), **model.own}
    up_to = {int(limit): benefit for limit, benefit in row.pop("benefit_up_to", {}).items()}
    return WireVideo(
        **{
            **row,
            "features": tuple(row.get("features", ())),
            "benefit_resolution": tuple(row.get("benefit_resolution", {}).items()),
        },
        benefit_up_to=tuple(sorted(up_to.items())),
    )
