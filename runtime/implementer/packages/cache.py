"""What this node has fetched for projects, and what installing made of it: each once for the same manifests."""

import asyncio
import json
import platform
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from runtime.config import Settings
from runtime.implementer.packages.fetching import Fetcher
from runtime.implementer.packages.manifests import Manifests, digest
from runtime.implementer.packages.package import Package, as_record, from_record
from runtime.implementer.packages.python_home import VERSION, pip_wheel
from runtime.implementer.packages.shelf import Shelf

_LISTED = "packages.json"
_FORMAT = b"1"
"""Counts up when what is made of the same manifests changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Packages that may be installed offline."""

    folder: Path
    """Holds `wheels/`, which pip finds packages in, and `npm/`, a cache of npm."""
    pip: Path
    """Pip's own code, unpacked and compiled; empty where Python came without it."""
    packages: Sequence[Package]
    registry: str


class PackageCache:
    """May be used by any number of processes of a node. Holds packages and what they install, no code of projects."""

    def __init__(self, folder: Path, *, fetcher: Fetcher, bytes_max: int) -> None:
        self._fetcher = fetcher
        self._offers = Shelf(folder / "fetched", bytes_max=bytes_max)
        self._layers = Shelf(folder / "installed", bytes_max=bytes_max)

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None where packages are not allowed."""
        if not settings.packages_allowed:
            return None
        fetcher = Fetcher(bytes_max=settings.packages_mb_max << 20)
        return cls(settings.packages_dir, fetcher=fetcher, bytes_max=settings.packages_cache_mb_max << 20)

    async def registries(self, tree: Sequence[str]) -> tuple[str, ...]:
        """Where the packages that a lock of this tree names may lie, besides npm's own registry."""
        has_lock = any(path.endswith(("package-lock.json", "npm-shrinkwrap.json")) for path in tree)
        return (await self._fetcher.registry(),) if has_lock else ()

    @asynccontextmanager
    async def offer(self, manifests: Manifests) -> AsyncIterator[Offer]:
        """Everything that the manifests ask for, fetched now if it was not.

        Raises ManifestRefusedError when something of it cannot be had, UnavailableError when an index does not answer.
        """

        async def make(folder: Path) -> None:
            fetched = await self._fetcher.fetch(manifests, folder)
            record = {"registry": fetched.registry, "packages": [as_record(each) for each in fetched.packages]}
            (folder / _LISTED).write_text(json.dumps(record))

        offers, here = self._offers, _here()
        async with (
            offers.use(digest(b"pip", *here), _unpack_pip) as pip,
            offers.use(digest(*here, *manifests.parts()), make) as folder,
        ):
            record = json.loads((folder / _LISTED).read_text())
            packages = tuple(from_record(each) for each in record["packages"])
            yield Offer(folder=folder, pip=pip, packages=packages, registry=record["registry"])

    def layer(
        self, manifests: Manifests, command: str, make: Callable[[Path], Awaitable[None]]
    ) -> AbstractAsyncContextManager[Path]:
        """What a command made of the manifests alone; `make` does it when it was not done here before."""
        read = (part for path in sorted(manifests.files) for part in (path.encode(), manifests.files[path]))
        return self._layers.use(digest(*_here(), *manifests.parts(), command.encode(), *read), make)


async def _unpack_pip(folder: Path) -> None:
    wheel = pip_wheel()
    if wheel is not None:
        await asyncio.to_thread(shutil.unpack_archive, wheel, folder, "zip")
        compiling = (sys.executable, "-I", "-m", "compileall", "-q", str(folder))
        await (await asyncio.create_subprocess_exec(*compiling)).wait()


@cache
def _here() -> tuple[bytes, ...]:
    """What packages are chosen for: another Python, Node.js or machine gets others."""
    node = shutil.which("node")
    seen = f"{Path(node).resolve()} {Path(node).stat().st_mtime_ns}" if node else ""
    return (_FORMAT, VERSION.encode(), platform.machine().encode(), platform.libc_ver()[0].encode(), seen.encode())
