"""The rules of escrows: one durable hold for many calls of one payer, which are charged in batches.

    credits   draw      wallet -> held          USD, of a whole batch
              return    held   -> wallet              cost   platform:cost   -> provider:<name>
              charge    held   -> revenue             loss   platform:losses -> provider:<name>
              late      wallet -> revenue

A grant counts as committed under every cap of its payer until it is given back. What is used after an escrow ended is
taken from the wallet as far as the caps allow (`late`); nothing is ever overdrawn, and what cannot be taken is the
platform's loss. They run inside a write of the store, like `postings`. Source: DESIGN §4.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from runtime.errors import BadInputError, ConflictError
from runtime.ids import UserId
from runtime.ledger import caps
from runtime.ledger.caps import Rules
from runtime.ledger.money import Tariff
from runtime.ledger.port import Draw, Escrow, EscrowCall, EscrowId, Hold, Meter, Payer, Return, Settlement
from runtime.ledger.postings import (
    COST,
    LOSSES,
    REVENUE,
    balance_of,
    bound_of,
    check_counts,
    held,
    known_or_refused,
    post,
    room,
    shortage,
    wallet,
)
from runtime.ledger.records import INTERRUPTED, CallTraits, EscrowRow, Reason, SettledCall, escrow_of
from runtime.store.transaction import Kind, Transaction

SHARE = 8
"""A grant is at most this part of what is free, unless a single call needs more."""

ESCROWS: Kind[EscrowRow] = Kind(
    name="escrow",
    query="select_escrow",
    query_exists="select_escrow_id",
    read=lambda rows: escrow_of(rows[0]) if rows else None,
)
OPEN_ESCROWS: Kind[frozenset[EscrowId]] = Kind(
    name="open_escrows", query="open_escrows_of_user", read=lambda rows: frozenset(EscrowId(e) for (e,) in rows)
)
"""User -> the escrows that have not ended."""
TRAITS: Kind[bool] = Kind(name="call_traits", query="select_call_traits", read=lambda rows: bool(rows) or None)
"""Which traits have their row."""
BATCHES: Kind[bool] = Kind(name="batch", query="", read=lambda rows: None)
"""Batches that were settled lately: only ever peeked at."""


class Charge(NamedTuple):
    """What becomes of a call that is over. `loss_pusd` is the part of `cost_pusd` that no credits cover."""

    outcome: str
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    charge_ucredits: int
    loss_pusd: int


def charge_of(hold: Hold, meter: Meter | None, tariff: Tariff) -> Charge:
    """The same for the process that makes the calls and for the ledger.

    Usage above the call's own bound is the platform's loss, as is that of an answer which nobody got; unknown usage is
    one of the whole bound, and a provider that failed is owed nothing. Raises BadInputError.
    """
    bound_pusd = bound_of(hold)
    if meter is None:
        unknown = "interrupted_unknown"
        return Charge(unknown, hold.input_tokens_max, hold.output_tokens_max, bound_pusd, 0, bound_pusd)
    check_counts(meter.input_tokens, meter.output_tokens)
    if meter.provider_failed:
        return Charge("provider_failed", 0, 0, 0, 0, 0)
    outcome = "estimated" if meter.estimated else "ok"
    cost_pusd = hold.price.cost_pusd(meter.input_tokens, meter.output_tokens, hold.images)
    if meter.unserved:
        return Charge(INTERRUPTED[outcome], meter.input_tokens, meter.output_tokens, cost_pusd, 0, cost_pusd)
    covered_pusd = min(cost_pusd, bound_pusd)
    charge = tariff.credits_for(covered_pusd)
    return Charge(outcome, meter.input_tokens, meter.output_tokens, cost_pusd, charge, cost_pusd - covered_pusd)


def draw(tx: Transaction, asked: Draw, rules: Rules, now: datetime, *, sparing: bool) -> Escrow:
    """Opens an escrow. One that is on disk but not in memory fails as a duplicate row, unless it is refused.

    `sparing` grants the minimum only: somebody waits for the rest. Raises NotEnoughCreditsError, CeilingReachedError,
    ConflictError, BadInputError; then nothing changed, the returns included.
    """
    if not 0 <= asked.min_ucredits <= asked.wanted_ucredits:
        raise BadInputError("An escrow's minimum is from 0 to what is wanted.")
    known = tx.peek(ESCROWS, asked.escrow)
    if known is None:
        for given in asked.returns:
            take_back(tx, given, now)
        refusal = shortage(tx, asked.payer, asked.min_ucredits, rules, now)
        known = known_or_refused(tx, ESCROWS, asked.escrow, refusal)
    if known is not None:
        return _same(known, asked)

    wanted = asked.min_ucredits if sparing else min(asked.wanted_ucredits, room(tx, asked.payer, rules, now) // SHARE)
    granted = max(wanted, asked.min_ucredits)
    escrow = _open(tx, asked.escrow, asked.process, asked.payer, granted, now)
    caps.commit(tx, asked.payer, granted, escrow.opened_at)
    _move(tx, escrow, wallet(escrow.user), held(escrow.user), granted, "hold", escrow.escrow, now)
    return Escrow(escrow=asked.escrow, granted_ucredits=granted)


def draw_again(tx: Transaction, asked: Draw) -> Escrow:
    """A draw whose escrow is on disk already: the same one, if it may still be used."""
    known = tx.get(ESCROWS, asked.escrow)
    assert known is not None, f"{asked.escrow} was a duplicate and is not there"
    return _same(known, asked)


def settle(tx: Transaction, settlement: Settlement, rules: Rules, now: datetime) -> None:
    """Books the calls, then takes back. A call that is on disk already fails the whole as a duplicate row."""
    if settlement.calls and not tx.peek(BATCHES, settlement.batch):
        tx.keep(BATCHES, settlement.batch, True)
        _book(tx, settlement.batch, settlement.calls, rules, now)
    _take_all_back(tx, settlement, now)


def settle_again(tx: Transaction, settlement: Settlement, rules: Rules, now: datetime) -> None:
    """The same where some of the calls are on disk: they were settled before, and the others are now."""
    new = [each for each in settlement.calls if not tx.committed("select_escrow_call", {"key": each.hold.call})]
    settle(tx, replace(settlement, calls=tuple(new)), rules, now)


def take_back(tx: Transaction, given: Return, now: datetime) -> None:
    """Lowers a grant; what was used of it stays. An escrow that ended or is not known is left alone."""
    escrow = tx.get(ESCROWS, given.escrow)
    if escrow is None or escrow.ended_at is not None:
        return
    wanted = 0 if given.ends else given.granted_ucredits
    granted = max(escrow.charged_ucredits, min(escrow.granted_ucredits, wanted))
    back = escrow.granted_ucredits - granted
    if not back and not given.ends:
        return
    escrow = replace(escrow, granted_ucredits=granted, ended_at=now if given.ends else None)
    tx.update("escrow_grants", escrow.escrow, escrow)
    tx.keep(ESCROWS, escrow.escrow, escrow)
    if given.ends:
        still = (tx.get(OPEN_ESCROWS, escrow.user) or frozenset()) - {escrow.escrow}
        tx.keep(OPEN_ESCROWS, escrow.user, still)
    caps.commit(tx, escrow.payer, -back, escrow.opened_at)
    subject = f"{escrow.escrow}/{granted}"  # A grant only falls, so each has this name once.
    _move(tx, escrow, held(escrow.user), wallet(escrow.user), back, "release", subject, now)


def recallable(tx: Transaction, user: UserId, except_process: str, amount_ucredits: int) -> dict[EscrowId, str]:
    """The user's escrows of other processes, each with its process, if what they hold could help to pay the amount."""
    open_ones = [tx.get(ESCROWS, escrow) for escrow in tx.get(OPEN_ESCROWS, user) or ()]
    others = [each for each in open_ones if each is not None and each.left_ucredits and each.process != except_process]
    left = sum(each.left_ucredits for each in others)
    if balance_of(tx, wallet(user)) + left < amount_ucredits:
        return {}
    return {each.escrow: each.process for each in others}


