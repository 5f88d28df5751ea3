"""`make bench NAME=ledger_start`: a ledger with 10,000,000 calls: how long it takes to open, to check, and to hold.

The rows are made by SQL in a closed data folder, so that every sum agrees. Each figure is of a process of its own:
opened with nothing of the file in memory, opened again after kill -9 with the longest log, checked as a whole, and
holding for callers while an administrator has all reports made, one after the other.
"""

import asyncio
import itertools
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

from runtime.config import Secrets, Settings
from runtime.errors import StoreUnavailableError
from runtime.ids import UserId
from runtime.ledger.port import Draw, EscrowCall, EscrowId, Payer, Settlement
from runtime.reports.listing import REPORTS
from runtime.reports.port import Asked
from runtime.store import database as database_module
from runtime.store.schema import DATABASE, connect
from runtime.store.store import Store
from tests.bench.figures import figure as make_figure
from tests.bench.pairs import hold_by, meter_of

ROWS = 10_000_000
PART = 500_000
CALLS_PER_ESCROW = 100
CALLS_PER_BATCH = 500
USERS = 1_000
BOUGHT_UCREDITS = 10**15
LOG_BYTES = database_module.LOG_BYTES_MAX
OPEN_S_MAX = 10.0
HOLD_P99_MS_MAX = 50.0
CALLERS = 16
HOLD_S_MIN = 20.0
ROOT = Path(__file__).parents[2]


def main(rows: int = ROWS) -> int:
    """Prints every figure; 0 when all hold."""
    with tempfile.TemporaryDirectory(prefix="masterbuilder-bench-") as folder:
        data = Path(folder) / "data"
        begun_s = time.perf_counter()
        fill(data, rows)
        took_s = time.perf_counter() - begun_s
        size_mb = (data / DATABASE).stat().st_size >> 20
        print(f"{rows} rows in {took_s:.0f} s, {size_mb} MB", file=sys.stderr, flush=True)
        figures = _measure(data, rows)
    for figure in figures:
        print(json.dumps(figure))
    return 0 if all(figure["holds"] for figure in figures) else 1


def fill(data_dir: Path, rows: int) -> None:
    """A closed data folder with so many calls under escrows that have ended, and books that agree."""
    asyncio.run(_make(data_dir))
    with connect(data_dir / DATABASE) as connection:
        values = {"users": USERS, "bought": BOUGHT_UCREDITS}
        connection.execute(_FILL_USERS, {"users": USERS})
        connection.execute(_FILL_PURCHASES, values)
        connection.execute(_FILL_TRAITS)
        for start in range(0, rows, PART):
            part = {"start": start, "end": min(rows, start + PART)}
            connection.execute(_FILL_CALLS, {**part, "each": CALLS_PER_ESCROW, "batch": CALLS_PER_BATCH, "rows": rows})
            connection.execute("CHECKPOINT")
        connection.execute(_FILL_ESCROWS, {"users": USERS})
        for statement in _FILL_TRANSFERS:
            connection.execute(statement)
        connection.execute(_FILL_ACCOUNTS)
        connection.execute("CHECKPOINT")


