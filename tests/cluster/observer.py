"""Looks at a Ray and at ours in it, from inside: `python -m tests.cluster.observer` prints one JSON line a look.

A line `reach` on stdin makes it ask every entity of the chaos plan for a durable turn, and say when the last answered.
It ends with its stdin.
"""

import asyncio
import json
import sys
import time
from typing import Any

import ray

from actors.system import RaySystem
from runtime.testing.probes import Credit, Increment
from tests.chaos.joined import ask_all, connected, join_ray
from tests.chaos.plan import ACCOUNTS, COUNTERS

LOOK_EVERY_S = 0.25


async def _watch(system: RaySystem) -> None:
    while True:
        nodes = await asyncio.to_thread(ray.nodes)
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
        _say(alive={node["NodeManagerAddress"]: node["Alive"] for node in nodes})
        vitals = await system.vitals()
        hosts = [host for host in vitals.hosts if "counter" in host.kinds]
        _say(
            partitions={f"{host.name}#{host.incarnation}": host.partitions for host in hosts},
            places={host.name: addresses.get(host.node, host.node) for host in hosts if host.partitions},
            refused_stale=vitals.store.refused_stale if vitals.store else 0,
            quarantined=[str(each) for host in hosts for each in host.quarantined],
            silent=list(vitals.silent),
        )
        await asyncio.sleep(LOOK_EVERY_S)


async def _reach(system: RaySystem, number: int) -> None:
    """Every entity has a key of its own for it, and an amount that changes nothing."""
    await asyncio.gather(
        ask_all(system, COUNTERS, Increment(key=f"reach-{number}", amount=0)),
        ask_all(system, ACCOUNTS, Credit(key=f"reach-{number}", amount=0)),
    )
    _say(reached=number)


async def _run() -> None:
    system = await connected()
    _say(connected=True)
    tasks = [asyncio.create_task(_watch(system))]
    while line := await asyncio.to_thread(sys.stdin.readline):
        assert line == "reach\n", line
        tasks.append(asyncio.create_task(_reach(system, len(tasks))))
    for task in tasks:
        task.cancel()


def _say(**facts: Any) -> None:
    print(json.dumps({"at": time.time(), **facts}), flush=True)


if __name__ == "__main__":
    join_ray()
    asyncio.run(_run())
