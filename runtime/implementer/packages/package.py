"""One package that was fetched, and where its name, version and licence are read.

Source: core metadata 2.4 (PyPA), SPDX expressions in it (PEP 639); npm's lockfile, whose entries carry `license`.
"""

import email.parser
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

METADATA_BYTES_MAX = 4 << 20
LICENCE_CHARACTERS_MAX = 100
_CLASSIFIER = "License ::"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    registry: Literal["pypi", "npm"]
    name: str
    version: str
    licence: str
    """As its own metadata says it, an SPDX expression where that is new enough; empty when it says nothing."""
    development: bool
    """Needed to build or to test only, as far as the project's manifests say."""


class DishonestPackageError(Exception):
    """The package is not what the index may hold: it is broken, or asks for another one by its address."""


def wheel(path: Path, *, development: bool) -> Package:
    """Blocking. Raises DishonestPackageError."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [
                each for each in archive.namelist() if each.count("/") == 1 and each.endswith(".dist-info/METADATA")
            ]
            if len(names) != 1 or archive.getinfo(names[0]).file_size > METADATA_BYTES_MAX:
                raise DishonestPackageError(f"{path.name} has no metadata")
            text = archive.read(names[0]).decode(errors="replace")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DishonestPackageError(f"{path.name} cannot be read: {error}") from None
    metadata = email.parser.HeaderParser().parsestr(text)
    for required in metadata.get_all("Requires-Dist", []):
        if "@" in required.partition(";")[0]:
            raise DishonestPackageError(f"{path.name} asks for another package by its address: {required[:100]}")
    return Package(
        registry="pypi",
        name=str(metadata.get("Name", "")),
        version=str(metadata.get("Version", "")),
        licence=_licence(
            str(metadata.get("License-Expression") or ""),
            str(metadata.get("License") or ""),
            metadata.get_all("Classifier", []),
        ),
        development=development,
    )


def locked(lock: bytes) -> Iterator[tuple[Package, str]]:
    """The packages of npm's lock, each with the address it came from.  Those that come inside others have none."""
    for place, entry in json.loads(lock).get("packages", {}).items():
        if place and isinstance(entry, dict) and "version" in entry:
            name = str(entry.get("name") or place.rpartition("node_modules/")[2])
            yield _of_lock(name, entry), str(entry.get("resolved", ""))


def as_record(package: Package) -> dict[str, Any]:
    return {
        "registry": package.registry,
        "name": package.name,
        "version": package.version,
        "licence": package.licence,
        "development": package.development,
    }


def from_record(record: Mapping[str, Any]) -> Package:
    return Package(**record)


def _of_lock(name: str, entry: Mapping[str, Any]) -> Package:
    licence = entry.get("license", "")
    if isinstance(licence, dict):  # how it was written before npm 3
        licence = licence.get("type", "")
    return Package(
        registry="npm",
        name=name,
        version=str(entry["version"]),
        licence=_licence(licence if isinstance(licence, str) else "", "", []),
        development=bool(entry.get("dev") or entry.get("devOptional")),
    )


def _licence(expression: str, text: str, classifiers: Sequence[str]) -> str:
    """The shortest that says it: older packages put whole licence texts into the field meant for a name."""
    named = [each.rpartition("::")[2].strip() for each in classifiers if each.startswith(_CLASSIFIER)]
    field = " ".join(text.split())
    for said in (expression.strip(), field if len(field) <= LICENCE_CHARACTERS_MAX else "", " AND ".join(named), field):
        if said and said != "UNKNOWN":
            return said[:LICENCE_CHARACTERS_MAX]
    return ""
