"""What must hold between the diary and the ledger. Each function yields the differences, in words.

The amounts are worked out anew from what was sent. Every operation that was not acknowledged may be there or not, but
wholly: then it counts like any other.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

from runtime.entity.journal import Append
from runtime.ledger.port import Adjustment, CallRefund, Draw, Hold, Meter, Purchase, Repayment, Settlement
from tests.chaos.ledger.books import BookedCall, BookedUsage, Books
from tests.chaos.ledger.diary import Line
from tests.chaos.ledger.load import POOR
from tests.chaos.ledger.operations import Operation

UCREDITS_PER_PUSD = Fraction(15, 10**5)
"""At 0.01 USD a credit and a mark-up of 1.5."""
UNANSWERED = "StoreUnavailableError"
"""Says nothing of what became of an operation."""

M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class Told:
    """A diary, read. `acknowledged` are the answers of each operation that has one, in order."""

    operations: Mapping[str, Operation]
    sent_at: Mapping[str, int]
    """The number of the line that first says so; the same for `answered_at`."""
    acknowledged: Mapping[str, Sequence[Any]]
    answered_at: Mapping[str, int]
    refused: frozenset[str]
    """Every time that they were sent."""

    @cached_property
    def by_message(self) -> Mapping[type, Sequence[Operation]]:
        found: dict[type, list[Operation]] = defaultdict(list)
        for operation in self.operations.values():
            found[type(operation.message)].append(operation)
        return found

    def of(self, kind: type[M], way: str = "ledger") -> Iterator[tuple[Operation, M]]:
        for operation in self.by_message.get(kind, ()):
            if operation.way == way and isinstance(operation.message, kind):
                yield operation, operation.message


def told_by(lines: Sequence[Line], begun: int | None = None, ended: int | None = None) -> Told:
    """What was sent before the line `ended`, and acknowledged before the line `begun`."""
    operations: dict[str, Operation] = {}
    sent_at: dict[str, int] = {}
    answered_at: dict[str, int] = {}
    acknowledged: dict[str, list[Any]] = defaultdict(list)
    open_: Counter[str] = Counter()
    for number, line in enumerate(lines[:ended]):
        if line.kind == "sent":
            operations.setdefault(line.value.id, line.value)
            sent_at.setdefault(line.value.id, number)
            open_[line.value.id] += 1
        elif line.kind == "acknowledged":
            if begun is None or number < begun:
                acknowledged[line.value[0]].append(line.value[1])
                answered_at.setdefault(line.value[0], number)
        elif line.kind == "refused" and line.value[1] != UNANSWERED and (begun is None or number < begun):
            open_[line.value[0]] -= 1
    refused = frozenset(id for id, count in open_.items() if not count and id not in acknowledged)
    return Told(
        operations=operations, sent_at=sent_at, acknowledged=acknowledged, answered_at=answered_at, refused=refused
    )


def differences(told: Told, books: Books, granted_ucredits: int, *, spools: bool = True) -> Iterator[str]:
    """`granted_ucredits`: what each wallet began with. `spools`: what dead processes left was settled before."""
    yield from _presence(told, books, spools)
    yield from _unasked(told, books)
    yield from _holds(told, books)
    yield from _escrow_calls(told, books, spools)
    yield from _batches(told, books)
    yield from _escrows(told, books)
    yield from _runs(told, books)
    yield from _amounts(told, books)
    yield from _accounts(told, books, granted_ucredits)
    yield from _budgets(told, books)


def later_than_missing(told: Told, books: Books) -> Iterator[str]:
    """Of one moment: when a row is there, so is everything that was acknowledged before it was sent.

    Files are listed after that moment, so some may be younger than it, and not all that came between: no row names
    them yet. A settlement that repeats another's calls has no row of its own.
    """
    of_ledger = [each for each in told.operations.values() if each.way == "ledger" and _shows(each)]
    first = _first_settlements(told)
    rows = [each for each in of_ledger if not isinstance(each.message, bytes) and _has_own_rows(each, first)]
    newest = max((told.sent_at[each.id] for each in rows if is_there(each, books)), default=0)
    for each in of_ledger:
        if told.answered_at.get(each.id, newest) < newest and not is_there(each, books):
            yield f"{each.id} is missing, and what was sent after its answer is there"


def survivors(told: Told, books: Books) -> int:
    """Operations that were never acknowledged and are there."""
    return sum(is_there(each, books) for each in told.operations.values() if each.id not in told.acknowledged)


def is_there(operation: Operation, books: Books) -> bool:
    """By its own row; a settlement without calls and a hold of a purse have none of their own."""
    message = operation.message
    match message:
        case Hold():
            return message.call in (books.holds if operation.way == "ledger" else books.calls)
        case Meter():
            if operation.way == "ledger":
                return message.call in books.usages
            return message.call in books.calls and books.calls[message.call].outcome != "interrupted_unknown"
        case Draw():
            return message.escrow in books.escrows
        case Settlement():
            return bool(message.calls) and all(each.hold.call in books.calls for each in message.calls)
        case Append():
            return all(event.key in books.events for event in message.events)
        case Purchase():
            return message.id in books.purchases
        case Repayment():
            return message.purchase_id in books.repayments
        case Adjustment():
            return message.id in books.adjustments
        case CallRefund():
            return message.call in books.refunds
        case bytes():
            return hashlib.sha256(message).hexdigest() in books.blobs


def _shows(operation: Operation) -> bool:
    return not isinstance(operation.message, Settlement) or bool(operation.message.calls)


def _first_settlements(told: Told) -> Mapping[str, str]:
    """Call of an escrow -> the operation that sent it first."""
    first: dict[str, str] = {}
    for operation, message in sorted(told.of(Settlement), key=lambda each: told.sent_at[each[0].id]):
        for each in message.calls:
            first.setdefault(each.hold.call, operation.id)
    return first


def _has_own_rows(operation: Operation, first: Mapping[str, str]) -> bool:
    message = operation.message
    return not isinstance(message, Settlement) or any(first[each.hold.call] == operation.id for each in message.calls)


def _presence(told: Told, books: Books, spools: bool) -> Iterator[str]:
    for operation in told.operations.values():
        if not _shows(operation) or (operation.way == "purse" and not spools):
            continue
        if operation.id in told.acknowledged:
            if not is_there(operation, books):
                yield f"{operation.id} was acknowledged and is missing: {operation.message!r:.300}"
        elif operation.id in told.refused and operation.way == "ledger" and is_there(operation, books):
            if isinstance(operation.message, Settlement | CallRefund | bytes):
                continue  # Their rows may be another operation's.
            yield f"{operation.id} was refused and is there"


def _unasked(told: Told, books: Books) -> Iterator[str]:
    """Nothing is in the ledger that nobody sent."""
    calls = {message.call for _, message in told.of(Hold, "purse")}
    calls.update(each.hold.call for _, message in told.of(Settlement) for each in message.calls)
    events = {event.key for _, message in told.of(Append) for event in message.events}
    sent: dict[str, tuple[set[Any], Any]] = {
        "call_holds": ({message.call for _, message in told.of(Hold)}, books.holds),
        "call_usages": ({message.call for _, message in told.of(Meter)}, books.usages),
        "escrow_calls": (calls, books.calls),
        "purchases": ({message.id for _, message in told.of(Purchase)}, books.purchases),
        "repayments": ({message.purchase_id for _, message in told.of(Repayment)}, books.repayments),
        "adjustments": ({message.id for _, message in told.of(Adjustment)}, books.adjustments),
        "call_refunds": ({message.call for _, message in told.of(CallRefund)}, books.refunds),
        "entries": (events, books.events),
    }
    for table, (asked, found) in sent.items():
        if more := set(found) - asked:
            yield f"{len(more)} rows of {table} were never sent, for example {sorted(more)[:3]}"


def _holds(told: Told, books: Books) -> Iterator[str]:
    """A call with a hold of its own: what is held, used and decided, each whole."""
    meters = {message.call: message for _, message in told.of(Meter)}
    for _, hold in told.of(Hold):
        booked = books.holds.get(hold.call)
        if booked is None:
            if hold.call in books.usages or hold.call in books.ends:
                yield f"{hold.call} has usage or an end, and no hold"
            continue
        if (booked.bound_pusd, booked.hold_ucredits) != (bound_pusd(hold), credits(bound_pusd(hold))):
            yield f"{hold.call}: its hold is {booked}"
        usage, end = books.usages.get(hold.call), books.ends.get(hold.call)
        if usage is not None and usage not in (expected := _usages(hold, meters[hold.call], end)):
            yield f"{hold.call}: its usage is {usage}, not {expected[0]}"
        wanted = "settled" if usage is not None else None
        if hold.run is not None and (usage is None or not usage.failed):
            run = books.run_ends.get(hold.run)
            wanted = "lost" if run == "abandoned" or (run is not None and usage is None) else run
            if run == "settled" and usage is not None and end == "lost":
                wanted = "lost"  # What it used was told after its run was over.
        if hold.run is not None and usage is not None and usage.failed and end == "lost":
            wanted = "lost"
        if end != wanted:
            yield f"{hold.call}: it is {end}, not {wanted}"


def _escrow_calls(told: Told, books: Books, spools: bool) -> Iterator[str]:
    for _, settlement in told.of(Settlement):
        for each in settlement.calls:
            booked = books.calls.get(each.hold.call)
            if booked is not None and not _agrees(booked, each.hold, each.meter):
                yield f"{each.hold.call}: it is booked as {booked}, and was {each}"
    meters = {message.call: (operation.id, message) for operation, message in told.of(Meter, "purse")}
    for operation, hold in told.of(Hold, "purse"):
        booked = books.calls.get(hold.call)
        if booked is None:
            continue
        id, meter = meters.get(hold.call, ("", None))
        if not _agrees(booked, hold, meter) and (id in told.acknowledged or not _agrees(booked, hold, None)):
            yield f"{operation.id}: it is booked as {booked}, and was {hold}, {meter}"


def _batches(told: Told, books: Books) -> Iterator[str]:
    seen = {booked.batch for booked in books.calls.values()}
    for _, settlement in told.of(Settlement):
        if settlement.batch in seen and not all(each.hold.call in books.calls for each in settlement.calls):
            yield f"{settlement.batch} is there in parts"


def _escrows(told: Told, books: Books) -> Iterator[str]:
    """A grant only ever falls, and what was given back stays so."""
    returned = {given.escrow for _, settlement in told.of(Settlement) for given in settlement.returns}
    for operation, draw in told.of(Draw):
        booked = books.escrows.get(draw.escrow)
        if booked is None:
            continue
        answers = [answer.granted_ucredits for answer in told.acknowledged.get(operation.id, ())]
        if answers and not booked.granted_ucredits <= answers[-1] <= answers[0] <= draw.wanted_ucredits:
            yield f"{draw.escrow} holds {booked.granted_ucredits}, {answers} were granted: {draw}"
        if answers and draw.escrow not in returned and answers[0] < draw.min_ucredits:
            yield f"{draw.escrow} was granted {answers[0]}: {draw}"
    for operation, settlement in told.of(Settlement):
        if operation.id not in told.acknowledged:
            continue
        for given in settlement.returns:
            booked = books.escrows.get(given.escrow)
            if booked is None:
                yield f"{given.escrow} gave back to the ledger, and is not there"
            elif given.ends and not booked.is_over:
                yield f"{given.escrow} was ended, and is open"
            elif booked.granted_ucredits > max(given.granted_ucredits, booked.charged_ucredits):
                yield f"{given.escrow} gave back all but {given.granted_ucredits}, and holds {booked}"
    for name, booked in books.escrows.items():
        if booked.is_over and booked.granted_ucredits != booked.charged_ucredits:
            yield f"{name} is over and holds {booked}"


def _runs(told: Told, books: Books) -> Iterator[str]:
    """Money moves with its event: both are there, or neither."""
    ceilings: dict[str, tuple[int, int]] = {}
    begun: set[str] = set()
    ended: dict[str, str] = {}
    for _, append in told.of(Append):
        if not all(event.key in books.events for event in append.events):
            continue
        moves = append.moves
        begun.update(begin.run for begin in moves.begin)
        ended.update(dict.fromkeys(moves.settle, "settled"))
        ended.update(dict.fromkeys(moves.abandon, "abandoned"))
        if moves.ceiling_ucredits is not None:
            project = append.entity.removeprefix("project:")
            newest = (append.expected_seq, moves.ceiling_ucredits)
            ceilings[project] = max(ceilings.get(project, newest), newest)
    if wrong := begun ^ books.run_projects.keys():
        yield f"events and runs differ: {sorted(wrong)[:3]}"
    if ended != books.run_ends:
        odd = [run for run in ended.keys() | books.run_ends.keys() if ended.get(run) != books.run_ends.get(run)]
        yield f"events and ends of runs differ: {sorted(odd)[:3]}"
    for project, (_, ceiling) in ceilings.items():
        if books.budgets[project][0] != ceiling:
            yield f"the ceiling of {project} is {books.budgets[project][0]}, not {ceiling}"


def _amounts(told: Told, books: Books) -> Iterator[str]:
    """What fills wallets and is given back: the figures that were sent, and the answers that were given."""
    for operation, bought in told.of(Purchase):
        if (row := books.purchases.get(bought.id)) and row != (bought.user, bought.ucredits):
            yield f"{bought.id}: it is booked as {row}"
        if sum(map(bool, told.acknowledged.get(operation.id, ()))) > 1:
            yield f"{bought.id} was credited twice, as its answers say"
    for operation, repaid in told.of(Repayment):
        taken = books.repayments.get(repaid.purchase_id)
        if taken is None:
            continue
        user, ucredits = books.purchases[repaid.purchase_id]
        if not 0 <= taken <= ucredits or (user not in POOR and taken != ucredits):
            yield f"{repaid.purchase_id}: {taken} of {ucredits} were taken back"
        if wrong := set(told.acknowledged.get(operation.id, ())) - {taken}:
            yield f"{repaid.purchase_id}: {taken} were taken back, and the answers were {wrong}"
    for _, adjusted in told.of(Adjustment):
        row = books.adjustments.get(adjusted.id)
        if row and row != (adjusted.user, adjusted.amount_ucredits):
            yield f"{adjusted.id}: it is booked as {row}"
    charges = _charges(books)
    for operation, refund in told.of(CallRefund):
        amount = books.refunds.get(refund.call)
        if amount is None:
            continue
        if amount != (charged := charges.get(refund.call, 0)):
            yield f"{refund.call}: {amount} were refunded of {charged}"
        if wrong := set(told.acknowledged.get(operation.id, ())) - {amount}:
            yield f"{refund.call}: {amount} were refunded, and the answers were {wrong}"


def _accounts(told: Told, books: Books, granted_ucredits: int) -> Iterator[str]:
    """Every account is the sum of what is there, and nothing is below zero."""
    held: Counter[str] = Counter()
    total: Counter[str] = Counter(dict.fromkeys(books.users, granted_ucredits))
    refunded = {call: _user_of(call, books) for call in books.refunds}
    charges = _charges(books)
    for call, charge in charges.items():
        total[_user_of(call, books)] -= charge
    for call, hold in books.holds.items():
        if call not in books.ends:
            usage = books.usages.get(call)
            held[hold.user] += hold.hold_ucredits if usage is None else usage.charge_ucredits
    for escrow in books.escrows.values():
        held[escrow.user] += escrow.granted_ucredits - escrow.charged_ucredits
    for user, amount in [*books.purchases.values(), *books.adjustments.values()]:
        total[user] += amount
    for purchase, taken in books.repayments.items():
        total[books.purchases[purchase][0]] -= taken
    for call, user in refunded.items():
        total[user] += books.refunds[call]
    bought = sum(ucredits for _, ucredits in books.purchases.values())
    wanted = {
        **{f"user:{user}": total[user] - held[user] for user in total},
        **{f"user:{user}/held": held[user] for user in total},
        "platform:promotions": -granted_ucredits * len(books.users),
        "platform:sales": sum(books.repayments.values()) - bought,
        "platform:adjustments": -sum(amount for _, amount in books.adjustments.values()),
        "platform:revenue": sum(charges.values()) - sum(books.refunds.values()),
    }
    for account, balance in wanted.items():
        if books.accounts.get(account, 0) != balance:
            yield f"{account} holds {books.accounts.get(account, 0)}, and what is there makes {balance}"
        if account.startswith("user:") and balance < 0:
            yield f"{account} is below zero: {balance}"
    owed = sum(balance for account, balance in books.accounts.items() if account.startswith("provider:"))
    if owed != (cost := _cost(told, books)):
        yield f"providers are owed {owed}, and the calls cost {cost}"


def _budgets(told: Told, books: Books) -> Iterator[str]:
    committed: Counter[str] = Counter()
    for call, hold in books.holds.items():
        if hold.run is not None and books.ends.get(call) != "lost":
            usage = books.usages.get(call)
            committed[books.run_projects[hold.run]] += usage.charge_ucredits if usage else hold.hold_ucredits
    projects = {name: escrow.project for name, escrow in books.escrows.items()}
    for escrow in books.escrows.values():
        if escrow.project is not None:
            committed[escrow.project] += escrow.granted_ucredits - escrow.charged_ucredits
    for booked in books.calls.values():
        if (project := projects.get(booked.escrow)) is not None:
            committed[project] += booked.charge_ucredits
    for subject in committed.keys() | books.budgets.keys():
        if books.budgets.get(subject, (None, 0))[1] != committed[subject]:
            yield f"under {subject} {books.budgets.get(subject)} are committed, and its calls make {committed[subject]}"


def bound_pusd(hold: Hold) -> int:
    return _cost_of(hold, hold.input_tokens_max, hold.output_tokens_max)


def credits(pusd: int) -> int:
    """Microcredits, half to even."""
    return round(pusd * UCREDITS_PER_PUSD)


def _cost_of(hold: Hold, input_tokens: int, output_tokens: int) -> int:
    price = hold.price
    tokens = input_tokens * price.input_udollars_per_mtok + output_tokens * price.output_udollars_per_mtok
    return tokens + hold.images * price.image_udollars * 10**6


def _usage(hold: Hold, meter: Meter) -> BookedUsage:
    failed = meter.provider_failed
    cost = 0 if failed else _cost_of(hold, meter.input_tokens, meter.output_tokens)
    return BookedUsage(
        input_tokens=0 if failed else meter.input_tokens,
        output_tokens=0 if failed else meter.output_tokens,
        cost_pusd=cost,
        charge_ucredits=min(credits(bound_pusd(hold)), credits(cost)),
        failed=failed,
        estimated=meter.estimated,
    )


def _usages(hold: Hold, meter: Meter, end: str | None) -> Sequence[BookedUsage]:
    """What was told of a call after it was lost charges nothing."""
    usage = _usage(hold, meter)
    return (usage, replace(usage, charge_ucredits=0)) if end == "lost" else (usage,)


def _agrees(booked: BookedCall, hold: Hold, meter: Meter | None) -> bool:
    """Whether a call of an escrow is booked as it was; a wallet that cannot pay leaves the rest to the platform."""
    bound = bound_pusd(hold)
    if meter is None:
        tokens = (hold.input_tokens_max, hold.output_tokens_max)
        wanted = ("interrupted_unknown", *tokens, bound, 0, bound)
    elif meter.provider_failed:
        wanted = ("provider_failed", 0, 0, 0, 0, 0)
    else:
        cost = _cost_of(hold, meter.input_tokens, meter.output_tokens)
        paid = min(cost, bound)
        outcome = "estimated" if meter.estimated else "ok"
        wanted = (outcome, meter.input_tokens, meter.output_tokens, cost, credits(paid), cost - paid)
    return wanted == (
        booked.outcome, booked.input_tokens, booked.output_tokens, booked.cost_pusd, booked.charge_ucredits,
        booked.loss_pusd,
    )  # fmt: skip


def _charges(books: Books) -> dict[str, int]:
    """Call -> what its user paid for it."""
    own = {call: books.usages[call].charge_ucredits for call, end in books.ends.items() if end == "settled"}
    return {**own, **{call: booked.charge_ucredits for call, booked in books.calls.items()}}


def _user_of(call: str, books: Books) -> str:
    hold = books.holds.get(call)
    return hold.user if hold is not None else books.escrows[books.calls[call].escrow].user


def _cost(told: Told, books: Books) -> int:
    """In picodollars, of every call that is over; what nobody knows counts by its bound."""
    own = 0
    for call in books.ends:
        usage = books.usages.get(call)
        own += usage.cost_pusd if usage is not None else books.holds[call].bound_pusd
    return own + sum(booked.cost_pusd for booked in books.calls.values())
