"""What the ledger's handle adds: together when together, repeated when lost, one by one when refused."""

import asyncio
import inspect
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from actors import handles
from actors.ledger import LedgerHandle
from runtime.entity.journal import Append, Loaded, NewEvent
from runtime.errors import StaleWriterError
from runtime.ids import CallId, EntityId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import EscrowCall, EscrowId, Hold, Ledger, Meter, Settlement
from runtime.reports.port import Reporting


class FakeMethod:
    def __init__(self, method: Any) -> None:
        self.remote = method


class FakeActor:
    """Stands where the ledger's actor would: it knows which entities are stale, and may lose its answer once."""

    def __init__(self) -> None:
        self.batches: list[list[EntityId]] = []
        self.stale: set[EntityId] = set()
        self.answers_to_lose = 0
        self.append_all = FakeMethod(self._append_all)
        self.load_all = FakeMethod(self._load_all)
        self.settlements: list[Settlement] = []
        self.settle = FakeMethod(self._settle)

    async def _append_all(self, data: bytes) -> list[int | Exception]:
        appends: Sequence[Append] = pickle.loads(data)
        self.batches.append([append.entity for append in appends])
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise ActorUnavailableError("lost", None)
        return [StaleWriterError("stale") if append.entity in self.stale else 1 for append in appends]

    async def _settle(self, data: bytes) -> Sequence[EscrowId]:
        self.settlements.append(pickle.loads(data))
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise ActorUnavailableError("lost", None)
        return (EscrowId("asked back"),)

    async def _load_all(self, entities: Sequence[EntityId]) -> bytes:
        self.batches.append(list(entities))
        return pickle.dumps([Loaded(head=None, snapshot=None, events=()) for _ in entities])


def append(name: str, data: Any = 1) -> Append:
    event = NewEvent(type="counter.added", version=1, key="one", data={"amount": data})
    return Append(
        entity=EntityId(f"counter:{name}"),
        owner=UserId("somebody"),
        epoch=1,
        expected_seq=0,
        events=(event,),
        open=False,
        head={},
    )


@pytest.fixture
def actor() -> FakeActor:
    return FakeActor()


@pytest.fixture
def ledger(actor: FakeActor) -> LedgerHandle:
    return LedgerHandle(actor)  # type: ignore[arg-type]


async def test_appends_of_one_turn__go_in_one_call(actor: FakeActor, ledger: LedgerHandle) -> None:
    assert await asyncio.gather(*(ledger.append(append(str(number))) for number in range(300))) == [1] * 300
    assert [len(batch) for batch in actor.batches] == [300]


async def test_loads_of_one_turn__go_in_few_calls(actor: FakeActor, ledger: LedgerHandle) -> None:
    await asyncio.gather(*(ledger.load(EntityId(f"counter:{number}")) for number in range(5_000)))
    assert [len(batch) for batch in actor.batches] == [4_000, 1_000]


async def test_refused_append__is_its_writers_error_alone(actor: FakeActor, ledger: LedgerHandle) -> None:
    actor.stale.add(EntityId("counter:1"))
    answers = await asyncio.gather(*(ledger.append(append(str(number))) for number in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, StaleWriterError, int]


async def test_append_that_cannot_be_sent__takes_no_other_with_it(actor: FakeActor, ledger: LedgerHandle) -> None:
    appends = [append("0"), append("1", data=lambda: None), append("2")]
    answers = await asyncio.gather(*(ledger.append(each) for each in appends), return_exceptions=True)
    assert [answers[0], answers[2]] == [1, 1]
    assert isinstance(answers[1], Exception)


async def test_lost_answer__is_asked_for_again_with_the_same_batch(
    actor: FakeActor, ledger: LedgerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "RETRY_S", 0.0)
    actor.answers_to_lose = 2
    assert await asyncio.gather(ledger.append(append("0")), ledger.append(append("1"))) == [1, 1]
    assert actor.batches == [["counter:0", "counter:1"]] * 3


async def test_settlement__arrives_whole_and_is_repeated_as_it_was(
    actor: FakeActor, ledger: LedgerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "RETRY_S", 0.0)
    actor.answers_to_lose = 1
    price = Price(pricing_id="p", input_udollars_per_mtok=1, output_udollars_per_mtok=1)
    hold = Hold(
        call=CallId("c"), user=UserId("u"), run=None, task_type="chat", provider="openai", model="m",
        input_tokens_max=1, output_tokens_max=1, price=price,
    )  # fmt: skip
    meter = Meter(call=CallId("c"), input_tokens=1, output_tokens=1, response_time_ms=1, key_id="k")
    call = EscrowCall(escrow=EscrowId("e"), hold=hold, meter=meter, held_at=datetime(2026, 11, 21, tzinfo=UTC))
    settlement = Settlement(batch="b", process="p", calls=(call,))
    assert await ledger.settle(settlement) == ("asked back",)
    assert actor.settlements == [settlement, settlement]


@pytest.mark.parametrize("port", [Ledger, Reporting])
def test_handle__has_every_method_of_the_port(port: type[Any]) -> None:
    for name, method in vars(port).items():
        if not name.startswith("_"):
            assert inspect.signature(getattr(LedgerHandle, name)) == inspect.signature(method), name
