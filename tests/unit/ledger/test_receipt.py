"""How a receipt is shown."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

from runtime.ids import CallId, ProjectId, RunId
from runtime.ledger.port import CallRow, Receipt
from runtime.ledger.receipt import receipt_csv, receipt_json, receipt_text

ROW = CallRow(
    call=CallId("r/1"),
    run=RunId("r"),
    task="T-001",
    attempt=1,
    task_type="coding",
    provider="openai",
    model="gpt-4o",
    state="settled",
    input_tokens=120_000,
    output_tokens=30_000,
    cost_pusd=450_000_000_000,
    credits_ucredits=67_500_000,
    outcome="ok",
    at=datetime(2026, 11, 21, 12, tzinfo=UTC),
)
LOST = replace(ROW, call=CallId("r/2"), state="lost", credits_ucredits=0, outcome="interrupted")
PENDING = replace(ROW, call=CallId("r/3"), task="plan.architecture", state="metered", credits_ucredits=1)


def a_receipt(**changes: object) -> Receipt:
    lists = {"charged": [ROW], "losses": [LOST], "pending": [PENDING], **changes}
    return Receipt(
        project=ProjectId("p1"),
        total_cost_pusd=450_000_000_000,
        total_ucredits=67_500_000,
        refunded_ucredits=0,
        **lists,  # type: ignore[arg-type]
    )


def test_text__is_aligned_and_says_that_losses_cost_nothing() -> None:
    text = receipt_text(a_receipt(charged=[ROW, replace(ROW, task="T-002", credits_ucredits=1_000_000)]))
    heading, first, second = text.splitlines()[2:5]
    assert first.startswith("T-001")
    assert heading.index("outcome") == first.index("ok") == second.index("ok")
    assert heading.index("credits") + len("credits") == first.index("67.50") + 5 == second.index(" 1.00") + 5
    assert "Total: 67.50 credits for 0.450000 USD of model calls." in text
    assert "these calls cost you nothing; the platform bears 0.450000 USD" in text
    assert "Still running" in text


def test_text_of_an_empty_receipt__has_no_empty_sections() -> None:
    text = receipt_text(a_receipt(charged=[], losses=[], pending=[]))
    assert "(no calls)" in text
    assert "Not charged" not in text
    assert "Still running" not in text


def test_json__has_integers_and_totals_as_text() -> None:
    document = json.loads(receipt_json(a_receipt()))
    assert (document["total_credits"], document["total_cost_usd"]) == ("67.50", "0.450000")
    assert document["charged"][0] == {
        "call": "r/1",
        "run": "r",
        "task": "T-001",
        "attempt": 1,
        "task_type": "coding",
        "provider": "openai",
        "model": "gpt-4o",
        "state": "settled",
        "input_tokens": 120_000,
        "output_tokens": 30_000,
        "cost_pusd": 450_000_000_000,
        "credits_ucredits": 67_500_000,
        "outcome": "ok",
        "at": "2026-11-21T12:00:00+00:00",
    }
    assert [row["outcome"] for row in document["losses"]] == ["interrupted"]


def test_csv__names_each_rows_list_and_runs_no_formula() -> None:
    text = receipt_csv(a_receipt(losses=[replace(LOST, model='=HYPERLINK("x","y")')]))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["list"] for row in rows] == ["charged", "losses", "pending"]
    assert rows[1]["model"] == '\'=HYPERLINK("x","y")'
    assert rows[0]["cost_pusd"] == "450000000000"
