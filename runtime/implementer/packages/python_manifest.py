"""Requirements files and `pyproject.toml`.

Source: pip's requirements file format, PEP 508 (requirements), PEP 621 and 735 (`pyproject.toml`).
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from runtime.implementer.packages.refusal import ManifestRefusedError, line_of, shown

BYTES_MAX = 256 << 10
REQUIREMENTS_MAX = 200
INCLUDES_MAX = 10
_COMMENT = re.compile(r"(^|\s+)#.*$")
_HASH = re.compile(r"\s--hash=(sha256|sha384|sha512):[0-9a-f]{32,128}(?=\s|$)")
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s+|=)(\S+)")
_ARCHIVE = re.compile(r"\.(whl|zip|tar|tgz|tbz|txz|gz|bz2|xz|egg)$", re.IGNORECASE)
_DEVELOPMENT = re.compile(r"dev|test|lint|doc|ci|build", re.IGNORECASE)
_DEFAULT_BUILD = ["setuptools>=40.8.0", "wheel"]
Purpose = Literal["run", "development", "build"]
_OTHER_SOURCES = ("tool.uv.sources", "tool.uv.index", "tool.poetry.source", "tool.pdm.source")


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonManifest:
    """Requirements that are resolved together, written anew: no address, no path, no option."""

    path: str
    requirements: Sequence[str]
    purpose: Purpose
    """What for, as far as the manifest says."""

    @classmethod
    def of_requirements(cls, path: str, tree: Mapping[str, bytes]) -> tuple[Self, Sequence[str]]:
        """With every path that was read. Raises ManifestRefusedError."""
        read: list[str] = []
        requirements = list(_requirements_of(path, tree, read))
        variant = path.rsplit("/", 1)[-1].removesuffix(".txt").replace("requirements", "")
        manifest = cls(
            path=path,
            requirements=_bounded(path, requirements),
            purpose="development" if _DEVELOPMENT.search(variant) else "run",
        )
        return manifest, read

    @classmethod
    def of_pyproject(cls, path: str, text: str) -> Iterator[Self]:
        """What it runs with, and what it is built and tested with. Raises ManifestRefusedError."""
        if len(text) > BYTES_MAX:
            raise ManifestRefusedError.at(path, 0, f"it has more than {BYTES_MAX >> 10} KiB.")
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ManifestRefusedError.at(path, 0, f"it is not TOML: {error}.") from None
        for other in _OTHER_SOURCES:
            if _at(content, other):
                line = line_of(text, other)
                raise ManifestRefusedError.at(path, line, f"`{other}` is refused: packages come from the index alone.")
        if set(_table(content, "tool.poetry.dependencies")) - {"python"}:
            line = line_of(text, "tool.poetry.dependencies")
            raise ManifestRefusedError.at(path, line, "name dependencies under [project], not [tool.poetry].")
        project = _table(content, "project")
        own = canonicalize_name(str(project.get("name", "")))

        def known(lists: Sequence[object]) -> list[str]:
            found = (each for wanted in lists for each in _of_list(path, text, wanted))
            return [each for each in found if canonicalize_name(Requirement(each).name) != own]

        groups = [_without_includes(each) for each in _table(content, "dependency-groups").values()]
        extras = list(_table(project, "optional-dependencies").values())
        build = _table(content, "build-system").get("requires", _DEFAULT_BUILD)
        run = known([project.get("dependencies", [])])
        yield cls(path=path, requirements=_bounded(path, run), purpose="run")
        yield cls(path=path, requirements=_bounded(path, known([*extras, *groups])), purpose="development")
        if project or "build-system" in content:
            yield cls(path=path, requirements=_bounded(path, known([build])), purpose="build")


def checked(path: str, line: int, text: str) -> str:
    """One requirement, written anew. Raises ManifestRefusedError."""
    if "$" in text or not text.isprintable():
        raise ManifestRefusedError.at(path, line, f"`{shown(text)}` is refused: it holds what a name cannot.")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise ManifestRefusedError.at(
            path, line, f"`{shown(text)}` is refused: it is not a package's name with versions, as `flask>=3,<4`."
        ) from None
    if requirement.url is not None:
        raise ManifestRefusedError.at(
            path, line, f"`{shown(text)}` is refused: packages come from the index, not from an address."
        )
    if _ARCHIVE.search(requirement.name):
        raise ManifestRefusedError.at(path, line, f"`{shown(text)}` is refused: it names a file, not a package.")
    return str(requirement)


def _requirements_of(path: str, tree: Mapping[str, bytes], read: list[str]) -> Iterator[str]:
    if path in read:
        return
    if len(read) >= INCLUDES_MAX:
        raise ManifestRefusedError.at(path, 0, f"more than {INCLUDES_MAX} files include one another.")
    read.append(path)
    for number, line in _logical_lines(path, tree[path]):
        if included := _INCLUDE.fullmatch(line):
            yield from _requirements_of(_beside(path, number, included[1], tree), tree, read)
        elif line.startswith("-"):
            raise ManifestRefusedError.at(path, number, f"`{shown(line)}` is refused: no options but `-r FILE`.")
        else:
            yield checked(path, number, _HASH.sub("", line).strip())


def _logical_lines(path: str, content: bytes) -> Iterator[tuple[int, str]]:
    """Without comments and blank lines; a continued line has the number of its first."""
    if len(content) > BYTES_MAX:
        raise ManifestRefusedError.at(path, 0, f"it has more than {BYTES_MAX >> 10} KiB.")
    try:
        lines = content.decode().removeprefix("\ufeff").splitlines()
    except UnicodeDecodeError:
        raise ManifestRefusedError.at(path, 0, "it is not UTF-8.") from None
    begun, pending = 0, ""
    for number, line in enumerate([*lines, ""], 1):
        begun = begun or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        text = _COMMENT.sub("", pending + line).strip()
        if text:
            yield begun, text
        begun, pending = 0, ""


def _beside(path: str, line: int, name: str, tree: Mapping[str, bytes]) -> str:
    """The included file's path in the tree."""
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / name).parts:
        if part == "..":
            parts = parts[:-1] if parts else ["", ""]
        else:
            parts.append(part)
    target = "/".join(parts)
    if name.startswith("/") or ":" in name or target not in tree or not target.endswith(".txt"):
        raise ManifestRefusedError.at(
            path, line, f"`{shown(name)}` is refused: it is no requirements file of the tree."
        )
    return target


def _of_list(path: str, text: str, found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ManifestRefusedError.at(path, 0, "dependencies must be lists of strings.")
    return [checked(path, line_of(text, each), each) for each in found]


def _without_includes(group: object) -> object:
    """A dependency group may include another by `{include-group = "x"}`; that one is read anyway."""
    if not isinstance(group, list):
        return group
    return [each for each in group if not (isinstance(each, dict) and set(each) == {"include-group"})]


def _bounded(path: str, requirements: Sequence[str]) -> tuple[str, ...]:
    if len(requirements) > REQUIREMENTS_MAX:
        raise ManifestRefusedError.at(path, 0, f"it names more than {REQUIREMENTS_MAX} packages.")
    return tuple(dict.fromkeys(requirements))


def _at(content: Mapping[str, Any], dotted: str) -> object:
    found: Any = content
    for part in dotted.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _table(content: Mapping[str, Any], dotted: str) -> Mapping[str, Any]:
    found = _at(content, dotted)
    return found if isinstance(found, dict) else {}
