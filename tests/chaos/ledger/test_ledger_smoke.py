"""A short run of each part, and what the verdict finds in books that are wrong. `python -m tests.chaos.ledger` makes a
long one."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.config import Secrets, Settings
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.purse import Purse
from runtime.ledger.spool import Spool
from runtime.store.store import Store
from tests.chaos.ledger import backups, kills, races
from tests.chaos.ledger.books import Books, read_books
from tests.chaos.ledger.child import CALL_S_MAX, FREE_CREDITS
from tests.chaos.ledger.diary import Diary, Line, read
from tests.chaos.ledger.load import RICH, Load
from tests.chaos.ledger.operations import Sender, claimed
from tests.chaos.ledger.verdict import differences, is_there, later_than_missing, told_by

SILENT: Callable[[str], None] = lambda text: None  # noqa: E731
LOOKS_MAX = 100


def test_kills__lose_and_double_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    tally = kills.Kills(tmp_path, 7, SILENT).run(1)
    assert tally.differences == []
    assert tally.kills.total() == 1
    assert tally.acknowledged


async def test_races__spend_a_wallet_to_the_last_hold_and_no_further(tmp_path: Path) -> None:
    tallies = await races.Races(tmp_path, 7, SILENT, wanted=8).run(1)
    for tally in tallies.values():
        assert tally.differences == []
        assert tally.refusals
        assert tally.looks


async def test_backup_under_load__is_one_moment_and_whole_or_refused(tmp_path: Path) -> None:
    tally = await backups.Backups(tmp_path, 7, SILENT).run(1)
    assert tally.differences == []
    assert tally.before
    assert tally.damages.keys() == {"cut", "flipped", "removed", "added"}


class Written:
    """What a short load wrote down, and the ledger's rows after it."""

    def __init__(self, lines: list[Line], books: Books) -> None:
        self.lines = lines
        self.books = books

    def differences(self, **changes: Any) -> list[str]:
        granted = FREE_CREDITS * UCREDITS_PER_CREDIT
        return list(differences(told_by(self.lines), replace(self.books, **changes), granted))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return asyncio.run(_write(tmp_path_factory.mktemp("ledger")))


async def _write(folder: Path) -> Written:
    data, path = folder / "data", folder / "diary"
    store = Store(Settings(data_dir=data, initial_free_credits=FREE_CREDITS), Secrets.load(data, {}))
    await store.open()
    purse = Purse(store.books, Spool(data, "one"), Settings().tariff, call_s_max=CALL_S_MAX)
    load = Load(Sender(store, Diary(path), await claimed(store, "one"), [purse]), "one")
    await load.endow()
    working = asyncio.create_task(load.run())
    for _ in range(LOOKS_MAX):
        await asyncio.sleep(0.1)
        books = await read_books(store)
        if len(books.run_ends) > 1 and len(books.usages) > 10 and len(books.calls) > 10:
            break
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await purse.close()
    books = await read_books(store)
    await store.close()
    return Written(read(path), books)


def test_verdict__finds_nothing_in_books_that_agree(written: Written) -> None:
    assert written.differences() == []
    assert list(later_than_missing(told_by(written.lines), written.books)) == []


@pytest.mark.parametrize(
    "table",
    ["holds", "usages", "ends", "run_ends", "escrows", "calls", "purchases", "adjustments", "events", "blobs", "users"],
)
def test_verdict__finds_a_row_that_is_lost(written: Written, table: str) -> None:
    rows = getattr(written.books, table)
    first = min(rows) if isinstance(rows, frozenset) else next(iter(rows))  # Its operation was acknowledged.
    left: Any = rows - {first} if isinstance(rows, frozenset) else {key: rows[key] for key in rows if key != first}
    assert _found(written, **{table: left})


@pytest.mark.parametrize("table", ["holds", "usages", "calls", "purchases", "adjustments", "events"])
def test_verdict__finds_a_row_that_nobody_sent(written: Written, table: str) -> None:
    rows = getattr(written.books, table)
    more: Any = rows | {"nobody"} if isinstance(rows, frozenset) else {**rows, "nobody": next(iter(rows.values()))}
    assert _found(written, **{table: more})


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("holds", "hold_ucredits"), ("holds", "bound_pusd"), ("usages", "charge_ucredits"), ("usages", "cost_pusd"),
        ("escrows", "granted_ucredits"), ("escrows", "charged_ucredits"), ("calls", "charge_ucredits"),
        ("calls", "loss_pusd"), ("calls", "input_tokens"),
    ],
)  # fmt: skip
def test_verdict__finds_an_amount_that_is_wrong_by_one(written: Written, table: str, field: str) -> None:
    rows: Mapping[str, Any] = getattr(written.books, table)
    wrong = next(iter(rows))
    row = replace(rows[wrong], **{field: getattr(rows[wrong], field) + 1})
    assert _found(written, **{table: {**rows, wrong: row}})


@pytest.mark.parametrize(
    "account", [f"user:{RICH[0]}", f"user:{RICH[0]}/held", "platform:revenue", "provider:provider-a"]
)
def test_verdict__finds_an_account_that_is_wrong_by_one(written: Written, account: str) -> None:
    accounts = written.books.accounts
    assert _found(written, accounts={**accounts, account: accounts[account] + 1})


def test_verdict__finds_a_hole_before_what_is_there(written: Written) -> None:
    told = told_by(written.lines)
    first = next(each for each in told.operations.values() if each.id in told.acknowledged and each.way == "ledger")
    lost = {key: row for key, row in written.books.purchases.items() if not key.endswith(first.id)}
    without = replace(written.books, purchases=lost)
    assert not is_there(first, without)
    assert any("what was sent after its answer is there" in each for each in later_than_missing(told, without))


def test_verdict__takes_files_of_after_the_moment_and_misses_those_of_before(written: Written) -> None:
    told = told_by(written.lines)
    tables = ("holds", "usages", "ends", "escrows", "calls", "purchases", "repayments", "adjustments", "refunds")
    nothing: dict[str, Any] = {table: {} for table in tables}
    assert list(later_than_missing(told, replace(written.books, **nothing, events=frozenset()))) == []

    first, content = next(
        (each.id, each.message)
        for each in told.operations.values()
        if isinstance(each.message, bytes) and each.id in told.acknowledged
    )
    others = written.books.blobs - {hashlib.sha256(content).hexdigest()}
    assert [first in each for each in later_than_missing(told, replace(written.books, blobs=others))] == [True]


def _found(written: Written, **changes: Any) -> bool:
    """The verdict names a difference, or cannot even add up what is there."""
    try:
        return bool(written.differences(**changes))
    except KeyError:
        return True
