"""Carries out tasks: edits of a tree in memory, one at a time, and checks of what came out."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from runtime.implementer.artifacts import read_artifacts
from runtime.implementer.engine import EditEngine, EditOutcome, EditRequest
from runtime.implementer.inspection import Change, faults_of
from runtime.implementer.linting import syntax_checks
from runtime.implementer.packages.cache import Offer, PackageCache
from runtime.implementer.packages.manifests import Manifests, is_read
from runtime.implementer.packages.npm_manifest import DEFAULT_REGISTRY
from runtime.implementer.packages.refusal import ManifestRefusedError
from runtime.implementer.packages.workplace import Workplace, tree_of
from runtime.implementer.sandbox import NO_FILES, Sandbox
from runtime.implementer.scratch import Scratch
from runtime.implementer.test_runs import hollow
from runtime.implementer.work import CheckReport, CheckWork, CommandResult, EditResult, EditWork, Limits
from runtime.project.repository import patch_between
from runtime.project.tree import Tree, write_tree


class Implementer:
    """Owns a warm edit engine and a scratch folder; keeps nothing of one task for the next.

    The tree stays in memory, where neither the engine nor generated code can write to it: both get copies.
    """

    def __init__(
        self, *, sandbox: Sandbox, engine: EditEngine, scratch_dir: Path, packages: PackageCache | None = None
    ) -> None:
        """`scratch_dir` may be shared with other implementers of this node. Without `packages` none are fetched."""
        self._sandbox = sandbox
        self._packages = packages
        self._engine = engine
        self._scratch = Scratch(scratch_dir)
        self._judging = asyncio.Lock()

    async def start(self) -> None:
        """Makes the first task quick. Raises SandboxUnavailableError, EngineUnavailableError."""
        await self._sandbox.probe()
        await self._scratch.open()
        await self._engine.start()

    async def edit(self, work: EditWork, edited: Callable[[], object] = lambda: None) -> EditResult:
        """Lets the engine edit, keeps its changes of `work.files` only, and checks the result.

        `edited` is called where there is a change, when the engine could take the next piece while this one's is put
        together and checked; one of those waits for the other's, so that no more than two pieces are in hand.
        Without a change, and for one that `inspection` finds fault with, no check is run. The engine's own failures
        are told in `engine_log`. Raises SandboxUnavailableError, EngineUnavailableError, UnavailableError (packages
        cannot be fetched now), BadInputError (a path). Repeating it makes the edit anew.
        """
        async with self._scratch.subfolder("edit") as folder:
            request = _request(work)
            outcome = await self._engine.edit(request)
            kept = {path: content for path, content in outcome.files.items() if path in request.files}
            before = {path: request.files[path] for path in kept}
            patch, checks = b"", CheckReport(results=())
            if kept != before:
                async with self._judging:
                    edited()
                    patch = await asyncio.to_thread(patch_between, folder / "patch", before, kept)
                    checks = await self._judged(request, kept, work, folder / "checked")
        discarded = sorted(set(outcome.files) - set(kept))
        return EditResult(
            patch=patch,
            changed=sorted(kept) if patch else (),
            engine=outcome.engine,
            engine_log=_log(outcome, discarded=discarded),
            checks=checks,
            discarded=discarded,
            error=outcome.error,
            cause=outcome.cause,
            gateway_status=outcome.gateway_status,
        )

    async def check(self, work: CheckWork) -> CheckReport:
        """Raises SandboxUnavailableError, BadInputError (a path), UnavailableError (packages cannot be fetched)."""
        if gone := _without(work.tests, work.tree):
            return CheckReport(results=[gone])
        async with self._scratch.subfolder("check") as folder:
            report = await self._run_all(
                work.commands,
                work.tree,
                folder / "checked",
                work.limits,
                install=work.install,
                keep_going=work.keep_going,
                total_s=work.total_s,
                tools=work.tools,
            )
            artifacts = await asyncio.to_thread(
                read_artifacts, tree_of(folder / "checked"), work.artifacts, work.artifact_bytes_max
            )
            return replace(report, artifacts=artifacts)

    async def stop(self) -> None:
        """Ends the engine and removes the scratch folder. Idempotent."""
        await self._engine.stop()
        await self._scratch.close()

    async def _judged(
        self,
        request: EditRequest,
        kept: Mapping[str, bytes | None],
        work: EditWork,
        folder: Path,
    ) -> CheckReport:
        """A change: what is wrong with it as it stands, else how its checks went."""
        changed = {**work.tree, **kept}
        tree = {path: content for path, content in changed.items() if content is not None}
        there = sorted(tree)
        if wrong := await asyncio.to_thread(_looked_at, request, kept, work, there):
            return CheckReport(results=[wrong])
        written = [path for path in sorted(kept) if path in tree]
        commands = [*syntax_checks(written, there, work.checks), *work.checks]
        return await self._run_all(commands, tree, folder, work.limits, install=work.install)

    async def _run_all(
        self,
        commands: Sequence[str],
        tree: Tree,
        folder: Path,
        limits: Limits,
        *,
        install: str = "",
        keep_going: bool = False,
        total_s: float = math.inf,
        tools: Mapping[str, bytes] = NO_FILES,
    ) -> CheckReport:
        """Runs commands one after another in one copy of the tree, so that their droppings never enter a patch.

        What the tree's manifests ask for is fetched before. Raises UnavailableError when it cannot be fetched now.
        """
        try:
            manifests = await self._manifests(tree)
            async with self._offer(manifests) as offer:
                workplace = Workplace(folder, self._sandbox, offer)
                await workplace.make()
                await asyncio.to_thread(write_tree, workplace.tree, tree)
                failed = await workplace.install(install, manifests, self._packages) if install else None
                if failed is not None:
                    return CheckReport(results=[failed])
                results = await _in_order(
                    commands, workplace, limits, keep_going=keep_going, total_s=total_s, tools=tools
                )
                return CheckReport(results=results, packages=offer.packages if offer is not None else ())
        except ManifestRefusedError as error:
            return CheckReport(results=[_refused(error)])

    async def _manifests(self, tree: Tree) -> Manifests:
        """Raises ManifestRefusedError."""
        read = {path: tree[path] for path in sorted(tree) if is_read(path)}
        registries = await self._packages.registries(list(read)) if self._packages is not None else ()
        return Manifests.read(read, registries=(DEFAULT_REGISTRY, *registries))

    @asynccontextmanager
    async def _offer(self, manifests: Manifests) -> AsyncIterator[Offer | None]:
        if self._packages is not None and not manifests.ask_for_nothing:
            async with self._packages.offer(manifests) as offer:
                yield offer
        elif self._packages is None and not manifests.need_nothing:
            raise ManifestRefusedError("No packages are fetched here (PACKAGES_ALLOWED=false).", "Do without them.")
        else:
            yield None


async def _in_order(
    commands: Sequence[str],
    workplace: Workplace,
    limits: Limits,
    *,
    keep_going: bool,
    total_s: float,
    tools: Mapping[str, bytes],
) -> list[CommandResult]:
    results: list[CommandResult] = []
    end_s = time.monotonic() + total_s
    for command in commands:
        if time.monotonic() > end_s:
            results.append(_not_begun(command, total_s))
            break
        result = await workplace.run(command, limits, tools)
        if result.passed and (why := hollow(command, result.output)):
            result = replace(result, exit_status=1, output=f"{result.output.rstrip()}\n[{why}]")
        results.append(result)
        if not result.passed and not keep_going:
            break
    return results


def _looked_at(
    request: EditRequest, kept: Mapping[str, bytes | None], work: EditWork, there: Sequence[str]
) -> CommandResult | None:
    """What is wrong with a change before any of it is run, as the result of a check; None where nothing is."""
    change = Change(
        before={path: request.files[path] for path in kept},
        after=kept,
        tests=work.tests,
        kept_tests=work.kept_tests,
        grown_tests=work.grown_tests,
    )
    if faults := faults_of(change):
        output = "\n".join(f"{fault}." for fault in faults)
        return CommandResult(command="(the change itself)", exit_status=1, duration_s=0.0, output=output)
    return _without(work.tests, there)


def _without(tests: Sequence[str], there: Collection[str]) -> CommandResult | None:
    """None where all are there. A test that is missing may fail no command: `cat tests/*.sh | sh` passes without."""
    missing = sorted(set(tests).difference(there))
    if not missing:
        return None
    output = f"No test is at {', '.join(missing)}, where the plan has one."
    return CommandResult(command="(tests)", exit_status=1, duration_s=0.0, output=output)


def _refused(error: ManifestRefusedError) -> CommandResult:
    """Red, and not an outage: whoever wrote the manifest can mend it."""
    return CommandResult(command="(packages)", exit_status=1, duration_s=0.0, output=str(error))


def _not_begun(command: str, total_s: float) -> CommandResult:
    text = f"not begun: all commands together had {total_s:g} s"
    return CommandResult(command=command, exit_status=124, duration_s=0.0, output=text, timed_out=True)


def _request(work: EditWork) -> EditRequest:
    there = work.tree
    return EditRequest(
        instruction=work.instruction,
        files={path: there.get(path) for path in work.files},
        read_only={path: there[path] for path in work.read_only if path in there and path not in work.files},
        model=work.model,
        gateway_url=work.gateway_url,
        token=work.token,
        timeout_s=work.edit_timeout_s,
    )


def _log(outcome: EditOutcome, *, discarded: Sequence[str]) -> str:
    parts = [
        f"error: {outcome.error}" if outcome.error else "",
        f"discarded, because not among the task's files: {', '.join(discarded)}" if discarded else "",
        outcome.log,
    ]
    return "\n".join(part for part in parts if part)
