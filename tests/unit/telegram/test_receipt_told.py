from dataclasses import replace
from datetime import UTC, datetime

from runtime.ids import CallId, ProjectId, RunId
from runtime.language.texts import texts
from runtime.ledger.port import CallRow, Receipt, RefundRow
from runtime.telegram.receipts import TASKS_SHOWN, receipt_told
from tests.unit.telegram.telegram_html import read

SAY = texts("en")
ROW = CallRow(
    call=CallId("r/1"), run=RunId("r"), task="T-001", attempt=1, task_type="coding", provider="openai", model="gpt-4o",
    state="settled", input_tokens=1, output_tokens=1, cost_pusd=2_000_000_000, credits_ucredits=1_500_000, outcome="ok",
    at=datetime(2026, 11, 30, tzinfo=UTC),
)  # fmt: skip


def receipt(*charged: CallRow, **others: object) -> Receipt:
    whole: dict[str, object] = {
        "project": ProjectId("p1"), "charged": charged, "losses": (), "pending": (), "refunded_ucredits": 0,
        "total_ucredits": sum(row.credits_ucredits for row in charged),
        "total_cost_pusd": sum(row.cost_pusd for row in charged),
    }  # fmt: skip
    return Receipt(**{**whole, **others})  # type: ignore[arg-type]


def told(of: Receipt, title: str = "Sums & <more>") -> list[str]:
    return read(receipt_told(title, of, SAY)).text.splitlines()


def test_calls_of_a_task__are_one_line() -> None:
    plan = replace(ROW, task="plan <1>", credits_ucredits=250_000)
    assert told(receipt(plan, ROW, replace(ROW, attempt=2))) == [
        "🧾 Sums & <more>",
        "plan <1>: 0.25 credits, 1 call",
        "T-001: 3.00 credits, 2 calls",
        "",
        "Charged: 3.25 credits for model calls of 0.006000 USD.",
    ]


def test_what_came_back_or_cost_nothing__is_said_after_the_total() -> None:
    back = RefundRow(call=ROW.call, task="T-001", amount_ucredits=500_000, reason="gap", at=ROW.at)
    lines = told(
        receipt(ROW, refunds=(back,), refunded_ucredits=500_000, losses=(ROW,), pending=(replace(ROW, task="T-002"),))
    )
    assert lines[-3:] == [
        "Given back: 0.50 credits. You paid 1.00.",
        "Calls of 0.002000 USD more cost you nothing.",
        "Still at work: up to 1.50 credits are reserved.",
    ]
    assert told(receipt(losses=(replace(ROW, cost_pusd=0),)))[1:] == ["", "Nothing was charged."]


def test_calls_of_the_owners_own_tools__belong_to_no_task() -> None:
    assert told(receipt(replace(ROW, task="")))[1] == "Other calls: 1.50 credits, 1 call"


def test_many_tasks__still_fit_and_still_add_up() -> None:
    rows = [replace(ROW, task=f"T-{number:03} {'x' * 90}") for number in range(1, 301)]
    lines = told(receipt(*rows))
    assert lines[TASKS_SHOWN + 1] == "275 other tasks: 412.50 credits"
    assert lines[-1].startswith("Charged: 450.00 credits")
    assert len("\n".join(lines)) < 4096


def test_every_language__says_it_with_the_same_figures() -> None:
    for code in ("pl", "ru"):
        text = receipt_told("x", receipt(ROW, replace(ROW, task="T-002"), losses=(ROW,)), texts(code))
        assert "3,00" in text
        assert "credits" not in text
