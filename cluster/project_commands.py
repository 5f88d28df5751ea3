"""Commands that speak with the service about projects."""

import sys
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from rich.console import Console
from rich.markup import escape

from cluster.client import ConnectionLostError
from cluster.follow import Followed, Story, View, follow
from cluster.terminal import FAILED, OK, REFUSED, Terminal, pass_terminal, print_json
from cluster.wire import DownloadLink, KnownGap, Package, Project
from runtime.errors import BadInputError, NotFoundError, TooLargeError
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.project.delivery import Delivery, delivery_text
from runtime.project.schemas import TOPICS

_FILE_BYTES_MAX = 8 << 20
"""A file larger than this is not even read; the service has a lower bound of its own."""
_QUIET_S = 2.0
_BEFORE_WORK = frozenset({"gathering_requirements", "clarifying", "confirming_scope"})
_BRIEF_SUFFIXES = (".md", ".txt", ".yaml", ".yml", ".json", ".rst")

_F = TypeVar("_F", bound=Callable[..., Any])


def json_option(command: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")(command)


def resolved_project(terminal: Terminal, project_id: str) -> str:
    """An id as it is; `last` is the caller's newest project."""
    if project_id != "last":
        return project_id
    projects = terminal.client.projects()
    if not projects:
        raise NotFoundError("You have no project yet.", "Start one with `masterbuilder build BRIEF`.")
    return projects[0].id


def _resolved(context: click.Context, _: click.Parameter, project_id: str) -> str:
    return resolved_project(context.ensure_object(Terminal), project_id)


def project_argument(command: _F) -> _F:
    return click.argument("project_id", metavar="PROJECT", callback=_resolved)(command)


@click.command()
@click.argument("brief")
@click.option("--answers", "answers_file", type=click.Path(path_type=Path), help="YAML or JSON: topic -> text.")
@click.option("--yes", is_flag=True, help="Agree to scope and quote in advance.")
@click.option("--max-credits", help="Stop work at this many credits.")
@click.option(
    "--gate",
    "gates",
    type=click.Choice(["plan", "phase", "delivery"]),
    multiple=True,
    help="Stop there until you approve; may be given more than once.",
)
@click.option("--follow/--no-follow", "following", default=True, help="Watch the build until it ends.")
@json_option
@pass_terminal
def build(
    terminal: Terminal,
    brief: str,
    answers_file: Path | None,
    yes: bool,
    max_credits: str | None,
    gates: tuple[str, ...],
    following: bool,
    as_json: bool,
) -> None:
    """Builds BRIEF: the path of a file, `-` for stdin, or the text itself."""
    text = read_brief(brief)
    answers = read_answers(answers_file) if answers_file else None
    agreed = agreed_ucredits(yes, max_credits)
    project = terminal.client.create(text, answers, max_credits, yes, uuid.uuid4().hex, gates)
    if as_json:
        if following:
            quiet = View(Console(quiet=True))
            project = follow(terminal.client, project.id, quiet, Story(), agreed_ucredits=agreed).project
        print_json(project)
    else:
        terminal.console.print(f"Project [bold]{project.id}[/]", highlight=False)
        project = _accompany(terminal, project.id, agreed, following)
    refused = yes and project.asks_for_confirmation
    click.get_current_context().exit(REFUSED if refused and following else status_of(project))


@click.command()
@json_option
@pass_terminal
def projects(terminal: Terminal, as_json: bool) -> None:
    """Lists your projects, newest first."""
    found = terminal.client.projects()
    if as_json:
        print_json([project.model_dump(mode="json") for project in found])
        return
    if not found:
        click.echo("No projects yet. Start one with `masterbuilder build BRIEF`.")
        return
    for project in found:
        tasks = f"{project.tasks_done}/{project.tasks_total}" if project.tasks_total else ""
        credits = f"{project.spent_credits} credits"
        click.echo(f"{project.id}  {project.status:<22}  {tasks:>7}  {credits:>16}  {project.title}")


@click.command()
@project_argument
@click.option("--follow/--no-follow", "following", default=False, help="Go on until the project ends.")
@json_option
@pass_terminal
def logs(terminal: Terminal, project_id: str, following: bool, as_json: bool) -> None:
    """Shows what happened to a project; with --json one event a line."""
    if following and not as_json:
        click.get_current_context().exit(status_of(_accompany(terminal, project_id, 0, True)))
    last = terminal.client.project(project_id).last_seq
    story, view = Story(), View(terminal.console)
    try:
        for event in terminal.client.events(project_id, 0, *(() if following else (_QUIET_S,))):
            if as_json:
                click.echo(event.model_dump_json())
            else:
                view.tell(story, event)
            if event.seq >= last and not following:
                break
    except ConnectionLostError:
        if following:
            raise


@click.command()
@project_argument
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text")
@json_option
@pass_terminal
def receipt(terminal: Terminal, project_id: str, form: str, as_json: bool) -> None:
    """Prints a project's itemised receipt."""
    click.echo(terminal.client.receipt_text(project_id, "json" if as_json else form).rstrip("\n"))


@click.command()
@project_argument
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it.")
@click.option(
    "--git", "as_repository", is_flag=True, help="The git repository, as a bundle; also of a build under way."
)
@click.option("--unfinished", is_flag=True, help="Of a project without a package, what was merged until now.")
@click.option("--link", "as_link", is_flag=True, help="Print a link that needs no token and expires.")
@json_option
@pass_terminal
def package(
    terminal: Terminal,
    project_id: str,
    output: Path | None,
    as_repository: bool,
    unfinished: bool,
    as_link: bool,
    as_json: bool,
) -> None:
    """Fetches a project's ZIP: of one that failed or was cancelled, what was merged until then."""
    if as_link:
        if output or as_repository or unfinished:
            raise BadInputError("--link is for the ZIP and writes no file.", "Leave the other options out.")
        _print_link(terminal.client.link(project_id), as_json)
        return
    if as_repository:
        path = output or Path(f"{project_id}.bundle")
        size_bytes = terminal.client.save_repository(project_id, path)
    else:
        path = output or Path(f"{project_id}{_mark(terminal.client.project(project_id))}.zip")
        size_bytes = terminal.client.save_package(project_id, path, unfinished=unfinished)
    if as_json:
        print_json({"path": str(path), "size_bytes": size_bytes})
    else:
        click.echo(f"{path} ({size_bytes} bytes)")
        if as_repository:
            click.echo(f"git clone -b main {path}")


def _mark(project: Project) -> str:
    return "-unfinished" if project.package is None or project.package.partial else ""


def _print_link(link: DownloadLink, as_json: bool) -> None:
    if as_json:
        print_json(link)
    else:
        click.echo(f"{link.url}\nexpires {link.expires_at}")


@click.command()
@project_argument
@click.argument("text")
@json_option
@pass_terminal
def answer(terminal: Terminal, project_id: str, text: str, as_json: bool) -> None:
    """Answers the question a project asked."""
    if not text.strip():
        raise BadInputError("The answer is empty.", 'Write one, or "you decide".')
    print_project(terminal.client.answer(project_id, text), as_json)


@click.command()
@project_argument
@click.option("--change", help="Do not agree: say what to change.")
@json_option
@pass_terminal
def confirm(terminal: Terminal, project_id: str, change: str | None, as_json: bool) -> None:
    """Agrees to a project's scope and quote, or asks for a change."""
    answered = terminal.client.confirm(project_id, accept=change is None, change=change or "")
    print_project(terminal.client.moved_on(answered), as_json)


@click.command()
@project_argument
@click.argument("score", type=click.IntRange(1, 5))
@click.option("--text", default="", help="Why.")
@json_option
@pass_terminal
def feedback(terminal: Terminal, project_id: str, score: int, text: str, as_json: bool) -> None:
    """Says how content you are with a delivered project: a SCORE from 1 (not at all) to 5. The last one counts."""
    judged = terminal.client.feedback(project_id, score, text)
    if as_json:
        print_json(judged)
    else:
        click.echo(f"{judged.project}: {judged.score} of 5. Thank you.")


def read_brief(argument: str) -> str:
    """Raises BadInputError or TooLargeError; an empty brief is refused here, before anything is sent."""
    if argument == "-":
        text = _decoded(sys.stdin.buffer.read(_FILE_BYTES_MAX + 1), "stdin")
    elif _is_file(argument):
        text = _read(Path(argument))
    elif "\n" not in argument and " " not in argument and argument.endswith(_BRIEF_SUFFIXES):
        raise BadInputError(
            f"There is no file {argument}.", "Give a file, `-` for stdin, or the brief as one argument."
        )
    else:
        text = argument
    if not text.strip():
        raise BadInputError("The brief is empty.", "Say in a few sentences what is to be built.")
    return text


def read_answers(path: Path) -> dict[str, str]:
    """Topic -> text. Raises BadInputError naming what is wrong with the file."""
    if not path.is_file():
        raise BadInputError(f"There is no answers file {path}.", "Give the path of a YAML or JSON file.")
    topics = ", ".join(TOPICS)
    advice = f"Write lines of `topic: text` with any of: {topics}."
    try:
        loaded = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise BadInputError(f"{path} is not YAML: it cannot be read{where}.", advice) from error
    if not isinstance(loaded, dict):
        raise BadInputError(f"{path} does not hold answers.", advice)
    unknown = [str(topic) for topic in loaded if topic not in TOPICS]
    if unknown:
        raise BadInputError(f"{path} answers unknown topics: {', '.join(unknown)}.", advice)
    return {topic: _answer_text(value, topic, path, advice) for topic, value in loaded.items() if value is not None}


def agreed_ucredits(yes: bool, max_credits: str | None) -> int | None:
    """The highest ceiling agreed to in advance: 0 without a yes, None for any. Raises BadInputError."""
    try:
        credits = Decimal(max_credits) if max_credits is not None else None
    except InvalidOperation:
        credits = Decimal(-1)
    if credits is not None and not (credits.is_finite() and credits > 0):
        raise BadInputError(f"--max-credits {max_credits} is not a number above 0.", "Give credits, such as 25 or 2.5.")
    if not yes:
        return 0
    return None if credits is None else int(credits * UCREDITS_PER_CREDIT)


def status_of(project: Project) -> int:
    """0 for done or still waiting, 1 for failed or cancelled, 3 for paused."""
    if project.status in ("failed", "cancelled"):
        return FAILED
    return REFUSED if project.paused else OK


def _accompany(terminal: Terminal, project: str, agreed: int | None, following: bool) -> Project:
    """Follows a build and asks the person at the terminal what it asks; says how to answer where there is none.

    Without `following` it ends as soon as there is nothing left to ask before the work.
    """
    story, view, after = Story(), View(terminal.console), 0
    while True:
        if not following:
            now = terminal.client.project(project)
            if agreed is None or not terminal.interactive() or now.status not in _BEFORE_WORK:
                _say_how_to_go_on(terminal, now)
                return now
        try:
            told = follow(terminal.client, project, view, story, after, agreed_ucredits=agreed)
        except KeyboardInterrupt:
            click.echo(f"\nThe build goes on. Watch it: masterbuilder logs {project} --follow", err=True)
            raise
        after = told.seq
        goes_on = told.ending == "approval" and told.project.status != "awaiting_approval"
        if not _ask(terminal, told) and not (goes_on and not terminal.interactive()):
            _say_how_to_go_on(terminal, told.project)
            return told.project


def _ask(terminal: Terminal, told: Followed) -> bool:
    """Whether the person was asked and answered, so that there is more to follow."""
    if not terminal.interactive():
        return False
    if told.ending == "question":
        terminal.client.answer(told.project.id, click.prompt("Your answer (or: you decide)"))
        return True
    if told.ending == "confirmation":
        if click.confirm("Build this?", default=True):
            terminal.client.confirm(told.project.id, accept=True)
        else:
            change = click.prompt("What is to change (empty to stop here)", default="", show_default=False)
            if not change:
                return False
            terminal.client.confirm(told.project.id, accept=False, change=change)
        return True
    if told.ending == "approval" and told.project.asks:
        return _ask_approval(terminal, told.project, told.project.asks)
    return False


def _ask_approval(terminal: Terminal, project: Project, asks: str) -> bool:
    if click.confirm(project.question or f"Approve {asks}?", default=True):
        terminal.client.steer(project.id, "approve", {"about": asks})
        return True
    text = click.prompt("What is to be different (empty to stop here)", default="", show_default=False)
    if not text:
        return False
    terminal.client.steer(project.id, "reject", {"about": asks, "text": text})
    return True


def _say_how_to_go_on(terminal: Terminal, project: Project) -> None:
    more = " --max-credits N" if project.status == "paused_quote" else ""
    lines = {
        "question": [f"  answer   masterbuilder answer {project.id} TEXT"],
        "confirmation": [
            f"  agree    masterbuilder confirm {project.id}",
            f"  change   masterbuilder confirm {project.id} --change TEXT",
        ],
        "paused": [
            f"  go on    masterbuilder resume {project.id}{more}",
            f"  exists   masterbuilder package {project.id} --unfinished",
        ],
        "approval": [
            f"  agree    masterbuilder approve {project.id}",
            f"  change   masterbuilder reject {project.id} TEXT",
        ],
        "done": [
            f"  ZIP      masterbuilder package {project.id}",
            f"  receipt  masterbuilder receipt {project.id}",
        ],
        "ended": [
            *([f"  exists   masterbuilder package {project.id}"] if project.package else []),
            f"  receipt  masterbuilder receipt {project.id}",
        ],
        "running": [f"  watch    masterbuilder logs {project.id} --follow"],
    }[_situation(project)]
    if project.status == "failed" and project.failure_reason:
        lines = [f"  reason   {project.failure_reason}", *lines]
    if project.status == "completed" and project.package is not None:
        _announce(terminal, project, project.package)
    for line in lines:
        terminal.console.print(escape(line), highlight=False, soft_wrap=True)


def _announce(terminal: Terminal, project: Project, package: Package) -> None:
    text = delivery_text(
        Delivery(
            title=project.title,
            file_count=package.file_count,
            size_bytes=package.size_bytes,
            sha256=package.sha256,
            cost_credits=project.spent_credits,
            balance_credits=terminal.client.me().balance_credits,
            how_to_fetch=f"masterbuilder package {project.id}",
            how_to_rate=f"masterbuilder feedback {project.id} SCORE",
            gaps=[_gap_text(gap) for gap in project.known_gaps],
        )
    )
    terminal.console.print(escape(text), highlight=False, soft_wrap=True)


def _gap_text(gap: KnownGap) -> str:
    return f"{gap.task}: {' '.join(gap.reason.split())[:200]}{' (given back)' if gap.refunded else ''}"


def _situation(project: Project) -> str:
    if project.status == "completed":
        return "done"
    if project.finished:
        return "ended"
    if project.asks_for_confirmation:
        return "confirmation"
    if project.status == "awaiting_approval":
        return "approval"
    if project.paused:
        return "paused"
    return "question" if project.question is not None else "running"


def print_project(project: Project, as_json: bool) -> None:
    if as_json:
        print_json(project)
        return
    words = [f"{project.id}: {project.status.replace('_', ' ')}"]
    if project.question:
        words.append(f"asks: {project.question}")
    if project.asks_for_confirmation and project.quote_credits:
        words.append(f"quote {project.quote_credits} credits, ceiling {project.ceiling_credits}")
    click.echo("; ".join(words))


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).is_file()
    except (OSError, ValueError):
        return False


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return _decoded(file.read(_FILE_BYTES_MAX + 1), str(path))


def _decoded(data: bytes, source: str) -> str:
    if len(data) > _FILE_BYTES_MAX:
        raise TooLargeError(f"{source} is over {_FILE_BYTES_MAX} bytes.", "Give a shorter text.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{source} is not text in UTF-8.", "Give a text file.") from error


def _answer_text(value: object, topic: str, path: Path, advice: str) -> str:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise BadInputError(f"{path}: the answer for {topic} is not text.", advice)
    return "; ".join(str(part) for part in parts)
