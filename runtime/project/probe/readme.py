"""Executes the commands of a README as a person would: one after another, at one shell, from the project's folder.

What a command exports and where it changes to holds for those after it. A server is left running, as in a terminal of
its own, and the commands after it can ask it.
"""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.project.probe.listening import Address, listening
from runtime.project.probe.processes import Running

COMMAND_S_MAX = 90.0
SERVES_S = 3.0
"""Who still runs and has listened on one address for so long is a server; tests open and close theirs sooner."""
ALL_OUTPUT_CHARACTERS_MAX = 40_000
_LOOK_EVERY_S = 0.05
_AS_TYPED = """
state=$1
[ ! -f "$state/exported" ] || . "$state/exported"
[ ! -f "$state/folder" ] || cd "$(cat "$state/folder")"
trap 'export -p > "$state/exported"; pwd > "$state/folder"' EXIT
eval "$2"
"""


class Shell:
    """What one command leaves behind for the next."""

    def __init__(self, state: Path, *, output_characters: int) -> None:
        self._state = state
        self._output_characters = output_characters
        self._left_running: list[tuple[Running, dict[str, Any]]] = []

    def type(self, command: str, command_s: float) -> dict[str, Any]:
        """How it went. One that fails beside servers is tried once more without them: they may hold what it needs."""
        told = self._run(command, command_s)
        if not told["passed"] and self._left_running:
            self.stop_servers()
            told = self._run(command, command_s)
        return told

    def stop_servers(self) -> None:
        """One that ended badly meanwhile was no server, but a command that failed: what was told of it is corrected."""
        for running, told in self._left_running:
            if running.exit_status:
                told |= {
                    "exit_status": running.exit_status,
                    "serves": False,
                    "passed": False,
                    "output": running.output(self._output_characters),
                }
            running.end()
        self._left_running.clear()

    def _run(self, command: str, command_s: float) -> dict[str, Any]:
        already = listening()
        since: dict[Address, float] = {}
        started_s = now_s = time.monotonic()
        in_background = command.rstrip().endswith("&")
        running = Running(_AS_TYPED, [str(self._state), command])
        serves = False
        while not serves and now_s < started_s + command_s and _is_awaited(running, in_background, since):
            time.sleep(_LOOK_EVERY_S)
            now_s = time.monotonic()
            since = {address: since.get(address, now_s) for address in listening() - already}
            serves = any(now_s - start_s >= SERVES_S for start_s in since.values())
            if in_background and now_s > started_s + SERVES_S:
                break
        status = running.exit_status
        told = {
            "command": command,
            "exit_status": status,
            "serves": serves and status is None,
            "timed_out": status is None and not serves,
            "passed": status == 0 or (status is None and serves),
            "duration_s": round(time.monotonic() - started_s, 3),
            "output": running.output(self._output_characters),
        }
        if told["serves"] or in_background:
            self._left_running.append((running, told))
        elif status is None:
            running.end()
        return told


def _is_awaited(running: Running, in_background: bool, listens: Mapping[Address, float]) -> bool:
    """A command in the background is awaited until it listens, for it is asked next."""
    return not listens if in_background else running.exit_status is None


def execute(commands: Sequence[str], *, total_s: float, command_s: float = COMMAND_S_MAX) -> list[dict[str, Any]]:
    """One JSON object a command, past failed ones. None is begun after `total_s`, or runs on."""
    end_s = time.monotonic() + total_s
    told: list[dict[str, Any]] = []
    characters = max(200, ALL_OUTPUT_CHARACTERS_MAX // max(1, len(commands)))
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        shell = Shell(Path(folder), output_characters=characters)
        (Path(folder) / "folder").write_text(home)
        try:
            for command in commands:
                left_s = end_s - time.monotonic()
                if left_s < 0:
                    break
                told.append(shell.type(command, min(command_s, left_s)))
        finally:
            shell.stop_servers()
    return told
