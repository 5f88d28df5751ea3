"""Executes the commands of a README as a person would: one after another, at one shell, from the project's folder.

What a command exports and where it changes to holds for those after it. A server is left running, as in a terminal of
its own, and the commands after it can ask it.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.project.probe.listening import listening
from runtime.project.probe.processes import Running

COMMAND_S_MAX = 90.0
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

    def __init__(self, state: Path, *, command_s: float, output_characters: int) -> None:
        self._state = state
        self._command_s = command_s
        self._output_characters = output_characters
        self._servers: list[Running] = []

    def type(self, command: str) -> dict[str, Any]:
        """How it went. One that fails beside servers is tried once more without them: they may hold what it needs."""
        told = self._run(command)
        if not told["passed"] and self._servers:
            self.stop_servers()
            told = self._run(command)
        return told

    def stop_servers(self) -> None:
        for server in self._servers:
            server.end()
        self._servers.clear()

    def _run(self, command: str) -> dict[str, Any]:
        already = listening()
        started_s = time.monotonic()
        running = Running(_AS_TYPED, [str(self._state), command])
        serves = timed_out = False
        while running.exit_status is None and not serves and not timed_out:
            time.sleep(_LOOK_EVERY_S)
            timed_out = time.monotonic() > started_s + self._command_s
            serves = bool(listening() - already)
        status = running.exit_status
        if status is None and serves:
            self._servers.append(running)
        elif status is None:
            running.end()
        return {
            "command": command,
            "exit_status": status,
            "serves": serves and status is None,
            "timed_out": timed_out and not serves,
            "passed": status == 0 or (status is None and serves),
            "duration_s": round(time.monotonic() - started_s, 3),
            "output": running.output(self._output_characters),
        }


def execute(commands: Sequence[str], *, total_s: float, command_s: float = COMMAND_S_MAX) -> list[dict[str, Any]]:
    """One JSON object a command, past failed ones. None is begun after `total_s`."""
    end_s = time.monotonic() + total_s
    told: list[dict[str, Any]] = []
    characters = max(200, ALL_OUTPUT_CHARACTERS_MAX // max(1, len(commands)))
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        shell = Shell(Path(folder), command_s=command_s, output_characters=characters)
        (Path(folder) / "folder").write_text(home)
        try:
            for command in commands:
                if time.monotonic() > end_s:
                    break
                told.append(shell.type(command))
        finally:
            shell.stop_servers()
    return told
