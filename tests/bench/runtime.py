"""`make bench NAME=runtime`: what entities cost and bear, beside one Ray actor per entity and a bare Ray call.

One JSON line a figure, each the median of three rounds; product and peer take turns within a round, on one Ray of
their own. This process is the load: it reaches entities as every door does, and shares the cores with what it measures.
`--seconds`, `--scale` and `--rounds` make a run smaller; its figures then mean little.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import ray

from actors.ledger import LedgerHandle
from actors.system import RaySystem
from runtime.config import Settings
from runtime.entity.journal import Append, NewEvent
from runtime.ids import LOCAL_ADMIN, EntityId, partition_of
from runtime.testing.probes import Increment, Total, counter_entity
from tests.bench.figures import figure as make_figure
from tests.bench.load import Effort, Outcome, Send, greedy, quantile, steady
from tests.bench.ray_service import host_of, run_alone, service, small_ray, store_of
from tests.bench.seed import pad, seed

SIZES = (1_000, 10_000, 100_000)
LIVE = 10_000
RATE = 5_000
CALLERS = 1_000
PROCESSES = ("host", "ledger", "load", "ray")
CEILING_S = 10.0
PEERS = 100
CALLERS_PER_PEER = 4
SINGLE_CALLS = 300
KNOWN = 1_000_000
JOURNALS = (100_000, 20_000_000)
EVENTS_EACH = 8

MEMORY_GIB_MAX = 1.0
KNOWN_MIB_MAX = 16
P99_MS_MAX = 250
PEER_RATIO_MIN = 5.0
FLAT_MIN = 0.8
COMMIT_MS_MAX = 10
COLD_MS_MAX = 10
COLD_TOGETHER_S_MAX = 2.0
JOURNAL_RATIO_MAX = 1.2
FIRST_ANSWER_S_MAX = 5.0
ALL_REACHABLE_S_MAX = 15.0
RECOVERY_S_MAX = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seconds: float
    """How long the constant rate lasts."""
    scale: float
    """1.0 for the real sizes."""
    rounds: int
    parts: frozenset[str]

    def of(self, number: int, least: int = 10) -> int:
        return max(least, int(number * self.scale))


def main(arguments: Sequence[str] = ()) -> int:
    """Prints every figure as soon as it is known; 0 when all hold."""
    given = _given(arguments)
    if given.folder is None:
        return run_alone("tests.bench.runtime", arguments)
    plan = Plan(seconds=given.seconds, scale=given.scale, rounds=given.rounds, parts=frozenset(given.parts.split(",")))
    figures = Figures()
    with small_ray():
        asyncio.run(_measure(plan, given.folder, figures))
    return 0 if figures.all_hold else 1


class Figures:
    """Collects each round's values, and prints their median when told what it is to be compared with."""

    def __init__(self) -> None:
        self.all_hold = True
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, figure: str, value: float) -> None:
        self._values[figure].append(value)

    def of(self, figure: str) -> float:
        return median(self._values[figure])

    def tell(
        self,
        figure: str,
        value: float,
        unit: str,
        *,
        against: str = "",
        ratio: float | None = None,
        target: str = "none",
        holds: bool = True,
    ) -> None:
        self.all_hold &= holds
        ratio = None if ratio is None else round(ratio, 2)
        line = make_figure(
            "runtime", figure, round(value, 3), unit, against=against, ratio=ratio, target=target, holds=holds
        )
        print(json.dumps(line), flush=True)


async def _measure(plan: Plan, folder: Path, figures: Figures) -> None:
    if "turns" in plan.parts:
        for number in range(plan.rounds):
            for size in SIZES:
                async with service(_settings(folder / "turns")) as system:
                    await _turns(system, plan, figures, size, f"r{number}-{size}")
        _tell_turns(plan, figures)
    if "activation" in plan.parts:
        folders = {events: folder / f"journal-{events}" for events in JOURNALS}
        for events, data_dir in folders.items():
            await _write_journal(_settings(data_dir), plan, events)
        for number in range(plan.rounds):
            for events, data_dir in folders.items():
                async with service(_settings(data_dir)) as system:
                    await _activation(system, plan, figures, events, number)
        _tell_activation(figures)


# Turns: memory, rate, latency, the peer, and a killed host -------------------------------------------------------


