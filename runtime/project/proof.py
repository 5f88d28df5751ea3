"""What is asked of the probe in the sandbox, and what its answers come to. The probe itself is `probe/`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runtime.implementer.work import CheckReport, CheckWork, CommandResult, Limits
from runtime.project.probe.browser import PROGRAMS
from runtime.project.probe.starting import ANSWERS_S_MAX, STARTS_S_MAX
from runtime.project.tree import Tree

SCREENSHOT = "docs/screenshots/home.png"
"""Where the picture is in the tree, in the sandbox and in the delivery."""
README_S_MAX = 420.0
SERVES = "\n[it serves, and was left running]"
"""Ends the output of a README's command that is a server."""
_LIMITS = Limits(wall_s=120.0, memory_bytes=2 << 30, process_count=512, output_bytes=512 << 10)
_ROOT = "/opt/masterbuilder"
_PACKAGE = f"{_ROOT}/runtime/project/probe"
_PROBE = (
    f"python3 -I -c \"import sys; sys.path.insert(0, '{_ROOT}'); from runtime.project.probe.main import main; main()\""
)
_PNG = b"\x89PNG\r\n\x1a\n"
_OUTPUT_CHARACTERS_SHOWN = 1_500


class Started(BaseModel):
    """How the product started. `findings` is what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["command", "server", "site"]
    exit_status: int | None = None
    """None: it still ran when it was looked at."""
    address: str = ""
    http_status: int | None = None
    title: str = ""
    findings: list[str] = []
    no_picture: str = ""
    """Why there is a page and no picture of it."""
    not_loaded: list[str] = []
    output: str = ""


class Executed(BaseModel):
    """One command of the README. `serves`: it is a server, and was left running."""

    model_config = ConfigDict(frozen=True)

    command: str
    exit_status: int | None
    serves: bool
    timed_out: bool
    passed: bool
    duration_s: float = Field(ge=0)
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A report with the start as its last result. `started` is None when it did not come to that."""

    report: CheckReport
    started: Started | None = None
    screenshot: bytes | None = None


def start_work(
    tree: Tree,
    commands: Sequence[str],
    run: str,
    *,
    starts_s: float = STARTS_S_MAX,
    answers_s: float = ANSWERS_S_MAX,
    browsers: Sequence[str] = PROGRAMS,
) -> CheckWork:
    """Runs the commands, then starts the product."""
    order = {
        "do": "start",
        "command": run,
        "screenshot": SCREENSHOT,
        "starts_s": starts_s,
        "answers_s": answers_s,
        "browsers": list(browsers),
    }
    return CheckWork(
        tree=tree,
        commands=[*commands, _PROBE],
        limits=_LIMITS,
        tools=_tools(order),
        artifacts=[SCREENSHOT],
    )


def proof_of(report: CheckReport, run: str) -> Proof:
    """What came of a `start_work`."""
    if not report.results or report.results[-1].command != _PROBE:
        return Proof(report=report)
    last = report.results[-1]
    started = _parsed(TypeAdapter(Started), last)
    if started is None:
        told = replace(last, command=f"start: {run}", exit_status=last.exit_status or 1)
        return Proof(report=CheckReport(results=[*report.results[:-1], told]))
    told = replace(
        last, command=f"start: {run}", exit_status=1 if started.findings else 0, output=started_text(started)
    )
    picture = report.artifacts.get(SCREENSHOT, b"")
    return Proof(
        report=CheckReport(results=[*report.results[:-1], told]),
        started=started,
        screenshot=picture if picture.startswith(_PNG) else None,
    )


def readme_work(tree: Tree, commands: Sequence[str]) -> CheckWork:
    order = {"do": "readme", "commands": list(commands), "total_s": README_S_MAX}
    limits = replace(_LIMITS, wall_s=README_S_MAX + 120.0)
    return CheckWork(tree=tree, commands=[_PROBE], limits=limits, tools=_tools(order))


def readme_report(report: CheckReport, commands: Sequence[str]) -> CheckReport:
    """A result for each command of a `readme_work`; those that were not begun have timed out."""
    (last,) = report.results
    executed = _parsed(TypeAdapter(list[Executed]), last)
    if executed is None:
        failed = replace(last, command="the README's commands", exit_status=last.exit_status or 1)
        return replace(report, results=[failed])
    results = [_result(each) for each in executed]
    text = f"not begun: all commands together had {README_S_MAX:g} s"
    late = [
        CommandResult(command=command, exit_status=124, duration_s=0.0, output=text, timed_out=True)
        for command in commands[len(results) :]
    ]
    return replace(report, results=[*results, *late])


def started_text(started: Started) -> str:
    """For people and models; the same start reads the same."""
    lines = [_how(started)]
    lines += [f"No picture was taken: {started.no_picture}."] if started.no_picture else []
    lines += [f"Not loaded, because there is no network here: {each}" for each in started.not_loaded]
    lines += [f"Wrong: {each}." for each in started.findings]
    output = started.output.strip()[-_OUTPUT_CHARACTERS_SHOWN:]
    # What a server that works has printed is mostly when it was asked.
    shows = output and (started.findings or started.kind != "server")
    return "\n".join([*lines, output] if shows else lines)


def _how(started: Started) -> str:
    title = f", titled {started.title!r}" if started.title else ""
    match started.kind:
        case "server":
            answered = f"answers GET / with {started.http_status}{title}" if started.http_status else "does not answer"
            return f"A server: it listens on {started.address or 'a port'} and {answered}."
        case "site":
            return f"A site: {started.address} opens in a browser{title}."
        case "command":
            ended = "still runs" if started.exit_status is None else f"ended with status {started.exit_status}"
            return f"A program: it {ended}."


def _result(executed: Executed) -> CommandResult:
    failed = executed.exit_status or (124 if executed.timed_out else 1)
    return CommandResult(
        command=executed.command,
        exit_status=0 if executed.passed else failed,
        duration_s=executed.duration_s,
        output=executed.output + (SERVES if executed.serves else ""),
        timed_out=executed.timed_out,
    )


def _parsed(shape: TypeAdapter[Any], result: CommandResult) -> Any:
    """None when the probe did not get to its answer. What it tells of the product is untrusted."""
    if not result.passed or not result.output.strip():
        return None
    try:
        return shape.validate_json(result.output.strip().splitlines()[-1])
    except ValidationError:
        return None


def _tools(order: Mapping[str, Any]) -> dict[str, bytes]:
    sources = Path(__file__).with_name("probe").glob("*.py")
    files = {f"{_PACKAGE}/{source.name}": source.read_bytes() for source in sources}
    return {**files, f"{_PACKAGE}/order.json": json.dumps(order).encode()}
