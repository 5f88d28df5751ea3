"""Commands as a person at a shell would start them, with an end that is certain."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_SHELL = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
_ENDS_S_MAX = 2.0
_LOOK_EVERY_S = 0.01
_NOT_TEXT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Running:
    """One shell command in a session of its own. What it prints goes to a file, so that it never waits for us."""

    def __init__(self, script: str, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the command
        self._process = subprocess.Popen(
            [_SHELL, "-c", script, _SHELL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )

    @property
    def exit_status(self) -> int | None:
        """None while it runs; 128 + n for signal n."""
        status = self._process.poll()
        return 128 - status if status is not None and status < 0 else status

    def output(self, characters_max: int) -> str:
        """The end of what was printed so far, without colours and control characters."""
        size = os.fstat(self._printed.fileno()).st_size
        raw = os.pread(self._printed.fileno(), 4 * characters_max, max(0, size - 4 * characters_max))
        return _NOT_TEXT.sub("", raw.decode(errors="replace"))[-characters_max:]

    def end(self) -> None:
        """Ends it and what it started, and waits until no port of theirs is taken any more."""
        deadline_s = time.monotonic() + _ENDS_S_MAX
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline_s:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.poll()
                time.sleep(_LOOK_EVERY_S)
        self._process.wait()
