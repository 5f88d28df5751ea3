"""The rules of money: which transfers a hold, a metering, a settlement and a loss are.

    credits   hold      wallet -> held          USD   cost        platform:cost   -> provider:<name>
              release   held   -> wallet              excess      platform:losses -> provider:<name>
              charge    held   -> revenue             loss        platform:losses -> provider:<name>
              void      held   -> wallet              correction  either way between losses and provider
              grant     promotions -> wallet

A wallet and what is held of it are two accounts, neither ever below zero. What is committed under a project's ceiling
or a token's budget is counted beside them. Every function may be repeated with the
same ids and then changes nothing. They run inside a write of the store, so that money moves in the same transaction
as the events it belongs to. Source: DESIGN §4, spec/builder.md §9.
"""

from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from runtime.entity.journal import BeginRun
from runtime.errors import (
    BadInputError,
    ConflictError,
    MasterbuilderError,
    NotEnoughCreditsError,
    NotFoundError,
)
from runtime.ids import CallId, ProjectId, RunId, UserId
from runtime.ledger import caps
from runtime.ledger.caps import Rules
from runtime.ledger.money import Tariff, credits_exact
from runtime.ledger.port import EscrowId, Hold, Meter, Payer
from runtime.ledger.records import (
    INTERRUPTED,
    Account,
    Call,
    CallEnd,
    CallUsage,
    Reason,
    Run,
    RunBegin,
    RunEnd,
    RunState,
    Transfer,
    Unit,
    call_of,
)
from runtime.store.transaction import Kind, Transaction, first_as

Row = TypeVar("Row")

TOKENS_MAX = 10**12
IMAGES_MAX = 10**6
PRICE_UDOLLARS_MAX = 10**12

REVENUE = "platform:revenue"
PROMOTIONS = "platform:promotions"
COST = "platform:cost"
LOSSES = "platform:losses"
SALES = "platform:sales"
"""Credits that were bought leave it."""
INCOME = "platform:income"
"""What was paid for them, in USD."""
ADJUSTMENTS = "platform:adjustments"

ACCOUNTS = Kind(name="account", query="select_account", read=first_as(Account))
RUNS = Kind(name="run", query="select_run", query_exists="select_begun_run", read=first_as(Run))
CALLS: Kind[Call] = Kind(
    name="call",
    query="select_call",
    query_exists="select_held_call",
    read=lambda rows: call_of(rows[0]) if rows else None,
)
OPEN_CALLS: Kind[frozenset[CallId]] = Kind(
    name="open_calls", query="open_calls_of_run", read=lambda rows: frozenset(CallId(call) for (call,) in rows)
)
"""Run -> its calls that are neither settled nor lost."""


def wallet(user: UserId) -> str:
    """The account of what is free. Raises BadInputError for an id that could name another account."""
    if not user or "/" in user:
        raise BadInputError(f"{user!r} cannot be a user's id: it is empty or holds a slash.")
    return f"user:{user}"


def held(user: UserId) -> str:
    return f"{wallet(user)}/held"


def set_ceiling(tx: Transaction, subject: str, ceiling_ucredits: int) -> None:
    """From now on a hold must fit under it. What is already committed stays, even above.

    A subject is a project's id or `token:<sha256>`.
    """
    if ceiling_ucredits < 0:
        raise BadInputError("A ceiling cannot be negative.")
    caps.keep_budget(tx, replace(caps.budget_of(tx, subject), ceiling_ucredits=ceiling_ucredits))


def begin_run(tx: Transaction, begin: BeginRun, now: datetime) -> None:
    """Opens a run. Raises ConflictError when the id was another's, or the run is over."""
    run = Run(
        run=begin.run, user=begin.user, project=begin.project, task=begin.task, attempt=begin.attempt, state="open"
    )
    known = tx.get(RUNS, begin.run)
    if known is not None:
        if known != run:
            raise ConflictError(f"{begin.run} is {known.state} already.", "Begin another run.")
        return
    tx.insert(
        "runs",
        RunBegin(
            run=run.run, user=run.user, project=run.project, task=run.task, attempt=run.attempt, begun_at=now
        ),
    )  # fmt: skip
    tx.keep(RUNS, run.run, run)
    tx.keep(OPEN_CALLS, run.run, frozenset())


def settle_run(tx: Transaction, run: RunId, now: datetime) -> None:
    """Charges the run's metered calls; those without known usage are lost. Raises NotFoundError, ConflictError."""
    for call in _end_run(tx, run, "settled", now):
        if call.state == "metered":
            _settle(tx, call, now)
        else:
            _lose(tx, call, now)


