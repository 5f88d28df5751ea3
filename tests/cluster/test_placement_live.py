"""Entities in a real Ray: spread over hosts, found again wherever they go, every message counted exactly once."""

import asyncio
import itertools
import logging
import os
import secrets
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import ray_constants

from actors.entities import EntitiesHandle
from actors.handles import NAMESPACE, ROUTER, find, kill
from actors.router import RouterActor, RouterVitals, ensure_router
from actors.system import RaySystem, connect
from runtime.config import Settings
from runtime.entity.vitals import HostVitals, SystemVitals
from runtime.errors import QuarantinedError, UnavailableError
from runtime.ids import PARTITION_COUNT, EntityId
from runtime.testing.probes import Fail, Hold, Increment, Total, counter_entity

PATIENCE_S = 60.0
COUNTERS = [counter_entity(f"c{number}") for number in range(100)]

keys = (f"key-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A Ray of our own on the loopback, with its own token, of which nothing is left afterwards."""
    # Short, because Ray's Unix sockets in it may have 107 bytes of path.
    folder = Path(f"/tmp/mb-live-{secrets.token_hex(3)}")
    data_dir = tmp_path_factory.mktemp("live")
    before = {*psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        # Without it Ray replaces 127.0.0.1 by the machine's outer address and listens on all interfaces.
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Where the mode is not given, Ray turns tokens on by itself, also in a process that imported it before.
        patch.setenv("RAY_AUTH_MODE", "")
        del os.environ["RAY_AUTH_MODE"]
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            ray.init(
                address="local",
                namespace=NAMESPACE,
                num_cpus=4,
                object_store_memory=100 << 20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
            )
            yield Settings(data_dir=data_dir, probe_entities=True, entity_hosts_per_node=2)
        finally:
            started = {*psutil.Process().children(recursive=True)} - before
            ray.shutdown()
            _, left = psutil.wait_procs(started, timeout=5)
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=5)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def system(settings: Settings) -> RaySystem:
    """Each test has its own loop, so its own handles; the actors are the same."""
    system = await connect(settings)
    await until(system, lambda vitals: vitals.moving == 0 and len(hosts_of(vitals)) >= 2 and vitals.store is not None)
    return system


def hosts_of(vitals: SystemVitals) -> dict[str, HostVitals]:
    return {host.name: host for host in vitals.hosts if "counter" in host.kinds}


async def until(system: RaySystem, reached: Callable[[SystemVitals], bool]) -> SystemVitals:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        vitals = await system.vitals()
        if reached(vitals):
            return vitals
        assert time.monotonic() < deadline, vitals
        await asyncio.sleep(0.1)


async def total(system: RaySystem, counter: EntityId) -> int:
    view = await system.entities.ask(counter, Total(), timeout_s=PATIENCE_S)
    return int(view.total)


async def on(system: RaySystem, name: str) -> list[EntityId]:
    """Those of the counters that live there."""
    await system.entities.ask(COUNTERS[0], Total())
    return [counter for counter in COUNTERS if system.entities._host_of(counter) == name]


@asynccontextmanager
async def load(system: RaySystem, callers_per_counter: int = 2) -> AsyncIterator[Counter[EntityId]]:
    """Increments everywhere, all the time; at the end each counter must have risen by what was answered."""
    before = {counter: await total(system, counter) for counter in COUNTERS}
    answered: Counter[EntityId] = Counter()
    is_over = asyncio.Event()

    async def call(counter: EntityId) -> None:
        while not is_over.is_set():
            await system.entities.ask(counter, Increment(key=next(keys)), timeout_s=PATIENCE_S)
            answered[counter] += 1
            await asyncio.sleep(0.05)

    callers = [asyncio.create_task(call(counter)) for counter in COUNTERS * callers_per_counter]
    try:
        await some_more(answered)
        yield answered
        await some_more(answered)
    finally:
        is_over.set()
    await asyncio.gather(*callers)
    after = {counter: await total(system, counter) for counter in COUNTERS}
    assert {counter: after[counter] - before[counter] for counter in COUNTERS} == dict(answered)


async def some_more(answered: Counter[EntityId]) -> None:
    """Until every caller was answered at least twice again on average, and every counter at least once."""
    before = answered.copy()
    deadline = time.monotonic() + PATIENCE_S
    while answered.total() < before.total() + 4 * len(COUNTERS) or any(answered[c] <= before[c] for c in COUNTERS):
        assert time.monotonic() < deadline, f"{answered.total() - before.total()} were answered"
        await asyncio.sleep(0.05)


async def test_entities__are_spread_over_the_hosts_and_keep_their_place(system: RaySystem) -> None:
    await asyncio.gather(*(total(system, counter) for counter in COUNTERS))
    vitals = await until(
        system,
        lambda vitals: not vitals.silent and all(host.residents for host in hosts_of(vitals).values()),
    )
    hosts = hosts_of(vitals)
    assert hosts.keys() == {"host-0", "host-1"}
    assert sum(host.partitions for host in hosts.values()) == PARTITION_COUNT
    assert min(host.partitions for host in hosts.values()) > PARTITION_COUNT // 3
    assert {len(await on(system, name)) > 20 for name in hosts} == {True}
    assert {host.name for host in vitals.hosts} == {*hosts, "index-host-0"}
    assert vitals.implementers is not None
    assert vitals.store is not None


async def test_host_killed__messages_in_flight_are_answered_and_counted_once(system: RaySystem) -> None:
    before = await until(system, lambda vitals: vitals.moving == 0)
    async with load(system) as answered:
        os.kill(hosts_of(before)["host-0"].pid, signal.SIGKILL)
        await some_more(answered)
    after = await until(system, lambda vitals: vitals.moving == 0)
    assert hosts_of(after)["host-0"].incarnation != hosts_of(before)["host-0"].incarnation
    assert hosts_of(after)["host-1"].incarnation == hosts_of(before)["host-1"].incarnation


async def test_ledger_killed__appends_in_flight_are_repeated_and_counted_once(system: RaySystem) -> None:
    before = await until(system, lambda vitals: vitals.store is not None)
    assert before.store is not None
    async with load(system) as answered:
        os.kill(before.store.pid, signal.SIGKILL)
        await some_more(answered)
    after = await until(system, lambda vitals: vitals.store is not None)
    assert after.store is not None
    assert after.store.pid != before.store.pid
    assert not [each for host in after.hosts for each in host.quarantined]


async def test_router_killed__nobody_waits_for_it_until_a_host_is_gone_too(system: RaySystem) -> None:
    before = await until(system, lambda vitals: vitals.moving == 0)
    router = find(ROUTER)
    async with load(system) as answered:
        os.kill(await pid_of(router), signal.SIGKILL)
        await some_more(answered)
        os.kill(hosts_of(before)["host-1"].pid, signal.SIGKILL)
        await some_more(answered)
    after = await until(system, lambda vitals: vitals.moving == 0 and len(hosts_of(vitals)) == 2)
    assert hosts_of(after)["host-1"].incarnation != hosts_of(before)["host-1"].incarnation
    assert hosts_of(after)["host-0"].incarnation == hosts_of(before)["host-0"].incarnation


async def test_added_host__gets_its_share_under_load_and_stale_callers_follow(
    system: RaySystem, settings: Settings
) -> None:
    stale = EntitiesHandle()
    await stale.ask(COUNTERS[0], Total())
    version = stale._route.version
    async with load(system):
        # A new router with another setting: what the old one knew, it must find out by itself.
        await asyncio.to_thread(kill, find(ROUTER))
        more = settings.model_copy(update={"entity_hosts_per_node": 3})
        await gone(ROUTER)
        await asyncio.to_thread(ensure_router, more)
        vitals = await until(
            system,
            lambda vitals: (
                vitals.moving == 0
                and "host-2" in hosts_of(vitals)
                and hosts_of(vitals)["host-2"].partitions > PARTITION_COUNT // 5
                and sum(host.partitions for host in hosts_of(vitals).values()) == PARTITION_COUNT
            ),
        )
    hosts = hosts_of(vitals)
    assert hosts.keys() == {"host-0", "host-1", "host-2"}
    assert sum(host.partitions for host in hosts.values()) == PARTITION_COUNT
    assert min(host.partitions for host in hosts.values()) > PARTITION_COUNT // 5

    moved = await on(system, "host-2")
    assert moved
    assert await asyncio.gather(*(stale.ask(counter, Total()) for counter in moved))
    assert stale._route.version > version


async def test_slow_message__delays_no_other_on_its_host(system: RaySystem) -> None:
    slow, *others = await on(system, "host-0")
    holding = asyncio.create_task(system.entities.ask(slow, Hold(key=next(keys), seconds=3.0)))
    await asyncio.sleep(0.1)
    for _ in range(20):
        await asyncio.gather(*(system.entities.ask(counter, Increment(key=next(keys))) for counter in others))
    assert not holding.done()
    await holding


async def test_message_whose_time_is_over__is_refused_and_not_carried_out(system: RaySystem) -> None:
    counter = counter_entity("deadline")
    holding = asyncio.create_task(system.entities.ask(counter, Hold(key=next(keys), seconds=1.0)))
    await asyncio.sleep(0.3)
    with pytest.raises(UnavailableError, match=r"did not answer in 0.2 s"):
        await system.entities.ask(counter, Increment(key=next(keys)), timeout_s=0.2)
    await holding
    assert await system.entities.ask(counter, Increment(key=next(keys))) == 2


async def test_cancelled_message__is_not_carried_out_when_it_was_not_begun(system: RaySystem) -> None:
    counter = counter_entity("cancelled")
    holding = asyncio.create_task(system.entities.ask(counter, Hold(key=next(keys), seconds=1.0)))
    await asyncio.sleep(0.2)
    waiting = asyncio.create_task(system.entities.ask(counter, Increment(key=next(keys))))
    await asyncio.sleep(0.2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await holding
    assert await system.entities.ask(counter, Increment(key=next(keys))) == 2


async def test_events__are_waited_for_across_a_restart_of_the_host(system: RaySystem) -> None:
    (counter, *_) = await on(system, "host-0")
    seen = await system.entities.events(counter, 0, 0.0)
    last_seq = seen[-1].seq if seen else 0
    watching = asyncio.create_task(system.entities.events(counter, last_seq, 20.0))
    await asyncio.sleep(0.2)
    vitals = await until(system, lambda vitals: vitals.moving == 0)
    os.kill(hosts_of(vitals)["host-0"].pid, signal.SIGKILL)
    await system.entities.ask(counter, Increment(key="after the restart"), timeout_s=PATIENCE_S)
    assert "after the restart" in [record.key for record in await watching]


async def test_quarantine__is_seen_and_can_be_lifted(system: RaySystem) -> None:
    counter = counter_entity("broken")
    for _ in range(10):
        with pytest.raises(UnavailableError) as failed:
            await system.entities.ask(counter, Fail(key=next(keys)))
        if isinstance(failed.value, QuarantinedError):
            break
    vitals = await until(system, lambda vitals: any(host.quarantined for host in vitals.hosts))
    assert [each.entity for host in vitals.hosts for each in host.quarantined] == [counter]
    assert await system.pardon(counter)
    assert not await system.pardon(counter)
    assert await system.entities.ask(counter, Increment(key=next(keys))) == 1


async def pid_of(router: "ray.actor.ActorHandle[RouterActor]") -> int:
    vitals: RouterVitals = await router.vitals.remote()
    return vitals.pid


async def gone(name: str) -> None:
    while True:
        try:
            await asyncio.to_thread(find, name)
        except UnavailableError:
            return
        await asyncio.sleep(0.05)
