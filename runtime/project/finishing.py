"""Final QA, the documents that need the finished code, and the package."""

import asyncio
import shlex

from runtime.entity.activation import Activation
from runtime.errors import RefusedError
from runtime.implementer.work import CheckReport, CheckWork, Limits
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.documents import readme_commands, traceability_document
from runtime.project.finding import CodeFinder
from runtime.project.package import pack
from runtime.project.schemas import Commands, MarkdownReply, StackReply
from runtime.project.state import State
from runtime.project.workbench import Workbench
from runtime.project.workshop import Workshop

README_TRIES_MAX = 3
README_COMMANDS_MAX = 60
RUN_PROBE_S = 10


class Finishing:
    def __init__(
        self,
        activation: Activation[State],
        architect: Architect,
        building: Building,
        workbench: Workbench,
        finder: CodeFinder,
        workshop: Workshop,
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._building = building
        self._workbench = workbench
        self._finder = finder
        self._workshop = workshop

    async def prove(self) -> CheckReport:
        """Installs, builds, tests file by file and starts a fresh clone.

        What each test file showed is kept for the traceability table; a red report is for the review to mend.
        """
        commands = self._stack.commands
        tests = {test: prompts.test_command(commands, [test]) for test in self._building.todo.tests()}
        product = [commands.install, commands.build, *dict.fromkeys(tests.values()), _probe(commands)]
        report = await self._check([each for each in product if each], keep_going=False)
        if not report.passed:
            return report
        shown = {result.command: _evidence(result.output) for result in report.results}
        await self._activation.emit(
            "qa.proved",
            f"qa/proved/{self._activation.state.commit}",
            {"evidence": {test: shown[command] for test, command in tests.items()}},
        )
        return report

    async def write_documents(self) -> None:
        """Deployment guide, README with every command executed, traceability with every test's result."""
        subject = self._architect.subject()
        guide = await self._architect.ask(
            "docs/deployment", prompts.document("docs.deployment", subject), MarkdownReply
        )
        api = await self._architect.ask(
            "docs/api/final",
            prompts.document("docs.api", self._architect.subject(), await self._commands_as_built(), attempt=2),
            MarkdownReply,
            attempt=2,
        )
        await self._commit(
            {"docs/deployment_guide.md": guide.markdown, "docs/api_documentation.md": api.markdown},
            "docs: deployment guide and final API documentation",
        )
        executed = await self._proven_readme()
        await self._commit({"docs/traceability.md": self._traceability()}, "docs: traceability")
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
            files = await asyncio.to_thread(repository.contents)
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

    async def _commands_as_built(self) -> str:
        """The code near to what users call, for the API documentation that replaces the draft."""
        return await self._finder.evidence(
            ["command, endpoint or function that a user calls", self._stack.commands.run]
        )

    async def _proven_readme(self) -> list[str]:
        """Asks for the README until every command in it runs; commits it. The commands that were executed."""
        failure = ""
        for attempt in range(1, README_TRIES_MAX + 1):
            prompt = prompts.document("docs.readme", self._architect.subject(), failure, attempt=attempt)
            readme = await self._architect.ask(f"docs/readme/{attempt}", prompt, MarkdownReply, attempt=attempt)
            await self._commit({"README.md": readme.markdown}, "docs: README")
            commands = readme_commands(readme.markdown)
            if len(commands) > README_COMMANDS_MAX:
                failure = f"Your last README has {len(commands)} commands; at most {README_COMMANDS_MAX} are executed."
                continue
            report = await self._check(commands, keep_going=True)
            if report.passed:
                return commands
            failed = CheckReport(results=[result for result in report.results if not result.passed])
            failure = f"These commands of your last README failed:\n{prompts.steady(failed)}"
        raise RefusedError(f"No README whose commands all run could be written. {failure}", "See its events.")

    def _traceability(self) -> str:
        state = self._activation.state
        requirements = self._architect.subject().requirements
        return traceability_document(requirements, self._building.todo, state.commits, state.evidence)

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


def _probe(commands: Commands) -> str:
    """Starts the product. One that ends must end well; one that still runs after the probe's time is up is fine."""
    return f"timeout {RUN_PROBE_S} sh -c {shlex.quote(commands.run)}; status=$?; [ $status -eq 124 ] || exit $status"


def _evidence(output: str) -> str:
    """The line of a passed test's output that says how many ran, without the time it took."""
    counted = [line.strip() for line in output.splitlines() if line.startswith("Ran ") or " passed" in line]
    return f"{counted[-1].split(' in ')[0] if counted else 'ran'}, passed".replace("|", "/")
