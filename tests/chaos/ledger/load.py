"""The load: callers of every kind who work on one store as fast as it answers, until somebody ends their process."""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from runtime.entity.journal import Append, BeginRun, Moves, NewEvent
from runtime.errors import MasterbuilderError, StoreUnavailableError
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import (
    Adjustment,
    CallRefund,
    Draw,
    EscrowCall,
    EscrowId,
    Hold,
    Meter,
    Payer,
    Purchase,
    Repayment,
    Return,
    Settlement,
)
from tests.chaos.ledger.operations import Message, Operation, Sender

POOR = [UserId("poor-0"), UserId("poor-1")]
"""Have what they were granted, and want more."""
RICH = [UserId(f"rich-{number}") for number in range(12)]
USERS = [*POOR, *RICH]
ENDOWMENT_UCREDITS = 10**16
"""What the rich buy first: nothing is ever refused to them for want of credits."""
OPERATOR = UserId("operator")
PRICES = [
    Price(pricing_id="odd", input_udollars_per_mtok=150_001, output_udollars_per_mtok=600_007),
    Price(pricing_id="half", input_udollars_per_mtok=10_000, output_udollars_per_mtok=30_000),
    Price(pricing_id="pictures", input_udollars_per_mtok=333_333, output_udollars_per_mtok=0, image_udollars=77),
]
CALLERS = {"exact": 60, "runs": 36, "escrows": 40, "purses": 30, "wallets": 6, "blobs": 1}
BLOB_EVERY_S = 0.03
CHARGED_KEPT = 200
CALL_S_MAX = 0.03
"""How long a call under a purse is under way."""

Caller = Callable[[int], Coroutine[Any, Any, None]]