def _measure(data: Path, rows: int) -> list[dict[str, object]]:
    calls = f"{rows // 10**6}M calls" if rows >= 10**6 else f"{rows} calls"
    _forget(data)
    cold = _run("open", data)
    _run("fill_log", data, killed=True)
    log_mb = (data / f"{DATABASE}.wal").stat().st_size / 2**20
    _forget(data)
    killed = _run("open", data)
    checked = _run("check", data)
    alone = _run("hold", data)
    beside = _run("hold_beside_reports", data)
    slowest = max(beside["reports_s"], key=beside["reports_s"].get)
    refused = beside["refused"]
    return [
        _figure(f"open, {calls}, cold", cold["seconds"], "s", f"memory {cold['memory_mb']} MB", OPEN_S_MAX),
        _figure(
            f"open, {calls}, after kill -9", killed["seconds"], "s",
            f"{log_mb:.0f} MB of log; memory {killed['memory_mb']} MB", OPEN_S_MAX,
        ),
        _figure(f"check, {calls}", checked["seconds"], "s", f"memory {checked['memory_mb']} MB"),
        _figure(f"hold p99, {calls}", alone["p99_ms"], "ms", f"p50 {alone['p50_ms']} ms", HOLD_P99_MS_MAX),
        _figure(
            f"hold p99, {calls}, beside reports", beside["p99_ms"], "ms",
            f"p50 {beside['p50_ms']} ms, longest {beside['max_ms']} ms, {beside['holds']} holds; memory "
            f"{beside['memory_mb']} MB; slowest report {slowest}, {beside['reports_s'][slowest]} s", HOLD_P99_MS_MAX,
        ),
        make_figure(
            "ledger_start", f"reports that could not be made, {calls}", len(refused), "reports",
            against=", ".join(refused), target=0, holds=not refused,
        ),
    ]  # fmt: skip


def _figure(name: str, value: float, unit: str, against: str, value_max: float | None = None) -> dict[str, object]:
    return make_figure(
        "ledger_start", name, value, unit, against=against, target=f"<= {value_max}" if value_max else None,
        holds=value_max is None or value <= value_max,
    )  # fmt: skip


