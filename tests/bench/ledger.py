"""`make bench NAME=ledger`: what the ledger writes durably in a second, in groups and one by one.

Both run interleaved on the same disk, three times; the medians are printed, one JSON line a figure. In groups, callers
come at once and share commits; one by one, each waits for its own. A pair is a hold and the metering that charges it.
Batches are what hosts send: appends of many entities together, each with a small head, every 20th with a snapshot; they
must be as fast over 100,000 entities that take turns as over 10,000.
"""

import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from statistics import median

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent, Snapshot
from runtime.ids import PARTITION_COUNT, CallId, EntityId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import Hold, Meter
from runtime.store.store import Store
from tests.bench.figures import figure as make_figure

ROUNDS = 3
BATCH = 250
BATCHES_AT_ONCE = 3
FEW, MANY = 10_000, 100_000
FLAT_MIN = 0.8
CALLERS = 256
USERS = [UserId(f"u{number}") for number in range(50)]
PRICE = Price(pricing_id="bench", input_udollars_per_mtok=150_000, output_udollars_per_mtok=600_000)
GROUPED_OVER_SINGLE_MIN = 5.0

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
            await _compare("hold and meter pairs", _pairs(store), seconds),
            await _compare_batches(store, seconds),
        ]
        wrong = await store.check()
        assert not wrong, wrong
        await store.close()
        return figures


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
        call = CallId(f"gw-{number}")
        hold = Hold(
            call=call,
            user=USERS[number % len(USERS)],
            run=None,
            task_type="chat",
            provider="bench",
            model="mini",
            input_tokens_max=2_000,
            output_tokens_max=1_000,
            price=PRICE,
        )
        await store.books.hold(hold)
        meter = Meter(call=call, input_tokens=900, output_tokens=300, response_time_ms=1, key_id="k")
        await store.books.meter(meter)

    return work


if __name__ == "__main__":
    sys.exit(main())
