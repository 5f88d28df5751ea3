"""The two ledgers that a contract is checked against: in memory, and on DuckDB. With a clock to turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runtime.accounts.rules import NO_RULES, AccountRules
from runtime.ledger.books import Books
from runtime.ledger.caps import NO_CAPS, Caps
from runtime.ledger.money import Tariff
from runtime.ledger.port import Ledger
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.testing.memory_ledger import MemoryLedger

KINDS = ("memory", "duckdb")
CREDIT = 10**6
GRANT = 100 * CREDIT
BONUS = 50 * CREDIT
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TARIFF = Tariff(markup_numerator=1, markup_denominator=1)


@dataclass
class World:
    ledger: Ledger
    now: datetime = NOON
    database: Database | None = None


@asynccontextmanager
async def a_world(
    kind: str, folder: Path, caps: Caps = NO_CAPS, rules: AccountRules = NO_RULES
) -> AsyncIterator[World]:
    """A ledger without a user. What it was told adds up when it is given back."""
    made: World

    def clock() -> datetime:
        return made.now

    if kind == "memory":
        made = World(MemoryLedger(TARIFF, GRANT, clock, caps=caps, referral_ucredits=BONUS, account_rules=rules))
    else:
        made = await on_disk(folder, clock, caps, rules)
    yield made
    assert await made.ledger.mismatches() == []
    if made.database is not None:
        await asyncio.to_thread(made.database.close)


async def on_disk(
    folder: Path, clock: Callable[[], datetime], caps: Caps = NO_CAPS, rules: AccountRules = NO_RULES
) -> World:
    """Whoever asks closes its database."""
    database = Database(folder, bytes(range(32)))
    await asyncio.to_thread(database.open)
    books = Books(
        database=database,
        blobs=Blobs(database),
        tariff=TARIFF,
        initial_free_ucredits=GRANT,
        identity_salt=b"salt",
        caps=caps,
        referral_ucredits=BONUS,
        clock=clock,
        recall_wait_s=0.0,
        account_rules=rules,
    )
    return World(books, database=database)
