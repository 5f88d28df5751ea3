"""Hold + settle pairs of the ledger against DuckDB itself, on the same disk in the same run.

A pair is what a call costs in money: a hold in a purse, under credit that the ledger granted durably; its usage in the
spool; and its settlement, a receipt row and its share of the transfers, balances and escrows, durable in the ledger. Of
the callers that come at once each begins the next pair when the ledger has its last one on disk, and a pair lasts from
the hold until then. A group is one commit, here of 200 calls and draws at most.

Raw DuckDB executes the very statements and rows of such groups, prepared before the clock runs, and commits.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from runtime.ids import CallId, UserId
from runtime.ledger import escrows, wallets
from runtime.ledger.caps import Rules
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Draw, EscrowCall, EscrowId, Hold, Ledger, Meter, Payer, Settlement
from runtime.ledger.purse import Purse
from runtime.ledger.spool import Spool
from runtime.store import schema
from runtime.store.queries import parsed
from runtime.store.store import Store
from runtime.store.transaction import Memory, Transaction
from tests.bench.figures import figure as make_figure

ROUNDS = 3
GROUP = 200
BATCH = 190
"""Of a purse: beside it there is room in a group for what it draws."""
CALLERS = 2 * GROUP
WARM_S = 2.0
PAIRS_MIN = 10_000
P99_MS_MAX = 100.0
RAW_RATIO_MIN = 0.6
USERS = [UserId(f"u{number}") for number in range(20)]
PRICE = Price(pricing_id="bench", input_udollars_per_mtok=150_000, output_udollars_per_mtok=600_000)


async def measure(store: Store, folder: Path, seconds: float) -> list[dict[str, object]]:
    """Rounds of both in turn; medians. The store has a wallet for every user."""
    ours, p50_ms, p99_ms, cpu_us, groups, raw = [], [], [], [], [], []
    numbers = itertools.count()
    store._database.group_max, in_use = GROUP, store._database.group_max
    for number in range(ROUNDS):
        load = _Load(store, folder, numbers)
        await load.run(WARM_S + seconds)
        ours.append(load.rate)
        p50_ms.append(load.quantile_ms(0.5))
        p99_ms.append(load.quantile_ms(0.99))
        cpu_us.append(load.cpu_us)
        groups.append(load.calls_per_group)
        raw.append(await asyncio.to_thread(_raw_rate, folder / f"raw{number}", seconds, numbers))
    store._database.group_max = in_use
    ratio = median(mine / its for mine, its in zip(ours, raw, strict=True))
    return [
        make_figure(
            "ledger",
            f"hold and settle pairs, {CALLERS} callers, {median(groups):.0f} calls a group",
            round(median(ours)),
            "1/s",
            against=f"raw DuckDB, groups of {GROUP}: {round(median(raw))}",
            ratio=round(ratio, 2),
            target=f">= {PAIRS_MIN}, >= {RAW_RATIO_MIN} of raw",
            holds=median(ours) >= PAIRS_MIN and ratio >= RAW_RATIO_MIN,
        ),
        make_figure(
            "ledger",
            "p99 of a pair, from the hold until it is on disk",
            round(median(p99_ms), 1),
            "ms",
            against=f"p50: {median(p50_ms):.1f}; CPU of a pair, its caller's included: {median(cpu_us):.0f} us",
            target=f"<= {P99_MS_MAX}",
            holds=median(p99_ms) <= P99_MS_MAX,
        ),
    ]


class _Load:
    """One process's calls over a real ledger. Counts from `WARM_S` on."""

    def __init__(self, store: Store, folder: Path, numbers: Iterator[int]) -> None:
        self.rate = self.cpu_us = self.calls_per_group = 0.0
        self._store = store
        self._folder = folder
        self._numbers = numbers
        self._waiting: dict[CallId, asyncio.Future[None]] = {}
        self._took_s: list[float] = []

    def quantile_ms(self, share: float) -> float:
        return sorted(self._took_s)[int(share * (len(self._took_s) - 1))] * 1e3

    async def run(self, seconds: float) -> None:
        ledger: Ledger = _Told(self._store.books, self._waiting)
        held = Purse(
            ledger, Spool(self._folder, f"b{secrets.token_hex(4)}"), Tariff(), call_s_max=600, batch_calls_max=BATCH
        )
        until_s = time.perf_counter() + seconds
        callers = [asyncio.create_task(self._call(held, until_s)) for _ in range(CALLERS)]
        await asyncio.sleep(WARM_S)
        self._took_s.clear()
        begun_s, cpu_s, groups = time.perf_counter(), time.process_time(), self._groups
        await asyncio.sleep(until_s - begun_s)
        pairs, took_s = len(self._took_s), time.perf_counter() - begun_s
        self.rate = pairs / took_s
        self.cpu_us = (time.process_time() - cpu_s) / pairs * 1e6
        self.calls_per_group = pairs / (self._groups - groups)
        await asyncio.gather(*callers)
        await held.close()

    async def _call(self, held: Purse, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        while (begun_s := time.perf_counter()) < until_s:
            hold = hold_of(next(self._numbers), "pair-")
            settled = self._waiting[hold.call] = loop.create_future()
            await held.hold(hold)
            await held.meter(meter_of(hold.call))
            await settled
            self._took_s.append(time.perf_counter() - begun_s)

    @property
    def _groups(self) -> int:
        return self._store._database.groups


class _Told:
    """The ledger, and whoever waits for a call to be settled is told."""

    def __init__(self, ledger: Any, waiting: dict[CallId, asyncio.Future[None]]) -> None:
        self._ledger = ledger
        self._waiting = waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        recalled: Sequence[EscrowId] = await self._ledger.settle(settlement)
        for each in settlement.calls:
            self._waiting.pop(each.hold.call).set_result(None)
        return recalled


def _raw_rate(folder: Path, seconds: float, numbers: Iterator[int]) -> float:
    """Pairs a second of DuckDB alone, its log folded as its own default does."""
    folder.mkdir()
    connection = schema.connect(folder / schema.DATABASE)
    schema.migrate(connection)
    connection.execute("SET wal_autocheckpoint = '16MB'")
    rules, memory, took_s, pairs = Rules(tariff=Tariff()), Memory(connection), 0.0, 0
    own = {user: EscrowId(f"e-{secrets.token_hex(4)}") for user in USERS}
    begin = Transaction(memory)
    for user, escrow in own.items():
        wallets.open_wallet(begin, user, False, user, 10**14, _now())
        drawn = Draw(escrow=escrow, process="raw", payer=Payer(user), wanted_ucredits=10**12, min_ucredits=1)
        escrows.draw(begin, drawn, rules, _now(), sparing=False)
    begin.flush(connection)
    memory.absorb(begin.records)
    while took_s < seconds:
        group = Transaction(memory)
        holds = [hold_of(next(numbers), "raw-") for _ in range(GROUP)]
        calls = tuple(
            EscrowCall(escrow=own[hold.user], hold=hold, meter=meter_of(hold.call), held_at=_now()) for hold in holds
        )
        escrows.settle(group, Settlement(batch=f"b{next(numbers)}", process="raw", calls=calls), rules, _now())
        statements = [(parsed(name), values) for name, values in group.statements()]
        begun_s = time.perf_counter()
        connection.execute("BEGIN")
        for statement, values in statements:
            connection.execute(statement, values)
        connection.execute("COMMIT")
        took_s += time.perf_counter() - begun_s
        pairs += GROUP
        memory.absorb(group.records)
    connection.close()
    return pairs / took_s


def hold_of(number: int, prefix: str) -> Hold:
    return Hold(
        call=CallId(f"{prefix}{number}"),
        user=USERS[number % len(USERS)],
        run=None,
        task_type="chat",
        provider="bench",
        model="mini",
        input_tokens_max=2_000,
        output_tokens_max=1_000,
        price=PRICE,
    )


def meter_of(call: CallId) -> Meter:
    return Meter(call=call, input_tokens=900, output_tokens=300, response_time_ms=1, key_id="k")


def _now() -> datetime:
    return datetime.now(UTC)
