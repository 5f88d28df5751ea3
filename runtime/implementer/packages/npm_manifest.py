"""`package.json`, `package-lock.json` and `.npmrc`.

Source: npm's documentation of these three files (versions 9 to 11), lockfile versions 2 and 3.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from runtime.implementer.packages.refusal import ManifestRefusedError, line_of, shown

DEFAULT_REGISTRY = "https://registry.npmjs.org/"
BYTES_MAX = 256 << 10
LOCK_BYTES_MAX = 16 << 20
NAMES_MAX = 200
LOCKED_MAX = 3_000
_KINDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
_NAME = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]{0,100}/)?[a-z0-9~-][a-z0-9._~-]{0,100}", re.IGNORECASE)
_VERSIONS = re.compile(r"[0-9A-Za-z.^~<>=|*+ -]{0,200}")
_FILE = re.compile(r"\.(tgz|tar|tar\.gz)$|^\.", re.IGNORECASE)
_PLACE = re.compile(rf"node_modules/{_NAME.pattern}(/node_modules/{_NAME.pattern})*", re.IGNORECASE)
_INTEGRITY = re.compile(r"(sha(1|256|384|512)-[0-9A-Za-z+/=]+ ?)+")
_INSTALL_SCRIPTS = {"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"}
_HARMLESS = {"audit", "engine-strict", "fund", "legacy-peer-deps", "loglevel", "package-lock", "progress", "save-exact",
             "save-prefix", "strict-peer-deps", "update-notifier"}  # fmt: skip
_STEERING = {"legacy-peer-deps", "strict-peer-deps"}
"""The settings of `.npmrc` on which it depends what is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmManifest:
    """One folder's packages, written anew for npm: no address, no path, no script, no setting that leads elsewhere."""

    folder: str
    """With its slash; empty for the root."""
    package: bytes
    """A `package.json` of names and versions alone."""
    lock: bytes
    """A `package-lock.json`; empty when there is none."""
    npmrc: bytes
    names: Sequence[str]
    has_install_scripts: bool
    """Whether `npm ci` in the project runs scripts of its own, which may read any file of it."""

    @classmethod
    def read(cls, folder: str, files: Mapping[str, bytes], registries: Sequence[str]) -> Self:
        """`files` are the folder's `package.json` and, where there are such, a lock and `.npmrc`.

        Raises ManifestRefusedError.
        """
        path = f"{folder}package.json"
        text = files[path].decode(errors="replace")
        package = _object(path, files[path], BYTES_MAX)
        if package.get("workspaces"):
            line = line_of(text, '"workspaces"')
            raise ManifestRefusedError.at(path, line, "workspaces are refused: give each folder its own package.json.")
        wanted = {kind: dict(_versions(path, text, package.get(kind, {}))) for kind in _KINDS}
        names = tuple(dict.fromkeys(name for kind in _KINDS for name in wanted[kind]))
        if len(names) > NAMES_MAX:
            raise ManifestRefusedError.at(path, 0, f"it names more than {NAMES_MAX} packages.")
        clean: dict[str, object] = {"name": _own_name(package, names), "version": "0.0.0", **wanted}
        if overrides := package.get("overrides"):
            clean["overrides"] = _overrides(path, text, overrides)
        locks = [each for each in files if each not in (path, f"{folder}.npmrc")]
        scripts = package.get("scripts")
        return cls(
            folder=folder,
            package=json.dumps({name: value for name, value in clean.items() if value != {}}).encode(),
            lock=_lock(locks[0], files[locks[0]], registries) if locks else b"",
            npmrc=_npmrc(f"{folder}.npmrc", files.get(f"{folder}.npmrc", b"")),
            names=names,
            has_install_scripts=isinstance(scripts, dict) and not _INSTALL_SCRIPTS.isdisjoint(scripts),
        )


def _versions(path: str, text: str, found: object) -> Iterator[tuple[str, str]]:
    if not isinstance(found, dict):
        raise ManifestRefusedError.at(path, 0, "dependencies must be objects of names and versions.")
    for name, version in found.items():
        yield _checked_name(path, text, name), _checked_version(path, text, name, version)


