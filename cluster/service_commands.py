"""Commands that start, stop and look at the service itself."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import psutil
from rich.markup import escape

from cluster import doctor as doctors
from cluster.client import Client
from cluster.launch import down as stop_service
from cluster.launch import running
from cluster.launch import up as start_service
from cluster.ports import free_ports, is_free
from cluster.processes import owned
from cluster.project_commands import json_option
from cluster.terminal import FAILED, OK, UNAVAILABLE, Terminal, pass_terminal, print_json
from cluster.wire import Health
from runtime.config import Settings
from runtime.errors import BadInputError, MasterbuilderError, SandboxUnavailableError
from runtime.project.schemas import SCHEMAS
from runtime.providers.endpoints import no_provider

_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "broken": "[red]✗[/]"}


@click.command()
@json_option
@pass_terminal
def up(terminal: Terminal, as_json: bool) -> None:
    """Starts the service and leaves a supervisor that keeps it running."""
    started = time.monotonic()
    say = (lambda text: None) if as_json else click.echo
    launched = start_service(terminal.settings, terminal.environment, say)
    health = Client(launched.record.url, "").health()
    warnings = list(_warnings(terminal.settings))
    if as_json:
        print_json(
            {
                "was_running": launched.was_running,
                "url": launched.record.url,
                "dashboard_url": launched.record.dashboard_url,
                "secrets_file": str(terminal.settings.data_dir / "secrets.json"),
                "supervisor_pid": launched.record.supervisor_pid,
                "provider": health.provider,
                "warnings": warnings,
            }
        )
        return
    if launched.was_running:
        click.echo("Already up.")
    else:
        click.echo(f"Up after {time.monotonic() - started:.0f} s.")
    _tell_addresses(terminal, launched.record.url, launched.record.dashboard_url, health)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


@click.command()
@json_option
@pass_terminal
def down(terminal: Terminal, as_json: bool) -> None:
    """Stops the service. Builds go on where they were at the next `up`."""
    was_running = running(terminal.instance) is not None
    say = (lambda text: None) if as_json else click.echo
    killed = stop_service(terminal.instance, say)
    if as_json:
        print_json({"was_running": was_running, "killed": killed})
    else:
        click.echo("Down." if was_running or killed else "It was not running.")


@click.command()
@json_option
@pass_terminal
def status(terminal: Terminal, as_json: bool) -> None:
    """Says whether the service runs, where, and what it does. Exit status 4 when it does not run."""
    record = running(terminal.instance)
    facts: dict[str, object] = {
        "running": record is not None,
        "state": record.state if record else "down",
        "detail": record.detail if record else "",
        "url": terminal.url,
        "dashboard_url": record.dashboard_url if record else "",
        "restarts": record.restarts if record else 0,
        "data_dir": str(terminal.settings.data_dir),
        "provider": "",
        "processes": 0,
        "memory_bytes": 0,
        "projects": 0,
        "active_projects": 0,
        "balance_credits": "",
        "held_credits": "",
    }
    processes = owned(terminal.instance)
    facts["processes"] = len(processes)
    facts["memory_bytes"] = sum(_memory(process) for process in processes)
    healthy = False
    if record is None or record.state == "ready":
        try:
            facts["provider"] = terminal.client.health().provider
            projects, me = terminal.client.projects(), terminal.client.me()
            facts.update(projects=len(projects), active_projects=sum(not project.finished for project in projects))
            facts.update(balance_credits=me.balance_credits, held_credits=me.held_credits)
            healthy = facts["running"] = True
            if record is None:
                facts["state"] = "unsupervised"
                facts["detail"] = "its supervisor is gone, so nothing restarts it: run `masterbuilder up`"
        except MasterbuilderError as error:
            facts["detail"] = facts["detail"] or str(error)
    if as_json:
        print_json(facts)
    else:
        _tell_status(terminal, facts)
    click.get_current_context().exit(OK if healthy else UNAVAILABLE)


@click.command()
@json_option
@pass_terminal
def doctor(terminal: Terminal, as_json: bool) -> None:
    """Checks everything the service needs; each line says what is wrong and how to mend it."""
    checks = []
    for check in doctors.examine(terminal.settings, terminal.client):
        checks.append(check)
        if not as_json:
            fix = f"\n    fix: {check.fix}" if check.fix else ""
            line = f"{_MARKS[check.verdict]} {escape(f'{check.name}: {check.text}{fix}')}"
            terminal.console.print(line, highlight=False, soft_wrap=True)
    if as_json:
        print_json([{"name": c.name, "verdict": c.verdict, "text": c.text, "fix": c.fix} for c in checks])
    click.get_current_context().exit(FAILED if any(check.verdict == "broken" for check in checks) else OK)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8900, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--usage-file", type=click.Path(path_type=Path, dir_okay=False), help="Gets a JSON line for each call.")
@click.option("--latency-ms", default=40, show_default=True, type=click.IntRange(0), help="Before each answer.")
@pass_terminal
def simulate(terminal: Terminal, host: str, port: int, usage_file: Path | None, latency_ms: int) -> None:
    """Runs a model provider that costs nothing and plays written scenarios. Stop it with Ctrl-C."""
    from cluster.simulator.server import run

    port = port or free_ports(1)[0]
    if not is_free(host, port):
        raise BadInputError(f"Port {port} of {host} is in use.", "Choose another --port; 0 picks a free one.")
    path = usage_file or terminal.settings.data_dir / "simulator-usage.jsonl"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    click.echo(f"Served calls are counted in {path}. In another terminal:")
    click.echo(f"  export OPENAI_API_KEY=sim-local OPENAI_BASE_URL=http://{host}:{port}/v1")
    click.echo("  masterbuilder up")
    run(host, port, path, latency_ms)


@click.command()
@click.argument("name", required=False)
def schemas(name: str | None) -> None:
    """Prints the JSON schemas of what the agents must answer, or the one called NAME."""
    if name is not None and name not in SCHEMAS:
        raise BadInputError(f"There is no schema {name}.", f"Use one of: {', '.join(SCHEMAS)}.")
    chosen = {name: SCHEMAS[name]} if name else SCHEMAS
    documents = {task: reply.model_json_schema() for task, reply in chosen.items()}
    click.echo(json.dumps(documents[name] if name else documents, indent=2))


@click.command()
@click.option("--for-tests", is_flag=True, help="Also what only the tests need.")
def setup(for_tests: bool) -> None:
    """Installs what a build needs beside this command: Aider's environment, the embedding model, bubblewrap."""
    script = Path(__file__).with_name("setup.py")
    arguments = [sys.executable, str(script), "--only-extras", *(["--for-tests"] if for_tests else [])]
    click.get_current_context().exit(subprocess.run(arguments, cwd=script.parent.parent, check=False).returncode)


