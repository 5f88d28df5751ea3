"""A short run, and what the verdict finds in books that are wrong. `python -m tests.chaos.calls` makes a long one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.catalogue.catalogue import CATALOGUE
from runtime.ledger.money import Tariff
from runtime.ledger.port import Balance
from tests.chaos.calls.books import Booked, Books, Line
from tests.chaos.calls.load import Entry
from tests.chaos.calls.run import CallChaos
from tests.chaos.calls.verdict import Record, differences
from tests.chaos.killer import Kill


@pytest.mark.alone
def test_calls_under_faults_and_kills__leave_books_that_agree(tmp_path: Path) -> None:
    chaos = CallChaos(folder=tmp_path, seed=5, say=lambda text: None)
    outcome = chaos.run(600, kills=3, callers=16)
    assert outcome.differences == []
    values: dict[object, Any] = {figure["figure"]: figure["value"] for figure in outcome.figures}
    assert values["kills"] == 3
    assert values["calls"] >= 600
    assert values["calls settled and charged"]


TARIFF = Tariff(credit_value_pusd=10**10)
GRANTED = 10**9
PRICE = CATALOGUE.model("grok", "grok-2").price


def booked(number: int, tokens: tuple[int, int], outcome: str = "ok") -> Booked:
    cost = PRICE.cost_pusd(*tokens)
    return Booked(
        call=f"c{number}", user="u", state="settled", outcome=outcome, provider="grok", model="grok-2", tokens=tokens,
        cost_pusd=cost, charge_ucredits=TARIFF.credits_for(cost) if outcome in ("ok", "estimated") else 0,
    )  # fmt: skip


def entry(number: int, kind: str, usage: tuple[int, int] | None = None, at: float = 0.0) -> Entry:
    return Entry(number=number, kind=kind, began_at=at, ended_at=at + 1.0, status=200, code="", usage=usage)


def served(number: int, tokens: tuple[int, int], complete: bool = True) -> Line:
    return Line(prompt_tokens=tokens[0], completion_tokens=tokens[1], complete=complete, tag=f"call-{number}")


def record(calls: list[Booked], **changes: object) -> Record:
    """An answered call 1, one that its client left, one lost at a kill, and what `calls` adds to the ledger."""
    known = [booked(1, (10, 20)), booked(2, (9, 4), "estimated"), booked(3, (400, 60), "interrupted_unknown"), *calls]
    made = {each.call: each for each in known}
    charged = sum(each.charge_ucredits for each in made.values())
    books = Books(
        calls=made,
        balances={"u": Balance(balance_ucredits=GRANTED - charged, held_ucredits=0)},
        mismatches=[],
        spooled=[],
        spent_ucredits={"u": charged},
    )
    right = Record(
        diary=[entry(1, "answered", (10, 20)), entry(2, "left"), entry(3, "cut", at=99.5)],
        served={
            "c1": [served(1, (10, 20))],
            "c2": [served(2, (10, 5), complete=False)],
            "c3": [served(3, (10, 60), complete=False)],
        },
        books=books,
        kills=[Kill(kind="gateway", pid=1, at=100.0)],
        granted_ucredits=GRANTED,
        budgets_ucredits={},
        tariff=TARIFF,
    )
    return replace(right, **changes)  # type: ignore[arg-type]


def test_verdict__finds_nothing_in_books_that_agree() -> None:
    assert list(differences(record([]))) == []


def test_verdict__wants_an_estimate_for_an_answer_without_usage() -> None:
    diary = [entry(1, "answered"), entry(2, "left"), entry(3, "cut", at=99.5)]
    estimated = booked(1, (10, 19), "estimated")
    assert list(differences(record([estimated], diary=diary))) == []
    assert any("its client was told None" in each for each in differences(record([], diary=diary)))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (booked(1, (10, 21)), "c1: charged (10, 21)"),
        (booked(2, (10, 6), "estimated"), "above what was sent"),
        (booked(4, (1, 1)), "never served"),
        (replace(booked(1, (10, 20)), cost_pusd=1), "is not its price"),
        (replace(booked(1, (10, 20)), charge_ucredits=10**8), "charged 100000000 ucredits"),
        (replace(booked(3, (400, 60), "interrupted_unknown"), charge_ucredits=5), "and charged 5"),
        (booked(3, (10, 59), "interrupted_unknown"), "does not cover"),
        (booked(2, (9, 4), "pending"), "is pending"),
    ],
)
def test_verdict__finds_a_call_that_is_booked_wrongly(wrong: Booked, told: str) -> None:
    assert any(told in difference for difference in differences(record([wrong])))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kills": []}, "only 0 were in flight"),
        ({"kills": [Kill(kind="gateway", pid=1, at=0.5)]}, "was not in flight at any kill"),
        ({"diary": [entry(1, "answered", (10, 19))]}, "its client was told (10, 19)"),
        ({"diary": [entry(1, "failed")], "kills": []}, "call 1: failed"),
        ({"granted_ucredits": GRANTED + 1}, "u has"),
        ({"budgets_ucredits": {"u": 1}}, "and may spend 1"),
    ],
)
def test_verdict__finds_what_clients_and_wallets_contradict(changes: dict[str, object], told: str) -> None:
    assert any(told in difference for difference in differences(record([], **changes)))


def test_verdict__finds_served_calls_that_are_nowhere_in_the_ledger() -> None:
    right = record([])
    wrong = replace(right, served={**right.served, "c9": [served(9, (1, 1))]})
    assert any("not in the ledger" in difference for difference in differences(wrong))
