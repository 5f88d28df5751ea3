"""`make bench NAME=ledger`: what the ledger writes durably in a second, in groups and one by one.

Both run interleaved on the same disk, three times; the medians are printed, one JSON line a figure. In groups, callers
come at once and share commits; one by one, each waits for its own. A pair is a hold and the metering that charges it.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from statistics import median

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent
from runtime.ids import PARTITION_COUNT, CallId, EntityId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import Hold, Meter
from runtime.store.store import Store

ROUNDS = 3
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
        await store.journal.claim(Claim(host="bench", incarnation="1", partitions=range(PARTITION_COUNT)))
        figures = [
            await _compare("durable appends", _appends(store), seconds),
            await _compare("hold and meter pairs", _pairs(store), seconds),
        ]
        wrong = await store.books.mismatches()
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
    return {
        "bench": "ledger",
        "figure": f"{figure}, {CALLERS} callers",
        "value": round(median(grouped)),
        "unit": "1/s",
        "against": f"one by one: {round(median(single))}",
        "ratio": round(ratio, 1),
        "target": GROUPED_OVER_SINGLE_MIN,
        "holds": ratio >= GROUPED_OVER_SINGLE_MIN,
    }


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
