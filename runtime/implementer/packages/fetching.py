"""Runs pip and npm, outside the sandbox, on manifests written anew: they fetch, and run nothing of what they fetch.

They follow the settings of whoever runs the service (index, mirror, proxy, certificates), and nothing of the project.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from runtime.errors import UnavailableError
from runtime.implementer.packages import package
from runtime.implementer.packages.manifests import Manifests
from runtime.implementer.packages.npm_manifest import DEFAULT_REGISTRY, NpmManifest
from runtime.implementer.packages.package import DishonestPackageError, Package
from runtime.implementer.packages.python_manifest import PythonManifest
from runtime.implementer.packages.refusal import ManifestRefusedError
from runtime.watched import TOO_LARGE, TOO_LONG, run_watched

FETCH_S_MAX = 300.0
TRIES_MAX = 2
PACKAGES_MAX = 1_500
FILES_MAX = 150_000
_RETRY_PAUSE_S = 2.0
_SAID_CHARACTERS_MAX = 1_500
_KEPT = re.compile(
    r"PATH|HOME|LANG|LC_\w+|PIP_\w+|npm_config_\w+|(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|"
    r"CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS|XDG_CONFIG_\w+",
    re.IGNORECASE,
)
_OUTAGE = re.compile(
    r"NewConnectionError|NameResolutionError|name resolution|Network is unreachable|Max retries exceeded|"
    r"(Connect|Read)Timeout|timed out|ProxyError|Connection (refused|reset|aborted|broken)|RemoteDisconnected|"
    r"Server Error|Too Many Requests|\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|"
    r"ERR_SOCKET_TIMEOUT|FETCH_ERROR|E429|E5\d\d)\b|CERTIFICATE_VERIFY|No space left|ENOSPC"
)
_FILE_TOO_LARGE = re.compile(r"File too large|\bEFBIG\b")
"""What a program says that wrote one file of more than the whole may have."""
_WHEELS_ONLY = "only packages that come as wheels for this Python can be used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    packages: Sequence[Package]
    registry: str
    """npm's, without what may be secret in its address; empty when there were no packages of npm."""


