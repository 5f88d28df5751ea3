"""What two sides wrote down of the same calls: the ledger, and the simulator's usage file."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from runtime.config import Secrets, Settings
from runtime.ids import UserId
from runtime.ledger.port import Balance
from runtime.ledger.spool import find_orphans
from runtime.store.schema import DATABASE
from runtime.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A call in the ledger."""

    call: str
    user: str
    state: str
    outcome: str
    provider: str
    model: str
    tokens: tuple[int, int]
    cost_pusd: int
    charge_ucredits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    calls: Mapping[str, Booked]
    balances: Mapping[str, Balance]
    mismatches: Sequence[str]
    spooled: Sequence[str]
    """Calls that are in spool files and not in the ledger."""
    spent_ucredits: Mapping[str, int]
    """The label of each token, and what was spent with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One answer of the simulator to a call; there may be several under one call id."""

    prompt_tokens: int
    completion_tokens: int
    complete: bool
    tag: str

    @property
    def tokens(self) -> tuple[int, int]:
        return self.prompt_tokens, self.completion_tokens


def read_books(settings: Settings, users: Sequence[str]) -> Books:
    """After `down`. Opening the store and closing it again puts everything into the one file that is then read."""
    balances, mismatches, spent = asyncio.run(_ask_store(settings, users))
    connection = duckdb.connect(str(settings.data_dir / DATABASE), read_only=True)
    try:
        rows = connection.execute(
            "SELECT call, user_id, state, outcome, provider, model, input_tokens, output_tokens, cost_pusd, "
            "charge_ucredits FROM calls"
        ).fetchall()
    finally:
        connection.close()
    calls = {
        call: Booked(
            call=call,
            user=user,
            state=state,
            outcome=outcome,
            provider=provider,
            model=model,
            tokens=(input_tokens, output_tokens),
            cost_pusd=int(cost_pusd),
            charge_ucredits=int(charge_ucredits),
        )
        for call, user, state, outcome, provider, model, input_tokens, output_tokens, cost_pusd, charge_ucredits in rows
    }
    spooled = [call for call in _spooled(settings.data_dir) if call not in calls]
    return Books(calls=calls, balances=balances, mismatches=mismatches, spooled=spooled, spent_ucredits=spent)


def read_usage_file(path: Path) -> Mapping[str, Sequence[Line]]:
    """Call id -> what was served under it, in order."""
    lines: dict[str, list[Line]] = {}
    with path.open() as file:
        for text in file:
            record = json.loads(text)
            line = Line(
                prompt_tokens=record["prompt_tokens"],
                completion_tokens=record["completion_tokens"],
                complete=record["complete"],
                tag=record["user"],
            )
            lines.setdefault(record["call_id"], []).append(line)
    return lines


async def _ask_store(
    settings: Settings, users: Sequence[str]
) -> tuple[Mapping[str, Balance], Sequence[str], Mapping[str, int]]:
    store = Store(settings, Secrets.load(settings.data_dir, {}))
    await store.open()
    try:
        balances = {user: await store.books.balance(UserId(user)) for user in users}
        mismatches = [f"{each.subject}: {each.text}" for each in await store.check()]
        spent = {row.label: row.spent_ucredits for row in await store.books.tokens(None)}
    finally:
        await store.close()
    return balances, mismatches, spent


def _spooled(data_dir: Path) -> Sequence[str]:
    orphans = find_orphans(data_dir)
    found = [call.hold.call for orphan in orphans for _, calls in orphan.calls() for call in calls]
    for orphan in orphans:
        orphan.let_go()
    return found