def _checked_name(path: str, text: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ManifestRefusedError.at(
            path, line_of(text, name), f"`{shown(name)}` is refused: it is no package's name."
        )
    return name


def _checked_version(path: str, text: str, name: str, version: object) -> str:
    if isinstance(version, str) and _VERSIONS.fullmatch(version) and not _FILE.search(version.strip()):
        return version
    line = line_of(text, f'"{name}"')
    wanted = f"`{shown(name)}: {shown(str(version))}` is refused: a version is wanted, as `^5.4.0`"
    raise ManifestRefusedError.at(path, line, f"{wanted}; packages come from the registry alone.")


def _overrides(path: str, text: str, found: object) -> dict[str, object]:
    """Nested as npm nests them; `$name` stands for the version that the manifest itself asks for."""
    if not isinstance(found, dict):
        raise ManifestRefusedError.at(path, line_of(text, '"overrides"'), "overrides must be an object.")
    clean: dict[str, object] = {}
    for key, value in found.items():
        if key != ".":
            at = key.find("@", 1)
            _checked_name(path, text, key if at < 0 else key[:at])
            _checked_version(path, text, key, "" if at < 0 else key[at + 1 :])
        if isinstance(value, dict):
            clean[key] = _overrides(path, text, value)
        elif isinstance(value, str) and value.startswith("$"):
            clean[key] = "$" + _checked_name(path, text, value[1:])
        else:
            clean[key] = _checked_version(path, text, key, value)
    return clean


def _lock(path: str, content: bytes, registries: Sequence[str]) -> bytes:
    lock = _object(path, content, LOCK_BYTES_MAX)
    text = content.decode(errors="replace")
    packages = lock.get("packages")
    if lock.get("lockfileVersion") not in (2, 3) or not isinstance(packages, dict):
        raise ManifestRefusedError.at(
            path, 0, "a lockfile of version 2 or 3 is wanted: make it anew with npm 7 or later."
        )
    if len(packages) > LOCKED_MAX:
        raise ManifestRefusedError.at(path, 0, f"it locks more than {LOCKED_MAX} packages.")
    for place, entry in packages.items():
        fault = _fault_of(place, entry, registries)
        if fault:
            raise ManifestRefusedError.at(path, line_of(text, f'"{place}"'), f"`{shown(place)}` is refused: {fault}.")
    return json.dumps({"name": "project", "lockfileVersion": 3, "requires": True, "packages": packages}).encode()


def _fault_of(place: str, entry: object, registries: Sequence[str]) -> str:
    if not isinstance(entry, dict):
        return "it is no object"
    if place == "":
        return ""
    if entry.get("link") or not _PLACE.fullmatch(place):
        return "links and workspaces are not fetched"
    version = entry.get("version")
    if not isinstance(version, str) or not _VERSIONS.fullmatch(version) or _FILE.search(version):
        return "its version is none"
    if entry.get("inBundle"):
        return ""
    integrity = entry.get("integrity")
    if not isinstance(integrity, str) or not _INTEGRITY.fullmatch(integrity):
        return "it has no integrity"
    resolved = entry.get("resolved", "")
    if resolved and not (isinstance(resolved, str) and _is_under(resolved, registries)):
        return f"it lies at {shown(str(resolved))}, not in the registry"
    return ""


def _is_under(address: str, registries: Sequence[str]) -> bool:
    return ".." not in address and any(address.startswith(f"{each.rstrip('/')}/") for each in registries)


def _npmrc(path: str, content: bytes) -> bytes:
    """What of it steers the choice of packages. Refuses what could lead elsewhere or run something."""
    kept: list[str] = []
    for number, line in enumerate(content[: BYTES_MAX + 1].decode(errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in _HARMLESS or not re.fullmatch(r"[\w^~-]*", value):
            raise ManifestRefusedError.at(
                path, number, f"`{shown(text)}` is refused: it is not among the settings known."
            )
        if name in _STEERING:
            kept.append(text)
    return "\n".join(kept).encode()


def _object(path: str, content: bytes, bytes_max: int) -> dict[str, Any]:
    if len(content) > bytes_max:
        raise ManifestRefusedError.at(path, 0, f"it has more than {bytes_max >> 10} KiB.")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
        raise ManifestRefusedError.at(path, line, f"it is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ManifestRefusedError.at(path, 1, "it is no JSON object.")
    return found


def _own_name(package: Mapping[str, object], names: Sequence[str]) -> str:
    """npm refuses a project of the same name as one of its packages, and its user should hear of that."""
    name = package.get("name")
    return name if isinstance(name, str) and name in names else "project"
