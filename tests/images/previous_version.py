"""The code of the previous version: the commit before the newest migration, from the history of git."""

import subprocess
from pathlib import Path

from tests.images.building import ROOT, Image, NotPossibleError


def unpack_previous_code(image: Image, folder: Path) -> tuple[Path, str]:
    """Unpack it into `folder` and return where it is, to be mounted over the image's code, and the commit's id."""
    newest = ("git", "log", "--diff-filter=A", "--format=%H", "-1", "--", "migrations/versions")
    done = subprocess.run(newest, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise NotPossibleError("this copy has no history of git")
    revision = f"{done.stdout.strip()}^"
    code = folder / "older-app"
    code.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(code)], input=archive, check=True)
    # The package's description, which `pip install -e` made in the image.
    for entry in image.rootfs.glob("app/*.egg-info"):
        subprocess.run(["cp", "-r", str(entry), str(code)], check=True)
    return code, revision[:12]
