"""What the writer remembers, and how a group's writes are undone."""

from collections.abc import Mapping
from typing import Any

import pytest

from runtime.store import transaction
from runtime.store.transaction import Kind, Memory, Transaction

ROWS = {"a": 1, "b": 2, "c": 3, "d": 4}
NUMBERS: Kind[int] = Kind(name="number", query="one", query_many="many", read=lambda rows: rows[0][0] if rows else None)


class Disk(Memory):
    """Counts what is asked of the database."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.asked: list[Any] = []

    def committed(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self.asked.append(values.get("key", values.get("keys")))
        if query == "one":
            return [(ROWS[values["key"]],)] if values["key"] in ROWS else []
        return [(key, ROWS[key]) for key in values["keys"] if key in ROWS]


def test_record__is_asked_for_once() -> None:
    memory = Disk()
    assert [memory.get(NUMBERS, "a"), memory.get(NUMBERS, "a")] == [1, 1]
    assert memory.asked == ["a"]
    assert [memory.get(NUMBERS, "x"), memory.get(NUMBERS, "x")] == [None, None]
    assert memory.asked == ["a", "x", "x"]


def test_wanted_records__are_fetched_with_one_query_even_those_that_are_not_there() -> None:
    memory = Disk()
    memory.get(NUMBERS, "a")
    memory.fetch([(NUMBERS, ["a", "b"]), (NUMBERS, {"c", "x"})])
    assert memory.asked == ["a", ["b", "c", "x"]]
    assert [memory.get(NUMBERS, key) for key in "abcx"] == [1, 2, 3, None]
    assert len(memory.asked) == 2
    memory.absorb({("number", "x"): 9})
    assert memory.get(NUMBERS, "x") == 9
    memory.fetch([])
    assert [memory.get(NUMBERS, "y"), len(memory.asked)] == [None, 3]


def test_memory__forgets_only_what_was_not_used_for_a_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RECORDS_IN_MEMORY_MAX", 4)
    memory = Disk()
    for key in "abaca":
        memory.get(NUMBERS, key)
    assert memory.asked == ["a", "b", "c"]
    for key in "dadab":
        memory.get(NUMBERS, key)
    assert memory.asked == ["a", "b", "c", "d", "b"]


def test_refused_write__is_undone_to_the_last_detail() -> None:
    memory = Disk()
    tx = Transaction(memory)
    tx.keep(NUMBERS, "a", 10)
    tx.insert("rows", "first")
    tx.update("rows", "k", "one")
    tx.replace("others", "k", "row", remains=True)
    tx.settle()
    before = (dict(tx.records), *(repr(part) for part in (tx._inserts, tx._keyed, tx._statements)))

    tx.keep(NUMBERS, "a", 11)
    tx.keep(NUMBERS, "a", 12)
    tx.keep(NUMBERS, "b", 13)
    tx.insert("rows", "second")
    tx.insert("rows", "third")
    tx.update("rows", "k", "two")
    tx.replace("others", "k", "row", remains=False)
    tx.execute("statement", value=1)
    assert tx.get(NUMBERS, "b") == 13
    tx.undo()
    assert (dict(tx.records), *(repr(part) for part in (tx._inserts, tx._keyed, tx._statements))) == before
    assert [tx.get(NUMBERS, key) for key in "ab"] == [10, 2]

    refused_first = Transaction(memory)
    refused_first.insert("rows", "x")
    refused_first.update("rows", "k", "x")
    refused_first.undo()
    assert refused_first.is_empty()
