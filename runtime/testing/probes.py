"""Entities with nothing to do but be counted: what benchmarks and chaos runs put load on, and check at the end.

A counter measures one durable turn; accounts measure work that spans two entities and must survive both.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.host import Factory
from runtime.entity.journal import EventRecord, Reminder
from runtime.entity.port import Entities
from runtime.entity.reminders import Reminded
from runtime.errors import BadInputError, ConflictError, UnavailableError
from runtime.ids import LOCAL_ADMIN, EntityId, UserId, name_of

CREDIT_RETRY_S = 0.2


def factories(entities: Entities) -> Mapping[str, Factory]:
    """How each probe is made. `entities` is how accounts reach each other."""
    return {"counter": lambda entity: Counter(), "account": lambda entity: Account(entity, entities)}


def counter_entity(name: str) -> EntityId:
    return EntityId(f"counter:{name}")


def account_entity(name: str) -> EntityId:
    return EntityId(f"account:{name}")


# What a counter understands. Every answer is the total, which a repeated key does not change.


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    key: str
    amount: int = 1
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Sleeps for `seconds`, then adds one: a turn that others must wait for, and that a kill can cut in two."""

    key: str
    seconds: float
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Remind:
    """Arms the reminder `name`, `after_s` from now. Its delivery counts in `CounterView.reminded`."""

    key: str
    name: str
    after_s: float
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Raises what no entity may raise, to see the host reset this one and leave its neighbours alone."""

    key: str
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Answers a CounterView. Read-only."""

    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterView:
    total: int = 0
    reminded: int = 0
    """Reminders delivered, each counted once."""


class ProbeError(Exception):
    """The bug that `Fail` plays."""


class Counter(Entity[CounterView]):
    kind = "counter"
    read_only = (Total,)
    keeps_history = False

    def initial(self) -> CounterView:
        return CounterView()

    def fold(self, state: CounterView, event: EventRecord) -> CounterView:
        match event.type:
            case "counter.added":
                return CounterView(total=state.total + event.data["amount"], reminded=state.reminded)
            case "counter.reminded":
                return CounterView(total=state.total, reminded=state.reminded + 1)
            case _:
                return state

    def head(self, state: CounterView) -> Mapping[str, Any]:
        return {"total": state.total}

    def is_open(self, state: CounterView) -> bool:
        return False

    def freeze(self, state: CounterView) -> Mapping[str, Any]:
        return {"total": state.total, "reminded": state.reminded}

    def thaw(self, data: Mapping[str, Any]) -> CounterView:
        return CounterView(**data)

    async def receive(self, message: Any) -> CounterView | int:
        match message:
            case Increment(key=key, amount=amount):
                await self.activation.emit("counter.added", key, {"amount": amount})
            case Total():
                return self.state
            case Hold(key=key, seconds=seconds):
                await asyncio.sleep(seconds)
                await self.activation.emit("counter.added", key, {"amount": 1})
            case Remind(key=key, name=name, after_s=after_s):
                due_at = datetime.now(UTC) + timedelta(seconds=after_s)
                reminder = Reminder(name=name, due_at=due_at)
                await self.activation.emit("counter.armed", key, {"name": name}, remind=(reminder,))
            case Reminded(key=key):
                await self.activation.emit("counter.reminded", key)
            case Fail(key=key):
                raise ProbeError(key)
            case _:
                raise BadInputError(f"A counter does not understand {type(message).__name__}.")
        return self.state.total


