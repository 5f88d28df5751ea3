"""A project's receipt: made from its calls, shown as text, JSON or CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from runtime.ids import CallId, ProjectId
from runtime.ledger.money import credits_text, usd_text
from runtime.ledger.port import CallRow, Receipt, RefundRow
from runtime.ledger.records import CHARGED, Call

NO_REFUNDS: Mapping[CallId, tuple[int, str, datetime]] = MappingProxyType({})
_HEADINGS = ("task", "try", "type", "model", "tokens in", "tokens out", "cost USD", "credits", "outcome")
_FIRST_NUMBERS = 4
_LAST_NUMBERS = 7


def receipt_of(
    project: ProjectId, calls: Sequence[Call], refunds: Mapping[CallId, tuple[int, str, datetime]] = NO_REFUNDS
) -> Receipt:
    """Charged, lost and pending calls, in the order given, and what of them was given back: amount, reason, time.

    A call whose usage was above its hold has two rows: what the hold covered, and the excess as a loss without
    tokens (`above_hold`), so that the sums of both lists are what providers served. A call whose provider failed is
    listed with the losses, at zero.
    """
    charged = [call for call in calls if call.state == "settled" and call.outcome in CHARGED]
    rows = [replace(call.row(), cost_pusd=call.cost_pusd - call.excess_pusd) for call in charged]
    not_charged = [call.row() for call in calls if call.state in ("settled", "lost") and call.outcome not in CHARGED]
    return Receipt(
        project=project,
        charged=rows,
        losses=[*not_charged, *(_excess(call) for call in charged if call.excess_pusd)],
        pending=[call.row() for call in calls if call.state in ("held", "metered")],
        total_cost_pusd=sum(row.cost_pusd for row in rows),
        total_ucredits=sum(row.credits_ucredits for row in rows),
        refunded_ucredits=sum(amount for amount, _, _ in refunds.values()),
        refunds=[
            RefundRow(call=call.call, task=call.task, amount_ucredits=amount, reason=reason, at=at)
            for call in charged
            if call.call in refunds
            for amount, reason, at in [refunds[call.call]]
        ],
    )


def receipt_text(receipt: Receipt) -> str:
    """For people: aligned tables, credits with 2 decimals, dollars with 6."""
    total = f"{credits_text(receipt.total_ucredits)} credits for {usd_text(receipt.total_cost_pusd)} USD of model calls"
    parts = [f"Receipt of project {receipt.project}", "", *_table(receipt.charged), "", f"Total: {total}."]
    if receipt.refunds:
        parts += ["", "Given back:", ""]
        parts += [
            f"{row.task or row.call}  {credits_text(row.amount_ucredits)} credits  {row.reason}"
            for row in receipt.refunds
        ]
        net = credits_text(receipt.net_ucredits)
        parts += ["", f"Refunded: {credits_text(receipt.refunded_ucredits)} credits; you paid {net} credits."]
    if receipt.losses:
        lost = usd_text(sum(row.cost_pusd for row in receipt.losses))
        parts += ["", f"Not charged: these calls cost you nothing; the platform bears {lost} USD.", ""]
        parts += _table(receipt.losses)
    if receipt.pending:
        parts += ["", "Still running: not charged yet; the figures are what is reserved at most.", ""]
        parts += _table(receipt.pending)
    return "\n".join(parts) + "\n"


def receipt_json(receipt: Receipt) -> str:
    """For programs: amounts as integers, the totals also as text."""
    document = {
        "project": receipt.project,
        "charged": [_row_json(row) for row in receipt.charged],
        "losses": [_row_json(row) for row in receipt.losses],
        "pending": [_row_json(row) for row in receipt.pending],
        "total_cost_pusd": receipt.total_cost_pusd,
        "total_cost_usd": usd_text(receipt.total_cost_pusd),
        "total_credits": credits_text(receipt.total_ucredits),
        "total_ucredits": receipt.total_ucredits,
        "refunds": [{**_fields(row), "at": row.at.isoformat()} for row in receipt.refunds],
        "refunded_ucredits": receipt.refunded_ucredits,
        "net_ucredits": receipt.net_ucredits,
    }
    return json.dumps(document, indent=2)


def receipt_csv(receipt: Receipt) -> str:
    """For spreadsheets: one line a row, `list` says which list it is from. Text that looks like a formula is quoted."""
    names = ["list", *_row_json_names()]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for name, rows in (("charged", receipt.charged), ("losses", receipt.losses), ("pending", receipt.pending)):
        for row in rows:
            cells = {key: harmless(value) for key, value in _row_json(row).items()}
            writer.writerow({"list": name, **cells})
    for refund in receipt.refunds:
        given = {"call": refund.call, "task": refund.task, "credits_ucredits": -refund.amount_ucredits}
        cells = {**given, "outcome": refund.reason, "at": refund.at.isoformat()}
        writer.writerow({"list": "refunds", **{key: harmless(value) for key, value in cells.items()}})
    return text.getvalue()


def receipt_files(receipt: Receipt) -> dict[str, bytes]:
    """The receipt in all its forms, as a delivery brings it along."""
    return {
        "docs/receipt.txt": receipt_text(receipt).encode(),
        "docs/receipt.json": receipt_json(receipt).encode(),
        "docs/receipt.csv": receipt_csv(receipt).encode(),
    }


def _excess(call: Call) -> CallRow:
    return replace(
        call.row(),
        input_tokens=0,
        output_tokens=0,
        cost_pusd=call.excess_pusd,
        credits_ucredits=0,
        outcome="above_hold",
    )


def _table(rows: Sequence[CallRow]) -> list[str]:
    if not rows:
        return ["(no calls)"]
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    return ["  ".join(_pad(text, width, i) for i, (text, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in cells]  # fmt: skip


def _cells(row: CallRow) -> tuple[str, ...]:
    return (
        row.task,
        str(row.attempt),
        row.task_type,
        f"{row.provider}/{row.model}",
        str(row.input_tokens),
        str(row.output_tokens),
        usd_text(row.cost_pusd),
        credits_text(row.credits_ucredits),
        row.outcome,
    )


def _pad(text: str, width: int, column: int) -> str:
    return text.rjust(width) if _FIRST_NUMBERS <= column <= _LAST_NUMBERS else text.ljust(width)


def _row_json(row: CallRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _row_json_names()}
    return {**values, "at": row.at.isoformat()}


def _fields(row: RefundRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in RefundRow.__dataclass_fields__}


def _row_json_names() -> list[str]:
    return list(CallRow.__dataclass_fields__)


def harmless(value: Any) -> Any:
    """A spreadsheet runs a cell that begins so; models and tasks are named by others."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
