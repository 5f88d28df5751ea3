"""`masterbuilder demo`: the whole path on this machine, with its own data folder and ports and a simulated provider."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.markup import escape

from cluster.client import Client
from cluster.demo_checks import check_books, check_package
from cluster.demo_folder import DemoFolder
from cluster.environment import clean_environment
from cluster.follow import Story, View, follow
from cluster.instance import Instance
from cluster.launch import down, up
from cluster.ports import free_ports
from cluster.processes import end_all, owned
from cluster.simulator.scenario import SCENARIOS, Scenario, scenario_names
from cluster.simulator_process import SimulatorProcess, simulator_log
from cluster.terminal import FAILED, OK
from cluster.wire import Project
from runtime.config import Secrets, Settings
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.project.schemas import StackReply

_PICTURE_COLUMNS = 104
_STEPS = (
    "start a simulated model provider (no key, no cost, no network)",
    "start Ray with its dashboard, and the services",
    "build the application of the brief while you watch",
    "fetch the ZIP and the receipt, run the delivered tests, compare every figure",
    "stop everything that was started",
)
_DISK_MB = 20
_TIME = "1 to 2 minutes"


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True)
@click.option("--scenario", default="expense_tracker", show_default=True, metavar="NAME", help="What to build.")
@click.option("--keep", is_flag=True, help="Leave it running at the end, until Ctrl-C.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Save what was shown as an SVG file.")
def demo(data_dir: Path, scenario: str, keep: bool, picture: Path | None) -> None:
    """Builds a small real application here, with a simulated provider, and checks what comes out."""
    if scenario not in scenario_names():
        raise click.BadParameter(f"known are {', '.join(scenario_names())}.", param_hint="--scenario")
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(record=True, width=_PICTURE_COLUMNS) if picture else Console()
    context = click.get_current_context()
    try:
        Demo(DemoFolder(data_dir, scenario), Scenario.load(SCENARIOS / scenario), console).run(keep)
    except MasterbuilderError as error:
        console.print(f"[bold red]The demo failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        context.exit(FAILED)
    if picture:
        console.save_svg(str(picture), title="masterbuilder demo")
        click.echo(f"Picture: {picture}")
    context.exit(OK)


class Demo:
    """One run. Everything it starts is stopped when `run` returns, whatever happened."""

    def __init__(self, folder: DemoFolder, scenario: Scenario, console: Console) -> None:
        self._folder = folder
        self._scenario = scenario
        self._console = console
        self._service = Instance(data_dir=folder.data_dir)
        self._simulator = Instance(data_dir=folder.simulator_dir)

    def run(self, keep: bool) -> None:
        """Raises MasterbuilderError when anything is not as it must be."""
        started = time.monotonic()
        self._announce()
        self._stop()
        self._folder.wipe()
        try:
            self._build_and_check()
            if keep:
                self._wait_for_interrupt()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._heading(5)
            self._stop()
        left = [*owned(self._service), *owned(self._simulator)]
        if left:
            raise UnavailableError(f"Processes are left: {', '.join(str(process.pid) for process in left)}.")
        self._say("[green]✓[/] no process is left")
        self._say(f"[bold green]The demo is done[/] after {time.monotonic() - started:.0f} s.")

    def _build_and_check(self) -> None:
        self._heading(1)
        simulator = SimulatorProcess.start(self._simulator, self._folder.usage_file, os.environ)
        self._say(f"  {simulator.base_url}")
        self._heading(2)
        settings, environment = self._configure(simulator.base_url)
        launched = up(settings, environment, lambda text: self._say(f"  [dim]{text}[/]"))
        self._say(f"  API        {launched.record.url}")
        self._say(f"  dashboard  {launched.record.dashboard_url}")
        secrets = Secrets.load(settings.data_dir, environment)
        client = Client(launched.record.url, secrets.admin_token)
        before = client.me()
        self._say(f"  balance    {before.balance_credits} credits, a newcomer's free ones")

        self._heading(3)
        project = self._build(client)

        self._heading(4)
        self._folder.receipt_file.write_text(client.receipt_text(project.id, "text"))
        receipt, after = client.receipt(project.id), client.me()
        for line in check_books(receipt, before.balance_ucredits - after.balance_ucredits, self._folder.usage_file):
            self._say(f"[green]✓[/] {line}")
        client.save_package(project.id, self._folder.zip_file)
        for line in asyncio.run(self._checked_package()):
            self._say(f"[green]✓[/] {line}")
        self._say(f"  ZIP        {self._folder.zip_file}")
        self._say(f"  receipt    {self._folder.receipt_file}")
        usd = Decimal(receipt.total_cost_pusd).scaleb(-12).quantize(Decimal("0.000001"))
        self._say(f"  cost       {receipt.total_credits} credits (USD {usd} at the provider's list price)")

    def _build(self, client: Client) -> Project:
        scenario = self._scenario
        project = client.create(scenario.brief, dict(scenario.answers), None, True, uuid.uuid4().hex)
        view = View(self._console)
        told = follow(client, project.id, view, Story(), agreed_ucredits=None)
        view.leave_bar()
        if told.project.status != "completed":
            reason = told.project.failure_reason or told.project.question or told.project.status
            raise UnavailableError(
                f"The demo's project ended as {told.project.status}: {reason}",
                f"See {self._service.run_dir} and {simulator_log(self._simulator)}.",
            )
        return told.project

    async def _checked_package(self) -> Sequence[str]:
        commands = StackReply.model_validate_json(self._scenario.replies["plan.stack", "project", 1]).commands
        return await check_package(self._folder.zip_file, self._folder.scratch_dir, commands)

    def _configure(self, provider_url: str) -> tuple[Settings, Mapping[str, str]]:
        http_port, dashboard_port = free_ports(2)
        environment = {
            **clean_environment(os.environ),
            "DATA_DIR": str(self._folder.data_dir),
            "HTTP_PORT": str(http_port),
            "DASHBOARD_PORT": str(dashboard_port),
            "OPENAI_API_KEY": f"sim-{uuid.uuid4().hex}",
            "OPENAI_BASE_URL": provider_url,
        }
        return Settings.from_environment(environment), environment

    def _announce(self) -> None:
        self._say("[bold]Masterbuilder demo[/]: from a brief to a tested application, with a receipt")
        for number, step in enumerate(_STEPS, 1):
            self._say(f"  {number} {step}")
        self._say(f"Takes {_TIME}, {_DISK_MB} MB in {self._folder.root}, and no network.")

    def _wait_for_interrupt(self) -> None:
        self._say("[bold]It keeps running.[/] Press Ctrl-C to stop it.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return

    def _stop(self) -> None:
        down(self._service, lambda text: None)
        end_all(self._simulator)

    def _heading(self, number: int) -> None:
        self._say(f"\n[bold]{number} {_STEPS[number - 1]}[/]")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=not self._console.record)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
