"""What must hold after a chaos run. Each function yields the differences, in words; nothing when all is well."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.client import Client
from cluster.wire import Receipt, ReceiptRow
from runtime.catalogue.catalogue import CATALOGUE
from tests.chaos.builds import Build
from tests.chaos.diary import Told
from tests.chaos.plan import ACCOUNTS, OPENING, expected


def messages(told: Mapping[int, Told], readings: Mapping[str, Any]) -> Iterator[str]:
    """Every acknowledged message counts exactly once, and nothing else counts. `told`: seed -> its diary."""
    for each in told.values():
        yield from each.wrong
        if each.open:
            yield f"{len(each.open)} messages were never answered, for example number {each.open[0]}"
    due = expected({seed: each.accepted for seed, each in told.items()})
    for what, wanted in (("totals", due.totals), ("reminded", due.reminded), ("balances", due.balances)):
        for entity, value in wanted.items():
            found = readings[what][entity]
            if found != value:
                yield f"{entity}: {what} is {found}, acknowledged were {value} ({found - value:+})"
    if readings["in_flight"]:
        yield f"money is still in flight: {readings['in_flight']}"
    total = sum(readings["balances"].values())
    if total != OPENING * len(ACCOUNTS):
        yield f"the accounts have {total} together, not {OPENING * len(ACCOUNTS)}"
    yield from readings["mismatches"]


def builds(ordered: Sequence[Build], client: Client, before_ucredits: int, usage_file: Path) -> Iterator[str]:
    """Every build is complete, and receipts, wallet and the provider's own count are one."""
    receipts = []
    for build in ordered:
        if build.project is None or build.project.status != "completed":
            status = "never ordered" if build.project is None else build.project.status
            reason = "" if build.project is None else f" ({build.project.failure_reason or build.project.question})"
            yield f"build {build.project.id if build.project else build.key} ended as {status}{reason}"
        if build.project is not None:
            receipts.append(client.receipt(build.project.id))
    after = client.me()
    paid, receipted = before_ucredits - after.balance_ucredits, sum(receipt.total_ucredits for receipt in receipts)
    if paid != receipted:
        yield f"the wallet paid {paid} ucredits, the receipts say {receipted}"
    if after.held_ucredits:
        yield f"{after.held_ucredits} ucredits are still held"
    yield from calls(receipts, usage_file)


def calls(receipts: Sequence[Receipt], usage_file: Path) -> Iterator[str]:
    """The simulator's total is receipts + losses by call id, and a run of a step is charged at most once."""
    lines = [json.loads(line) for line in usage_file.read_text().splitlines()] if usage_file.exists() else []
    served = {line["call_id"]: (line["prompt_tokens"], line["completion_tokens"]) for line in lines}
    twice = [call for call, count in Counter(line["call_id"] for line in lines).items() if count > 1]
    charged = {row.call: row for receipt in receipts for row in receipt.charged}
    losses = {row.call: row for receipt in receipts for row in receipt.losses}
    if twice:
        yield f"served twice under one id: {twice}"
    if pending := [row.call for receipt in receipts for row in receipt.pending]:
        yield f"still pending: {pending}"
    if unserved := charged.keys() - served.keys():
        yield f"charged but never served: {sorted(unserved)}"
    if unlisted := served.keys() - charged.keys() - losses.keys():
        yield f"served but neither charged nor a loss: {sorted(unlisted)}"
    for call, row in charged.items():
        if call in served and (row.input_tokens, row.output_tokens) != served[call]:
            yield f"{call}: charged {row.input_tokens} + {row.output_tokens} tokens, served {served[call]}"
        elif call in served and row.cost_pusd != CATALOGUE.named(row.model_id).price.cost_pusd(*served[call]):
            yield f"{call}: charged {row.cost_pusd} pUSD, which is not its price"
    for call in losses.keys() & served.keys():
        row = losses[call]
        if row.credits_ucredits or not _is_told(row, *served[call]):
            yield f"{call}: the loss {row} does not agree with the {served[call]} that were served"
    for receipt in receipts:
        if receipt.total_cost_pusd != sum(row.cost_pusd for row in receipt.charged):
            yield f"the receipt of {receipt.project} does not add up"
    runs = {str((row.model_extra or {})["run"]) for row in charged.values()}
    steps = Counter(run.rpartition("#")[0] for run in runs)
    if paid_twice := [step for step, count in steps.items() if count > 1]:
        yield f"two runs of one step were charged: {paid_twice}"


def _is_told(loss: ReceiptRow, input_tokens: int, output_tokens: int) -> bool:
    """What nobody knows is bounded, an estimate is never more than was sent, and the rest is exact."""
    match loss.outcome:
        case "interrupted_unknown":
            return loss.cost_pusd >= CATALOGUE.named(loss.model_id).price.cost_pusd(input_tokens, output_tokens)
        case "interrupted_estimated":
            return loss.input_tokens <= input_tokens and loss.output_tokens <= output_tokens
        case _:
            return (loss.input_tokens, loss.output_tokens) == (input_tokens, output_tokens)
