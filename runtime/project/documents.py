"""The documents the product writes from what it knows, without asking a model."""

import re
from collections.abc import Iterable, Mapping, Sequence

from runtime.project.schemas import Requirement, StackReply
from runtime.project.todo import Todo

GITIGNORE = "__pycache__/\n*.pyc\n.venv/\nnode_modules/\ndist/\n.env\n.code_index/\n"

_FENCE = re.compile(r"^(```|~~~)\s*(sh|bash|shell|console)\s*$")
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_ONE_PART = r"(?:[^;&|]|>&|\|(?!\|))*(?:&&|;|&?\s*$)"
"""Up to the end of one command of a line, pipes included."""
_EXEMPT = re.compile(
    r"(?:sudo )?(?:git clone|docker|docker-compose|podman|kubectl|helm|terraform|fly|flyctl|heroku|vercel|netlify"
    rf"|gcloud|aws|az|ssh|scp|rsync|systemctl|ansible-playbook|npm publish|twine upload)(?=\s|$){_ONE_PART}"
)
_CHANGE_FOLDER = re.compile(rf"cd \S+\s*{_ONE_PART}")
_REQUIRED = {
    "overview": re.compile(r"overview|about|introduction|what (it|this)"),
    "prerequisites": re.compile(r"prerequisite|requirement|you need"),
    "installation": re.compile(r"install|set-?\s?up|getting started"),
    "configuration": re.compile(r"config|settings|environment"),
    "running": re.compile(r"\brun|start|launch|development"),
    "features and usage": re.compile(r"feature|usage|examples?\b|\bus(e|ing)\b"),
}
"""The required sections, and the words by which a heading names each."""


def requirements_document(title: str, summary: str, scope: str, requirements: Sequence[Requirement]) -> str:
    """The text of `docs/requirements.md`."""
    lines = [f"# Requirements: {title}", "", summary, "", "## Scope", "", scope, "", "## Requirements", ""]
    for requirement in requirements:
        lines += [f"### {requirement.id} ({requirement.priority})", "", requirement.text, "", "Accepted when:", ""]
        lines += [*(f"- {each}" for each in requirement.acceptance), ""]
    return "\n".join(lines)


def architecture_document(markdown: str, stack: StackReply) -> str:
    """The text of `docs/architecture.md`: the architect's, with the stack's reasons where it does not give them."""
    if all(each.choice in markdown and each.reason in markdown for each in stack.choices):
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
            if item.struck is not None:
                why = " ".join(item.struck.split()).replace("|", "/")[:200]
                lines.append(f"| {requirement.id} | {item.id} {item.title} | struck | - | {why} |")
                continue
            commit = ", ".join(each[:10] for each in commits.get(item.id, ()))
            for test in item.tests or ("-",):
                lines.append(
                    f"| {requirement.id} | {item.id} {item.title} | {commit} | {test} | {evidence.get(test, '-')} |"
                )
    return "\n".join(lines) + "\n"


def readme_commands(readme: str) -> list[str]:
    """The commands of a README's shell blocks that can be executed here, in order, with continued lines joined."""
    return [command for command, _ in _split_commands(readme) if command]


def exempt_commands(readme: str) -> list[str]:
    """What of a README's shell blocks is not executed: clones, containers and deployments need more than a sandbox."""
    return [exempt for _, exempt in _split_commands(readme) if exempt]


def missing_sections(readme: str) -> list[str]:
    """Which of the required sections a README lacks. Source: spec/builder.md §6.3.

    A section is a heading that names it and has something under it; what follows the title is an overview too.
    """
    sections = [(title.lower(), text) for title, text in _sections(readme) if text.strip()]
    return [name for name, words in _REQUIRED.items() if not any(words.search(title) for title, _ in sections)]


def _sections(readme: str) -> Iterable[tuple[str, str]]:
    """(heading, what stands under it, sub-headings included). Under the title stands the overview alone."""
    lines = readme.splitlines()
    headings = list(_headings(lines))
    for number, (at, level, title) in enumerate(headings):
        is_title = number == 0 and level == 1
        after = [next_at for next_at, next_level, _ in headings[number + 1 :] if is_title or next_level <= level]
        yield "overview" if is_title else title, "\n".join(lines[at + 1 : after[0] if after else None])


def _headings(lines: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    """(line, level, text), those in code blocks apart."""
    fence = ""
    for at, line in enumerate(lines):
        mark = line.strip()[:3]
        if mark in ("```", "~~~"):
            fence = "" if fence == mark else fence or mark
        elif not fence and (heading := _HEADING.match(line)):
            yield at, len(heading[1]), heading[2]


def _split_commands(readme: str) -> Iterable[tuple[str, str]]:
    """(what is executed, what is exempt) of each line. Of `git clone URL && cd x && make` that is `make`."""
    cloned = False
    for command in _shell_lines(readme.splitlines()):
        rest, exempt = command, []
        while rest:
            part = _EXEMPT.match(rest) or (_CHANGE_FOLDER.match(rest) if cloned else None)
            if part is None:
                break
            cloned = rest.startswith("git clone")
            exempt.append(part[0].strip(" ;&"))
            rest = rest[part.end() :].strip()
        cloned = cloned and not rest
        yield rest, " && ".join(exempt)


def _shell_lines(lines: Iterable[str]) -> Iterable[str]:
    fence = ""
    pending = ""
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
        if text and not text.startswith("#"):
            yield text
