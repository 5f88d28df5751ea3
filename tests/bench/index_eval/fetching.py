"""Packages from their registries, by the registries' own clients, into a cache outside of the repository."""

import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from runtime.errors import UnavailableError
from tests.bench.index_eval.packages import Package

TIMEOUT_S = 300


def cache_folder() -> Path:
    """`MASTERBUILDER_EVAL_CACHE`, or a folder in the user's cache."""
    named = os.environ.get("MASTERBUILDER_EVAL_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "masterbuilder" / "eval"


def fetch(package: Package, cache: Path) -> Path:
    """The archive in `cache`, fetched unless it is there. None of its code is run: wheels are not built, and packed
    npm and Debian packages are not installed.

    Raises UnavailableError when it cannot be had, or is not the pinned one; then `cache` holds nothing of it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for known in sorted(cache.glob(f"{package.sha256[:16]}.*")):
        if _digest(known) == package.sha256:
            return known
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        fetched = _fetched(package, Path(folder))
        if _digest(fetched) != package.sha256:
            raise UnavailableError(
                f"{package.package} {package.version} is not the archive that is pinned.",
                "Compare the two, and pin the new one in packages.toml if its source is the same.",
            )
        return fetched.replace(cache / f"{package.sha256[:16]}{fetched.suffix}")


def _fetched(package: Package, folder: Path) -> Path:
    try:
        said = subprocess.run(_command(package), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    found = [path for path in folder.iterdir() if path.is_file()]
    if len(found) != 1:
        raise UnavailableError(
            f"{package.package} {package.version} cannot be fetched by {package.client}: {said.strip()[-500:]}",
            "Try again where that registry can be reached and its client is installed (apt: after `apt-get update`).",
        )
    return found[0]


def _command(package: Package) -> list[str]:
    match package.client:
        case "pip":
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            return [*pip, "--no-deps", "--only-binary", ":all:", f"{package.package}=={package.version}"]
        case "npm":
            return ["npm", "pack", "--silent", "--ignore-scripts", f"{package.package}@{package.version}"]
        case "apt":
            return ["apt-get", "download", "--quiet", f"{package.package}={package.version}"]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256(file.read()).hexdigest()
