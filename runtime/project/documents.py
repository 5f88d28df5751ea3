"""The documents the product writes from what it knows, without asking a model."""

import re
from collections.abc import Iterable, Mapping, Sequence

from runtime.project.schemas import Requirement, StackReply
from runtime.project.todo import Todo

GITIGNORE = "__pycache__/\n*.pyc\n.venv/\nnode_modules/\ndist/\n.env\n.code_index/\n"

_FENCE = re.compile(r"^(```|~~~)\s*(sh|bash|shell|console)\s*$")
_EXEMPT = re.compile(r"^(git clone|docker|docker-compose|podman)\b")


def requirements_document(title: str, summary: str, scope: str, requirements: Sequence[Requirement]) -> str:
    """The text of `docs/requirements.md`."""
    lines = [f"# Requirements: {title}", "", summary, "", "## Scope", "", scope, "", "## Requirements", ""]
    for requirement in requirements:
        lines += [f"### {requirement.id} ({requirement.priority})", "", requirement.text, "", "Accepted when:", ""]
        lines += [*(f"- {each}" for each in requirement.acceptance), ""]
    return "\n".join(lines)


def architecture_document(markdown: str, stack: StackReply) -> str:
    """The text of `docs/architecture.md`: the architect's, with the stack's reasons where it does not give them."""
    if "## Technology" in markdown:
        return markdown
    rows = [f"| {each.layer} | {each.choice} | {each.reason} |" for each in stack.choices]
    table = ["## Technology", "", "| layer | choice | reason |", "|---|---|---|", *rows]
    return markdown.rstrip() + "\n\n" + "\n".join(table) + "\n"


def traceability_document(
    requirements: Sequence[Requirement], todo: Todo, commits: Mapping[str, Sequence[str]], evidence: Mapping[str, str]
) -> str:
    """The text of `docs/traceability.md`: requirement -> task -> commit -> test -> evidence.

    `evidence` maps a test file to what its last run on the final tree showed.
    """
    lines = [
        "# Traceability",
        "",
        "Every requirement with the tasks that serve it, the commits that hold them, and the tests that passed on the "
        "final tree.",
        "",
        "| requirement | task | commit | test | evidence |",
        "|---|---|---|---|---|",
    ]
    for requirement in requirements:
        for item in todo.items:
            if requirement.id not in item.requirements:
                continue
            commit = ", ".join(each[:10] for each in commits.get(item.id, ()))
            for test in item.tests or ("-",):
                lines.append(
                    f"| {requirement.id} | {item.id} {item.title} | {commit} | {test} | {evidence.get(test, '-')} |"
                )
    return "\n".join(lines) + "\n"


def readme_commands(readme: str) -> list[str]:
    """The commands of a README's shell blocks, in order, with continued lines joined.

    Exempt are clone and container lines, which need a network or an engine, and the `cd` that follows a clone.
    """
    return [command for command in _shell_lines(readme.splitlines()) if not _EXEMPT.match(command)]


def _shell_lines(lines: Iterable[str]) -> Iterable[str]:
    fence = ""
    pending = ""
    cloned = False
    for line in lines:
        if not fence:
            if opened := _FENCE.match(line.strip()):
                fence = opened.group(1)
            continue
        if line.strip() == fence:
            fence = ""
            continue
        text = pending + line.strip().removeprefix("$ ")
        if text.endswith("\\"):
            pending = text[:-1]
            continue
        pending = ""
        if not text or text.startswith("#"):
            continue
        if cloned and text.startswith("cd "):
            continue
        cloned = text.startswith("git clone")
        yield text
