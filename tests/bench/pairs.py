"""Hold and settle pairs of the ledger against DuckDB itself, on the same disk in the same run.

A pair is what a call costs in money: a hold under credit that the ledger granted durably, and its settlement, a receipt
row and its share of the transfers, balances and escrows, on disk. A group is one commit, here of 200 calls at most.

Pairs are counted twice: of the ledger alone, with batches as other processes send them, and of a process that makes the
calls, holds them in a purse and spools their usage beside the ledger. One of the ledger lasts from the settlement
until it is answered, one of the process from its hold until then, and each caller waits for it.

Raw DuckDB executes the very statements and rows of such groups, and commits. Its rows and the ledger's batches alike
are prepared before the clock runs.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from actors.process import prepare_process
from runtime.ids import CallId, UserId
from runtime.ledger import escrows, wallets
from runtime.ledger.caps import Rules
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Draw, EscrowCall, EscrowId, Hold, Meter, Payer, Settlement
from runtime.ledger.purse import BATCHES_MAX, Purse
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
PREPARED_RATE = 25_000
"""Pairs a second that batches are prepared for: more than the ledger can take."""
P99_MS_MAX = 100.0
RAW_RATIO_MIN = 0.6
USERS = [UserId(f"u{number}") for number in range(20)]
PRICE = Price(pricing_id="bench", input_udollars_per_mtok=150_000, output_udollars_per_mtok=600_000)


async def measure(store: Store, folder: Path, seconds: float) -> list[dict[str, object]]:
    """Rounds of each in turn; medians. The store has a wallet for every user."""
    ledger, process, raw = [], [], []
    numbers = itertools.count()
    store._database.group_max, in_use = GROUP, store._database.group_max
    prepare_process()
    for number in range(ROUNDS):
        ledger.append(await _Senders(store, numbers).sample(seconds))
        process.append(await _Callers(store, folder, numbers).sample(seconds))
        raw.append(await asyncio.to_thread(_raw_rate, folder / f"raw{number}", seconds, numbers))
    store._database.group_max = in_use
    return [
        *_figures("the ledger alone", ledger, raw),
        *_figures(f"{CALLERS} callers and a purse beside it", process, raw),
    ]


class _Sample(NamedTuple):
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    calls_per_group: float


def _figures(who: str, samples: Sequence[_Sample], raw: Sequence[float]) -> Iterator[dict[str, object]]:
    middle = _Sample(*map(median, zip(*samples, strict=True)))
    ratio = median(sample.rate / its for sample, its in zip(samples, raw, strict=True))
    yield make_figure(
        "ledger",
        f"hold and settle pairs, {who}, {middle.calls_per_group:.0f} calls a group",
        round(middle.rate),
        "1/s",
        against=f"raw DuckDB, groups of {GROUP}: {round(median(raw))}; CPU of a pair: {middle.cpu_us:.0f} us",
        ratio=round(ratio, 2),
        target=f">= {PAIRS_MIN}, >= {RAW_RATIO_MIN} of raw",
        holds=middle.rate >= PAIRS_MIN and ratio >= RAW_RATIO_MIN,
    )
    yield make_figure(
        "ledger",
        f"p99 of a pair, {who}",
        round(middle.p99_ms, 1),
        "ms",
        against=f"p50: {middle.p50_ms:.1f}",
        target=f"<= {P99_MS_MAX}",
        holds=middle.p99_ms <= P99_MS_MAX,
    )


class _Load:
    """Pairs as fast as they come, counted from `WARM_S` on."""

    def __init__(self, store: Store, numbers: Iterator[int]) -> None:
        self._store = store
        self._numbers = numbers
        self._took_s: list[float] = []

    async def sample(self, seconds: float) -> _Sample:
        await self._prepare(WARM_S + seconds)
        until_s = time.perf_counter() + WARM_S + seconds
        running = asyncio.create_task(self._run(until_s))
        await asyncio.sleep(WARM_S)
        self._took_s.clear()
        database = self._store._database
        begun_s, cpu_s, groups = time.perf_counter(), time.process_time(), database.groups
        await asyncio.sleep(until_s - begun_s)
        took_s, pairs = sorted(self._took_s), len(self._took_s)
        sample = _Sample(
            rate=pairs / (time.perf_counter() - begun_s),
            p50_ms=took_s[pairs // 2] * 1e3,
            p99_ms=took_s[pairs * 99 // 100] * 1e3,
            cpu_us=(time.process_time() - cpu_s) / pairs * 1e6,
            calls_per_group=pairs / (database.groups - groups),
        )
        await running
        return sample

    async def _prepare(self, seconds: float) -> None:
        """Before the clock runs."""

    async def _run(self, until_s: float) -> None:
        raise NotImplementedError


class _Senders(_Load):
    """As many as a purse has batches under way; each draws once and then settles one batch after the other."""

    async def _prepare(self, seconds: float) -> None:
        self._senders = [await self._sender(seconds) for _ in range(BATCHES_MAX)]

    async def _sender(self, seconds: float) -> list[Settlement]:
        process = secrets.token_hex(4)
        own = {user: EscrowId(f"e-{process}-{user}") for user in USERS}
        for user, escrow in own.items():
            await self._store.books.draw(
                Draw(escrow=escrow, process=process, payer=Payer(user), wanted_ucredits=10**10, min_ucredits=1)
            )
        count = int(PREPARED_RATE * seconds / GROUP / BATCHES_MAX)
        return [_batch(f"{process}-{next(self._numbers)}", process, own, self._numbers) for _ in range(count)]

    async def _run(self, until_s: float) -> None:
        await asyncio.gather(*(self._send(batches, until_s) for batches in self._senders))

    async def _send(self, batches: Sequence[Settlement], until_s: float) -> None:
        books, process = self._store.books, batches[0].process
        for batch in batches:
            begun_s = time.perf_counter()
            if begun_s >= until_s:
                break
            await books.settle(batch)
            self._took_s += [time.perf_counter() - begun_s] * len(batch.calls)
        await books.settle(Settlement(batch=f"{process}-end", process=process, process_ended=True))


class _Callers(_Load):
    def __init__(self, store: Store, folder: Path, numbers: Iterator[int]) -> None:
        super().__init__(store, numbers)
        self._waiting: dict[CallId, asyncio.Future[None]] = {}
        ledger: Any = _Told(store.books, self._waiting)
        spool = Spool(folder, f"b{secrets.token_hex(4)}")
        self._purse = Purse(ledger, spool, Tariff(), call_s_max=600, batch_calls_max=BATCH)

    async def _run(self, until_s: float) -> None:
        await asyncio.gather(*(self._call(until_s) for _ in range(CALLERS)))
        await self._purse.close()

    async def _call(self, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        while (begun_s := time.perf_counter()) < until_s:
            hold = hold_of(next(self._numbers), "pair-")
            settled = self._waiting[hold.call] = loop.create_future()
            await self._purse.hold(hold)
            await self._purse.meter(meter_of(hold.call))
            await settled
            self._took_s.append(time.perf_counter() - begun_s)


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
        escrows.settle(group, _batch(f"raw{next(numbers)}", "raw", own, numbers), rules, _now())
        statements = [(parsed(name, connection), values) for name, values in group.statements()]
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


def _batch(name: str, process: str, own: Mapping[UserId, EscrowId], numbers: Iterator[int]) -> Settlement:
    holds = [hold_of(next(numbers), "batch-") for _ in range(GROUP)]
    calls = tuple(
        EscrowCall(escrow=own[hold.user], hold=hold, meter=meter_of(hold.call), held_at=_now()) for hold in holds
    )
    return Settlement(batch=name, process=process, calls=calls)


def hold_of(number: int, prefix: str) -> Hold:
    return hold_by(USERS[number % len(USERS)], f"{prefix}{number}")


def hold_by(user: UserId, call: str) -> Hold:
    return Hold(
        call=CallId(call),
        user=user,
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