class Fetcher:
    """Keeps nothing between two fetches. Any number may run at once, each into a folder of its own."""

    def __init__(
        self,
        *,
        bytes_max: int,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        npm: str = "npm",
        fetch_s_max: float = FETCH_S_MAX,
    ) -> None:
        """`environment` is that of the service, from which the settings of pip and npm are taken."""
        given = os.environ if environment is None else environment
        self._environment = {name: value for name, value in given.items() if _KEPT.fullmatch(name)}
        self._bytes_max = bytes_max
        self._python = python
        self._npm = npm
        self._fetch_s_max = fetch_s_max

    async def registry(self) -> str:
        """npm's, as it is set here. Raises UnavailableError when npm is missing."""
        if any(name.lower() == "npm_config_registry" for name in self._environment):
            return next(value for name, value in self._environment.items() if name.lower() == "npm_config_registry")
        npm = self._npm_program()
        status, said = await self._run([npm, "config", "get", "registry"], Path("/"), Path("/nonexistent"), 60.0)
        address = said.strip().splitlines()[-1] if said.strip() else ""
        return address if status == 0 and address.startswith("http") else DEFAULT_REGISTRY

    async def fetch(self, manifests: Manifests, folder: Path) -> Fetched:
        """Fills `wheels/` and `npm/` of an empty folder.

        Raises ManifestRefusedError when a package does not exist, has no wheel, or all are too large; UnavailableError
        when an index does not answer.
        """
        wheels, cache = folder / "wheels", folder / "npm"
        for each in (wheels, cache):
            each.mkdir(parents=True)
        found: list[Package] = []
        known: set[Path] = set()
        for python in sorted(manifests.python, key=lambda each: each.purpose != "run"):
            await self._download(python, folder, wheels)
            new = set(await asyncio.to_thread(lambda: set(wheels.iterdir()))) - known
            known |= new
            found += await asyncio.to_thread(_wheels, python, sorted(new))
        registry = ""
        for npm in manifests.npm:
            registry = registry or await self.registry()
            found += await self._fill(npm, folder, cache, registry)
        if len(found) > PACKAGES_MAX:
            raise ManifestRefusedError(f"The manifests come to {len(found)} packages; {PACKAGES_MAX} is the most.")
        return Fetched(packages=tuple(dict.fromkeys(found)), registry=_without_secrets(registry))

    async def _download(self, manifest: PythonManifest, folder: Path, wheels: Path) -> None:
        with _scratch(folder) as scratch:
            listed = scratch / "requirements.txt"
            listed.write_text("\n".join(manifest.requirements) + "\n")
            command = [
                *(self._python, "-I", "-m", "pip", "download", "--only-binary=:all:", "--no-input", "--retries=2"),
                *("--disable-pip-version-check", "--progress-bar=off", "--timeout=20", "--no-color"),
                *(f"--dest={wheels}", f"--requirement={listed}"),
            ]
            await self._must(command, folder, scratch, manifest.path, f"; {_WHEELS_ONLY}")

    async def _fill(self, manifest: NpmManifest, folder: Path, cache: Path, registry: str) -> list[Package]:
        """Fills the cache by a real installation that is thrown away: what that asked for, an offline one can have."""
        with _scratch(folder) as scratch:
            (scratch / "package.json").write_bytes(manifest.package)
            if manifest.lock:
                (scratch / "package-lock.json").write_bytes(manifest.lock)
            (scratch / ".npmrc").write_bytes(manifest.npmrc)
            command = [
                *(self._npm_program(), "ci" if manifest.lock else "install", f"--cache={cache}", "--ignore-scripts"),
                *(
                    "--no-bin-links",
                    "--no-audit",
                    "--no-fund",
                    "--no-update-notifier",
                    "--no-progress",
                    "--color=false",
                ),
                *("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"),
                *("--fetch-timeout=30000", "--logs-max=0", "--git=/nonexistent"),
                *("--omit-lockfile-registry-resolved=false", "--offline=false", "--prefer-online=false"),
            ]
            path = f"{manifest.folder}package.json"
            await self._must(command, folder, scratch, path, "")
            placed = scratch / "node_modules" / ".package-lock.json"
            lock = placed.read_bytes() if placed.exists() else b"{}"
        found = list(package.locked(lock))
        for each, address in found:
            if address and not address.startswith((registry, DEFAULT_REGISTRY)):
                name = f"{each.name} {each.version}"
                raise ManifestRefusedError.at(path, 0, f"it needs {name}, which does not come from the registry.")
        return [each for each, _ in found]

    async def _must(self, command: Sequence[str], folder: Path, scratch: Path, path: str, hint: str) -> None:
        """Tries again after an outage. Raises ManifestRefusedError, UnavailableError."""
        until = time.monotonic() + self._fetch_s_max
        for last in (*[False] * (TRIES_MAX - 1), True):
            status, said = await self._run(command, scratch, folder, until - time.monotonic())
            if status == 0:
                return
            if status in (TOO_LARGE, -signal.SIGXFSZ) or _FILE_TOO_LARGE.search(said):
                most = f"{self._bytes_max >> 20} MB or {FILES_MAX} files"
                raise ManifestRefusedError.at(path, 0, f"its packages come to more than {most}.")
            if status == TOO_LONG or _OUTAGE.search(said):
                if last or status == TOO_LONG:
                    reason = "it took too long" if status == TOO_LONG else _errors(said)
                    raise UnavailableError(
                        f"The packages of {path} cannot be fetched now: {reason}", "See whether the index answers."
                    )
                await asyncio.sleep(_RETRY_PAUSE_S)
                continue
            raise ManifestRefusedError.at(path, 0, f"{_errors(said)}{hint}")

    async def _run(self, command: Sequence[str], cwd: Path, watched: Path, wall_s: float) -> tuple[int, str]:
        """As `run_watched` answers."""
        return await run_watched(
            command,
            cwd=cwd,
            environment={**self._environment, "TMPDIR": str(cwd)},
            watched=watched,
            bytes_max=self._bytes_max,
            files_max=FILES_MAX,
            file_bytes_max=self._bytes_max,
            wall_s=wall_s,
        )

    def _npm_program(self) -> str:
        npm = shutil.which(self._npm, path=self._environment.get("PATH"))
        if npm is None or shutil.which("node", path=self._environment.get("PATH")) is None:
            raise UnavailableError(
                "This project needs Node.js and npm, which are not installed here.",
                "Install them with `apt-get install nodejs npm`, then resume.",
            )
        return npm


def _wheels(manifest: PythonManifest, paths: Sequence[Path]) -> list[Package]:
    try:
        found = [package.wheel(path, development=manifest.purpose != "run") for path in paths]
    except DishonestPackageError as error:
        raise ManifestRefusedError.at(manifest.path, 0, f"{error}.") from None
    return found if manifest.purpose != "build" else []


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    scratch = folder / "scratch"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _errors(said: str) -> str:
    """The lines that say what is wrong, without the service's own paths."""
    lines = [line.strip() for line in said.splitlines() if re.match(r"\s*(ERROR|npm (error|ERR!))", line)]
    lines = [line for line in lines if "complete log" not in line and "Log files" not in line and "/_logs" not in line]
    text = " ".join(lines or said.split("\n")[-3:])
    text = re.sub(r"//[^/@\s]+@", "//", text)
    return re.sub(r"(/[\w.@-]+){3,}", "...", text)[:_SAID_CHARACTERS_MAX].rstrip(". ") or "no reason was given"


def _without_secrets(address: str) -> str:
    parts = urlsplit(address)
    if not parts.hostname:
        return ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
