"""The network parts a host from the rest: another takes its place, and the cut-off copy goes on as if nothing were."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runtime.config import Secrets, Settings
from runtime.entity.host import Host
from runtime.errors import MovedError, UnavailableError
from runtime.ids import PARTITION_COUNT, EntityId
from runtime.store.store import Store
from runtime.testing.probes import Counter, Increment, counter_entity
from tests.chaos import diary, verdict
from tests.cluster.loads import drain, read_all, start_load, wait_until_answered
from tests.cluster.nodes import HEAD, QUICK_DETECTION, WORKER, two_nodes
from tests.cluster.seen import Seen, is_on_both

HERE, THERE = 1, 2
"""The seeds of the two loads: one beside the ledger, one beside the host that is cut off."""
WARM = 300


def test_cut_off_host__is_refused_counted_and_logged_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with two_nodes(tmp_path, **QUICK_DETECTION) as nodes:
        # given two nodes with a host each, and callers beside both; the ledger lives on the first
        nodes.start_head()
        seen = Seen(nodes.run_python(HEAD, "-m", "tests.cluster.observer"))
        seen.wait_for(
            "the service runs on the first node", "partitions", lambda hosts: sum(hosts.values()) == PARTITION_COUNT, 60
        )
        nodes.start_worker()
        shared = seen.wait_for("both nodes have partitions", "places", is_on_both, 60)["partitions"]
        diaries = {HERE: tmp_path / "here", THERE: tmp_path / "there"}
        loads = {
            HERE: start_load(nodes, HEAD, diaries[HERE], HERE),
            THERE: start_load(nodes, WORKER, diaries[THERE], THERE),
        }
        wait_until_answered(diaries.values(), WARM)
        refused_before = seen.last("refused_stale")

        # when the cable is out until another host has everything, and in again before the copy knows
        cut_at = time.time()
        nodes.cut()
        dead = seen.wait_for("Ray calls the node dead", "alive", lambda alive: not alive[WORKER], 120, cut_at)
        moved = seen.wait_for("everything has an owner again", "partitions", _is_whole_without(shared), 120, dead["at"])
        assert nodes.signal(WORKER, signal.SIGSTOP, named="raylet/raylet") == 1, (
            "it would end the copy as soon as it hears"
        )
        nodes.heal()

        # then the copy's appends are refused, counted and logged
        seen.wait_for("the copy is refused", "refused_stale", lambda now: now > refused_before, 120, moved["at"])
        assert "newer owner" in nodes.logs()

        # and whoever asked the copy finds the new owner; every message counts once
        nodes.signal(WORKER, signal.SIGKILL)
        drain(loads[HERE])
        drain(start_load(nodes, HEAD, diaries[THERE], THERE))
        told = {seed: diary.read(path) for seed, path in diaries.items()}
        readings = read_all(nodes, diaries)
        assert list(verdict.messages(told, readings)) == []
        assert seen.last("quarantined") == []


def _is_whole_without(before: Mapping[str, int]) -> Callable[[Mapping[str, int]], bool]:
    """Every partition has an owner, and the owners are not the same processes as before."""
    return lambda now: sum(now.values()) == PARTITION_COUNT and now.keys() != before.keys()


async def test_two_hosts_over_one_store__only_the_newest_owner_is_believed(tmp_path: Path) -> None:
    # given a host with entities in memory
    settings = Settings(data_dir=tmp_path)
    store = Store(settings, Secrets.load(tmp_path, {}))
    await store.open()
    busy = [counter_entity(f"busy-{number}") for number in range(20)]
    quiet = [counter_entity(f"quiet-{number}") for number in range(5)]
    stale, newer = _host(store, "old"), _host(store, "new")
    await stale.acquire_all()
    for name in (*busy, *quiet):
        assert await stale.ask(name, Increment(key="first")) == 1
    accepted = dict.fromkeys((*busy, *quiet), 1)

    # when another takes everything, while the first goes on writing without a pause
    is_writing = asyncio.Event()

    async def go_on(name: EntityId) -> None:
        for number in range(100):
            try:
                await stale.ask(name, Increment(key=f"stale-{number}"), timeout_s=5.0)
            except UnavailableError:
                return
            accepted[name] += 1
            is_writing.set()

    writing = asyncio.gather(*(go_on(name) for name in busy))
    await is_writing.wait()
    await newer.acquire_all()

    # then it is refused, also where nobody else has written since, and the refusals are counted
    for name in quiet:
        with pytest.raises(MovedError):
            await stale.ask(name, Increment(key="late"))
    await writing
    assert (await store.vitals()).refused_stale >= len(quiet)
    assert stale.vitals().stale >= len(quiet)

    # and what it was granted before counts, once
    for name, count in accepted.items():
        assert await newer.ask(name, Increment(key="second")) == count + 1
    assert await store.check() == []
    await asyncio.gather(stale.stop(), newer.stop())
    await store.close()


def _host(store: Store, incarnation: str) -> Host:
    factories = {"counter": lambda entity: Counter()}
    return Host(name="host-0", incarnation=incarnation, journal=store.journal, factories=factories)
