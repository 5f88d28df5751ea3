"""What a project cost, on the phone: what each task took, and what of it was given back. Each call is in the file."""

from collections import Counter

from runtime.language.texts import Texts
from runtime.ledger.money import usd_text
from runtime.ledger.port import Receipt
from runtime.telegram.formatting import escape

TASKS_SHOWN = 25


def receipt_told(title: str, receipt: Receipt, say: Texts) -> str:
    """HTML. Tasks in the order in which they first cost something; what is over the bound is one line."""
    calls, ucredits = Counter[str](), Counter[str]()
    for row in receipt.charged:
        calls[row.task] += 1
        ucredits[row.task] += row.credits_ucredits
    lines = [f"🧾 <b>{escape(title)}</b>"]
    for task in list(calls)[:TASKS_SHOWN]:
        amount = say.credits(ucredits[task])
        lines.append(
            say.count(
                "{task}: {credits} credits, {n} call",
                "{task}: {credits} credits, {n} calls",
                calls[task],
                task=escape(task) or say("Other calls"),
                credits=amount,
            )
        )
    if others := list(calls)[TASKS_SHOWN:]:
        amount = say.credits(sum(ucredits[task] for task in others))
        lines.append(
            say.count(
                "{n} other task: {credits} credits", "{n} other tasks: {credits} credits", len(others), credits=amount
            )
        )
    lines.append("")
    if calls:
        total, usd = say.credits(receipt.total_ucredits), usd_text(receipt.total_cost_pusd)
        lines.append(say("<b>Charged: {credits} credits</b> for model calls of {usd} USD.", credits=total, usd=usd))
    else:
        lines.append(say("Nothing was charged."))
    if receipt.refunds:
        back, net = say.credits(receipt.refunded_ucredits), say.credits(receipt.net_ucredits)
        lines.append(say("Given back: {credits} credits. You paid {net}.", credits=back, net=net))
    if lost_pusd := sum(row.cost_pusd for row in receipt.losses):
        lines.append(say("Calls of {usd} USD more cost you nothing.", usd=usd_text(lost_pusd)))
    if receipt.pending:
        held = say.credits(sum(row.credits_ucredits for row in receipt.pending))
        lines.append(say("Still at work: up to {credits} credits are reserved.", credits=held))
    return "\n".join(lines)