def _run(what: str, data: Path, *, killed: bool = False) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "tests.bench.ledger_start", what, str(data)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    print(f"{what}: {done.stdout.strip()}", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(done.stdout) if not killed else {}
    return found


def _forget(data: Path) -> None:
    """Nothing of the files stays in the kernel's memory."""
    for path in data.iterdir():
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


async def _make(data: Path) -> None:
    store = _store(data)
    await store.open()
    await store.close()


def _store(data: Path) -> Store:
    return Store(Settings(data_dir=data, initial_free_credits=0), Secrets.load(data, {}))


async def _open(data: Path) -> Mapping[str, object]:
    store = _store(data)
    begun_s = time.perf_counter()
    await store.open()
    seconds = time.perf_counter() - begun_s
    await store.books.balance(UserId("user-1"))
    first_s = time.perf_counter() - begun_s
    found = {"seconds": round(seconds, 2), "with_first_read_s": round(first_s, 2), **_memory()}
    await store.close()
    return found


async def _fill_log(data: Path) -> Mapping[str, object]:
    """Settles calls until the log is as long as it ever is, and dies."""
    database_module.LOG_BYTES_MAX = 1 << 40
    store = _store(data)
    await store.open()
    process, numbers, users = secrets.token_hex(4), itertools.count(), [UserId(f"user-{n}") for n in range(50)]
    escrows = {user: EscrowId(f"e-{process}-{user}") for user in users}
    for user, escrow in escrows.items():
        await store.books.draw(
            Draw(escrow=escrow, process=process, payer=Payer(user), wanted_ucredits=10**9, min_ucredits=1)
        )
    while store._database.log_bytes < LOG_BYTES:
        holds = [hold_by(users[number % 50], f"{process}-{next(numbers)}") for number in range(500)]
        now = datetime.now(UTC)
        calls = tuple(
            EscrowCall(escrow=escrows[hold.user], hold=hold, meter=meter_of(hold.call), held_at=now) for hold in holds
        )
        await store.books.settle(Settlement(batch=f"b-{process}-{next(numbers)}", process=process, calls=calls))
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def _check(data: Path) -> Mapping[str, object]:
    store = _store(data)
    await store.open()
    begun_s = time.perf_counter()
    wrong = await store.check()
    seconds = time.perf_counter() - begun_s
    assert not wrong, wrong[:3]
    found = {"seconds": round(seconds, 1), **_memory()}
    await store.close()
    return found


async def _hold_alone(data: Path) -> Mapping[str, object]:
    store = _store(data)
    await store.open()
    found = await _holding(store, asyncio.sleep(HOLD_S_MIN))
    await store.close()
    return found


async def _hold_beside_reports(data: Path) -> Mapping[str, object]:
    store = _store(data)
    await store.open()
    took_s: dict[str, float] = {}
    refused: set[str] = set()

    async def report() -> None:
        begun_s = time.perf_counter()
        while time.perf_counter() - begun_s < HOLD_S_MIN or len(took_s) < len(REPORTS):
            for each in REPORTS:
                before_s = time.perf_counter()
                try:
                    await store.reports.report(Asked(name=each.name))
                except StoreUnavailableError:
                    refused.add(each.name)
                took_s[each.name] = round(time.perf_counter() - before_s, 1)

    found = await _holding(store, report())
    await store.close()
    return {**found, "reports_s": took_s, "refused": sorted(refused)}


async def _holding(store: Store, meanwhile: Awaitable[None]) -> Mapping[str, object]:
    """Callers hold and meter for as long as something else takes."""
    took_ms: list[float] = []
    is_over = asyncio.Event()
    name = secrets.token_hex(4)

    async def call(number: int) -> None:
        for piece in itertools.count():
            if is_over.is_set():
                return
            hold = hold_by(UserId(f"user-{number}"), f"{name}-{number}-{piece}")
            begun_s = time.perf_counter()
            await store.books.hold(hold)
            if piece:  # The first finds nothing of its user in memory.
                took_ms.append((time.perf_counter() - begun_s) * 1e3)
            await asyncio.sleep(0.01)
            await store.books.meter(meter_of(hold.call))

    calling = asyncio.gather(*(call(number) for number in range(CALLERS)))
    await meanwhile
    is_over.set()
    await calling
    parts = quantiles(took_ms, n=100)
    return {
        "holds": len(took_ms),
        "p50_ms": round(parts[49], 1),
        "p99_ms": round(parts[98], 1),
        "max_ms": round(max(took_ms)),
        **_memory(),
    }


def _memory() -> Mapping[str, int]:
    return {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}


_FILL_USERS = """
INSERT INTO users BY NAME
SELECT 'user-' || i AS user_id, false AS is_admin, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS created_at
FROM range($users) r(i)
"""

_FILL_PURCHASES = """
INSERT INTO purchases BY NAME
SELECT 'bench/' || i AS purchase, 'bench' AS provider, i::VARCHAR AS external_id, 'user-' || i AS user_id,
       'credits' AS product, $bought AS ucredits, $bought AS paid_pusd, 'USD' AS currency, 1 AS amount_minor,
       TIMESTAMPTZ '2026-01-01 00:00:00+00' AS made_at
FROM range($users) r(i)
"""

# An even number of input tokens makes a whole number of microcredits: 22.5 a token, and 90 for one of the output.
_FILL_TRAITS = """
INSERT INTO call_traits BY NAME
SELECT row_number() OVER () AS traits, 'chat' AS task_type, 'provider-' || p AS provider, 'model-' || m AS model,
       'bench' AS pricing_id, 150000 AS input_udollars_per_mtok, 600000 AS output_udollars_per_mtok,
       0 AS image_udollars, 'key-' || k AS key_id, 'ok' AS outcome
FROM range(5) a(p), range(7) b(m), range(10) c(k)
"""

_FILL_CALLS = """
INSERT INTO settled_calls BY NAME
WITH made AS (
    SELECT i, 500 + 2 * (i % 500) AS input_tokens, 200 + i % 200 AS output_tokens,
           'provider-' || i // $batch % 5 AS provider, 'model-' || i % 7 AS model, 'key-' || i % 10 AS key_id,
           TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_microseconds(7776000000000 // $rows * i) AS at_time
    FROM range($start, $end) r(i)
)
SELECT md5(i::VARCHAR) AS call, 'e-' || i // $each AS escrow, 'b-' || i // $batch AS batch, t.traits,
       2000 AS input_tokens_max, 1000 AS output_tokens_max, input_tokens, output_tokens, 0 AS images,
       input_tokens * 150000 + output_tokens * 600000 AS cost_pusd,
       input_tokens // 2 * 45 + output_tokens * 90 AS charge_ucredits, 0 AS loss_pusd,
       100 + i % 900 AS response_time_ms, at_time AS held_at, at_time AS settled_at
FROM made JOIN call_traits t ON t.provider = made.provider AND t.model = made.model AND t.key_id = made.key_id
ORDER BY i
"""

_FILL_ESCROWS = """
INSERT INTO escrow_grants BY NAME
SELECT escrow, 'bench' AS process, 'user-' || substr(escrow, 3)::BIGINT % $users AS user_id, '' AS token_sha256,
       sum(charge_ucredits) AS granted_ucredits, sum(charge_ucredits) AS charged_ucredits, min(held_at) AS opened_at,
       max(settled_at) AS ended_at
FROM escrow_calls GROUP BY escrow
"""

_FILL_TRANSFERS = (
    """
INSERT INTO transfers BY NAME
SELECT escrow || '/hold' AS transfer_id, 'credit' AS unit, 'user:' || user_id AS debit,
       'user:' || user_id || '/held' AS credit, granted_ucredits AS amount, 'hold' AS reason, user_id,
       opened_at AS made_at, escrow
FROM escrows
""",
    """
INSERT INTO transfers BY NAME
SELECT c.escrow || '/' || c.batch || '/charge' AS transfer_id, 'credit' AS unit,
       'user:' || any_value(e.user_id) || '/held' AS debit, 'platform:revenue' AS credit,
       sum(c.charge_ucredits) AS amount, 'charge' AS reason, any_value(e.user_id) AS user_id,
       max(c.settled_at) AS made_at, c.escrow, c.batch
FROM escrow_calls c JOIN escrows e ON e.escrow = c.escrow GROUP BY c.escrow, c.batch
""",
    """
INSERT INTO transfers BY NAME
SELECT batch || '/' || provider || '/cost' AS transfer_id, 'usd' AS unit, 'platform:cost' AS debit,
       'provider:' || provider AS credit, sum(cost_pusd) AS amount, 'cost' AS reason, max(settled_at) AS made_at, batch
FROM escrow_calls GROUP BY batch, provider
""",
    """
INSERT INTO transfers BY NAME
SELECT 'purchase/' || purchase || '/purchase' AS transfer_id, 'credit' AS unit, 'platform:sales' AS debit,
       'user:' || user_id AS credit, ucredits AS amount, 'purchase' AS reason, user_id, made_at
FROM purchases
""",
    """
INSERT INTO transfers BY NAME
SELECT 'purchase/' || purchase || '/income' AS transfer_id, 'usd' AS unit, 'payments:bench' AS debit,
       'platform:income' AS credit, paid_pusd AS amount, 'income' AS reason, user_id, made_at
FROM purchases
""",
)

_FILL_ACCOUNTS = """
INSERT INTO accounts BY NAME
SELECT account, unit, sum(amount) AS balance
FROM (SELECT credit AS account, unit, amount FROM transfers UNION ALL SELECT debit, unit, -amount FROM transfers)
GROUP BY account, unit
"""

_PARTS: Mapping[str, Callable[[Path], Awaitable[Mapping[str, object]]]] = {
    "open": _open,
    "fill_log": _fill_log,
    "check": _check,
    "hold": _hold_alone,
    "hold_beside_reports": _hold_beside_reports,
}


async def _carry_out(what: str, data: Path) -> None:
    print(json.dumps(await _PARTS[what](data)))


if __name__ == "__main__":
    if sys.argv[2:]:
        asyncio.run(_carry_out(sys.argv[1], Path(sys.argv[2])))
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
