"""The report on the final pass that a delivery brings along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.project.dependencies import Dependency
from runtime.project.proof import Started, started_text

_COMMAND_CHARACTERS_MAX = 200
_SERVED = " (a server: it was left running)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    commands: Sequence[tuple[str, str]]
    """(command or scan, what it showed); each ended with status 0."""
    started: Started
    screenshots: Sequence[str]
    tests: Mapping[str, str]
    """Test file -> what its run showed."""
    readme: Sequence[tuple[str, bool]]
    """(command, whether it serves and was left running); none failed."""
    exempt: Sequence[str]
    files_scanned: int
    dependencies: Sequence[Dependency]
    gaps: Mapping[str, str]
    """Item id -> why it is not in the delivery; its cost was given back."""
    skipped: Mapping[str, str]
    """Item id -> that its owner skipped it, and why."""

    def figures(self) -> dict[str, object]:
        """For the event that ends the final pass."""
        return {
            "commands": [command for command, _ in self.commands],
            "tests": len(self.tests),
            "kind": self.started.kind,
            "http_status": self.started.http_status,
            "page_title": self.started.title,
            "screenshots": list(self.screenshots),
            "no_picture": self.started.no_picture,
            "readme_commands": [command for command, _ in self.readme],
            "readme_exempt": list(self.exempt),
            "known_gaps": [*self.gaps, *self.skipped],
            "secrets_found": 0,
            "files_scanned": self.files_scanned,
            "dependencies": len(self.dependencies),
            "licences_to_look_at": sum(each.needs_care for each in self.dependencies),
        }

    def summary(self) -> str:
        """One line for whoever watches."""
        seen = f", {len(self.screenshots)} screenshot" if self.screenshots else ""
        return f"installs, builds, tests and starts{seen}; {len(self.readme)} README commands run"


def quality_report(quality: Quality) -> str:
    """The text of `docs/quality_report.md`."""
    lines = [
        "# Quality report",
        "",
        "Before delivery this was run on a fresh copy of the finished project, in a sandbox without network. Every "
        "command below ended with status 0.",
        "",
        "## Installation, build, tests and scans",
        "",
        "| command | showed |",
        "|---|---|",
        *(f"| {_code(command)} | {_cell(shown)} |" for command, shown in quality.commands),
        "",
        f"{len(quality.tests)} test files ran one by one; `docs/traceability.md` says which requirement each holds.",
        "",
        "## Start",
        "",
        *(f"{line}  " for line in started_text(quality.started).splitlines()[:20]),
        "",
        *(f"![What the browser showed]({path.removeprefix('docs/')})" for path in quality.screenshots),
        "",
        "## Commands of the README",
        "",
        f"{len(quality.readme)} executed, in order, in one shell:",
        "",
        *(f"- {_code(command)}{_SERVED if serves else ''}" for command, serves in quality.readme),
        "",
    ]  # fmt: skip
    if quality.exempt:
        lines += ["Not executed, because a clone, a container or a deployment needs more than a sandbox:", ""]
        lines += [*(f"- {_code(command)}" for command in quality.exempt), ""]
    if gaps := {**quality.gaps, **quality.skipped}:
        lines += ["## Known gaps", "", "Not in this delivery; `docs/known_gaps.md` says more:", ""]
        lines += [*(f"- {item}: {_cell(why)}" for item, why in gaps.items()), ""]
    care = sum(each.needs_care for each in quality.dependencies)
    lines += [
        "## Secrets, dependencies and licences",
        "",
        f"No secret was found in {quality.files_scanned} files. {len(quality.dependencies)} dependencies are listed in "
        f"`docs/dependencies.md`; the licences of {care} need a look.",
    ]
    return "\n".join(lines) + "\n"


def _code(command: str) -> str:
    cut = command if len(command) <= _COMMAND_CHARACTERS_MAX else f"{command[:_COMMAND_CHARACTERS_MAX]} ..."
    return "`" + " ".join(cut.replace("`", "'").replace("|", "\\|").split()) + "`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]
