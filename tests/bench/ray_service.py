"""A small Ray of one's own on the loopback, and the product's actors in it over a data folder."""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import ray

from actors.handles import NAMESPACE
from actors.system import RaySystem, connect
from cluster.environment import ray_client_environment
from cluster.instance import MARK, Instance
from cluster.processes import end_all
from runtime.config import Secrets, Settings
from runtime.entity.vitals import HostVitals, StoreVitals
from runtime.errors import UnavailableError

ROOT = Path(__file__).parents[2]
CPU_COUNT = 8
"""Logical: Ray places actors by them."""
OBJECT_STORE_BYTES = 150 << 20
START_S_MAX = 60.0


def run_alone(module: str, arguments: Sequence[str]) -> int:
    """Runs `module` in a process of its own, with `--folder` before the arguments, and returns its status.

    Whatever it starts and writes is gone afterwards, even if it was killed. Ray reads its
    authentication when it is imported: hence the process.
    """
    folder = Path(tempfile.mkdtemp(prefix="mb-bench-"))
    instance = Instance(data_dir=folder)
    ray_dir = Path(tempfile.mkdtemp(prefix=Path(instance.temp_prefix).name, dir="/tmp"))
    ours = ray_client_environment(Secrets.load(folder, {}), "")
    del ours["RAY_ADDRESS"]
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    named = {MARK: instance.id, "RAY_TMPDIR": str(ray_dir), "TMPDIR": str(ray_dir), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, "--folder", str(folder), *arguments]
    try:
        with subprocess.Popen(
            command, env={**kept, **ours, **named}, cwd=ray_dir, stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout or ():
                # What Ray has to say of its workers is no figure.
                print(line, end="", file=sys.stdout if line.startswith("{") else sys.stderr, flush=True)
        return process.returncode
    finally:
        end_all(instance)
        for made in (folder, ray_dir):
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def small_ray() -> Iterator[None]:
    """In the process that `run_alone` made."""
    ray.init(
        address="local",
        namespace=NAMESPACE,
        num_cpus=CPU_COUNT,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[RaySystem]:
    """The actors, made; at the end all are killed and gone, so that the next may have their names and their files."""
    try:
        system = await connect(settings)
        await host_of(system)
        yield system
    finally:
        await _forget_actors()


async def host_of(system: RaySystem) -> HostVitals:
    """The host of the counters, once it answers."""
    return (await _vitals(system))[0]


async def store_of(system: RaySystem) -> StoreVitals:
    return (await _vitals(system))[1]


async def _vitals(system: RaySystem) -> tuple[HostVitals, StoreVitals]:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        vitals = await system.vitals()
        hosts = [host for host in vitals.hosts if "counter" in host.kinds and host.partitions]
        if hosts and vitals.store:
            return hosts[0], vitals.store
        await asyncio.sleep(0.1)
    raise UnavailableError("No host came up.", "Look into Ray's logs.")


async def _forget_actors() -> None:
    while names := ray.util.list_named_actors(all_namespaces=True):
        for entry in names:
            try:
                ray.kill(ray.get_actor(entry["name"], entry["namespace"]))
            except ValueError:
                continue
        await asyncio.sleep(0.2)
