"""Final QA, the documents that need the finished code, and the package."""

import asyncio

from runtime.entity.activation import Activation
from runtime.errors import RefusedError
from runtime.implementer.work import CheckReport, CheckWork, Limits
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.documents import readme_commands, traceability_document
from runtime.project.package import pack
from runtime.project.schemas import Commands, MarkdownReply, StackReply
from runtime.project.state import State
from runtime.project.workbench import Workbench
from runtime.project.workshop import Workshop

README_TRIES_MAX = 3
RUN_PROBE_S = 10


class Finishing:
    def __init__(
        self,
        activation: Activation[State],
        architect: Architect,
        building: Building,
        workbench: Workbench,
        workshop: Workshop,
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._building = building
        self._workbench = workbench
        self._workshop = workshop

    async def prove(self) -> None:
        """Installs, builds, tests and starts a fresh clone. Raises RefusedError when that does not work."""
        report = await self._check(self._product_commands(), keep_going=False)
        if not report.passed:
            raise RefusedError(f"The finished project does not run:\n{prompts.steady(report)}", "See its events.")

    async def write_documents(self) -> None:
        """Deployment guide, README with every command executed, traceability with every test's result."""
        subject = self._architect.subject()
        guide = await self._architect.ask(
            "docs/deployment", prompts.document("docs.deployment", subject), MarkdownReply
        )
        await self._commit({"docs/deployment_guide.md": guide.markdown}, "docs: deployment guide")
        executed = await self._proven_readme()
        await self._commit({"docs/traceability.md": await self._traceability()}, "docs: traceability")
        await self._activation.emit(
            "qa.finished",
            "qa/finished",
            {
                "passed": True,
                "summary": f"installs, builds, tests and starts; {len(executed)} README commands run",
                "readme_commands": executed,
            },
        )

    async def package(self) -> None:
        """Packs what is tracked on main and keeps it."""
        async with self._workbench.alone() as repository:
            files = {path: await asyncio.to_thread(repository.read, path) for path in repository.files()}
        packed = await asyncio.to_thread(pack, files)
        blob = await self._workshop.ledger.put_blob(packed.data)
        if packed.left_out:
            text = "Left out of the package: " + ", ".join(packed.left_out)
            await self._activation.emit("project.notice", "package/left_out", {"text": text})
        await self._activation.emit(
            "package.ready",
            "package",
            {
                "blob": blob,
                "sha256": packed.sha256,
                "size_bytes": len(packed.data),
                "file_count": packed.file_count,
            },
        )

    async def _proven_readme(self) -> list[str]:
        """Asks for the README until every command in it runs; commits it. The commands that were executed."""
        failure = ""
        for attempt in range(1, README_TRIES_MAX + 1):
            prompt = prompts.document("docs.readme", self._architect.subject(), failure, attempt=attempt)
            readme = await self._architect.ask(f"docs/readme/{attempt}", prompt, MarkdownReply, attempt=attempt)
            await self._commit({"README.md": readme.markdown}, "docs: README")
            commands = readme_commands(readme.markdown)
            report = await self._check(commands, keep_going=True)
            if report.passed:
                return commands
            failed = CheckReport(results=[result for result in report.results if not result.passed])
            failure = f"These commands of your last README failed:\n{prompts.steady(failed)}"
        raise RefusedError(f"No README whose commands all run could be written. {failure}", "See its events.")

    async def _traceability(self) -> str:
        todo = self._building.todo
        tests = todo.tests()
        commands = {test: prompts.test_command(self._stack.commands, [test]) for test in tests}
        report = await self._check(list(dict.fromkeys(commands.values())), keep_going=True)
        shown = {result.command: _evidence(result.output, result.passed) for result in report.results}
        evidence = {test: shown[command] for test, command in commands.items()}
        return traceability_document(
            self._architect.subject().requirements, todo, self._activation.state.commits, evidence
        )

    async def _commit(self, files: dict[str, str], message: str) -> None:
        committed = await self._workbench.commit_files(files, message)
        await self._activation.emit("repository.committed", f"repository/{committed.commit}", committed.fields())

    async def _check(self, commands: list[str], *, keep_going: bool) -> CheckReport:
        bundle = await self._workbench.bundle()
        work = CheckWork(bundle=bundle, commands=commands, keep_going=keep_going, limits=Limits(wall_s=120.0))
        return await self._workshop.implementers.check(work)

    @property
    def _stack(self) -> StackReply:
        stack = self._activation.state.stack
        assert stack is not None, "finishing comes after planning"
        return stack

    def _product_commands(self) -> list[str]:
        commands = self._stack.commands
        tests = prompts.test_command(commands, self._building.todo.tests())
        return [each for each in (commands.install, commands.build, tests, _probe(commands)) if each]


def _probe(commands: Commands) -> str:
    """Starts the product. One that ends must end well; one that still runs after the probe's time is up is fine."""
    return f"timeout {RUN_PROBE_S} {commands.run}; status=$?; [ $status -eq 124 ] || exit $status"


def _evidence(output: str, passed: bool) -> str:
    """The line of a test's output that says how many ran."""
    counted = [line.strip() for line in output.splitlines() if "Ran " in line or " passed" in line or "tests" in line]
    summary = counted[-1].split(" in ")[0] if counted else "ran"
    return f"{summary}, {'passed' if passed else 'FAILED'}".replace("|", "/")
