"""Runs a program that may take only so long and write only so much. What it is, is the caller's to answer for."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TOO_LARGE, TOO_LONG = -1_000, -1_001
"""Beside exit statuses, which are 0 to 255, and signals, which are -64 to -1."""
_LOOK_S = 0.2
_OUTPUT_BYTES_MAX = 64 << 10


async def run_watched(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    watched: Path,
    bytes_max: int,
    files_max: int,
    file_bytes_max: int,
    wall_s: float,
) -> tuple[int, str]:
    """The exit status, or TOO_LARGE or TOO_LONG; and the last of what was printed, errors included.

    `watched` is the folder that it fills; what it holds is looked at several times a second. What it writes into one
    file between two looks is bounded by `file_bytes_max`: writing more fails. Nothing of the program runs any more when
    this returns, or is cancelled.
    """
    bounded = ["prlimit", f"--fsize={file_bytes_max}", "--core=0", "--", "setpriv", "--pdeathsig=KILL", "--"]
    process = await asyncio.create_subprocess_exec(
        *bounded, *command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=cwd, env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    reading = asyncio.create_task(_tail(process.stdout))
    ending = asyncio.create_task(process.wait())
    until = time.monotonic() + wall_s
    verdict = 0
    try:
        while not ending.done():
            await asyncio.wait([ending], timeout=_LOOK_S)
            size, count = await asyncio.to_thread(_taken, watched)
            if size > bytes_max or count > files_max:
                verdict = TOO_LARGE
            elif time.monotonic() > until:
                verdict = TOO_LONG
            if verdict:
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said = await reading
        status = await ending
    return verdict or status, said


def _taken(folder: Path) -> tuple[int, int]:
    """Bytes and files under a folder that is being written to."""
    size = count = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(path, name)).st_size
                count += 1
    return size, count


async def _tail(stream: asyncio.StreamReader) -> str:
    kept = b""
    while chunk := await stream.read(_OUTPUT_BYTES_MAX):
        kept = (kept + chunk)[-_OUTPUT_BYTES_MAX:]
    return kept.decode(errors="replace")
