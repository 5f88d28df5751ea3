"""`make bench NAME=ledger`: what the ledger writes durably in a second, in groups and one by one.

Both run interleaved on the same disk, three times; the medians are printed, one JSON line a figure. In groups, callers
come at once and share commits; one by one, each waits for its own. Pairs against DuckDB itself: see `pairs`.
Batches are what hosts send: appends of many entities together, each with a small head, every 20th with a snapshot; they
must be as fast over 100,000 entities that take turns as over 10,000. A settlement is a batch of gateway calls under the
escrows of their users, as purses send it: what a call of it costs in CPU of the ledger's process is what counts. The
purse is measured with a ledger that answers at once: what a call costs in the process that makes it.
"""

import asyncio
import itertools
import json
import pickle
import random
import secrets
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent, Snapshot
from runtime.ids import PARTITION_COUNT, EntityId, UserId
from runtime.ledger.money import Tariff
from runtime.ledger.port import Draw, Escrow, EscrowCall, EscrowId, Payer, Settlement
from runtime.ledger.purse import Purse
from runtime.ledger.spool import Spool
from runtime.store.store import Store
from tests.bench import pairs
from tests.bench.figures import figure as make_figure
from tests.bench.pairs import USERS, hold_of, meter_of

ROUNDS = 3
BATCH = 250
BATCHES_AT_ONCE = 3
FEW, MANY = 10_000, 100_000
FLAT_MIN = 0.8
CALLERS = 256
GROUPED_OVER_SINGLE_MIN = 5.0
SETTLED_CALLS = (100, 200, 500)
SETTLED_US_MAX = 60.0
PURSE_CALLS = 20_000
PURSE_AT_ONCE = 50
PURSE_US_MAX = 40.0

Work = Callable[[int, int], Awaitable[None]]
"""Does one piece: (number of the caller, number of the piece)."""


def main(seconds: float = 1.0) -> int:
    """Prints every figure; 0 when all hold."""
    figures = asyncio.run(_measure(seconds))
    for figure in figures:
        print(json.dumps(figure))
    return 0 if all(figure["holds"] for figure in figures) else 1


async def _measure(seconds: float) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="masterbuilder-bench-") as folder:
        settings = Settings(data_dir=Path(folder), initial_free_credits=10**6)
        store = Store(settings, Secrets.load(settings.data_dir, {}))
        await store.open()
        for user in USERS:
            await store.books.open_wallet(user, is_admin=False)
        await store.journal.claim(
            Claim(host="bench", incarnation="1", partitions=dict.fromkeys(range(PARTITION_COUNT), 0))
        )
        figures = [
            await _compare("durable appends", _appends(store), seconds),
            *await pairs.measure(store, Path(folder), 3 * seconds),
            await _compare("exact holds and meterings, both durable", _pairs(store), seconds),
            *[await _settling(store, calls, seconds) for calls in SETTLED_CALLS],
            await _purse(Path(folder)),
            await _compare_batches(store, seconds),
        ]
        wrong = await store.check()
        assert not wrong, wrong
        await store.close()
        return figures


async def _settling(store: Store, calls: int, seconds: float) -> dict[str, object]:
    """Batches of calls of all users, one after the other; also how long a draw takes."""
    cpu_us, draw_ms = [], []
    numbers = itertools.count()
    for _ in range(ROUNDS):
        process = secrets.token_hex(4)
        escrows = {user: EscrowId(f"e-{process}-{user}") for user in USERS}
        for user, escrow in escrows.items():
            began_s = time.perf_counter()
            await store.books.draw(
                Draw(escrow=escrow, process=process, payer=Payer(user), wanted_ucredits=10**9, min_ucredits=1)
            )
            draw_ms.append((time.perf_counter() - began_s) * 1e3)
        done, cpu_s, begun_s = 0, 0.0, time.perf_counter()
        while time.perf_counter() - begun_s < seconds:
            batch = f"b-{process}-{done}"
            data = pickle.dumps(_settlement(batch, process, calls, escrows, numbers), 5)
            before_s = time.process_time()
            await store.books.settle(pickle.loads(data))
            cpu_s += time.process_time() - before_s
            done += calls
        cpu_us.append(cpu_s / done * 1e6)
        await store.books.settle(Settlement(batch=f"end-{process}", process=process, process_ended=True))
    return make_figure(
        "ledger",
        f"CPU of a settled call, batches of {calls}, {len(USERS)} users",
        round(median(cpu_us), 1),
        "us",
        against=f"one draw takes {median(draw_ms):.1f} ms",
        ratio=None,
        target=f"<= {SETTLED_US_MAX}",
        holds=median(cpu_us) <= SETTLED_US_MAX,
    )


def _settlement(
    batch: str, process: str, calls: int, escrows: Mapping[UserId, EscrowId], numbers: Iterator[int]
) -> Settlement:
    now = datetime.now(UTC)
    holds = [hold_of(next(numbers), f"{batch}-") for _ in range(calls)]
    settled = tuple(
        EscrowCall(escrow=escrows[hold.user], hold=hold, meter=meter_of(hold.call), held_at=now) for hold in holds
    )
    return Settlement(batch=batch, process=process, calls=settled)


class _Instant:
    """A ledger that grants everything at once."""

    async def draw(self, draw: Draw) -> Escrow:
        return Escrow(escrow=draw.escrow, granted_ucredits=draw.wanted_ucredits)

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        return ()


