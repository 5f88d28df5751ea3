"""Random holds, meters, escrows, settlements, losses and repeats, in any order and across restarts: the books on disk
must say what plain arithmetic over the calls says, and their sums must add up."""

import asyncio
import os
import shutil
import tempfile
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from runtime.entity.journal import Append, BeginRun, Claim, Moves
from runtime.errors import DailyCapError, RefusedError
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.books import Books
from runtime.ledger.caps import Caps
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import (
    Adjustment,
    CallRefund,
    Draw,
    EscrowCall,
    EscrowId,
    Hold,
    Meter,
    NewToken,
    Payer,
    Person,
    Purchase,
    Receipt,
    Repayment,
    Return,
    Role,
    Settlement,
    Spent,
    StarsPayment,
    TokenTerms,
)
from runtime.payments.products import PRODUCTS
from runtime.store import transaction
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.store.journal import StoreJournal
from runtime.store.schema import DATABASE
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

USERS = [UserId("u0"), UserId("u1")]
PROJECTS = [ProjectId("p0"), ProjectId("p1")]
GRANT = 1_000_000
TARIFF = Tariff(markup_numerator=7, markup_denominator=3)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CAPS = Caps(user_ucredits=GRANT // 2, platform_ucredits=2 * GRANT, providers_ucredits={"provider0": GRANT // 3})
BONUS = 5_000
DATA_KEY = bytes(range(32))
PARTS, EXAMPLES = (20, 500) if os.environ.get("NIGHTLY") else (1, 6)
"""Each with two sizes of memory; a run of hours that is broken off has shown its whole parts."""

RESTARTS_MAX = 2
"""Each takes as long as eight other steps."""

MEMORY = Path("/dev/shm")
"""Where a history needs no disk: what a power cut leaves is the kill tests' matter."""

users = st.sampled_from(USERS)
projects = st.sampled_from(PROJECTS)
runs = st.sampled_from([RunId(f"r{n}") for n in range(4)])
calls = st.sampled_from([CallId(f"c{n}") for n in range(12)])
tokens = st.integers(0, 1_500)
prices = st.sampled_from([Price(pricing_id=f"p{n}", input_udollars_per_mtok=n * 331, output_udollars_per_mtok=n * 997)
                          for n in (0, 1, 400)])  # fmt: skip
PAYERS = [
    Payer(USERS[0]),
    Payer(USERS[0], PROJECTS[0]),
    Payer(USERS[1], PROJECTS[1], "a" * 64),
    Payer(USERS[1], None, "b" * 64, "provider0"),
]
payers = st.sampled_from(PAYERS)
escrows = st.sampled_from([EscrowId(f"e{n}") for n in range(6)])
processes = st.sampled_from(["x", "y"])
returns = st.lists(
    st.builds(Return, escrow=escrows, granted_ucredits=st.integers(0, GRANT), ends=st.booleans()), max_size=2
)


@st.composite
def settlements(draw: Any) -> Settlement:
    """Of calls that may have been settled before, under escrows that may have ended or never been."""
    batch = draw(st.integers(0, 10_000))
    made = {
        number: EscrowCall(
            escrow=draw(escrows),
            hold=escrow_hold(number, draw(payers), draw(st.tuples(tokens, tokens)), draw(prices)),
            meter=draw(
                st.none() | st.builds(escrow_meter, st.just(number), tokens, tokens, st.booleans(), st.booleans())
            ),
            held_at=NOON,
        )
        for number in draw(st.lists(st.integers(0, 30), max_size=5))
    }
    return Settlement(
        batch=f"b{batch}-{sorted(made)}",
        process=draw(processes),
        calls=tuple(made.values()),
        returns=tuple(draw(returns)),
        process_ended=draw(st.integers(0, 9)) == 0,
    )


def escrow_hold(number: int, payer: Payer, bounds: tuple[int, int], price: Price) -> Hold:
    return Hold(
        call=CallId(f"gw-{number}"),
        user=payer.user,
        run=None,
        task_type="chat",
        provider=f"provider{number % 2}",
        model="m",
        input_tokens_max=bounds[0],
        output_tokens_max=bounds[1],
        price=price,
        project=payer.project,
        token_sha256=payer.token_sha256,
    )


def escrow_meter(number: int, input_tokens: int, output_tokens: int, failed: bool, unserved: bool) -> Meter:
    return Meter(
        call=CallId(f"gw-{number}"),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        response_time_ms=1,
        key_id="k",
        provider_failed=failed,
        estimated=number % 3 == 0,
        unserved=unserved,
    )


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-machine-", dir=MEMORY if MEMORY.is_dir() else None))
        (self.folder / DATABASE).write_bytes(empty_database())
        self.now = NOON
        self.restarts = 0
        self.tariff = TARIFF
        self.model = MemoryLedger(TARIFF, GRANT, lambda: self.now, caps=CAPS, referral_ucredits=BONUS)
        self.model_journal = MemoryJournal(self.model, lambda: self.now)
        self.open_books()

    @initialize()
    def begin(self) -> None:
        partitions = {partition_of(EntityId(f"project:{project}")): 0 for project in PROJECTS}
        self.both("claim", Claim(host="h", incarnation="i", partitions=partitions), journal=True)
        for user in USERS:
            self.both("open_wallet", user, False)
        for digit in "ab":
            terms = TokenTerms(budget_ucredits=GRANT // 3 if digit == "a" else None)
            token = NewToken(token_sha256=digit * 64, user=USERS[1], kind="user", label="", terms=terms)
            self.both("add_token", token)

    @rule(run=runs, user=users, project=projects)
    def begin_run(self, run: RunId, user: UserId, project: ProjectId) -> None:
        self.append(project, begin=[BeginRun(run=run, user=user, project=project, task="T-001", attempt=1)])

    @rule(project=projects, settle=st.lists(runs, max_size=2), abandon=st.lists(runs, max_size=2))
    def end_runs(self, project: ProjectId, settle: list[RunId], abandon: list[RunId]) -> None:
        self.append(project, settle=settle, abandon=[run for run in abandon if run not in settle])

    @rule(project=projects, ceiling=st.integers(0, GRANT))
    def set_ceiling(self, project: ProjectId, ceiling: int) -> None:
        self.append(project, ceiling_ucredits=ceiling)

    @rule(call=calls, user=users, run=st.none() | runs, bounds=st.tuples(tokens, tokens), price=prices)
    def hold(self, call: CallId, user: UserId, run: RunId | None, bounds: tuple[int, int], price: Price) -> None:
        hold = Hold(
            call=call,
            user=user,
            run=run,
            task_type="coding",
            provider="provider0" if call in ("c2", "c3", "c4") else "openai",
            model="m",
            input_tokens_max=bounds[0],
            output_tokens_max=bounds[1],
            price=price,
            token_sha256="a" * 64 if call == "c0" else "",
            project=PROJECTS[0] if call == "c1" else None,
        )
        known = self.model._calls.get(call)
        if known is not None and run is None:
            hold = replace(hold, user=known.user)
        self.both("hold", hold)

    @rule(call=calls, used=st.tuples(tokens, tokens), failed=st.booleans(), unserved=st.booleans())
    def meter(self, call: CallId, used: tuple[int, int], failed: bool, unserved: bool) -> None:
        meter = Meter(
            call=call,
            input_tokens=used[0],
            output_tokens=used[1],
            response_time_ms=1,
            key_id="k",
            provider_failed=failed,
            unserved=unserved,
        )
        self.both("meter", meter)

    @rule(
        escrow=escrows,
        process=processes,
        payer=payers,
        least=st.integers(0, GRANT),
        more=st.integers(0, GRANT),
        given=returns,
    )
    def draw(self, escrow: EscrowId, process: str, payer: Payer, least: int, more: int, given: list[Return]) -> None:
        known = self.model._escrows.get(escrow)
        if known is not None:
            process, payer = known.draw.process, known.draw.payer
        own = tuple(each for each in given if each.escrow != escrow and each.escrow in self.model._escrows)
        draw = Draw(
            escrow=escrow,
            process=process,
            payer=payer,
            wanted_ucredits=least + more,
            min_ucredits=least,
            returns=own if known is None else (),
        )
        self.both("draw", draw)

    @rule(user=users, amount=st.integers(-GRANT, GRANT), number=st.integers(0, 5))
    def adjust(self, user: UserId, amount: int, number: int) -> None:
        asked = Adjustment(id=f"a{number}", user=user, amount_ucredits=amount or 1, reason="why", made_by=USERS[0])
        self.both("adjust", asked)

    @rule(user=users, amount=st.integers(1, GRANT), number=st.integers(0, 4))
    def purchase(self, user: UserId, amount: int, number: int) -> None:
        made = Purchase(
            provider="shop", external_id=f"x{number}", user=user, product="credits", ucredits=amount,
            paid_pusd=7 * amount, currency="USD", amount_minor=1,
        )  # fmt: skip
        self.both("purchase", made)

    @rule(number=st.integers(0, 4))
    def repay(self, number: int) -> None:
        self.both("repay", Repayment(provider="shop", external_id=f"x{number}", reason="why"))

    @rule(user=users, number=st.integers(0, 4), product=st.sampled_from(sorted(PRODUCTS)), odd=st.integers(0, 4))
    def pay_with_stars(self, user: UserId, number: int, product: str, odd: int) -> None:
        """Charges that were told before, also with other figures, and some that do not fit."""
        stars = PRODUCTS[product].stars - (odd == 0)
        made = StarsPayment(
            telegram_charge_id=f"s{number}", provider_charge_id="", user=user, product=product, stars=stars,
            currency="XTR", at=NOON,
        )  # fmt: skip
        self.both("fulfil", made)

    @rule(number=st.integers(0, 5), is_told=st.booleans())
    def refund_stars(self, number: int, is_told: bool) -> None:
        self.both("refund_stars", f"s{number}", "why", USERS[0])
        if is_told:
            self.both("star_refund_told", f"s{number}")

    @rule(user=users)
    def look_at_subscription(self, user: UserId) -> None:
        self.both("subscription", user)

    @rule(call=calls | st.integers(0, 30).map(lambda number: CallId(f"gw-{number}")))
    def refund(self, call: CallId) -> None:
        self.both("refund_call", CallRefund(call=call, reason="why", made_by=USERS[0]))

    @rule(user=users, inviter=users)
    def invite(self, user: UserId, inviter: UserId) -> None:
        self.both("set_inviter", user, inviter)

    @rule(user=users, role=st.sampled_from(["DEMO", "FULL_ACCESS"]))
    def change_role(self, user: UserId, role: Role) -> None:
        self.both("set_role", user, role)

    @rule(user=users, stops=st.integers(0, 4))
    def stop_or_release(self, user: UserId, stops: int) -> None:
        why = ("one", "another")[stops] if stops < 2 else None
        self.both(*(("stop_account", user, why) if why else ("release_account", user)))

    @rule(hours=st.sampled_from([1, 5, 13, 24 * 30]))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(settlement=settlements(), times=st.integers(1, 2))
    def settle(self, settlement: Settlement, times: int) -> None:
        for _ in range(times):
            self.both("settle", settlement)

    @rule()
    def expire_escrows(self) -> None:
        self.run(self.books.expire_escrows(0.0))
        for process in "xy":
            self.run(self.model.settle(Settlement(batch="", process=process, process_ended=True)))

    @precondition(lambda self: self.restarts < RESTARTS_MAX)
    @rule(markup=st.none() | st.integers(1, 5))
    def restart(self, markup: int | None) -> None:
        """With a new markup later calls cost more or less; restarting is how a setting changes."""
        self.restarts += 1
        if markup is not None:
            self.tariff = self.model._tariff = replace(TARIFF, markup_numerator=markup)
        self.database.close()
        self.open_books()

    @rule(user=users)
    def look_at_wallet(self, user: UserId) -> None:
        balance = self.run(self.books.balance(user))
        assert balance == self.run(self.model.balance(user))
        assert balance.free_ucredits >= 0
        assert balance.held_ucredits >= 0

    def look_at_all(self) -> None:
        """Once a history: its questions to the disk take longer than all that they are about."""
        for user in USERS:
            self.look_at_wallet(user)
            assert self.run(self.books.spending(user)) == self.run(self.model.spending(user))
            whole = self.run(self.books.statement(user, None, 10_000))
            assert sum(each.amount_ucredits for each in whole) == self.run(self.books.balance(user)).balance_ucredits
            assert movements(whole) == movements(self.run(self.model.statement(user, None, 10_000)))
            for told in ("payments_of", "person"):
                answer, expected = (self.run(getattr(which, told)(user)) for which in (self.books, self.model))
                assert plain(answer) == plain(expected)
        for project in PROJECTS:
            receipt, expected = self.run(self.books.receipt(project)), self.run(self.model.receipt(project))
            for lines in ("charged", "losses", "pending"):
                assert by_call(getattr(receipt, lines)) == by_call(getattr(expected, lines))
            assert receipt.total_ucredits == expected.total_ucredits
            assert sorted(map(repr, receipt.refunds)) == sorted(map(repr, expected.refunds))
            assert receipt.net_ucredits == expected.net_ucredits >= 0
            assert self.run(self.books.spent(project)) == sums_of(receipt)
        spent, expected_spent = (
            {row.token_id: row.spent_ucredits for row in self.run(which.tokens(None))}
            for which in (self.books, self.model)
        )
        assert spent == expected_spent

    def teardown(self) -> None:
        self.look_at_all()
        assert self.run(self.books.mismatches()) == []
        self.database.close()
        self.loop.close()
        shutil.rmtree(self.folder)

    def open_books(self) -> None:
        self.database = Database(self.folder, DATA_KEY)
        self.database.open()
        self.journal = StoreJournal(self.database, lambda: self.now)
        self.books = Books(
            database=self.database,
            blobs=Blobs(self.database),
            tariff=self.tariff,
            initial_free_ucredits=GRANT,
            identity_salt=b"salt",
            caps=CAPS,
            referral_ucredits=BONUS,
            clock=lambda: self.now,
            recall_wait_s=0.0,
        )

    def append(self, project: ProjectId, **moves: Any) -> None:
        append = Append(
            entity=EntityId(f"project:{project}"),
            owner=USERS[0],
            epoch=1,
            expected_seq=0,
            events=(),
            open=True,
            head={},
            moves=Moves(**moves),
        )
        self.both("append", append, journal=True)

    def both(self, method: str, *arguments: Any, journal: bool = False) -> None:
        """Asks the model and the books the same; they must answer or refuse alike."""
        pair = (self.model_journal, self.journal) if journal else (self.model, self.books)
        expected, answer = (self.outcome(getattr(which, method)(*arguments)) for which in pair)
        if method == "settle" and isinstance(answer, tuple):
            answer = ()  # The model never asks for anything back.
        assert answer == expected, f"{method}{arguments}: {answer}, expected {expected}"

    def outcome(self, awaitable: Any) -> Any:
        try:
            return self.run(awaitable)
        except (RefusedError, DailyCapError) as error:
            return type(error)

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)


@cache
def empty_database() -> bytes:
    """Made once: creating it takes longer than a history."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), DATA_KEY)
        database.open()
        database.close()
        return (Path(folder) / DATABASE).read_bytes()


def plain(answer: Any) -> Any:
    """But for when somebody was registered, which the database's own clock says."""
    return replace(answer, registered_at=NOON) if isinstance(answer, Person) else sorted(map(repr, answer))


def movements(statement: Any) -> list[Any]:
    """But for grants and charges, which the model does not list."""
    listed = [each for each in statement if each.type not in ("usage_deduction", "initial_grant")]
    return sorted((each.id, each.type, each.amount_ucredits, each.text) for each in listed)


def sums_of(receipt: Receipt) -> Spent:
    return Spent(**{each.name: getattr(receipt, each.name) for each in fields(Spent)})


def by_call(rows: Any) -> list[Any]:
    return sorted(rows, key=lambda row: (row.call, row.outcome))


@pytest.fixture(params=[200_000, 3], ids=["roomy memory", "memory of 3 records"], autouse=True)
def memory_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "RECORDS_IN_MEMORY_MAX", request.param)


@pytest.mark.parametrize("part", range(PARTS))
def test_books__agree_with_plain_arithmetic(memory_size: None, part: int) -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