async def _turns(system: RaySystem, plan: Plan, figures: Figures, size: int, mark: str) -> None:
    """One round over `size` entities, all of them resident."""
    count = plan.of(size)
    if size == LIVE:
        await _unloaded(system, plan, figures, mark)
    if size == max(SIZES):
        await _filled(system, figures, count)
    else:
        await _reach(system, count)
    send = _increments(system, count, mark)
    if size == LIVE:
        seconds, rate = plan.seconds, plan.of(RATE, least=20)
        await _watched(system, figures, "steady", lambda: steady(send, 0, rate, seconds))
    first = 100_000_000
    seconds = min(CEILING_S, plan.seconds)
    callers = min(CALLERS, count)
    await _watched(system, figures, f"ceiling {size}", lambda: greedy(send, first, callers, seconds))
    if size == LIVE:
        figures.add("peer", (await _peer(system, plan, mark, seconds)).rate)
        await _killed(system, figures, count)


async def _filled(system: RaySystem, figures: Figures, count: int) -> None:
    pid = (await host_of(system)).pid
    await _idle(pid)
    empty_bytes = _memory_bytes(pid)
    await _reach(system, count)
    resident_bytes = _memory_bytes(pid)
    figures.add("memory", resident_bytes)
    figures.add("memory each", (resident_bytes - empty_bytes) / count)


async def _unloaded(system: RaySystem, plan: Plan, figures: Figures, mark: str) -> None:
    """A bare Ray call, then a durable turn, and so on: nobody else asks."""
    make: Any = ray.remote(BareActor)
    bare = make.options(num_cpus=0).remote()
    entity = counter_entity(f"{mark}-alone")
    await system.entities.ask(entity, Increment(key="first"))
    await bare.echo.remote(Total())
    calls, turns = [], []
    for number in range(plan.of(SINGLE_CALLS)):
        begun = time.perf_counter()
        await bare.echo.remote(Increment(key=f"k{number}"))
        called = time.perf_counter()
        await system.entities.ask(entity, Increment(key=f"k{number}"))
        calls.append(called - begun)
        turns.append(time.perf_counter() - called)
    ray.kill(bare)
    figures.add("bare call", median(calls) * 1e3)
    figures.add("unloaded turn", median(turns) * 1e3)
    figures.add("commit", (await store_of(system)).commit_p50_ms)


async def _watched(system: RaySystem, figures: Figures, figure: str, load: Callable[[], Awaitable[Outcome]]) -> None:
    """Runs a load and keeps its figures, and what CPU a turn took in each process."""
    pids = {"host": (await host_of(system)).pid, "ledger": (await store_of(system)).pid, "load": os.getpid()}
    effort = Effort(pids)
    outcome = await load()
    spent = effort.spent()
    turns = outcome.rate * outcome.seconds
    figures.add(f"{figure} rate", outcome.rate)
    figures.add(f"{figure} p50", outcome.p50_ms)
    figures.add(f"{figure} p99", outcome.p99_ms)
    figures.add(f"{figure} errors", outcome.errors)
    for name in PROCESSES:
        figures.add(f"{figure} us {name}", spent[name] / turns * 1e6)
    for name in ("load", "elsewhere"):
        figures.add(f"{figure} {name} share", spent[name] / spent["cores"])
    figures.add(f"{figure} busy", sum(spent[name] for name in (*PROCESSES, "elsewhere")) / spent["cores"])


async def _peer(system: RaySystem, plan: Plan, mark: str, seconds: float) -> Outcome:
    """One Ray actor per entity, each journaling its turns itself, one after the other, through the same ledger."""
    epochs = {owned.partition: owned.epoch for owned in await system.journal.ownerships()}
    entities = [EntityId(f"peer:{mark}-{number}") for number in range(plan.of(PEERS, least=2))]
    make: Any = ray.remote(PeerActor)
    peers = [
        make.options(num_cpus=0).remote(system.settings, entity, epochs[partition_of(entity)]) for entity in entities
    ]
    await asyncio.gather(*(peer.turn.remote(Increment(key="first")) for peer in peers))
    turn = itertools.cycle(peers)

    async def send(number: int) -> None:
        await next(turn).turn.remote(Increment(key=f"k{number}"))

    outcome = await greedy(send, 0, CALLERS_PER_PEER * len(peers), seconds)
    for peer in peers:
        ray.kill(peer)
    return outcome


async def _killed(system: RaySystem, figures: Figures, count: int) -> None:
    """Every resident entity is asked at the moment its host is killed."""
    os.kill((await host_of(system)).pid, signal.SIGKILL)
    begun = time.perf_counter()
    answered: list[float] = []

    async def reach(number: int) -> None:
        await system.entities.ask(_counter(number), Total(), timeout_s=RECOVERY_S_MAX)
        answered.append(time.perf_counter() - begun)

    await asyncio.gather(*(reach(number) for number in range(count)))
    figures.add("first answer", min(answered))
    figures.add("all reachable", max(answered))