async def _purse(folder: Path) -> dict[str, object]:
    """Hold, spool, meter, spool, and handing over: all that a call costs where it is made."""
    cpu_us = []
    for number in range(ROUNDS):
        ledger: Any = _Instant()
        purse = Purse(ledger, Spool(folder, f"bench{number}"), Tariff(), call_s_max=600)
        holds = [hold_of(call, f"purse{number}-") for call in range(PURSE_CALLS)]
        meters = [meter_of(hold.call) for hold in holds]
        before_s = time.process_time()
        for start in range(0, PURSE_CALLS, PURSE_AT_ONCE):
            for hold in holds[start : start + PURSE_AT_ONCE]:
                await purse.hold(hold)
            for meter in meters[start : start + PURSE_AT_ONCE]:
                await purse.meter(meter)
            await asyncio.sleep(0)
        await purse.close()
        cpu_us.append((time.process_time() - before_s) / PURSE_CALLS * 1e6)
    return make_figure(
        "ledger",
        "CPU of a call's hold and meter in its own process",
        round(median(cpu_us), 1),
        "us",
        against="",
        ratio=None,
        target=f"<= {PURSE_US_MAX}",
        holds=median(cpu_us) <= PURSE_US_MAX,
    )


async def _compare(figure: str, work: Work, seconds: float) -> dict[str, object]:
    numbers = itertools.count()
    grouped, single = [], []
    for _ in range(ROUNDS):
        grouped.append(await _rate(work, numbers, CALLERS, seconds))
        single.append(await _rate(work, numbers, 1, seconds))
    ratio = median(grouped) / median(single)
    return make_figure(
        "ledger",
        f"{figure}, {CALLERS} callers",
        round(median(grouped)),
        "1/s",
        against=f"one by one: {round(median(single))}",
        ratio=round(ratio, 1),
        target=GROUPED_OVER_SINGLE_MIN,
        holds=ratio >= GROUPED_OVER_SINGLE_MIN,
    )


async def _compare_batches(store: Store, seconds: float) -> dict[str, object]:
    few, many = _Counters(store, "few", FEW), _Counters(store, "many", MANY)
    for counters in (few, many):
        await counters.create()
    rates: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        rates.append((await few.rate(seconds), await many.rate(seconds)))
    of_few, of_many = (median(column) for column in zip(*rates, strict=True))
    return make_figure(
        "ledger",
        f"appends in batches of {BATCH} over {MANY} entities",
        round(of_many),
        "1/s",
        against=f"over {FEW} entities: {round(of_few)}",
        ratio=round(of_many / of_few, 2),
        target=FLAT_MIN,
        holds=of_many / of_few >= FLAT_MIN,
    )


class _Counters:
    """Entities that take turns at random; each belongs to one of the senders, so that none is in two batches."""

    def __init__(self, store: Store, name: str, count: int) -> None:
        self._store = store
        self._names = [EntityId(f"counter:{name}-{number}") for number in range(count)]
        self._seqs = [0] * count

    async def create(self) -> None:
        for start in range(0, len(self._names), 1_000):
            await self._append(range(start, min(start + 1_000, len(self._names))))

    async def rate(self, seconds: float) -> float:
        begun = time.perf_counter()

        async def send(own: range) -> int:
            done = 0
            while time.perf_counter() - begun < seconds:
                await self._append(random.sample(own, BATCH))
                done += BATCH
            return done

        owns = [range(sender, len(self._names), BATCHES_AT_ONCE) for sender in range(BATCHES_AT_ONCE)]
        done = sum(await asyncio.gather(*map(send, owns)))
        return done / (time.perf_counter() - begun)

    async def _append(self, numbers: Iterable[int]) -> None:
        appends = [self._next(number) for number in numbers]
        for number, outcome in zip(numbers, await self._store.journal.append_all(appends), strict=True):
            assert outcome == self._seqs[number] + 1, outcome
            self._seqs[number] += 1

    def _next(self, number: int) -> Append:
        seq = self._seqs[number]
        event = NewEvent(type="counter.added", version=1, key=f"k{seq}", data={"by": 1, "note": "x" * 60})
        has_snapshot = (seq + number) % 20 == 19
        return Append(
            entity=self._names[number],
            owner=USERS[0],
            epoch=1,
            expected_seq=seq,
            events=[event],
            open=False,
            head={"n": seq + 1},
            snapshot=Snapshot(seq=seq + 1, version=1, data={"total": seq + 1}) if has_snapshot else None,
        )


async def _rate(work: Work, numbers: Iterable[int], callers: int, seconds: float) -> float:
    begun = time.perf_counter()

    async def caller(own: int) -> int:
        done = 0
        for number in numbers:
            await work(own, number)
            done += 1
            if time.perf_counter() - begun > seconds:
                break
        return done

    done = sum(await asyncio.gather(*(caller(own) for own in range(callers))))
    return done / (time.perf_counter() - begun)


def _appends(store: Store) -> Work:
    """One event of about 500 bytes to the caller's own entity, its head with it."""
    last_seqs: dict[int, int] = defaultdict(int)

    async def work(own: int, number: int) -> None:
        event = NewEvent(type="bench", version=1, key=f"k{number}", data={"text": "x" * 500})
        last_seqs[own] = await store.journal.append(
            Append(
                entity=EntityId(f"project:{own}"),
                owner=USERS[0],
                epoch=1,
                expected_seq=last_seqs[own],
                events=[event],
                open=False,
                head={"status": "bench"},
            )
        )

    return work


def _pairs(store: Store) -> Work:
    async def work(own: int, number: int) -> None:
        hold = hold_of(number, "gw-")
        await store.books.hold(hold)
        await store.books.meter(meter_of(hold.call))

    return work


if __name__ == "__main__":
    sys.exit(main())