class Load:
    """`name` is used once in a data folder: every id begins with it."""

    def __init__(self, sender: Sender, name: str) -> None:
        self._sender = sender
        self._name = name
        self._dice = random.Random(name)
        self._numbers = itertools.count()
        self._charged: deque[CallId] = deque(maxlen=CHARGED_KEPT)
        """Calls that may be refunded."""

    async def run(self) -> None:
        """Until it is cancelled, or the store answers that it is no longer there."""
        kinds: dict[str, Caller] = {
            "exact": self._exact, "runs": self._runs, "escrows": self._escrows, "purses": self._purses,
            "wallets": self._wallets, "blobs": self._blobs,
        }  # fmt: skip
        callers = [kinds[kind](number) for kind, count in CALLERS.items() for number in range(count)]
        await asyncio.gather(*callers)

    async def _exact(self, number: int) -> None:
        """Calls without a run, each with a hold of its own."""
        user = POOR[number % 2] if number < 16 else RICH[number % 4]
        while True:
            hold = self._hold(user, large=user in POOR)
            if not await self._tried(hold) or self._dice.random() < 0.05:
                continue
            meter = self._meter(hold)
            await self._tried(meter)
            if not meter.provider_failed:
                self._charged.append(hold.call)

    async def _runs(self, number: int) -> None:
        """Calls of runs: the events that begin and end them move the money."""
        entity, project, user = EntityId(f"project:p{number}"), ProjectId(f"p{number}"), RICH[number % 4 + 2]
        loaded = await self._sender.store.journal.load(entity)
        seq = loaded.head.last_seq if loaded.head is not None else 0
        while True:
            run = RunId(self._id("run"))
            begin = BeginRun(run=run, user=user, project=project, task="T-001", attempt=1)
            ceiling = self._dice.choice([None, None, 10**15, 10**16])
            await self._sent(self._append(entity, user, seq, Moves(begin=[begin], ceiling_ucredits=ceiling)))
            seq += 1
            await asyncio.gather(*(self._call_of(run, user) for _ in range(self._dice.randrange(4))))
            end = Moves(settle=[run]) if self._dice.random() < 0.7 else Moves(abandon=[run])
            await self._sent(self._append(entity, user, seq, end))
            seq += 1

    async def _call_of(self, run: RunId, user: UserId) -> None:
        hold = self._hold(user, run=run)
        if await self._tried(hold) and self._dice.random() < 0.85:
            await self._tried(self._meter(hold))

    async def _escrows(self, number: int) -> None:
        """Escrows and their settlements as a purse would send them, but late, twice, and above what was drawn, too."""
        user, process = RICH[6 + number % 3], f"raw-{self._name}-{number}"
        while True:
            escrow = EscrowId(self._id("escrow"))
            project = ProjectId(f"shared-{number % 3}") if number % 2 else None
            payer = Payer(user, project, "", "provider-" + "ab"[number % 2])
            least = self._dice.randrange(1, 500_000)
            wanted = least + self._dice.randrange(1_000_000)
            draw = Draw(escrow=escrow, process=process, payer=payer, wanted_ucredits=wanted, min_ucredits=least)
            if not await self._tried(draw):
                continue
            for _ in range(self._dice.randrange(1, 4)):
                calls = tuple(self._escrow_call(escrow, payer) for _ in range(self._dice.randrange(1, 20)))
                given = Return(escrow=escrow, granted_ucredits=self._dice.randrange(wanted))
                returns = (given,) if self._dice.random() < 0.3 else ()
                batch = self._id("batch")
                await self._tried(Settlement(batch=batch, process=process, calls=calls, returns=returns), id=batch)
                if self._dice.random() < 0.01:
                    again = Settlement(batch=self._id("batch"), process=process, calls=calls[: len(calls) // 2 + 1])
                    await self._tried(again, id=again.batch)
                self._charged.extend(each.hold.call for each in calls if each.meter and not each.meter.provider_failed)
            if self._dice.random() < 0.7:
                ends = Return(escrow=escrow, granted_ucredits=0, ends=True)
                batch = self._id("batch")
                await self._tried(Settlement(batch=batch, process=process, returns=(ends,)), id=batch)

    async def _purses(self, number: int) -> None:
        user = RICH[9 + number % 3]
        while True:
            hold = self._hold(user)
            if not await self._tried(hold, by_purse=True) or self._dice.random() < 0.03:
                continue
            await asyncio.sleep(self._dice.uniform(0, CALL_S_MAX))
            await self._tried(self._meter(hold), by_purse=True, id=f"{hold.call}/meter")

    async def _wallets(self, number: int) -> None:
        while True:
            user = self._dice.choice(USERS)
            name = self._id("purchase")
            bought = self._purchase(name, user, self._dice.randrange(1, 3_000_000))
            await self._tried(bought, id=name)
            if self._dice.random() < 0.4:
                repayment = Repayment(provider=bought.provider, external_id=name, reason="asked for")
                await self._tried(repayment, id=f"{name}/repayment")
            amount = self._dice.randrange(1, 2_000_000) * self._dice.choice([1, -1])
            adjusted = self._id("adjustment")
            await self._tried(
                Adjustment(id=adjusted, user=user, amount_ucredits=amount, reason="chaos", made_by=OPERATOR),
                id=adjusted,
            )
            if self._charged and self._dice.random() < 0.5:
                call = self._charged.popleft()
                await self._tried(CallRefund(call=call, reason="chaos", made_by=OPERATOR), id=f"{call}/refund")

    async def _blobs(self, number: int) -> None:
        while True:
            await self._tried(self._id("blob").encode() * self._dice.randrange(1, 50))
            await asyncio.sleep(BLOB_EVERY_S)

    async def endow(self) -> None:
        """Opens the wallets; the rich buy what they will need. Repeating it changes nothing."""
        books = self._sender.store.books
        await asyncio.gather(*(books.open_wallet(user, is_admin=False) for user in USERS))
        bought = {f"endowment-{user}": user for user in RICH}
        await asyncio.gather(
            *(self._tried(self._purchase(name, user, ENDOWMENT_UCREDITS), id=name) for name, user in bought.items())
        )

    async def _tried(self, message: Message, *, by_purse: bool = False, id: str | None = None) -> bool:
        """False: the ledger refused it."""
        try:
            await self._sent(message, by_purse=by_purse, id=id)
        except StoreUnavailableError:
            raise
        except MasterbuilderError:
            return False
        return True

    async def _sent(self, message: Message, *, by_purse: bool = False, id: str | None = None) -> None:
        if id is None:
            id = f"{message.call}/{type(message).__name__}" if isinstance(message, Hold | Meter) else self._id("other")
        await self._sender.send(Operation(id=id, message=message, way="purse" if by_purse else "ledger"))

    def _id(self, what: str) -> str:
        return f"{self._name}-{what}-{next(self._numbers)}"

    def _hold(self, user: UserId, *, run: RunId | None = None, large: bool = False) -> Hold:
        dice = self._dice
        price = dice.choice(PRICES)
        tokens = 200_000 if large else 3_000
        return Hold(
            call=CallId(self._id("call")),
            user=user,
            run=run,
            task_type="chat" if run is None else "coding",
            provider="provider-" + dice.choice("ab"),
            model="m",
            input_tokens_max=dice.randrange(1, tokens),
            output_tokens_max=dice.randrange(1, tokens),
            price=price,
            images=dice.randrange(3),
        )

    def _meter(self, hold: Hold) -> Meter:
        """Now and then more than was held."""
        dice = self._dice
        share = dice.choice([0.3, 0.7, 1.0, 1.3])
        return Meter(
            call=hold.call,
            input_tokens=int(hold.input_tokens_max * share),
            output_tokens=int(hold.output_tokens_max * share),
            response_time_ms=1,
            key_id="k",
            provider_failed=dice.random() < 0.1,
            estimated=dice.random() < 0.05,
        )

    def _escrow_call(self, escrow: EscrowId, payer: Payer) -> EscrowCall:
        hold = self._hold(payer.user)
        meter = self._meter(hold) if self._dice.random() < 0.95 else None
        return EscrowCall(escrow=escrow, hold=hold, meter=meter, held_at=datetime.now(UTC))

    def _append(self, entity: EntityId, owner: UserId, seq: int, moves: Moves) -> Append:
        event = NewEvent(type="t", version=1, key=self._id("event"), data={"n": seq + 1})
        return Append(
            entity=entity, owner=owner, epoch=0, expected_seq=seq, events=[event], open=True, head={}, moves=moves
        )

    def _purchase(self, name: str, user: UserId, ucredits: int) -> Purchase:
        return Purchase(
            provider="bank", external_id=name, user=user, product="credits", ucredits=ucredits, paid_pusd=ucredits * 7,
            currency="USD", amount_minor=ucredits,
        )  # fmt: skip
