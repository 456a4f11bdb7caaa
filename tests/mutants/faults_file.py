"""The planted faults: one TOML file per area below `faults/`, each fault as a replacement of text in one file."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(__file__).parent / "faults"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `old` occurs exactly once in `file` and is replaced by `new`; one of the `tests` must fail then.

    `tests` = arguments of pytest: paths, and `-k` with its expression.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Plant the fault in the tree; return the former text of the file. Raises ValueError if it does not fit."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: its text occurs {text.count(self.old)} times in {self.file}")
        path.write_text(text.replace(self.old, self.new))
        return text


def read_faults() -> list[Fault]:
    """Return all faults, area by area."""
    return [
        Fault(path.stem, one["name"], one["file"], one["old"], one["new"], tuple(one["tests"]))
        for path in sorted(_FOLDER.glob("*.toml"))
        for one in tomllib.loads(path.read_text())["fault"]
    ]