def abandon_run(tx: Transaction, run: RunId, now: datetime) -> None:
    """Loses every open call of the run and releases what they held. Raises NotFoundError, ConflictError."""
    for call in _end_run(tx, run, "abandoned", now):
        _lose(tx, call, now)


def hold(tx: Transaction, asked: Hold, rules: Rules, now: datetime) -> None:
    """Reserves the worst case of a call. A call id that is on disk but not in memory fails as a duplicate row.

    The disk is asked only before a refusal: a repeat must not be refused for want of what its own hold took.
    Raises NotEnoughCreditsError, CeilingReachedError, DailyCapError, AccountStoppedError, ConflictError, BadInputError;
    nothing is held then.
    """
    run = _open_run(tx, asked.run) if asked.run is not None else None
    known = tx.peek(CALLS, asked.call)
    if known is None:
        call = _new_call(asked, run, rules.tariff, now)
        refusal = shortage(tx, call.payer, call.hold_ucredits, rules, now)
        known = known_or_refused(tx, CALLS, asked.call, refusal)
    if known is not None:
        check_same(known, asked, run)
        return

    tx.insert("call_holds", call)
    _keep_open(tx, call)
    caps.commit(tx, call.payer, call.hold_ucredits, call.held_at)
    _move(tx, call, wallet(call.user), held(call.user), call.hold_ucredits, "hold", now)


def known_or_refused(tx: Transaction, kind: Kind[Row], name: str, refusal: MasterbuilderError | None) -> Row | None:
    """What memory did not know is looked for on disk before a refusal is raised, and only then."""
    if refusal is None:
        return None
    known = tx.get(kind, name)
    if known is None:
        raise refusal
    return known


def hold_again(tx: Transaction, asked: Hold) -> None:
    """A hold whose call id is on disk already: the same hold, if it may still be used."""
    run = _open_run(tx, asked.run) if asked.run is not None else None
    known = tx.get(CALLS, asked.call)
    assert known is not None, f"{asked.call} was a duplicate and is not there"
    check_same(known, asked, run)


def check_same(known: Call, asked: Hold, run: Run | None) -> None:
    """Raises ConflictError when a call's id comes back for another call, or after its hold was given up."""
    user = run.user if run is not None else asked.user
    if (known.run, known.user, known.model) != (asked.run, user, asked.model):
        raise ConflictError(f"{asked.call} is the id of another call.", "Use a new id.")
    if known.state == "lost":
        raise ConflictError(f"The hold of {asked.call} was given up.", "Use a new id.")


def meter(tx: Transaction, used: Meter, tariff: Tariff, now: datetime) -> None:
    """Records real usage. Raises NotFoundError for a call that was never held, BadInputError."""
    check_counts(used.input_tokens, used.output_tokens)
    call = tx.get(CALLS, used.call)
    if call is None:
        if tx.committed("select_escrow_call", {"key": used.call}):
            return
        raise NotFoundError(f"There is no call {used.call}.", "Hold it before it is made.")
    if call.state == "held":
        metered = _with_usage(call, used, tariff)
        _record_usage(tx, metered, used, now)
        _keep_open(tx, metered)
        _give_back(tx, metered, call.charge_ucredits - metered.charge_ucredits, "release", now)
        if used.unserved and not used.provider_failed:
            _lose(tx, metered, now)
        elif metered.run is None or used.provider_failed:
            _settle(tx, metered, now)
    elif call.outcome == "interrupted_unknown":
        known = _with_usage(call, used, tariff)
        outcome = INTERRUPTED.get(known.outcome, known.outcome)
        known = replace(known, state="lost", outcome=outcome, charge_ucredits=0)
        _record_usage(tx, known, used, now)
        tx.keep(CALLS, call.call, known)
        _correct_loss(tx, known, known.cost_pusd - call.cost_pusd, now)


def expire_hold(tx: Transaction, call_id: CallId, now: datetime) -> bool:
    """Gives up a call without a run whose process died. True when it was still held."""
    call = tx.get(CALLS, call_id)
    if call is None or call.state != "held" or call.run is not None:
        return False
    _lose(tx, call, now)
    return True


def bound_of(asked: Hold) -> int:
    """The most a call may cost, in picodollars. Raises BadInputError for numbers that cannot be."""
    price = asked.price
    check_counts(asked.input_tokens_max, asked.output_tokens_max)
    if not 0 <= asked.images <= IMAGES_MAX:
        raise BadInputError(f"Pictures are counted from 0 to {IMAGES_MAX}.")
    if not (
        0 <= price.input_udollars_per_mtok <= PRICE_UDOLLARS_MAX
        and 0 <= price.output_udollars_per_mtok <= PRICE_UDOLLARS_MAX
        and 0 <= price.image_udollars <= PRICE_UDOLLARS_MAX
    ):
        raise BadInputError(f"Prices are from 0 to {PRICE_UDOLLARS_MAX} micro-dollars per million tokens.")
    return price.cost_pusd(asked.input_tokens_max, asked.output_tokens_max, asked.images)


