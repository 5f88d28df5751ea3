"""Servers by somebody else, to speak with in tests: pinned packages of npm, beside what else set-up downloads.

Our own simulators may agree with us about a wire only because one hand wrote both.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from cluster.ports import free_ports

AIMOCK = "@copilotkit/aimock@1.43.0"
TELEGRAM_TEST_API = "telegram-test-api@4.2.1"
PACKAGES = (AIMOCK, TELEGRAM_TEST_API)
_START_S_MAX = 120.0


def missing_programs() -> str:
    """What has to be there to install and run them; empty when it is."""
    return ", ".join(name for name in ("node", "npm") if shutil.which(name) is None)


def installed(package: str) -> Path:
    """Its folder; it is installed when it is not there yet."""
    name, _, version = package.rpartition("@")
    models = os.environ.get("MODEL_CACHE_DIR")
    root = (Path(models).parent if models else Path(sys.prefix)) / "npm"
    folder = root / f"{name.rpartition('/')[2]}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists():
            command = [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--prefix",
                str(folder),
                package,
            ]
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
            assert ran.returncode == 0, f"npm could not install {package}: {ran.stderr[-2000:]}"
            done.touch()
    return folder / "node_modules" / name


@contextmanager
def node(log_file: Path, *command: str | Path) -> Iterator[str]:
    """A server of Node.js on a free port of loopback, which is its last argument. Its URL, once it answers."""
    (port,) = free_ports(1)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            ["node", *command, str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, process, log_file)
        yield url
    finally:
        process.kill()
        process.wait()


def _await(url: str, process: "subprocess.Popen[bytes]", log_file: Path) -> None:
    deadline = time.monotonic() + _START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, timeout=1.0, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"it did not start: {log_file.read_text()[-2000:]}")


if __name__ == "__main__":
    if missing := missing_programs():
        print(f"{missing} is missing: tests against packages of npm are skipped.", file=sys.stderr)
    else:
        for each in PACKAGES:
            installed(each)
