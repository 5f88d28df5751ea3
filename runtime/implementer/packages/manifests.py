"""What a project's manifests ask for, if it may be asked for: names with versions, from the registries' own indexes.

A manifest is written by a model, so every line is refused that is not known to be harmless: an address, a path, another
index, an option. What is kept is written anew from what was understood; the fetchers never see the manifest itself.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from runtime.implementer.packages.npm_manifest import DEFAULT_REGISTRY, NpmManifest
from runtime.implementer.packages.python_manifest import PythonManifest
from runtime.implementer.packages.refusal import ManifestRefusedError

MANIFESTS_MAX = 20
_REQUIREMENTS = re.compile(r"requirements[\w.-]*\.txt|requirements/[\w.-]+\.txt")
_NPM_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
_NEVER = ("node_modules",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    python: Sequence[PythonManifest] = ()
    npm: Sequence[NpmManifest] = ()
    files: Mapping[str, bytes]
    """Every file that was read for them, by its path."""

    @classmethod
    def read(cls, tree: Mapping[str, bytes], *, registries: Sequence[str] = (DEFAULT_REGISTRY,)) -> Self:
        """From a tree's files, or those that `is_read` picks: at its root and in the folders of its first level.

        `registries` are the addresses under which a lock may say that a package lies. Raises ManifestRefusedError,
        which names file and line.
        """
        python: list[PythonManifest] = []
        npm: list[NpmManifest] = []
        files: dict[str, bytes] = {}
        for path in sorted(tree):
            folder, name = _split(path)
            if name is None:
                continue
            if len(python) + len(npm) >= MANIFESTS_MAX:
                raise ManifestRefusedError.at(path, 0, f"a project may have {MANIFESTS_MAX} manifests.")
            if name == "package.json":
                lock = next((folder + each for each in _NPM_LOCKS if folder + each in tree), "")
                used = {each: tree[each] for each in (path, lock, f"{folder}.npmrc") if each in tree}
                npm.append(NpmManifest.read(folder, used, registries))
            elif name == "pyproject.toml":
                used = {path: tree[path]}
                python.extend(PythonManifest.of_pyproject(path, tree[path].decode(errors="replace")))
            elif _REQUIREMENTS.fullmatch(name):
                manifest, read = PythonManifest.of_requirements(path, tree)
                used = {each: tree[each] for each in read}
                python.append(manifest)
            else:
                continue
            files |= used
        return cls(
            python=tuple(each for each in python if each.requirements),
            npm=tuple(each for each in npm if each.names),
            files=files,
        )

    @property
    def ask_for_nothing(self) -> bool:
        return not self.python and not self.npm

    @property
    def need_nothing(self) -> bool:
        """Whether it runs, and is tested, with what the languages have; what builds it may be asked for."""
        return not self.npm and all(each.purpose == "build" for each in self.python)

    def parts(self) -> Iterator[bytes]:
        """What is to be fetched, as bytes that are equal when it is the same."""
        for python in self.python:
            yield from (b"python", python.path.encode(), *(each.encode() for each in python.requirements))
        for npm in self.npm:
            yield from (b"npm", npm.folder.encode(), npm.package, npm.lock, npm.npmrc)


def digest(*parts: bytes) -> str:
    """The same for the same parts in the same order, whatever their bytes are."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8) + part)
    return sha.hexdigest()[:32]


def is_read(path: str) -> bool:
    """Whether a file of the tree may be a manifest, or be named by one."""
    name = path.rsplit("/", 1)[-1]
    return path.count("/") <= 2 and (
        name in ("package.json", "pyproject.toml", ".npmrc", *_NPM_LOCKS)
        or (path.endswith(".txt") and "requirements" in path)
    )


def _split(path: str) -> tuple[str, str | None]:
    """The manifest's folder with its slash, and its name in it; None for what lies elsewhere."""
    first, slash, rest = path.partition("/")
    if not slash or _REQUIREMENTS.fullmatch(path):
        return "", path
    if first.startswith(".") or first in _NEVER or ("/" in rest and not _REQUIREMENTS.fullmatch(rest)):
        return "", None
    return first + slash, rest