def check_counts(input_tokens: int, output_tokens: int) -> None:
    """Raises BadInputError for numbers of tokens that cannot be."""
    if not (0 <= input_tokens <= TOKENS_MAX and 0 <= output_tokens <= TOKENS_MAX):
        raise BadInputError(f"Tokens are counted from 0 to {TOKENS_MAX}.")


def post(
    tx: Transaction,
    unit: Unit,
    debit: str,
    credit: str,
    amount: int,
    reason: Reason,
    subject: str,
    now: datetime,
    *,
    call: Call | None = None,
    user: UserId | None = None,
    project: ProjectId | None = None,
    escrow: EscrowId | None = None,
    batch: str | None = None,
) -> None:
    """Both legs and both balances. The id is `<subject>/<reason>`: a subject has each reason once."""
    assert amount >= 0, f"{subject}/{reason} of {amount}"
    if amount == 0:
        return
    transfer = Transfer(
        transfer_id=f"{subject}/{reason}",
        unit=unit,
        debit=debit,
        credit=credit,
        amount=amount,
        reason=reason,
        call=call.call if call is not None else None,
        user=call.user if call is not None else user,
        project=call.project if call is not None else project,
        made_at=now,
        escrow=escrow,
        batch=batch,
    )
    tx.insert("transfers", transfer)
    _add(tx, debit, unit, -amount)
    _add(tx, credit, unit, amount)


def shortage(
    tx: Transaction, payer: Payer, amount_ucredits: int, rules: Rules, now: datetime
) -> MasterbuilderError | None:
    """Why a call that may cost so much cannot be paid; None when it can."""
    if (refusal := caps.refusal(tx, payer, amount_ucredits, rules.caps, now)) is not None:
        return refusal
    free = balance_of(tx, wallet(payer.user))
    if amount_ucredits > free:
        return NotEnoughCreditsError(
            f"This call may cost up to {credits_exact(amount_ucredits)} credits and {credits_exact(free)} are free.",
            f"{rules.more_credits} Builds that wait for them go on by themselves.",
            caps.NOT_MADE,
            free,
        )
    return None


def room(tx: Transaction, payer: Payer, rules: Rules, now: datetime) -> int:
    """The most that would fit now, in microcredits: in the wallet and under every cap."""
    free = balance_of(tx, wallet(payer.user))
    bound = caps.room(tx, payer, rules.caps, now)
    return max(0, free if bound is None else min(free, bound))


def balance_of(tx: Transaction, account: str) -> int:
    known = tx.get(ACCOUNTS, account)
    return known.balance if known is not None else 0


def _open_run(tx: Transaction, run_id: RunId) -> Run:
    run = tx.get(RUNS, run_id)
    if run is None or run.state != "open":
        state = run.state if run is not None else "unknown"
        raise ConflictError(f"The run {run_id} is {state}: nothing can be spent under it.", "Begin another run.")
    return run


def _end_run(tx: Transaction, run_id: RunId, state: RunState, now: datetime) -> list[Call]:
    """Ends the run and returns its open calls, in the order of their ids; none when it had ended so before."""
    run = tx.get(RUNS, run_id)
    if run is None:
        raise NotFoundError(f"There is no run {run_id}.", "Begin it first.")
    if run.state == state:
        return []
    if run.state != "open":
        raise ConflictError(f"The run {run_id} is {run.state} already and cannot be {state}.")
    calls = [tx.get(CALLS, call) for call in sorted(tx.get(OPEN_CALLS, run_id) or ())]
    tx.insert("run_ends", RunEnd(run=run_id, state=state, ended_at=now))
    tx.keep(RUNS, run_id, replace(run, state=state))
    return [call for call in calls if call is not None]


def _new_call(asked: Hold, run: Run | None, tariff: Tariff, now: datetime) -> Call:
    price = asked.price
    bound_pusd = bound_of(asked)
    hold_ucredits = tariff.credits_for(bound_pusd)
    return Call(
        call=asked.call,
        user=run.user if run is not None else asked.user,
        run=asked.run,
        project=run.project if run is not None else asked.project,
        token_sha256=asked.token_sha256,
        task=run.task if run is not None else "",
        attempt=run.attempt if run is not None else 0,
        task_type=asked.task_type,
        provider=asked.provider,
        model=asked.model,
        pricing_id=price.pricing_id,
        input_udollars_per_mtok=price.input_udollars_per_mtok,
        output_udollars_per_mtok=price.output_udollars_per_mtok,
        input_tokens_max=asked.input_tokens_max,
        output_tokens_max=asked.output_tokens_max,
        bound_pusd=bound_pusd,
        hold_ucredits=hold_ucredits,
        state="held",
        outcome="pending",
        input_tokens=asked.input_tokens_max,
        output_tokens=asked.output_tokens_max,
        cost_pusd=bound_pusd,
        charge_ucredits=hold_ucredits,
        excess_pusd=0,
        images=asked.images,
        image_udollars=price.image_udollars,
        held_at=now,
    )