# What an account understands. Every answer is an AccountView.


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Puts money in from nowhere."""

    key: str
    amount: int
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Takes `amount` from this account for the account `to`, which has it soon: answered once that is on disk.

    Raises ConflictError when there is not as much, BadInputError for an amount that is not positive.
    """

    key: str
    to: EntityId
    amount: int
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """From one account to another. `key` names the transfer and where it comes from."""

    key: str
    amount: int
    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Read-only."""

    owner: UserId = LOCAL_ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """With nothing in flight, all balances sum to all that was ever put in. A credit whose answer is still on its way
    is in both accounts.
    """

    balance: int
    in_flight: int
    """Taken from here, not yet known to have arrived."""

    @property
    def total(self) -> int:
        return self.balance + self.in_flight


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    balance: int = 0
    in_flight: Mapping[str, Transfer] = field(default_factory=dict)
    """By key."""


class Account(Entity[AccountState]):
    kind = "account"
    read_only = (Balance,)

    def __init__(self, entity: EntityId, entities: Entities) -> None:
        self._entity = entity
        self._entities = entities

    def initial(self) -> AccountState:
        return AccountState()

    def fold(self, state: AccountState, event: EventRecord) -> AccountState:
        data = event.data
        match event.type:
            case "account.opened" | "account.credited":
                return AccountState(balance=state.balance + data["amount"], in_flight=state.in_flight)
            case "account.debited":
                transfer = _transfer(data)
                in_flight = {**state.in_flight, transfer.key: transfer}
                return AccountState(balance=state.balance - transfer.amount, in_flight=in_flight)
            case "account.arrived":
                in_flight = {key: transfer for key, transfer in state.in_flight.items() if key != data["transfer"]}
                return AccountState(balance=state.balance, in_flight=in_flight)
            case _:
                return state

    def head(self, state: AccountState) -> Mapping[str, Any]:
        return {"balance": state.balance}

    def is_open(self, state: AccountState) -> bool:
        return bool(state.in_flight)

    def freeze(self, state: AccountState) -> Mapping[str, Any]:
        return {"balance": state.balance, "in_flight": [_plain(transfer) for transfer in state.in_flight.values()]}

    def thaw(self, data: Mapping[str, Any]) -> AccountState:
        transfers = map(_transfer, data["in_flight"])
        return AccountState(balance=data["balance"], in_flight={transfer.key: transfer for transfer in transfers})

    async def wake(self) -> None:
        for transfer in self.state.in_flight.values():
            self._carry(transfer)

    async def receive(self, message: Any) -> AccountView:
        match message:
            case Open(key=key, amount=amount):
                await self.activation.emit("account.opened", f"open/{key}", {"amount": amount})
            case Transfer():
                await self._debit(message)
            case Credit(key=key, amount=amount):
                await self.activation.emit("account.credited", f"credit/{key}", {"amount": amount})
            case Balance():
                pass
            case _:
                raise BadInputError(f"An account does not understand {type(message).__name__}.")
        return AccountView(
            balance=self.state.balance,
            in_flight=sum(transfer.amount for transfer in self.state.in_flight.values()),
        )

    async def _debit(self, transfer: Transfer) -> None:
        key = f"transfer/{transfer.key}"
        if self.activation.has(key):
            return
        if transfer.amount <= 0 or transfer.to == self._entity:
            raise BadInputError("A transfer is a positive amount to another account.")
        if transfer.amount > self.state.balance:
            raise ConflictError(f"{self._entity} has {self.state.balance}, not {transfer.amount}.")
        await self.activation.emit("account.debited", key, _plain(transfer))
        self._carry(transfer)

    def _carry(self, transfer: Transfer) -> None:
        self.activation.spawn(self._deliver(transfer), f"transfer {transfer.key}")

    async def _deliver(self, transfer: Transfer) -> None:
        """Until it has arrived: the debit is on disk, so a restart goes on here, and the key makes that safe."""
        credit = Credit(key=f"{name_of(self._entity)}/{transfer.key}", amount=transfer.amount, owner=transfer.owner)
        while True:
            try:
                await self._entities.ask(transfer.to, credit)
                break
            except UnavailableError:
                await asyncio.sleep(CREDIT_RETRY_S)
        await self.activation.emit("account.arrived", f"arrived/{transfer.key}", {"transfer": transfer.key})


def _plain(transfer: Transfer) -> Mapping[str, Any]:
    return {"key": transfer.key, "to": transfer.to, "amount": transfer.amount, "owner": transfer.owner}


def _transfer(data: Mapping[str, Any]) -> Transfer:
    return Transfer(key=data["key"], to=EntityId(data["to"]), amount=data["amount"], owner=UserId(data["owner"]))