def _tell_turns(plan: Plan, figures: Figures) -> None:
    of, tell = figures.of, figures.tell
    gib, each = of("memory") / (1 << 30), of("memory each")
    tell(
        f"host memory with {plan.of(max(SIZES)):,} resident entities",
        gib,
        "GiB",
        against=f"{each:,.0f} bytes an entity",
        target=f"<= {MEMORY_GIB_MAX}",
        holds=gib <= MEMORY_GIB_MAX,
    )
    rate, p99, wanted = of("steady rate"), of("steady p99"), plan.of(RATE, least=20)
    tell(
        f"durable turns at {wanted:,}/s for {plan.seconds:g} s, {plan.of(LIVE):,} entities: p99",
        p99,
        "ms",
        against=f"{rate:,.0f}/s answered, p50 {of('steady p50'):.1f} ms, {of('steady errors'):.0f} errors",
        ratio=rate / wanted,
        target=f"< {P99_MS_MAX} at {wanted:,}/s",
        holds=p99 < P99_MS_MAX and rate >= 0.99 * wanted and not of("steady errors"),
    )
    ceilings = {size: of(f"ceiling {size} rate") for size in SIZES}
    ratio = ceilings[LIVE] / of("peer")
    tell(
        f"durable turns, {min(CALLERS, plan.of(LIVE)):,} callers, {plan.of(LIVE):,} entities",
        ceilings[LIVE],
        "1/s",
        against=f"one Ray actor per entity, {plan.of(PEERS, least=2)} actors: {of('peer'):,.0f}/s",
        ratio=ratio,
        target=f">= {PEER_RATIO_MIN} times",
        holds=ratio >= PEER_RATIO_MIN,
    )
    flat = min(ceilings.values()) / max(ceilings.values())
    tell(
        "durable turns, the least of 1k, 10k and 100k entities",
        min(ceilings.values()),
        "1/s",
        against=", ".join(f"{plan.of(size):,}: {ceiling:,.0f}/s" for size, ceiling in ceilings.items()),
        ratio=flat,
        target=f">= {FLAT_MIN} of the most",
        holds=flat >= FLAT_MIN,
    )
    for load in ("steady", f"ceiling {LIVE}"):
        tell(
            f"CPU of a turn, {load}",
            sum(of(f"{load} us {name}") for name in PROCESSES),
            "us",
            against=", ".join(f"{name} {of(f'{load} us {name}'):.0f}" for name in PROCESSES)
            + f"; of all cores {of(f'{load} busy'):.0%} were busy, {of(f'{load} load share'):.0%} with making the load"
            f" and {of(f'{load} elsewhere share'):.0%} with work that is not of this benchmark",
        )
    turn, bound = of("unloaded turn"), 3 * of("bare call") + of("commit")
    tell(
        "one unloaded durable turn, p50",
        turn,
        "ms",
        against=f"3 bare Ray calls of {of('bare call'):.2f} ms and a commit of {of('commit'):.2f} ms",
        ratio=turn / bound,
        target="<= 1.0",
        holds=turn <= bound,
    )
    tell("group commit, p50", of("commit"), "ms", target=f"<= {COMMIT_MS_MAX}", holds=of("commit") <= COMMIT_MS_MAX)
    for figure, most in (("first answer", FIRST_ANSWER_S_MAX), ("all reachable", ALL_REACHABLE_S_MAX)):
        name = f"{figure} after kill -9 of a host with {plan.of(LIVE):,} entities"
        tell(name, of(figure), "s", target=f"<= {most}", holds=of(figure) <= most)


# Activation: a small and a large journal -------------------------------------------------------------------------