def _with_usage(call: Call, used: Meter, tariff: Tariff) -> Call:
    """The call with real figures. A provider that failed served nothing, so nothing is owed for it."""
    if used.provider_failed:
        return replace(
            call,
            state="metered",
            outcome="provider_failed",
            input_tokens=0,
            output_tokens=0,
            cost_pusd=0,
            charge_ucredits=0,
        )
    cost_pusd = call.price.cost_pusd(used.input_tokens, used.output_tokens, call.images)
    return replace(
        call,
        state="metered",
        outcome="estimated" if used.estimated else "ok",
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost_pusd=cost_pusd,
        charge_ucredits=min(call.hold_ucredits, tariff.credits_for(cost_pusd)),
        excess_pusd=max(0, cost_pusd - call.bound_pusd),
    )


def _record_usage(tx: Transaction, call: Call, used: Meter, now: datetime) -> None:
    tx.insert(
        "call_usages",
        CallUsage(
            call=call.call,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cost_pusd=call.cost_pusd,
            charge_ucredits=call.charge_ucredits,
            provider_failed=used.provider_failed,
            response_time_ms=used.response_time_ms,
            key_id=used.key_id,
            metered_at=now,
            estimated=used.estimated,
        ),
    )


def _settle(tx: Transaction, call: Call, now: datetime) -> None:
    _close(tx, replace(call, state="settled"), now)
    _move(tx, call, held(call.user), REVENUE, call.charge_ucredits, "charge", now)
    _owe(tx, call, COST, call.cost_pusd - call.excess_pusd, "cost", now)
    _owe(tx, call, LOSSES, call.excess_pusd, "excess", now)


def _lose(tx: Transaction, call: Call, now: datetime) -> None:
    _close(tx, replace(call, state="lost", outcome=INTERRUPTED[call.outcome], charge_ucredits=0), now)
    _give_back(tx, call, call.charge_ucredits, "void", now)
    _owe(tx, call, LOSSES, call.cost_pusd, "loss", now)


def _correct_loss(tx: Transaction, call: Call, difference_pusd: int, now: datetime) -> None:
    """Replaces the estimate that was booked by what it really was."""
    provider = f"provider:{call.provider}"
    debit, credit = (LOSSES, provider) if difference_pusd > 0 else (provider, LOSSES)
    post(tx, "usd", debit, credit, abs(difference_pusd), "correction", call.call, now, call=call)


def _keep_open(tx: Transaction, call: Call) -> None:
    tx.keep(CALLS, call.call, call)
    if call.run is not None:
        tx.keep(OPEN_CALLS, call.run, (tx.get(OPEN_CALLS, call.run) or frozenset()) | {call.call})


def _close(tx: Transaction, call: Call, now: datetime) -> None:
    tx.insert("call_ends", CallEnd(call=call.call, state=call.state, ended_at=now))
    tx.keep(CALLS, call.call, call)
    if call.run is not None:
        tx.keep(OPEN_CALLS, call.run, (tx.get(OPEN_CALLS, call.run) or frozenset()) - {call.call})


def _give_back(tx: Transaction, call: Call, amount_ucredits: int, reason: Reason, now: datetime) -> None:
    caps.commit(tx, call.payer, -amount_ucredits, call.held_at)
    _move(tx, call, held(call.user), wallet(call.user), amount_ucredits, reason, now)


def _move(tx: Transaction, call: Call, debit: str, credit: str, amount: int, reason: Reason, now: datetime) -> None:
    post(tx, "credit", debit, credit, amount, reason, call.call, now, call=call)


def _owe(tx: Transaction, call: Call, debit: str, amount_pusd: int, reason: Reason, now: datetime) -> None:
    post(tx, "usd", debit, f"provider:{call.provider}", amount_pusd, reason, call.call, now, call=call)


def _add(tx: Transaction, account: str, unit: Unit, amount: int) -> None:
    known = tx.get(ACCOUNTS, account)
    if known is None:
        known = Account(account=account, unit=unit, balance=0)
        tx.insert("accounts", known)
    changed = replace(known, balance=known.balance + amount)
    assert changed.balance >= 0 or not account.startswith("user:"), f"{account} would be {changed.balance}"
    tx.keep(ACCOUNTS, account, changed)
    tx.update("accounts", account, changed)
