"""Final QA, the documents that need the finished code, and the package."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from runtime.entity.activation import Activation
from runtime.errors import RefusedError
from runtime.ids import BlobId
from runtime.implementer.work import CheckReport, CheckWork
from runtime.ledger.receipt import receipt_files
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.dependencies import dependencies, dependencies_document
from runtime.project.documents import exempt_commands, missing_sections, readme_commands, traceability_document
from runtime.project.finding import CodeFinder
from runtime.project.package import pack
from runtime.project.proof import SCREENSHOT, SERVES, Started, proof_of, readme_report, readme_work, start_work
from runtime.project.quality import Quality, quality_report
from runtime.project.scanning import missing_files, scan, secrets_in
from runtime.project.schemas import MarkdownReply
from runtime.project.state import State
from runtime.project.workbench import Workbench
from runtime.project.workshop import Workshop

README_TRIES_MAX = 3
README_COMMANDS_MAX = 60
_COUNT = re.compile(r"^Ran \d|\d+ pass(ed|ing)\b|^# pass \d")
"""The lines by which test runners say how many ran."""


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
        """Installs, builds, tests file by file and starts a fresh copy, and scans what is in it.

        What each test file showed is kept for the traceability table, what the browser showed for the delivery; a red
        report is for the review to mend.
        """
        commands = self._activation.state.chosen_stack.commands
        tests = {test: prompts.test_command(commands, [test]) for test in self._building.todo.tests()}
        product = [commands.install, commands.build, *dict.fromkeys(tests.values())]
        work = start_work((await self._workbench.tree()).files, [each for each in product if each], commands.run)
        proof = proof_of(await self._checked(replace(work, tests=list(tests))), commands.run)
        report = CheckReport(results=[*proof.report.results, *scan(await self._tree())])
        if not report.passed or proof.started is None:
            return report
        shown = {result.command: _evidence(result.output) for result in report.results}
        screenshots = {}
        if proof.screenshot is not None:
            screenshots[SCREENSHOT] = await self._workshop.ledger.put_blob(proof.screenshot)
        await self._activation.emit(
            "qa.proved",
            f"qa/proved/{self._activation.state.commit}",
            {
                "evidence": {test: shown[command] for test, command in tests.items()},
                "commands": [[result.command, _evidence(result.output)] for result in report.results],
                "started": proof.started.model_dump(mode="json"),
                "screenshots": screenshots,
            },
        )
        return report

    async def write_documents(self) -> None:
        """Deployment guide, README with every command executed, and what is known of the whole: tests, parts, quality.

        Raises RefusedError when no README can be made to work, or when a document holds a secret.
        """
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
        readme, executed = await self._proven_readme()
        files = await self._tree()
        if found := secrets_in(files):
            raise RefusedError(f"The finished documents hold a secret: {'; '.join(found)}.", "Start the project again.")
        pictures = await self._pictures()
        quality = self._quality(readme, executed, files, sorted(pictures))
        await self._commit(
            {
                "docs/traceability.md": self._traceability(),
                "docs/dependencies.md": dependencies_document(quality.dependencies),
                "docs/quality_report.md": quality_report(quality),
                **pictures,
            },
            "docs: traceability, dependencies and quality report",
        )
        await self._activation.emit(
            "qa.finished",
            f"qa/finished/{self._activation.state.commit}",
            {"passed": True, "summary": quality.summary(), **quality.figures()},
        )

    async def package(self) -> None:
        """Packs what is tracked on main, with the receipt as it stands now, and keeps it.

        Raises RefusedError, which names what is missing, when the tree is not what every delivery must be.
        """
        files = await self._tree()
        if missing := missing_files([path for path, data in files.items() if data]):
            raise RefusedError(
                f"The delivery is not complete: {', '.join(missing)} is missing or empty.", "Start the project again."
            )
        receipt = await self._workshop.ledger.receipt(self._activation.state.id)
        packed = await asyncio.to_thread(pack, {**files, **receipt_files(receipt)})
        blob = await self._workshop.ledger.put_blob(packed.data)
        if packed.left_out:
            text = "Left out of the package: " + ", ".join(packed.left_out)
            await self._activation.emit("project.notice", f"package/left_out/{blob}", {"text": text})
        await self._activation.emit(
            "package.ready",
            f"package/{self._activation.state.packages + 1}",
            {
                **packed.fields(blob),
                "spent_ucredits": receipt.net_ucredits,
            },
        )

    async def _tree(self) -> dict[str, bytes]:
        """What is tracked on main."""
        return dict((await self._workbench.tree()).files)

    async def _pictures(self) -> dict[str, bytes]:
        kept: dict[str, str] = self._activation.state.proved.get("screenshots", {})
        return {path: await self._workshop.ledger.get_blob(BlobId(blob)) for path, blob in kept.items()}

    def _quality(
        self, readme: str, executed: CheckReport, files: Mapping[str, bytes], screenshots: Sequence[str]
    ) -> Quality:
        state = self._activation.state
        started = state.proved.get("started", {"kind": "command", "exit_status": 0})
        licences = {f"{each.registry}/{each.name}": each.licence for each in executed.packages if each.licence}
        return Quality(
            commands=[(command, shown) for command, shown in state.proved.get("commands", [])],
            started=Started.model_validate(started),
            screenshots=screenshots,
            tests=state.evidence,
            readme=[(result.command, result.output.endswith(SERVES)) for result in executed.results],
            exempt=exempt_commands(readme),
            files_scanned=len(files),
            dependencies=dependencies(files, licences),
            gaps=state.gaps,
            skipped=state.skipped,
        )

    async def _commands_as_built(self) -> str:
        """The code near to what users call, for the API documentation that replaces the draft."""
        return await self._finder.evidence(
            ["command, endpoint or function that a user calls", self._activation.state.chosen_stack.commands.run]
        )

    async def _proven_readme(self) -> tuple[str, CheckReport]:
        """Asks for the README until it is whole and every command in it runs, and commits it. It, and how they ran."""
        fault = ""
        for attempt in range(1, README_TRIES_MAX + 1):
            prompt = prompts.document("docs.readme", self._architect.subject(), fault, attempt=attempt)
            reply = await self._architect.ask(f"docs/readme/{attempt}", prompt, MarkdownReply, attempt=attempt)
            await self._commit({"README.md": reply.markdown}, "docs: README")
            commands = readme_commands(reply.markdown)
            fault = _readme_fault(reply.markdown, commands)
            if len(commands) > README_COMMANDS_MAX or not commands:
                continue
            work = readme_work((await self._workbench.tree()).files, commands)
            report = readme_report(await self._checked(work), commands)
            if report.passed and not fault:
                return reply.markdown, report
            if not report.passed:
                failed = CheckReport(results=[result for result in report.results if not result.passed])
                fault += f"These commands of your last README failed:\n{prompts.steady(failed)}"
        raise RefusedError(
            f"No README that is whole and whose commands all run could be written. {fault}", "See its events."
        )

    def _traceability(self) -> str:
        state = self._activation.state
        requirements = self._architect.subject().requirements
        return traceability_document(requirements, self._building.todo, state.commits, state.evidence)

    async def _commit(self, files: Mapping[str, str | bytes], message: str) -> None:
        committed = await self._workbench.commit_files(files, message)
        await self._activation.emit("repository.committed", f"repository/{committed.commit}", committed.fields())

    async def _checked(self, work: CheckWork) -> CheckReport:
        """In this project's turn."""
        return await self._workshop.implementers.check(replace(work, project=self._activation.state.id))


def _readme_fault(readme: str, commands: Sequence[str]) -> str:
    """What is wrong with it before anything of it is executed, told to its author; empty when nothing is."""
    faults = []
    if missing := missing_sections(readme):
        faults.append(f"Your last README has no section for: {', '.join(missing)}.")
    if found := secrets_in({"README.md": readme.encode()}):
        faults.append(f"Your last README holds a secret: {'; '.join(found)}.")
    if len(commands) > README_COMMANDS_MAX:
        faults.append(f"Your last README has {len(commands)} commands; at most {README_COMMANDS_MAX} are executed.")
    if not commands:
        faults.append("Your last README has no command in a ```sh block that can be executed.")
    return "".join(f"{fault}\n" for fault in faults)


def _evidence(output: str) -> str:
    """The line of a passed test's output that says how many ran, without the time it took."""
    counted = [line.strip() for line in output.splitlines() if _COUNT.search(line)]
    return f"{counted[-1].split(' in ')[0] if counted else 'ran'}, passed".replace("|", "/")