def _book(tx: Transaction, batch: str, calls: Sequence[EscrowCall], rules: Rules, now: datetime) -> None:
    by_escrow: dict[EscrowId, dict[str, EscrowCall]] = defaultdict(dict)
    for each in calls:
        by_escrow[each.escrow][each.hold.call] = each
    paid: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    seen: set[CallTraits] = set()
    for name, own in by_escrow.items():
        escrow = tx.get(ESCROWS, name)
        if escrow is None:
            escrow = _open_ended(tx, name, next(iter(own.values())), now)
        charges = [charge_of(each.hold, each.meter, rules.tariff) for each in own.values()]
        charges = _take(tx, escrow, batch, charges, rules, now)
        for each, charge in zip(own.values(), charges, strict=True):
            traits = _traits_of(each.hold, each.meter, charge.outcome)
            seen.add(traits)
            tx.insert("settled_calls", _row(each, batch, traits.traits, charge, now))
            paid[each.hold.provider] += charge.cost_pusd - charge.loss_pusd
            lost[each.hold.provider] += charge.loss_pusd
    for each_seen in seen:
        if tx.get(TRAITS, str(each_seen.traits)) is None:
            tx.insert("call_traits", each_seen)
            tx.keep(TRAITS, str(each_seen.traits), True)
    for provider, cost_pusd in paid.items():
        post(tx, "usd", COST, f"provider:{provider}", cost_pusd, "cost", f"{batch}/{provider}", now, batch=batch)
    for provider, loss_pusd in lost.items():
        post(tx, "usd", LOSSES, f"provider:{provider}", loss_pusd, "loss", f"{batch}/{provider}", now, batch=batch)


