"""Scripted outcomes: words in a prompt or a session id that control the sandbox, and random faults."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_SCRIPT = re.compile(r"\[\[\s*([a-z]+)\s*(?::\s*([^\[\]]*?)\s*)?\]\]", re.IGNORECASE)
_CODE = re.compile(r"-?\d{1,7}")
_ENDINGS = {"10", "30", "40", "100"}
# Codes about the account, the rate, the request or the risk: upstream returns these in the response to a submit.
# All other codes are about the content or the generation and appear in the record later.
REFUSED_AT_SUBMIT = frozenset(
    {
        "-6", "1", "1000", "1001", "1002", "1006", "1010",
        "1014", "1015", "1017", "1018", "1019", "1021", "1057", "1157", "1310",
        "2014", "2020", "2035", "2043", "2049",
        "3018", "4001", "4003", "4010", "4013", "5000", "10020", "121101",
    }
)  # fmt: skip
# Recorded records list large images as PNG; upstream also makes the other two.
_DEFAULT_FORMAT = "png"
_FORMATS = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp"}
# Which file URLs the record of a video has: the older form, the newer form, or both.
_VIDEO_LINKS = {"origin", "sizes"}


@dataclass(frozen=True)
class Script:
    """The parsed script of a prompt. `before` and `after` are faults around the effect, once per prompt each."""

    seconds: float | None = None
    queue: int = 0
    partial: int | None = None
    hang: bool = False
    absent: int = 0
    ending: str = "50"
    fail_code: str = ""
    key_only: bool = False
    refuse: str = ""
    latency: float = 0.0
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    image_format: str = _DEFAULT_FORMAT
    video_links: str = "both"
    link_seconds: float | None = None
    # Refund a failed job when it ends. Upstream's format is not recorded; here the history gets a second line with the
    # opposite sign.
    refund: bool = False


def _number(text: str, low: float = 0.0, high: float = 86_400.0) -> float:
    try:
        value = float(text)
    except ValueError:
        return low
    return min(max(value, low), high) if value == value else low  # noqa: PLR0124  (NaN)


def _failure(value: str) -> dict[str, object]:
    if not _CODE.fullmatch(value):
        return {}
    if value in _ENDINGS:
        reasons = {"10": "2005", "30": "2002", "40": "2004"}
        return {"ending": value, "fail_code": reasons.get(value, "")}
    if value in REFUSED_AT_SUBMIT:
        return {"refuse": value}
    return {"ending": "30", "fail_code": value}


_SETTINGS: dict[str, Callable[[str], dict[str, object]]] = {
    "seconds": lambda value: {"seconds": _number(value)},
    "latency": lambda value: {"latency": _number(value)},
    "queue": lambda value: {"queue": int(_number(value))},
    "partial": lambda value: {"partial": int(_number(value))},
    "absent": lambda value: {"absent": int(_number(value))},
    "expires": lambda value: {"link_seconds": _number(value)},
    "hang": lambda _: {"hang": True},
    "refund": lambda _: {"refund": True},
    "fail": _failure,
    "refuse": lambda value: {"refuse": value} if _CODE.fullmatch(value) else {},
    "keyonly": lambda _: {"ending": "30", "fail_code": "", "key_only": True},
    "format": lambda value: {"image_format": _FORMATS.get(value.lower(), _DEFAULT_FORMAT)},
    "links": lambda value: {"video_links": value.lower()} if value.lower() in _VIDEO_LINKS else {},
}


def _fault(word: str, value: str) -> tuple[str, str] | None:
    moment = "after" if value.lower() == "after" else "before"
    if word in {"reset", "empty", "html"}:
        return moment, word
    if word == "http" and re.fullmatch(r"[45]\d\d", value):
        return "before", value
    return None


def read_script(prompt: str) -> Script:
    """Parse every `[[word:value]]` of a prompt. Unknown words are ignored."""
    if "[[" not in prompt:
        return Script()
    settings: dict[str, object] = {}
    faults: dict[str, list[str]] = {"before": [], "after": []}
    for match in _SCRIPT.finditer(prompt):
        word, value = match.group(1).lower(), match.group(2) or ""
        fault = _fault(word, value)
        if fault:
            faults[fault[0]].append(fault[1])
        if word in _SETTINGS:
            settings |= _SETTINGS[word](value)
    return Script(**settings, before=tuple(faults["before"]), after=tuple(faults["after"]))  # type: ignore[arg-type]


def script_words(prompt: str) -> dict[str, str]:
    """Return every `[[word:value]]` of a prompt, for modules with their own words."""
    return {match.group(1).lower(): match.group(2) or "" for match in _SCRIPT.finditer(prompt)}


def plain_text(prompt: str) -> str:
    """Return the prompt without its scripts: the text shown in a result."""
    return " ".join(_SCRIPT.sub(" ", prompt).split())


@dataclass(frozen=True)
class AccountBehaviour:
    """The behaviour of an account, scripted by words in its session id."""

    dead: bool = False
    broke: bool = False
    limited: bool = False
    busy: bool = False
    shark: bool = False
    flaky: bool = False
    gift: bool = False
    # Upload addresses name their host only as `UploadHost`, as some deployments do.
    singular: bool = False


# The format of real session ids. One in three thousand contains "dead" by chance; that is not a script.
_REAL_SESSION = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def read_behaviour(session: str) -> AccountBehaviour:
    text = _REAL_SESSION.sub(" ", session.lower())
    return AccountBehaviour(
        dead="dead" in text,
        broke="broke" in text,
        limited="limited" in text or "punished" in text,
        busy="busy" in text,
        shark="shark" in text,
        flaky="flaky" in text,
        gift="gift" in text,
        singular="singular" in text,
    )


@dataclass(frozen=True)
class Fault:
    """The fault of one call: delay the response, fail before the effect, or fail after it."""

    latency: float = 0.0
    before: str = ""
    after: str = ""


_FLAKY = (Fault(before="500"), Fault(before="html"), Fault(before="empty"), Fault(before="reset"), Fault(after="reset"))
_NO_FAULT = Fault()
_CHANCES = ("http_500", "html", "empty", "reset_before", "reset_after")


@dataclass
class Faults:
    """Random faults set through `/_faults`: probabilities per call. Has its own generator, so a seed repeats a run."""

    latency: float = 0.0
    chances: dict[str, float] = field(default_factory=dict)
    paths: list[str] | None = None
    seed: int = 1
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    @staticmethod
    def parse(body: dict[str, object]) -> "Faults":
        unknown = set(body) - {"latency", "paths", "seed", *_CHANCES}
        if unknown:
            raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
        paths = body.get("paths")
        if paths is not None and not isinstance(paths, list):
            raise ValueError("paths must be a list or null")
        seed = int(str(body.get("seed", 1)))
        chances = {name: float(str(body[name])) for name in _CHANCES if body.get(name)}
        return Faults(
            latency=float(str(body.get("latency") or 0.0)),
            chances=chances,
            paths=None if paths is None else [str(path) for path in paths],
            seed=seed,
            rng=random.Random(seed),
        )

    def as_dict(self) -> dict[str, object]:
        if not self.latency and not self.chances:
            return {}
        return {"latency": self.latency, **self.chances, "paths": self.paths, "seed": self.seed}

    def applies_to(self, path: str) -> bool:
        return path != "/_media" if self.paths is None else path in self.paths

    def next_fault(self, path: str, behaviour: AccountBehaviour) -> Fault:
        """Return the fault of this call. Flaky accounts fail in about three calls of ten."""
        if behaviour.flaky and self.rng.random() < 0.3:
            return self.rng.choice(_FLAKY)
        if not (self.latency or self.chances) or not self.applies_to(path):
            return _NO_FAULT
        for name, kind in self._kinds():
            if self.rng.random() < self.chances.get(name, 0.0):
                after = name == "reset_after"
                return Fault(self.latency, before="" if after else kind, after=kind if after else "")
        return Fault(self.latency)

    def _kinds(self) -> Iterator[tuple[str, str]]:
        yield from zip(_CHANCES, ("500", "html", "empty", "reset", "reset"), strict=True)
