"""Commands that start, stop and look at the service itself."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.markup import escape

from cluster import doctor as doctors
from cluster import status as statuses
from cluster import status_screen
from cluster.client import Client
from cluster.launch import down as stop_service
from cluster.launch import running
from cluster.launch import up as start_service
from cluster.ports import free_ports, is_free
from cluster.project_commands import json_option, resolved_project
from cluster.status import ServiceStatus
from cluster.steering_commands import show_project
from cluster.terminal import FAILED, OK, UNAVAILABLE, Terminal, pass_terminal, print_json
from cluster.wire import Health
from runtime.catalogue.endpoints import no_provider
from runtime.config import Settings
from runtime.errors import BadInputError, EngineUnavailableError, SandboxUnavailableError
from runtime.project.schemas import SCHEMAS

_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "broken": "[red]✗[/]"}


@click.command()
@json_option
@pass_terminal
def up(terminal: Terminal, as_json: bool) -> None:
    """Starts the service and leaves a supervisor that keeps it running."""
    started = time.monotonic()
    tell = (lambda text: None) if as_json else click.echo
    launched = start_service(terminal.settings, terminal.environment, tell)
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
    tell = (lambda text: None) if as_json else click.echo
    killed = stop_service(terminal.instance, tell)
    if as_json:
        print_json({"was_running": was_running, "killed": killed})
    else:
        click.echo("Down." if was_running or killed else "It was not running.")


@click.command()
@click.argument("project_id", metavar="[PROJECT]", required=False)
@click.option("--watch", "watching", is_flag=True, help="Refresh it every second, with rates, until Ctrl-C.")
@json_option
@pass_terminal
def status(terminal: Terminal, project_id: str | None, watching: bool, as_json: bool) -> None:
    """Shows on one screen whether the service runs, where, and what every part of it does.

    With PROJECT (an id, or `last`), how that project stands instead: what each worker does, credits, what it asks.
    Exit status 4 when the service does not run.
    """
    if project_id is not None:
        show_project(terminal, resolved_project(terminal, project_id), as_json)
        return
    if watching and as_json:
        raise BadInputError("--watch is a screen and --json is printed once.", "Choose one of them.")

    def take() -> ServiceStatus:
        return statuses.take(terminal.instance, terminal.client)

    if watching:
        last = status_screen.watch(terminal.console, take)
        click.get_current_context().exit(OK if last is None or last.healthy else UNAVAILABLE)
    now = take()
    if as_json:
        print_json(now.facts())
    else:
        status_screen.show(terminal.console, now)
    click.get_current_context().exit(OK if now.healthy else UNAVAILABLE)


@click.command()
@json_option
@pass_terminal
def doctor(terminal: Terminal, as_json: bool) -> None:
    """Checks everything the service needs; each line says what is wrong and how to mend it."""
    checks = []
    for check in doctors.examine(terminal.settings, terminal.client, terminal.keeper):
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
@click.option("--webhook-url", help="Also play a payment page (/pay), and confirm what is paid there to this address.")
@pass_terminal
def simulate(
    terminal: Terminal, host: str, port: int, usage_file: Path | None, latency_ms: int, webhook_url: str | None
) -> None:
    """Runs a model provider that costs nothing and plays written scenarios. Stop it with Ctrl-C."""
    from cluster.simulator.payments import payment_setup
    from cluster.simulator.scenario import SCENARIOS, scenario_names
    from cluster.simulator.server import run

    payments = payment_setup(webhook_url, terminal.environment)
    port = port or free_ports(1)[0]
    if not is_free(host, port):
        raise BadInputError(f"Port {port} of {host} is in use.", "Choose another --port; 0 picks a free one.")
    path = usage_file or terminal.settings.data_dir / "simulator-usage.jsonl"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    click.echo(f"Served calls are counted in {path}. In another terminal:")
    click.echo(f"  export OPENAI_API_KEY=sim-local OPENAI_BASE_URL=http://{host}:{port}/v1")
    click.echo(f"  export ANTHROPIC_API_KEY=sim-local ANTHROPIC_BASE_URL=http://{host}:{port}")
    click.echo(f"  export GEMINI_API_KEY=sim-local GEMINI_BASE_URL=http://{host}:{port}")
    if payments is not None:
        click.echo(f"  its payment page is http://{host}:{port}/pay")
    click.echo("  masterbuilder up")
    click.echo(f"It plays the briefs of {', '.join(scenario_names())} (each a folder of {SCENARIOS}).")
    run(host, port, path, latency_ms, payments)


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


def _warnings(settings: Settings) -> Iterator[str]:
    """What is missing for a build; the service starts without it, and refuses builds saying the same."""
    from runtime.implementer.engines import check_edit_engine
    from runtime.implementer.sandbox import Sandbox

    try:
        asyncio.run(Sandbox().probe())
    except SandboxUnavailableError as error:
        yield str(error)
    try:
        check_edit_engine(settings)
    except EngineUnavailableError as error:
        yield f"Builds are refused: {error}"
