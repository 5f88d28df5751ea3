"""Who lives where: it makes the hosts, watches them, and sees that every partition has a living owner."""

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.actor import ActorHandle

from actors.entity_host import INDEX_ONLY, EntityHostActor, HostReport
from actors.handles import ROUTER, ActorGoneError, ensure, find, kill, live_nodes, names, on, once
from actors.ledger import NODE_WITH_THE_DISK, LedgerHandle
from actors.process import prepare_process
from runtime.config import Settings
from runtime.entity.journal import Ownership
from runtime.entity.vitals import HostVitals
from runtime.errors import MasterbuilderError
from runtime.ids import PARTITION_COUNT
from runtime.routing.placement import Living, Move, Route, assign, has, overstayed, plan

JOURNALED = ("project", "user", "chat", "library", "repositories")
INDEX_HOST = "index-host-0"
HOST = "host-"

LOOK_EVERY_S = 2.0
"""It looks at once when a host has come back."""
PING_EVERY_S = 1.0
PING_S_MAX = 5.0
RETRY_S = 0.2
"""Between two pings of a host that is being restarted."""
REMAKE_S = 3.0
"""A host that is gone for so long is looked for again: perhaps there is no such actor any more."""
LOST_S = 20.0
"""A host that is silent for so long, while others live, loses its partitions to them."""
SETTLED_S = 3.0
"""A node that joined is not known everywhere at once, and a host that was meant for it would start elsewhere."""
SURPLUS_S = 30.0
"""How long there may be too many hosts before one goes: a node that was lost may be back."""
DRAIN_S = 10.0
MOVE_S_MAX = 30.0
CHUNK = 64
"""Partitions that are drained together, so that one slow turn keeps few others waiting."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterVitals:
    pid: int
    hosts: Sequence[HostVitals]
    silent: Sequence[str]
    map_version: int
    moving: int


@dataclass(slots=True, eq=False)
class _Watched:
    """A host as the router knows it."""

    name: str
    node: str
    """Where it lives: meant to, until it reports; empty when neither is known."""
    actor: ActorHandle[Any]
    report: HostReport | None = None
    """Of the last ping; None when it was not answered."""
    heard_at: float = field(default_factory=time.monotonic)
    """Of the last answer, or of the first look."""
    surplus_since: float | None = None
    watch: asyncio.Task[None] | None = None

    @property
    def silent_s(self) -> float:
        return 0.0 if self.report is not None else time.monotonic() - self.heard_at


def ensure_router(settings: Settings) -> ActorHandle[Any]:
    """Beside the ledger, because without it a router can do nothing. Blocks for a moment."""
    return ensure(ROUTER, RouterActor, settings, resources={NODE_WITH_THE_DISK: 0.001})


class RouterActor:
    """Proposes who owns what; the store decides. It holds no truth: a restart reads everything again.

    Called when a caller's host is gone or refuses, never on a message's common path; and by every host, which waits
    here for news. One runs; two at once (in a network partition) can only make each other's claims fail.
    """

    def __init__(self, settings: Settings) -> None:
        prepare_process()
        self._settings = settings
        self._ledger: LedgerHandle | None = None
        self._since: Mapping[str, float] = {}
        """Living node -> when it was first seen."""
        self._nodes: Sequence[str] = ()
        """Those that hosts are made for."""
        self._hosts: dict[str, _Watched] = {}
        self._ownerships: Sequence[Ownership] = ()
        self._moving: set[int] = set()
        self._route = Route(version=0, hosts=(), homes={})
        self._shown: object = None
        self._news = asyncio.Condition()
        self._hurry = asyncio.Event()
        self._steering: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def route(self, known: int, wait_s: float) -> Route:
        """The route, as soon as it is another than the `known` version, or when the wait is over."""
        self._begin_steering()
        try:
            async with asyncio.timeout(wait_s), self._news:
                await self._news.wait_for(lambda: self._route.version != known)
        except TimeoutError:
            pass
        return self._route

    async def vitals(self) -> RouterVitals:
        self._begin_steering()
        hosts = self._hosts.values()
        living = self._living()
        return RouterVitals(
            pid=os.getpid(),
            hosts=[host.report.vitals for host in hosts if host.report is not None],
            silent=[host.name for host in hosts if host.report is None],
            map_version=self._route.version,
            moving=PARTITION_COUNT - sum(has(living, owned) for owned in self._ownerships),
        )

    def _begin_steering(self) -> None:
        if self._steering is None:
            self._steering = asyncio.create_task(self._steer())

    async def _steer(self) -> None:
        while True:
            try:
                await self._look()
            except MasterbuilderError as error:
                log.warning("the hosts are looked after later: %s", error)
            except Exception:
                log.exception("the hosts could not be looked after")
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()

    async def _look(self) -> None:
        wanted = await self._ensure_hosts()
        if self._ledger is None:
            self._ledger = await asyncio.to_thread(LedgerHandle.ensure, self._settings)
        self._ownerships = await self._ledger.ownerships()
        living = self._living()
        awaited = {
            name for name, host in self._hosts.items() if host.silent_s <= LOST_S and not self._has_no_node(host)
        }
        hosts = [name for name in wanted if name in awaited] or wanted
        self._begin(plan(hosts, living, self._ownerships, awaited))
        for name, partitions in overstayed(living, self._ownerships).items():
            self._start(self._release(name, partitions))
        await self._publish(hosts)
        await self._let_go(wanted)

    def _living(self) -> Mapping[str, Living]:
        return {
            host.name: Living(incarnation=host.report.vitals.incarnation, owned=host.report.owned)
            for host in self._hosts.values()
            if host.report is not None and host.name.startswith(HOST)
        }

    # Hosts ---------------------------------------------------------------------------------------------------

    async def _ensure_hosts(self) -> Sequence[str]:
        """Makes what is missing, and returns the names of the hosts that partitions should be spread over."""
        await self._count_nodes()
        count = max(1, len(self._nodes)) * self._settings.entity_hosts_per_node
        needed = [f"{HOST}{number}" for number in range(count)]
        there = [name for name in await asyncio.to_thread(names) if name.startswith(HOST)]
        for name in (*needed, INDEX_HOST, *there):
            if name not in self._hosts:
                node = "" if name in there else self._emptiest_node()
                host = _Watched(name, node, await asyncio.to_thread(self._actor, name, node, name in there))
                host.watch = asyncio.create_task(self._watch(host))
                self._hosts[name] = host
        now = time.monotonic()
        for host in self._hosts.values():
            if host.name in needed or host.name == INDEX_HOST:
                host.surplus_since = None
            elif host.surplus_since is None:
                host.surplus_since = now
        kept = [host for host in self._hosts.values() if now - (host.surplus_since or now) < SURPLUS_S]
        return sorted(host.name for host in kept if host.name != INDEX_HOST)

    async def _count_nodes(self) -> None:
        now = time.monotonic()
        self._since = {node: self._since.get(node, now) for node in await asyncio.to_thread(live_nodes)}
        self._nodes = [node for node, since in self._since.items() if now - since > SETTLED_S] or list(self._since)

    def _emptiest_node(self) -> str:
        """Where the fewest hosts are."""
        return min(self._nodes, key=[host.node for host in self._hosts.values()].count)

    def _is_awaited(self, host: _Watched) -> bool:
        return host.silent_s <= LOST_S and not self._has_no_node(host)

    def _has_no_node(self, host: _Watched) -> bool:
        """True when it cannot come back, because its node is gone."""
        return host.node != "" and host.node not in self._since

    def _actor(self, name: str, node: str, is_there: bool) -> ActorHandle[Any]:
        """Blocking."""
        if is_there:
            return find(name)
        kinds = INDEX_ONLY if name == INDEX_HOST else JOURNALED
        return ensure(name, EntityHostActor, self._settings, name, kinds, scheduling_strategy=on(node))

    async def _watch(self, host: _Watched) -> None:
        while True:
            try:
                is_there = await self._ping(host)
            except Exception:
                log.exception("%s could not be made again", host.name)
                is_there = False
            await asyncio.sleep(PING_EVERY_S if is_there else RETRY_S)

    async def _ping(self, host: _Watched) -> bool:
        try:
            async with asyncio.timeout(PING_S_MAX):
                report: HostReport = await once(host.actor.report.remote, what=host.name)
        except Exception as error:
            if host.report is not None:
                log.warning("%s does not answer: %s", host.name, error or type(error).__name__)
            host.report = None
            is_due = host.silent_s > REMAKE_S or self._has_no_node(host)
            if isinstance(error, ActorGoneError) and is_due and host.surplus_since is None:
                host.node = self._emptiest_node()
                host.actor = await asyncio.to_thread(self._actor, host.name, host.node, False)
            return False
        if host.report is None or host.report.vitals.incarnation != report.vitals.incarnation:
            log.info("%s is there", host.name)
            self._hurry.set()
        host.report, host.heard_at, host.node = report, time.monotonic(), report.vitals.node
        return True

    async def _let_go(self, wanted: Sequence[str]) -> None:
        """Ends hosts that were too many for long enough, once nothing is left that they own."""
        owners = {owned.host for owned in self._ownerships}
        for host in list(self._hosts.values()):
            if host.name in wanted or host.name == INDEX_HOST or host.name in owners:
                continue
            log.info("%s is not needed any more", host.name)
            del self._hosts[host.name]
            if host.watch is not None:
                host.watch.cancel()
            await asyncio.to_thread(kill, host.actor)

    # Partitions ----------------------------------------------------------------------------------------------

    def _begin(self, moves: Sequence[Move]) -> None:
        """Moves run beside each other and beside the next look, which leaves alone what is on its way."""
        ways: dict[tuple[str | None, str], list[Move]] = defaultdict(list)
        for move in moves:
            if move.partition not in self._moving:
                ways[move.source, move.target].append(move)
        for (source, target), some in ways.items():
            log.info("%d partitions move from %s to %s", len(some), source or "nobody", target)
            size = CHUNK if source else len(some)
            for start in range(0, len(some), size):
                chunk = some[start : start + size]
                self._moving.update(move.partition for move in chunk)
                self._start(self._move(source, target, {move.partition: move.epoch for move in chunk}))

    async def _move(self, source: str | None, target: str, partitions: Mapping[int, int]) -> None:
        try:
            if source is not None:
                await self._release(source, list(partitions))
            host = self._hosts[target]
            async with asyncio.timeout(MOVE_S_MAX):
                granted: Mapping[int, int] = await once(lambda: host.actor.acquire.remote(partitions), what=target)
            if host.report is not None:
                host.report = HostReport(vitals=host.report.vitals, owned={**host.report.owned, **granted})
            self._hurry.set()
        except (MasterbuilderError, TimeoutError) as error:
            log.warning("%d partitions did not get to %s: %s", len(partitions), target, error or "time is over")
        finally:
            self._moving.difference_update(partitions)

    async def _release(self, name: str, partitions: Sequence[int]) -> None:
        """What does not let go in time is fenced off by the claim of the next owner."""
        host = self._hosts[name]
        try:
            async with asyncio.timeout(DRAIN_S + PING_S_MAX):
                await once(lambda: host.actor.release.remote(partitions, DRAIN_S), what=name)
        except (MasterbuilderError, TimeoutError) as error:
            log.warning("%s did not let go of %d partitions: %s", name, len(partitions), error or "time is over")

    async def _publish(self, hosts: Sequence[str]) -> None:
        at = list(assign(hosts))
        for owned in self._ownerships:
            at[owned.partition] = owned.host
        index = self._hosts[INDEX_HOST].report
        shown = (at, [owned.epoch for owned in self._ownerships], index and index.vitals.incarnation)
        if shown == self._shown:
            return
        self._shown = shown
        # Of the clock, so that it also grows over a restart.
        version = max(self._route.version + 1, time.time_ns() // 1_000_000)
        self._route = Route(version=version, hosts=at, homes=dict.fromkeys(INDEX_ONLY, INDEX_HOST))
        async with self._news:
            self._news.notify_all()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
