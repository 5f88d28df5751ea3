"""Commands that steer a build while it runs. Each has an HTTP route of the same name."""

import click

from cluster.project_commands import json_option, print_project, project_argument
from cluster.terminal import Terminal, pass_terminal, plain, print_json
from cluster.wire import Doing, Project
from runtime.errors import BadInputError

task_argument = click.argument("task", metavar="TASK")
about_option = click.option(
    "--about", default="", help="Only if it asks about this: scope/1, plan/1, phase/2/1, delivery/1, change/1."
)


@click.command()
@project_argument
@json_option
@pass_terminal
def back(terminal: Terminal, project_id: str, as_json: bool) -> None:
    """Has the question before the open one asked again; what was answered to it counts no more."""
    print_project(terminal.client.steer(project_id, "back"), as_json)


@click.command()
@project_argument
@json_option
@pass_terminal
def pause(terminal: Terminal, project_id: str, as_json: bool) -> None:
    """Begins nothing new in a project until `resume`. What is under way ends, is kept, and is paid once."""
    print_project(terminal.client.steer(project_id, "pause"), as_json)


@click.command()
@project_argument
@click.option("--max-credits", help="The new ceiling.")
@json_option
@pass_terminal
def resume(terminal: Terminal, project_id: str, max_credits: str | None, as_json: bool) -> None:
    """Lets a paused project go on."""
    body = {} if max_credits is None else {"max_credits": max_credits}
    print_project(terminal.client.steer(project_id, "resume", body), as_json)


@click.command()
@project_argument
@click.option("--yes", is_flag=True, help="Without being asked again.")
@json_option
@pass_terminal
def cancel(terminal: Terminal, project_id: str, yes: bool, as_json: bool) -> None:
    """Stops a project for ever. What was charged stays charged; `package` fetches what was merged so far."""
    now = terminal.client.project(project_id)
    if not yes and not now.finished:
        if not terminal.interactive():
            raise BadInputError(f"This stops {project_id} for ever.", "Add --yes.", _charged(now))
        click.confirm(f"{_charged(now)} Stop it for ever?", abort=True)
    stopped = terminal.client.steer(project_id, "cancel")
    print_project(stopped, as_json)
    if not as_json:
        click.echo(f"{_charged(stopped)} Nothing more is spent; what was held is released.")
        if stopped.package:
            click.echo(f"What exists: masterbuilder package {stopped.id}")


def _charged(project: Project) -> str:
    if not project.spent_ucredits:
        return "Nothing was charged."
    amount = "Less than 0.01" if project.spent_credits == "0.00" else project.spent_credits
    return f"{amount} credits were charged and stay charged."


@click.command()
@project_argument
@click.argument("text")
@json_option
@pass_terminal
def change(terminal: Terminal, project_id: str, text: str, as_json: bool) -> None:
    """Asks for something else: TEXT is planned and priced, and joins the plan when you `approve` it."""
    print_project(terminal.client.steer(project_id, "change", {"text": text}), as_json)


@click.command()
@project_argument
@task_argument
@json_option
@pass_terminal
def retry(terminal: Terminal, project_id: str, task: str, as_json: bool) -> None:
    """Begins a failed TASK, such as T-004, again with a fresh count of attempts."""
    print_project(terminal.client.steer(project_id, "retry", {"task": task}), as_json)


@click.command()
@project_argument
@task_argument
@click.option("--reason", default="", help="Why; it is written into TODO.md.")
@click.option("--with-dependents", is_flag=True, help="Also the tasks that cannot be done without it.")
@json_option
@pass_terminal
def skip(terminal: Terminal, project_id: str, task: str, reason: str, with_dependents: bool, as_json: bool) -> None:
    """Strikes an open TASK, such as T-004, from the plan; its requirements become known gaps."""
    body = {"task": task, "reason": reason, "with_dependents": with_dependents}
    print_project(terminal.client.steer(project_id, "skip", body), as_json)


@click.command()
@project_argument
@about_option
@json_option
@pass_terminal
def approve(terminal: Terminal, project_id: str, about: str, as_json: bool) -> None:
    """Says yes to what a project asks: its scope and quote, a gate, or the price of a change."""
    approved = terminal.client.steer(project_id, "approve", {"about": about})
    print_project(terminal.client.moved_on(approved), as_json)


@click.command()
@project_argument
@click.argument("text", default="")
@about_option
@json_option
@pass_terminal
def reject(terminal: Terminal, project_id: str, text: str, about: str, as_json: bool) -> None:
    """Says no to what a project asks. At a gate, TEXT says what is to be different; a change is dropped."""
    print_project(terminal.client.steer(project_id, "reject", {"text": text, "about": about}), as_json)


@click.command()
@project_argument
@click.option("--phase", type=click.IntRange(1), required=True, help="Go back to where this phase began.")
@json_option
@pass_terminal
def rewind(terminal: Terminal, project_id: str, phase: int, as_json: bool) -> None:
    """Goes on from where a phase began. Nothing is lost: the later commits stay in the repository, on a branch."""
    print_project(terminal.client.steer(project_id, "rewind", {"phase": phase}), as_json)


def show_project(terminal: Terminal, project_id: str, as_json: bool) -> None:
    """One project on one screen: how far it is, what is done now, what it cost, what it waits for."""
    project = terminal.client.project(project_id)
    if as_json:
        print_json(project)
        return
    for line in project_lines(project):
        terminal.console.print(line, highlight=False, soft_wrap=True)


def project_lines(project: Project) -> list[str]:
    lines = [f"[bold]{plain(project.title)}[/]  {project.id}", f"  status   {project.status.replace('_', ' ')}"]
    if project.phases and not project.finished:
        lines.append(f"  phase    {project.phase} of {len(project.phases)}: {plain(project.phases[project.phase - 1])}")
    if project.tasks_total:
        lines.append(f"  tasks    {project.tasks_done} of {project.tasks_total} done")
    quote = (
        f" of {project.quote_credits} quoted; work stops at {project.ceiling_credits}" if project.quote_credits else ""
    )
    lines.append(f"  credits  {project.spent_credits}{quote}")
    lines += [f"  now      {doing_text(doing)}" for doing in project.activity]
    if project.question:
        lines.append(f"  asks     {plain(project.question)}")
    if project.gaps:
        lines.append(f"  gaps     {', '.join(project.gaps)}")
    if project.failure_reason:
        lines.append(f"  reason   {plain(project.failure_reason)}")
    if project.possible:
        lines.append(f"  possible {', '.join(project.possible)}")
    return lines


def doing_text(doing: Doing) -> str:
    attempt = f" (attempt {doing.attempt})" if doing.attempt != 1 else ""
    retry_in = "" if doing.retry_in_s is None else f", retry in {doing.retry_in_s} s"
    return plain(f"{doing.task}{attempt}: {doing.what} for {doing.for_s} s{retry_in}")
