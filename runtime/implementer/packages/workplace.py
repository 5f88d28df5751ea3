"""Where one piece of work runs its commands: a copy of the project's tree, and what the commands need beside it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from runtime.implementer.bubblewrap import PYTHON_HOME
from runtime.implementer.packages.cache import Offer, PackageCache
from runtime.implementer.packages.install import reads_manifests_only
from runtime.implementer.packages.manifests import Manifests
from runtime.implementer.packages.python_home import make_python_home, pip_wheel
from runtime.implementer.sandbox import NO_FILES, Sandbox
from runtime.implementer.scratch import add_tree, remove_tree
from runtime.implementer.work import CommandResult, Limits
from runtime.project.tree import write_tree

WHEELS = "/packages/wheels"
NPM_CACHE = "/packages/npm"
PIP = "/packages/pip"
INSTALL_LIMITS = Limits(
    wall_s=300.0, cpu_s=300, memory_bytes=2 << 30, process_count=256, file_size_bytes=1 << 30, scratch_bytes=1 << 30
)


class Workplace:
    """Made for one piece of work, changed by its commands, and thrown away with them."""

    def __init__(self, folder: Path, sandbox: Sandbox, offer: Offer | None = None) -> None:
        """`folder` is the work's own and does not exist yet. Without an offer nothing can be installed."""
        self.tree = tree_of(folder)
        self.python = folder / "python"
        self.npm = folder / "npm"
        self._sandbox = sandbox
        self._offer = offer

    async def make(self) -> None:
        """Makes the folders; the tree is empty then."""
        for folder in (self.tree, self.python, self.npm):
            folder.mkdir(parents=True)
        pip = PIP if self._offer is not None else str(pip_wheel() or "")
        await asyncio.to_thread(make_python_home, self.python, pip)
        if self._offer is not None:
            # npm writes into its cache whatever it is asked for, so each work has a copy.
            await add_tree(self._offer.folder / "npm", self.npm)

    async def run(self, command: str, limits: Limits, tools: Mapping[str, bytes] = NO_FILES) -> CommandResult:
        """`tools` are files (path inside -> content) that the command may use. Raises SandboxUnavailableError."""
        return await self._sandbox.run(
            command,
            workdir=self.tree,
            limits=limits,
            env=environment(self._offer),
            files=tools,
            offered={WHEELS: self._offer.folder / "wheels", PIP: self._offer.pip} if self._offer is not None else {},
            writable={PYTHON_HOME: self.python, NPM_CACHE: self.npm},
        )

    async def install(self, command: str, manifests: Manifests, cache: PackageCache | None) -> CommandResult | None:
        """What failed, or None when everything is installed that the manifests ask for.

        A command that reads the manifests alone runs once for them; later works get a copy of what it made. Before
        there is any manifest, there may be nothing that the command can do.
        """
        if cache is None or not reads_manifests_only(command, manifests):
            return await self._install_here(command, manifests)
        failed: list[CommandResult] = []

        async def make(folder: Path) -> None:
            bare = Workplace(folder / "made", self._sandbox, self._offer)
            await bare.make()
            await asyncio.to_thread(write_tree, bare.tree, manifests.files)
            result = await bare.run(command, INSTALL_LIMITS)
            if not result.passed:
                failed.append(result)
                raise _NothingMadeError
            await remove_tree(bare.npm)
            for path in manifests.files:
                await asyncio.to_thread((bare.tree / path).unlink, missing_ok=True)

        try:
            async with cache.layer(manifests, command, make) as folder:
                await add_tree(folder / "made" / "tree", self.tree)
                await add_tree(folder / "made" / "python", self.python)
        except _NothingMadeError:
            # It may be that the command was misjudged, and does need the rest of the tree.
            return await self._install_here(command, manifests)
        return None

    async def _install_here(self, command: str, manifests: Manifests) -> CommandResult | None:
        result = await self.run(command, INSTALL_LIMITS)
        return result if manifests.files and not result.passed else None


def tree_of(folder: Path) -> Path:
    """Where the project's tree is in a workplace's folder."""
    return folder / "tree"


class _NothingMadeError(Exception):
    """The command failed, so there is nothing to keep."""


def environment(offer: Offer | None) -> dict[str, str]:
    """Says to pip and npm that there is no network and where the packages are."""
    registry = {"npm_config_registry": offer.registry} if offer is not None and offer.registry else {}
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": WHEELS,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "npm_config_offline": "true",
        "npm_config_cache": NPM_CACHE,
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_update_notifier": "false",
        **registry,
    }
