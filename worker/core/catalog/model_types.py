"""What the catalog knows of a model, whatever provider offers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from worker.core.catalog.money import ImagePrice, ImagePricing, VideoPrice, VideoPricing

DEFAULT_COUNT = 4
ADAPTIVE = "adaptive"
AUTO_SECONDS = -1
_ANY = "any"


@dataclass(frozen=True, slots=True)
class Size:
    """An image size that upstream supports: pixels, ratio as `W:H`, resolution such as `2k`."""

    width: int
    height: int
    ratio: str
    resolution: str


@dataclass(frozen=True, slots=True)
class References:
    """How many inputs a video model takes, and their seconds together. 0 = none, or no limit for seconds and total."""

    images: int = 0
    videos: int = 0
    audios: int = 0
    total: int = 0
    video_seconds: int = 0
    audio_seconds: int = 0
    audio_alone: bool = False


@dataclass(frozen=True, slots=True)
class InputLimits:
    """What upstream accepts as an input of one kind; each pair is the least and the most. None = no limit known.

    `public_link`: taken only by a link that upstream can open.
    """

    bytes: int | None = None
    side: tuple[int, int] | None = None
    area: tuple[int, int] | None = None
    ratio: tuple[float, float] | None = None
    seconds: tuple[float, float] | None = None
    public_link: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where the accounts of a provider are: region of an account -> places of models.

    `undetected`: regions of accounts that may turn out to be anywhere.
    """

    of_region: Mapping[str, tuple[str, ...]]
    undetected: frozenset[str] = frozenset()

    def of(self, region: str) -> tuple[str, ...]:
        """Return the places of an account's region."""
        return self.of_region.get(region, (region,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What image and video models share.

    `ids`: upstream's names of the model by place, `any` = in all others. `where`: places that offer it, `disputed`:
    places where sources disagree, `ends`: the first day on which it is not sold in a place any more. `fields`: optional
    parameters that it takes. `seed`: always, documented, undocumented or none. `own`: values of fields that only the
    provider reads, from the operator's file.
    """

    id: str
    name: str
    provider: str
    ids: Mapping[str, str]
    where: frozenset[str]
    places: Places
    resolutions: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    disputed: frozenset[str] = frozenset()
    ends: Mapping[str, date] = field(default_factory=dict)
    fields: frozenset[str] = frozenset()
    seed: str = "none"
    max_seed: int = 2**32 - 1
    prompt_flags: frozenset[str] = frozenset()  # names of flags that upstream reads in a prompt
    mention: str = ""  # how a prompt names an input, with {kind} and {n}; "" = as the caller wrote it
    inputs: Mapping[str, InputLimits] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Upstream's name of the model where no place has another one."""
        return self.ids.get(_ANY) or next(iter(self.ids.values()))

    @property
    def keys(self) -> frozenset[str]:
        """All of upstream's names of the model."""
        return frozenset(self.ids.values())

    def upstream_key(self, region: str) -> str:
        """Return upstream's name of the model for accounts of a region."""
        return next((self.ids[place] for place in self.places.of(region) if place in self.ids), self.key)

    @property
    def sold_in(self) -> frozenset[str]:
        """The places that offer the model today."""
        today = datetime.now(UTC).date()
        return frozenset(place for place in self.where if place not in self.ends or today < self.ends[place])

    def is_available_in(self, region: str) -> bool:
        """Return whether accounts of this region have the model. An undetected region counts as available."""
        return region in self.places.undetected or not self.sold_in.isdisjoint(self.places.of(region))

    def is_listed_for(self, region: str) -> bool:
        """Return whether lists show the model to accounts of this region: an undetected one has its usual places."""
        return not self.sold_in.isdisjoint(self.places.of(region))

    def is_disputed_in(self, region: str) -> bool:
        """Return whether sources disagree about the model in this region."""
        return not self.disputed.isdisjoint(self.places.of(region))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel(Model):
    """One image model. Empty `counts` = the count cannot be chosen; it makes `default_count`.

    `sizes`: resolution -> ratio -> (width, height), also of resolutions that it does not make. `free_area`: pixels of a
    size that is in no table, least and most; None = only those of the table. `max_set`: images of one set that upstream
    charges by what comes, 0 = makes no sets.
    """

    sizes: Mapping[str, Mapping[str, tuple[int, int]]]
    counts: tuple[int, ...]
    default_count: int = DEFAULT_COUNT
    references: int = 0  # maximum number of reference images; 0 = none
    series: bool = False  # makes different images if the prompt requests a series
    listed: bool = False  # only in upstream's model list (`worker.core.catalog.upstream_models`)
    medium_quality: str = ""  # resolution of `quality: medium`; "" = the default one
    free_area: tuple[int, int] | None = None
    max_set: int = 0
    max_set_with_inputs: int = 0
    streams: bool = False
    formats: tuple[str, ...] = ()
    default_format: str = "jpeg"
    backgrounds: tuple[str, ...] = ()
    max_layers: int = 0
    web_search: bool = False
    optimize_modes: tuple[str, ...] = ()
    images_per_minute: int = 0
    prices: tuple[ImagePrice, ...] = ()

    @property
    def pricing(self) -> ImagePricing:
        """What the price of its images depends on, where they are sold for money."""
        return ImagePricing(self.id, self.sizes, self.max_layers, self.prices)

    @property
    def default_resolution(self) -> str:
        """2k if the model supports it, otherwise its smallest."""
        return "2k" if "2k" in self.resolutions else self.resolutions[0]

    @property
    def max_per_job(self) -> int:
        """Maximum number of images of one upstream job."""
        return max(self.counts, default=self.default_count)

    @property
    def ratios(self) -> tuple[str, ...]:
        """The ratios of its sizes."""
        return tuple(self.sizes[self.resolutions[0]])

    def size(self, ratio: str, resolution: str) -> Size:
        """Return the size of a ratio in a resolution."""
        width, height = self.sizes[resolution][ratio]
        return Size(width=width, height=height, ratio=ratio, resolution=resolution)

    def accepts_size(self, width: int, height: int) -> bool:
        """Return whether upstream makes exactly this size."""
        if self.free_area is None:
            return any((width, height) in self.sizes[one].values() for one in self.resolutions)
        least, most = self.free_area
        return least <= width * height <= most and 1 / 16 <= width / height <= 16

    def nearest_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of its tables nearest to the requested one: nearest ratio, then nearest area."""
        options = [size for resolution in self.resolutions for size in self.sizes[resolution].values()]
        wanted = width / height

        def distance(size: tuple[int, int]) -> tuple[float, int]:
            ratio = size[0] / size[1]
            return round(max(ratio / wanted, wanted / ratio), 2), abs(size[0] * size[1] - width * height)

        return min(options, key=distance)

    def split_into_jobs(self, n: int) -> list[int]:
        """Split `n` images into upstream jobs. Returns the number of images of each job."""
        full, rest = divmod(n, self.max_per_job)
        return [self.max_per_job] * full + ([rest] if rest else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoModel(Model):
    """One video model. The first of durations, resolutions and ratios is the default.

    `modes`: ways to make a video (text, first, first_last, reference, edit, extend, draft, final); `adaptive_only`:
    modes in which the inputs decide the ratio. `frames`: resolution -> ratio -> (width, height).
    """

    durations: tuple[int, ...]
    ratios: tuple[str, ...]
    frames: Mapping[str, Mapping[str, tuple[int, int]]]
    modes: frozenset[str]
    references: References
    adaptive_only: frozenset[str] = frozenset()
    auto_seconds: bool = False  # the model may choose the length (-1)
    fps: int = 24
    makes_audio: bool = False
    audio_switch: bool = False
    frame_decides_ratio: bool = False  # with a first frame, its ratio counts instead of the requested one
    flex: bool = False
    draft_resolution: str = ""
    final_resolution: str = ""
    draft_days: int = 0
    requests_per_minute: int = 0
    in_flight: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    prices: tuple[VideoPrice, ...] = ()

    @property
    def pricing(self) -> VideoPricing:
        """What the price of its videos depends on, where they are sold for money."""
        clip_seconds = self.references.video_seconds
        return VideoPricing(self.id, self.frames, self.fps, self.max_seconds, clip_seconds, self.prices)

    @property
    def first_frame(self) -> bool:
        """Whether it takes an image as the first frame."""
        return "first" in self.modes

    @property
    def end_frame(self) -> bool:
        """Whether it takes an image as the last frame."""
        return "first_last" in self.modes

    @property
    def omni(self) -> bool:
        """Whether it takes references that the prompt names."""
        return "reference" in self.modes

    @property
    def min_seconds(self) -> int:
        """The shortest video."""
        return min(self.durations)

    @property
    def max_seconds(self) -> int:
        """The longest video."""
        return max(self.durations)

    @property
    def default_seconds(self) -> int:
        """The length without a request."""
        return self.durations[0]

    def frame(self, ratio: str, resolution: str) -> tuple[int, int]:
        """Return the expected width and height of a video. A ratio that upstream chooses counts as the default one."""
        table = self.frames[resolution]
        return table.get(ratio) or table.get(self.ratios[0]) or next(iter(table.values()))


Kind = TypeVar("Kind", ImageModel, VideoModel)
