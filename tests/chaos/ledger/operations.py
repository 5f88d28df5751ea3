"""What the load asks of a store: each operation under an id, so that it may be sent again and have one effect."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

from runtime.entity.journal import Append, Claim
from runtime.errors import MasterbuilderError
from runtime.ids import PARTITION_COUNT, partition_of
from runtime.ledger.port import Adjustment, CallRefund, Draw, Hold, Meter, Purchase, Repayment, Settlement
from runtime.ledger.purse import Purse
from runtime.store.store import Store
from tests.chaos.ledger.diary import Diary

Message = Hold | Meter | Draw | Settlement | Append | Purchase | Repayment | Adjustment | CallRefund | bytes
TWICE = 0.05
"""So many operations are sent twice at once, as by a caller whose connection broke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`way`: through the ledger's own port, or through a purse of the process that makes the call."""

    id: str
    message: Message
    way: Literal["ledger", "purse"] = "ledger"


class Sender:
    """Sends operations to an open store and writes down what was sent, acknowledged and refused."""

    def __init__(self, store: Store, diary: Diary, epochs: Mapping[int, int], purses: Sequence[Purse] = ()) -> None:
        self.store = store
        self.purses = purses
        self._diary = diary
        self._epochs = epochs
        self.acknowledged = 0

    async def send(self, operation: Operation) -> Any:
        """Its answer. Raises what the ledger raised; then nothing of it may be there."""
        if operation.way == "ledger" and random.random() < TWICE:
            both = [self._answered(operation), self._answered(operation)]
            answers: list[Any] = await asyncio.gather(*both, return_exceptions=True)
            answer = answers[1] if isinstance(answers[0], BaseException) else answers[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer
        return await self._answered(operation)

    async def _answered(self, operation: Operation) -> Any:
        self._diary.sent(operation)
        try:
            answer = await self._ask(operation)
        except MasterbuilderError as error:
            self._diary.refused(operation.id, type(error).__name__)
            raise
        self._diary.acknowledged(operation.id, answer)
        self.acknowledged += 1
        return answer

    async def _ask(self, operation: Operation) -> Any:
        books, message = self.store.books, operation.message
        if operation.way == "purse":
            purse = self.purses[sum(operation.id.encode()) % len(self.purses)]
            assert isinstance(message, Hold | Meter)
            call = purse.hold(message) if isinstance(message, Hold) else purse.meter(message)
            return await call
        match message:
            case Hold():
                return await books.hold(message)
            case Meter():
                return await books.meter(message)
            case Draw():
                return await books.draw(message)
            case Settlement():
                await books.settle(message)
                return None
            case Append():
                epoch = self._epochs[partition_of(message.entity)]
                return await self.store.journal.append(replace(message, epoch=epoch))
            case Purchase():
                return await books.purchase(message)
            case Repayment():
                return await books.repay(message)
            case Adjustment():
                await books.adjust(message)
                return None
            case CallRefund():
                return await books.refund_call(message)
            case bytes():
                return await books.put_blob(message)
            case _:
                assert_never(message)


async def claimed(store: Store, incarnation: str) -> Mapping[int, int]:
    """Every partition, taken from whoever had it: partition -> epoch."""
    seen = {each.partition: each.epoch for each in await store.journal.ownerships()}
    partitions = {number: seen.get(number, 0) for number in range(PARTITION_COUNT)}
    return await store.journal.claim(Claim(host="chaos", incarnation=incarnation, partitions=partitions))
