"""A model provider by somebody else: npm's `@copilotkit/aimock`, which speaks the wires of all three services.

Our own simulator may agree with us about a wire only because one hand wrote both.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cluster.ports import free_ports

VERSION = "1.43.0"
_START_S_MAX = 120.0


def missing_programs() -> str:
    """What has to be there to install and run it; empty when it is."""
    return ", ".join(name for name in ("node", "npm") if shutil.which(name) is None)


@contextmanager
def aimock(folder: Path, fixtures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Its URL. `folder` gets its fixtures and its log."""
    command_file = _installed() / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    fixtures_file = folder / "fixtures.json"
    fixtures_file.write_text(json.dumps({"fixtures": list(fixtures)}))
    (port,) = free_ports(1)
    with (folder / "aimock.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "node", command_file, "-p", str(port), "-h", "127.0.0.1", "-f", str(fixtures_file), "--strict",
                "--chunk-size", "6",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, process, folder / "aimock.log")
        yield url
    finally:
        process.kill()
        process.wait()


def _installed() -> Path:
    """A folder it is installed in, beside what else set-up downloads; installed when it is not there yet."""
    models = os.environ.get("MODEL_CACHE_DIR")
    folder = (Path(models).parent if models else Path(sys.prefix)) / "npm" / f"aimock-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists():
            package = f"@copilotkit/aimock@{VERSION}"
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, package]
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
            assert ran.returncode == 0, f"npm could not install {package}: {ran.stderr[-2000:]}"
            done.touch()
    return folder


def _await(url: str, process: "subprocess.Popen[bytes]", log_file: Path) -> None:
    deadline = time.monotonic() + _START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, timeout=1.0, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"aimock did not start: {log_file.read_text()[-2000:]}")
