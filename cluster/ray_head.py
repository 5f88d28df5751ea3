"""Ray's head node as a child process."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cluster.instance import Instance
from cluster.ports import free_ports
from runtime.config import Settings
from runtime.implementer.scratch import remove_tree_now

_STOP_S = 8.0
_OBJECT_STORE_BYTES = 256 << 20
_CPU_COUNT_MIN = 8
"""Logical CPUs: Ray places actors by them, so a small machine needs enough of them to place the whole service."""


class RayHead:
    """One `ray start --head --block`. Everything it opens is bound to the loopback interface."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, temp_dir: Path) -> None:
        self._process = process
        self.address = address
        self.temp_dir = temp_dir

    @classmethod
    async def start(
        cls, instance: Instance, settings: Settings, temp_dir: Path, environment: Mapping[str, str]
    ) -> "RayHead":
        """Starts it and returns before it answers. Its output goes to `<data_dir>/run/ray.log`."""
        gcs, client, agent, agent_grpc, metrics, runtime_env, scaler_metrics, dashboard_metrics = free_ports(8)
        ports = {"AUTOSCALER_METRIC_PORT": str(scaler_metrics), "DASHBOARD_METRIC_PORT": str(dashboard_metrics)}
        with instance.ray_log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
                "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--port={gcs}",
                f"--dashboard-port={settings.dashboard_port}", f"--ray-client-server-port={client}",
                f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
                f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}",
                "--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={temp_dir}",
                f"--num-cpus={max(os.cpu_count() or 1, _CPU_COUNT_MIN)}",
                f"--object-store-memory={_OBJECT_STORE_BYTES}",
                "--log-style=record", "--log-color=false",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**environment, **ports}, cwd=temp_dir,
                start_new_session=True,
            )  # fmt: skip
        return cls(process, f"127.0.0.1:{gcs}", temp_dir)

    async def ended(self) -> int:
        """Returns the exit status once Ray has ended: `--block` ends when any of its processes does."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks Ray to end and waits a little. What does not end is left to `processes.end_all`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _STOP_S)


def make_temp_dir(instance: Instance) -> Path:
    """A new folder for one start of Ray, for this user only."""
    return Path(tempfile.mkdtemp(prefix=Path(instance.temp_prefix).name, dir=Path(instance.temp_prefix).parent))


def remove_temp_dirs(instance: Instance) -> None:
    """Removes what earlier starts left; the last one's logs stay in `<data_dir>/run/ray-logs`."""
    prefix = Path(instance.temp_prefix)
    for folder in sorted(prefix.parent.glob(f"{prefix.name}*"), key=_modified_at):
        logs = folder / "session_latest" / "logs"
        if logs.is_dir():
            shutil.rmtree(instance.run_dir / "ray-logs", ignore_errors=True)
            shutil.copytree(logs, instance.run_dir / "ray-logs", symlinks=True, ignore_dangling_symlinks=True)
        remove_tree_now(folder)  # Generated code may have written in it.


def _modified_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
