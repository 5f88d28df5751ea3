"""The ledger's own rows, as plain as they stand on disk: none of the product's views is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from runtime.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedHold:
    user: str
    run: str | None
    bound_pusd: int
    hold_ucredits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedUsage:
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    charge_ucredits: int
    failed: bool
    estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedEscrow:
    process: str
    user: str
    project: str | None
    granted_ucredits: int
    charged_ucredits: int
    is_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedCall:
    """Of an escrow."""

    escrow: str
    batch: str
    outcome: str
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    charge_ucredits: int
    loss_pusd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Every table of money by its key; `events` are the keys of the journal's, `blobs` the files' names."""

    users: frozenset[str]
    holds: Mapping[str, BookedHold]
    usages: Mapping[str, BookedUsage]
    ends: Mapping[str, str]
    run_projects: Mapping[str, str]
    run_ends: Mapping[str, str]
    escrows: Mapping[str, BookedEscrow]
    calls: Mapping[str, BookedCall]
    purchases: Mapping[str, tuple[str, int]]
    """User and credits; the same for adjustments."""
    repayments: Mapping[str, int]
    adjustments: Mapping[str, tuple[str, int]]
    refunds: Mapping[str, int]
    budgets: Mapping[str, tuple[int | None, int]]
    """Ceiling and what is committed."""
    accounts: Mapping[str, int]
    events: frozenset[str]
    blobs: frozenset[str]


async def read_books(store: Store) -> Books:
    """Of a store on which nobody works."""
    database = store._database
    tables = await database.read_long(_tables)
    blobs = frozenset(path.name for path in (database.data_dir / "blobs").glob("*/*"))
    events = [
        event.key
        for entity in tables.pop("entities")
        for event in await store.journal.read(entity, after_seq=0, limit=10**9)
    ]
    assert len(events) == len(set(events)), "an event is there twice"
    return Books(events=frozenset(events), blobs=blobs, **tables)


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    def rows(columns: str, table: str) -> list[tuple[Any, ...]]:
        return connection.execute(f"SELECT {columns} FROM {table}").fetchall()

    return {
        "users": frozenset(user for (user,) in rows("user_id", "users")),
        "holds": {
            call: BookedHold(user=user, run=run, bound_pusd=int(bound), hold_ucredits=int(hold))
            for call, user, run, bound, hold in rows("call, user_id, run, bound_pusd, hold_ucredits", "call_holds")
        },
        "usages": {
            call: BookedUsage(
                input_tokens=given, output_tokens=taken, cost_pusd=int(cost), charge_ucredits=int(charge),
                failed=failed, estimated=estimated,
            )
            for call, given, taken, cost, charge, failed, estimated in rows(
                "call, input_tokens, output_tokens, cost_pusd, charge_ucredits, provider_failed, estimated",
                "call_usages",
            )
        },
        "ends": dict(rows("call, state", "call_ends")),
        "run_projects": dict(rows("run, project", "runs")),
        "run_ends": dict(rows("run, state", "run_ends")),
        "escrows": {
            escrow: BookedEscrow(
                process=process, user=user, project=project, granted_ucredits=int(granted),
                charged_ucredits=int(charged), is_over=is_over,
            )
            for escrow, process, user, project, granted, charged, is_over in rows(
                "escrow, process, user_id, project, granted_ucredits, charged_ucredits, ended_at IS NOT NULL",
                "escrows",
            )
        },
        "calls": {
            call: BookedCall(
                escrow=escrow, batch=batch, outcome=outcome, input_tokens=given, output_tokens=taken,
                cost_pusd=int(cost), charge_ucredits=int(charge), loss_pusd=int(loss),
            )
            for call, escrow, batch, outcome, given, taken, cost, charge, loss in rows(
                "call, escrow, batch, outcome, input_tokens, output_tokens, cost_pusd, charge_ucredits, loss_pusd",
                "escrow_calls",
            )
        },
        "purchases": {
            purchase: (user, int(ucredits))
            for purchase, user, ucredits in rows("purchase, user_id, ucredits", "purchases")
        },
        "repayments": {
            purchase: int(taken) for purchase, taken in rows("purchase, taken_ucredits", "repayments")
        },
        "adjustments": {
            adjustment: (user, int(amount))
            for adjustment, user, amount in rows("adjustment, user_id, amount_ucredits", "adjustments")
        },
        "refunds": {call: int(amount) for call, amount in rows("call, amount_ucredits", "call_refunds")},
        "budgets": {
            subject: (None if ceiling is None else int(ceiling), int(committed))
            for subject, ceiling, committed in rows("subject, ceiling_ucredits, committed_ucredits", "budgets")
        },
        "accounts": {account: int(balance) for account, balance in rows("account, balance", "accounts")},
        "entities": [entity for (entity,) in rows("entity", "entities")],
    }  # fmt: skip