async def _write_journal(settings: Settings, plan: Plan, events: int) -> None:
    """The entities that are asked for, really written; and rows of others among them, up to `events`."""
    wanted = plan.of(LIVE) + plan.of(SINGLE_CALLS)
    filler = max(0, plan.of(events) - wanted * EVENTS_EACH)
    parts = 10 if filler else 1
    for part in range(parts):
        numbers = range(part * wanted // parts, (part + 1) * wanted // parts)
        await seed(settings, [_counter(number) for number in numbers], EVENTS_EACH)
        if filler and events == max(JOURNALS):
            await asyncio.to_thread(pad, settings, part, filler // parts, plan.of(KNOWN) // parts)


async def _activation(system: RaySystem, plan: Plan, figures: Figures, events: int, number: int) -> None:
    host = await host_of(system)
    await _idle(host.pid)
    figures.add(f"idle {events}", _memory_bytes(host.pid))
    # What is done once a process, such as the first look at the map, is not what an activation costs.
    await system.entities.ask(counter_entity(f"warm-{number}"), Total())
    single, together = plan.of(SINGLE_CALLS), plan.of(LIVE)
    taken = []
    for cold in range(together, together + single):
        begun = time.perf_counter()
        await system.entities.ask(_counter(cold), Total())
        taken.append(time.perf_counter() - begun)
    figures.add(f"cold {events}", median(taken) * 1e3)
    figures.add(f"cold p99 {events}", quantile(taken, 0.99) * 1e3)
    begun = time.perf_counter()
    answers = await asyncio.gather(*(system.entities.ask(_counter(cold), Total()) for cold in range(together)))
    figures.add(f"together {events}", time.perf_counter() - begun)
    assert {answer.total for answer in answers} == {EVENTS_EACH}


def _tell_activation(figures: Figures) -> None:
    small, large = JOURNALS
    _tell_pair(figures, "one cold entity, p50", "cold", "ms", COLD_MS_MAX)
    _tell_pair(figures, "10,000 cold entities together", "together", "s", COLD_TOGETHER_S_MAX)
    cost = (figures.of(f"idle {large}") - figures.of(f"idle {small}")) / (1 << 20)
    figures.tell(
        "host memory for 1,000,000 known ids",
        cost,
        "MiB",
        against=f"a host before its first message: {figures.of(f'idle {small}') / (1 << 20):.0f} MiB",
        target=f"<= {KNOWN_MIB_MAX}",
        holds=cost <= KNOWN_MIB_MAX,
    )


def _tell_pair(figures: Figures, figure: str, key: str, unit: str, most: float) -> None:
    values = {events: figures.of(f"{key} {events}") for events in JOURNALS}
    small, large = values.values()
    for events, value in values.items():
        figures.tell(f"{figure}, {events:,} events", value, unit, target=f"<= {most:g}", holds=value <= most)
    figures.tell(
        f"{figure}, flat",
        large,
        unit,
        against=f"{small:.3g} {unit} with {JOURNALS[0]:,} events",
        ratio=large / small,
        target=f"<= {JOURNAL_RATIO_MAX} times",
        holds=large / small <= JOURNAL_RATIO_MAX,
    )


# What is measured against, and small things ----------------------------------------------------------------------


class BareActor:
    """Answers with what it is given."""

    async def echo(self, message: Any) -> Any:
        return message


class PeerActor:
    """One entity as one Ray actor: the way without a host. It journals a turn, then answers it."""

    def __init__(self, settings: Settings, entity: EntityId, epoch: int) -> None:
        self._ledger = LedgerHandle.ensure(settings)
        self._entity = entity
        self._epoch = epoch
        self._turn = asyncio.Lock()
        self._last_seq = 0
        self._total = 0

    async def turn(self, message: Increment) -> int:
        async with self._turn:
            total = self._total + message.amount
            event = NewEvent(type="counter.added", version=1, key=message.key, data={"amount": message.amount})
            self._last_seq = await self._ledger.append(
                Append(
                    entity=self._entity,
                    owner=LOCAL_ADMIN,
                    epoch=self._epoch,
                    expected_seq=self._last_seq,
                    events=(event,),
                    open=False,
                    head={"total": total},
                )
            )
            self._total = total
            return total


def _settings(data_dir: Path) -> Settings:
    """Nothing is passivated while it is measured."""
    return Settings(data_dir=data_dir, probe_entities=True, entity_idle_seconds=86_400)


def _counter(number: int) -> EntityId:
    return counter_entity(f"c{number}")


def _increments(system: RaySystem, count: int, mark: str) -> Send:
    """Message n goes to entity n modulo `count`, so that all are live and none is asked twice at once."""
    ask, entities = system.entities.ask, [_counter(number) for number in range(count)]

    async def send(number: int) -> None:
        await ask(entities[number % count], Increment(key=f"{mark}-{number}"))

    return send


async def _reach(system: RaySystem, count: int) -> None:
    """Makes `count` entities resident."""
    outstanding = asyncio.Semaphore(CALLERS)

    async def reach(number: int) -> None:
        async with outstanding:
            await system.entities.ask(_counter(number), Increment(key="first"))

    await asyncio.gather(*(reach(number) for number in range(count)))


async def _idle(pid: int) -> None:
    """Until the process is done with its own start: it uses less than a fifth of a core; or for a few seconds."""
    process = psutil.Process(pid)
    for _ in range(6):
        if await asyncio.to_thread(process.cpu_percent, 0.5) < 20:
            return


def _memory_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.runtime")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="turns,activation")
    parser.add_argument("--folder", type=Path, help="where to work: given by the process that cleans up")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