def _tell_addresses(terminal: Terminal, url: str, dashboard_url: str, health: Health) -> None:
    secrets = terminal.settings.data_dir / "secrets.json"
    click.echo(f"  API        {url}")
    click.echo(f"  dashboard  {dashboard_url}")
    click.echo(f"  tokens     {secrets} (admin_token for the API, ray_auth_token for the dashboard)")
    if health.provider not in ("", "none"):
        click.echo(f"  provider   {health.provider}")
        return
    missing = no_provider()
    click.echo(f"  provider   none: nothing can be built yet. {missing.next_step}")


def _tell_status(terminal: Terminal, facts: dict[str, object]) -> None:
    console = terminal.console
    if not facts["running"]:
        console.print("[red]down[/]: start it with `masterbuilder up`", highlight=False)
        return
    lines = {
        "state": facts["state"],
        "API": facts["url"],
        "dashboard": facts["dashboard_url"],
        "processes": f"{facts['processes']}, {int(str(facts['memory_bytes'])) >> 20} MiB",
        "restarts": facts["restarts"],
        "provider": facts["provider"] or "unknown",
        "projects": f"{facts['projects']}, {facts['active_projects']} not finished",
        "balance": f"{facts['balance_credits']} credits, {facts['held_credits']} held",
    }
    if facts["detail"]:
        lines["detail"] = facts["detail"]
    for name, value in lines.items():
        console.print(f"{name:<10} {escape(str(value))}", highlight=False, soft_wrap=True)


def _warnings(settings: Settings) -> Iterator[str]:
    """What is missing for a build; the service starts without it, and refuses builds saying the same."""
    from runtime.implementer.sandbox import Sandbox

    try:
        asyncio.run(Sandbox().probe())
    except SandboxUnavailableError as error:
        yield str(error)
    if not settings.aider_python.exists():
        yield f"Aider is not installed (no {settings.aider_python}): builds are refused. Run `make setup`."


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
