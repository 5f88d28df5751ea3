"""Two real Ray nodes on this machine, each in a network namespace of its own, and the cable between them.

Needs root and iproute2. Nothing of it listens outside the namespaces, which have no way out.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

HEAD, WORKER = "10.77.0.1", "10.77.0.2"
PORT = 6400
ADDRESS = f"{HEAD}:{PORT}"
ROOT = Path(__file__).parent.parent.parent

QUICK_DETECTION = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray calls a node that cannot be reached dead after 6.5 s, instead of 65 s."""
_START_S_MAX = 60.0


class Nodes:
    """Made by `two_nodes`. Everything that runs in the namespaces ends with it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        mark = secrets.token_hex(3)
        self._names = {HEAD: f"mb-{mark}-a", WORKER: f"mb-{mark}-b"}
        self._devices = {HEAD: f"mb{mark}a", WORKER: f"mb{mark}b"}
        # Short, because Ray's Unix sockets in it may have 107 bytes of path.
        self.temp_dir = Path(f"/tmp/mb-nodes-{mark}")
        self.data_dir = folder / "data"
        self.environment = {
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": ADDRESS,
            "PYTHONPATH": str(ROOT),
            "DATA_DIR": str(self.data_dir),
            "PROBE_ENTITIES": "true",
        }

    def open(self) -> None:
        """Raises CalledProcessError where the kernel does not let us have namespaces."""
        for name in self._names.values():
            _ip("netns", "add", name)
        head, worker = self._names[HEAD], self._names[WORKER]
        _ip(
            "link",
            "add",
            self._devices[HEAD],
            "netns",
            head,
            "type",
            "veth",
            "peer",
            self._devices[WORKER],
            "netns",
            worker,
        )
        for address, name in self._names.items():
            _ip("-n", name, "address", "add", f"{address}/24", "dev", self._devices[address])
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", self._devices[address], "up")

    def start_head(self) -> None:
        self._ray(HEAD, "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self.temp_dir}")

    def start_worker(self) -> None:
        self._ray(WORKER, f"--address={ADDRESS}")

    def cut(self) -> None:
        """Takes the cable out: packets are lost both ways, and nobody is told."""
        _ip("-n", self._names[HEAD], "link", "set", self._devices[HEAD], "down")

    def heal(self) -> None:
        _ip("-n", self._names[HEAD], "link", "set", self._devices[HEAD], "up")

    def run_python(self, address: str, *arguments: str) -> "subprocess.Popen[str]":
        """A Python on that node, with our code, the settings, and what it needs to join this Ray."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self._names[address], sys.executable, *arguments],
            env=self.environment, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def pids(self, address: str) -> list[int]:
        """Of every process on that node."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self._names[address]], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def signal(self, address: str, number: signal.Signals, named: str = "") -> int:
        """To every process on that node whose command line has `named`. Returns how many there were."""
        count = 0
        for pid in self.pids(address):
            with contextlib.suppress(OSError):
                if named in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, number)
                    count += 1
        return count

    def logs(self) -> str:
        """All that Ray's processes of both nodes have written."""
        files = sorted((self.temp_dir / "session_latest" / "logs").glob("*"))
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())

    def close(self) -> None:
        deadline = time.monotonic() + 20.0
        while any(self.signal(address, signal.SIGKILL) for address in self._names) and time.monotonic() < deadline:
            time.sleep(0.1)
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _ray(self, address: str, *arguments: str) -> None:
        subprocess.run(
            ["ip", "netns", "exec", self._names[address], sys.executable, "-m", "ray.scripts.scripts", "start",
             f"--node-ip-address={address}", "--num-cpus=8", "--object-store-memory=100000000", *arguments],
            env={name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"},
            cwd=ROOT, timeout=_START_S_MAX, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip


@contextlib.contextmanager
def two_nodes(folder: Path, **variables: str) -> Iterator[Nodes]:
    """Skips the test, with the reason, where there can be no network namespaces."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the command `ip`: apt-get install iproute2")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    nodes = Nodes(folder, {**kept, **variables})
    try:
        try:
            nodes.open()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield nodes
    finally:
        nodes.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