def _take(
    tx: Transaction, escrow: EscrowRow, batch: str, charges: list[Charge], rules: Rules, now: datetime
) -> list[Charge]:
    """Charges the escrow, then the wallet; the charges as they could be taken."""
    total = sum(charge.charge_ucredits for charge in charges)
    if not total:
        return charges
    held_part = min(total, escrow.left_ucredits)
    late_part = 0
    if held_part < total:
        late_part = min(total - held_part, room(tx, escrow.payer, rules, escrow.opened_at))
        charges = _cut(charges, total - held_part - late_part)
    user, subject = escrow.user, f"{escrow.escrow}/{batch}"
    escrow = replace(escrow, charged_ucredits=escrow.charged_ucredits + held_part)
    tx.keep(ESCROWS, escrow.escrow, escrow)
    caps.commit(tx, escrow.payer, late_part, escrow.opened_at)
    _move(tx, escrow, held(user), REVENUE, held_part, "charge", subject, now, batch)
    _move(tx, escrow, wallet(user), REVENUE, late_part, "late", subject, now, batch)
    return charges


def _cut(charges: list[Charge], shortfall: int) -> list[Charge]:
    """Takes what could not be paid off the last calls: their cost is lost in proportion."""
    cut = list(charges)
    for index in range(len(cut) - 1, -1, -1):
        charge = cut[index]
        missing = min(shortfall, charge.charge_ucredits)
        if missing:
            shortfall -= missing
            left = charge.charge_ucredits - missing
            covered_pusd = (charge.cost_pusd - charge.loss_pusd) * left // charge.charge_ucredits
            cut[index] = charge._replace(charge_ucredits=left, loss_pusd=charge.cost_pusd - covered_pusd)
    return cut


def _row(call: EscrowCall, batch: str, traits: int, charge: Charge, now: datetime) -> SettledCall:
    hold, meter = call.hold, call.meter
    return SettledCall(
        call=hold.call,
        escrow=call.escrow,
        batch=batch,
        traits=traits,
        input_tokens_max=hold.input_tokens_max,
        output_tokens_max=hold.output_tokens_max,
        input_tokens=charge.input_tokens,
        output_tokens=charge.output_tokens,
        images=hold.images,
        cost_pusd=charge.cost_pusd,
        charge_ucredits=charge.charge_ucredits,
        loss_pusd=charge.loss_pusd,
        response_time_ms=meter.response_time_ms if meter is not None else 0,
        held_at=call.held_at,
        settled_at=now,
    )


def _traits_of(hold: Hold, meter: Meter | None, outcome: str) -> CallTraits:
    price, key_id = hold.price, meter.key_id if meter is not None else ""
    return _traits(
        hold.task_type, hold.provider, hold.model, price.pricing_id, price.input_udollars_per_mtok,
        price.output_udollars_per_mtok, price.image_udollars, key_id, outcome,
    )  # fmt: skip


@lru_cache(maxsize=4_096)
def _traits(*values: Any) -> CallTraits:
    digest = hashlib.sha256(json.dumps(values).encode()).digest()
    return CallTraits(int.from_bytes(digest[:8]) >> 1, *values)


def _take_all_back(tx: Transaction, settlement: Settlement, now: datetime) -> None:
    for given in settlement.returns:
        take_back(tx, given, now)
    if settlement.process_ended:
        for (escrow,) in tx.committed("open_escrows_of_process", {"process": settlement.process}):
            take_back(tx, Return(escrow=escrow, granted_ucredits=0, ends=True), now)


def _open(tx: Transaction, name: EscrowId, process: str, payer: Payer, granted: int, now: datetime) -> EscrowRow:
    escrow = EscrowRow(
        escrow=name,
        process=process,
        user=payer.user,
        project=payer.project,
        token_sha256=payer.token_sha256,
        granted_ucredits=granted,
        charged_ucredits=0,
        provider=payer.provider,
        opened_at=now,
        ended_at=None,
    )
    tx.insert("escrow_grants", escrow)
    tx.keep(ESCROWS, name, escrow)
    tx.keep(OPEN_ESCROWS, payer.user, (tx.get(OPEN_ESCROWS, payer.user) or frozenset()) | {name})
    return escrow


def _open_ended(tx: Transaction, name: EscrowId, call: EscrowCall, now: datetime) -> EscrowRow:
    """For calls of an escrow that this ledger never saw, as after a backup was restored: it never held anything."""
    _open(tx, name, "", call.hold.payer, 0, now)
    take_back(tx, Return(escrow=name, granted_ucredits=0, ends=True), now)
    ended = tx.get(ESCROWS, name)
    assert ended is not None
    return ended


def _same(known: EscrowRow, asked: Draw) -> Escrow:
    if (known.process, known.payer) != (asked.process, asked.payer):
        raise ConflictError(f"{asked.escrow} is the id of another escrow.", "Use a new id.")
    if known.ended_at is not None:
        raise ConflictError(f"The escrow {asked.escrow} has ended.", "Use a new id.")
    return Escrow(escrow=known.escrow, granted_ucredits=known.granted_ucredits)


def _move(
    tx: Transaction,
    escrow: EscrowRow,
    debit: str,
    credit: str,
    amount: int,
    reason: Reason,
    subject: str,
    now: datetime,
    batch: str | None = None,
) -> None:
    post(
        tx,
        "credit",
        debit,
        credit,
        amount,
        reason,
        subject,
        now,
        user=escrow.user,
        project=escrow.project,
        escrow=escrow.escrow,
        batch=batch,
    )
