"""What a project is built on, as its manifests say: names, versions, licences.

Source: requirements files of pip; `[project]` of PEP 621; npm's package.json and package-lock.json.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from packaging.utils import canonicalize_name

NO_LICENCES: Mapping[str, str] = MappingProxyType({})
UNKNOWN = "not known"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([=<>!~][^;#]*)?")
_REQUIREMENTS_FILE = re.compile(r"(^|/)requirements[\w.-]*\.txt$")
_COPYLEFT = re.compile(r"\b[AL]?GPL", re.IGNORECASE)
_MODULES = "node_modules/"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Dependency:
    """`kind` is `pypi` or `npm`; `version` what the manifest demands, or what the lock file settled on."""

    kind: str
    name: str
    version: str
    manifest: str
    licence: str = UNKNOWN

    @property
    def needs_care(self) -> bool:
        """Whether its licence may ask something of those who pass the project on, or nobody said which it has."""
        return self.licence == UNKNOWN or _COPYLEFT.search(self.licence) is not None


def dependencies(files: Mapping[str, bytes], licences: Mapping[str, str] = NO_LICENCES) -> list[Dependency]:
    """All that the manifests name, sorted. `licences` maps `pypi/requests` to a licence, where one is known.

    A manifest that cannot be read names nothing: it fails where it is installed from.
    """
    known = {name.casefold(): licence for name, licence in licences.items()}
    found: dict[tuple[str, str], Dependency] = {}
    for path in sorted(files, key=lambda path: (path.endswith("package-lock.json"), path)):
        for each in _named_in(path, files[path]):
            # Lock files come last: they know best.
            found[each.kind, each.name] = each
    return sorted(
        Dependency(
            kind=each.kind,
            name=each.name,
            version=each.version,
            manifest=each.manifest,
            licence=known.get(f"{each.kind}/{each.name}".casefold(), each.licence),
        )
        for each in found.values()
    )


def dependencies_document(found: Sequence[Dependency]) -> str:
    """The text of `docs/dependencies.md`."""
    lines = ["# Dependencies", ""]
    if not found:
        return "\n".join([*lines, "None: no manifest of this project names a package.", ""])
    lines += ["What the manifests of this project name.", "", "| package | version | licence | named in |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {_cell(each.name)} ({each.kind}) | {_cell(each.version or 'any')} | {_cell(each.licence)} "
              f"| `{each.manifest}` |" for each in found]  # fmt: skip
    care = [each.name for each in found if each.needs_care]
    if care:
        lines += ["", "Look at the licence before you pass the project on: " + ", ".join(map(_cell, care)) + "."]
    return "\n".join(lines) + "\n"


def _named_in(path: str, data: bytes) -> Iterator[Dependency]:
    name = path.rpartition("/")[2]
    try:
        if _REQUIREMENTS_FILE.search(path):
            yield from _of_requirements(path, data.decode().splitlines())
        elif name == "pyproject.toml":
            yield from _of_pyproject(path, tomllib.loads(data.decode()))
        elif name == "package.json":
            yield from _of_package(path, json.loads(data))
        elif name == "package-lock.json":
            yield from _of_lock(path, json.loads(data))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return


def _of_requirements(path: str, lines: list[str]) -> Iterator[Dependency]:
    for line in lines:
        named = _REQUIREMENT.match(line.strip())
        if named:
            version = (named[2] or "").strip().removeprefix("==").rstrip("\\ ")
            yield Dependency(kind="pypi", name=canonicalize_name(named[1]), version=version, manifest=path)


def _of_pyproject(path: str, document: Mapping[str, Any]) -> Iterator[Dependency]:
    project = document.get("project", {})
    groups = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
    for group in groups:
        yield from _of_requirements(path, [str(each) for each in group])


def _of_package(path: str, document: Mapping[str, Any]) -> Iterator[Dependency]:
    for group in ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies"):
        for name, version in document.get(group, {}).items():
            yield Dependency(kind="npm", name=str(name), version=str(version), manifest=path)


def _of_lock(path: str, document: Mapping[str, Any]) -> Iterator[Dependency]:
    for place, facts in document.get("packages", {}).items():
        if _MODULES in place:
            licence = facts.get("license")
            yield Dependency(
                kind="npm",
                name=place.rpartition(_MODULES)[2],
                version=str(facts.get("version", "")),
                manifest=path,
                licence=licence if isinstance(licence, str) and licence else UNKNOWN,
            )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:120]
