"""A receipt as JSON, as a table for people, and as CSV."""

import csv
import io
from dataclasses import fields
from typing import Any

from runtime.ledger.money import credits_text, usd_text
from runtime.ledger.port import CallRow, Receipt

COLUMNS = [field.name for field in fields(CallRow)]


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    return {
        "project": receipt.project,
        "charged": [row_json(row) for row in receipt.charged],
        "losses": [row_json(row) for row in receipt.losses],
        "pending": [row_json(row) for row in receipt.pending],
        "total_cost_pusd": receipt.total_cost_pusd,
        "total_cost_usd": usd_text(receipt.total_cost_pusd),
        "total_credits": credits_text(receipt.total_ucredits),
        "total_ucredits": receipt.total_ucredits,
        "refunded_ucredits": receipt.refunded_ucredits,
    }


def receipt_csv(receipt: Receipt) -> str:
    """One line a call; the first column says whether it was charged, lost (cost you nothing) or is pending."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["part", *COLUMNS])
    for part, rows in (("charged", receipt.charged), ("loss", receipt.losses), ("pending", receipt.pending)):
        writer.writerows([part, *row_json(row).values()] for row in rows)
    return text.getvalue()


def receipt_text(receipt: Receipt) -> str:
    lines = [f"Receipt of project {receipt.project}", ""]
    for title, rows in (
        ("Charged", receipt.charged),
        ("Not charged: the platform's loss", receipt.losses),
        ("Pending", receipt.pending),
    ):
        if rows:
            lines += [title, *(_line(row) for row in rows), ""]
    lines.append(
        f"Total: {credits_text(receipt.total_ucredits)} credits (cost USD {usd_text(receipt.total_cost_pusd)})"
    )
    if receipt.refunded_ucredits:
        lines.append(f"Refunded: {credits_text(receipt.refunded_ucredits)} credits")
    return "\n".join(lines) + "\n"


def row_json(row: CallRow) -> dict[str, Any]:
    """In the order of `COLUMNS`."""
    return {name: getattr(row, name) for name in COLUMNS} | {"at": row.at.isoformat()}


def _line(row: CallRow) -> str:
    work = f"{row.task or '-'}/{row.attempt}"
    return (
        f"  {work:<22} {row.task_type:<18} {f'{row.provider}/{row.model}':<28} "
        f"{row.input_tokens:>9} in {row.output_tokens:>8} out  USD {usd_text(row.cost_pusd):>10}  "
        f"{credits_text(row.credits_ucredits):>9} credits  {row.outcome}"
    )
