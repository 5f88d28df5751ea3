"""Callers that come together go together, in order, within bounds, and each gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from runtime.errors import BadInputError, OverloadedError, StoreUnavailableError
from runtime.routing.batcher import Batcher


class Wire:
    """What the batcher sends to: batches stay under way until they are let go."""

    def __init__(self, *, size_max: int = 100, in_flight_max: int = 2, waiting_max: int = 1_000) -> None:
        self.batches: list[list[int]] = []
        self.gates: list[asyncio.Event] = []
        self.error: Exception | None = None
        self.batcher: Batcher[int, str] = Batcher(
            self._send, what="The wire", size_max=size_max, in_flight_max=in_flight_max, waiting_max=waiting_max
        )

    def open(self, batch: int) -> None:
        self.gates[batch].set()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def _send(self, items: Sequence[int]) -> Sequence[str | Exception]:
        self.batches.append(list(items))
        self.gates.append(asyncio.Event())
        await self.gates[-1].wait()
        if self.error is not None:
            raise self.error
        return [BadInputError(str(item)) if item < 0 else f"did {item}" for item in items]


def do(wire: Wire, *items: int) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(wire.batcher.do(item)) for item in items]


async def test_first_item__is_sent_at_once_and_alone() -> None:
    wire = Wire()
    (asked,) = do(wire, 1)
    await wire.settle()
    assert wire.batches == [[1]]
    wire.open(0)
    assert await asked == "did 1"


async def test_items_of_one_turn_of_the_loop__go_together_in_order() -> None:
    wire = Wire()
    asked = do(wire, *range(50))
    await wire.settle()
    assert wire.batches == [list(range(50))]
    wire.open(0)
    assert await asyncio.gather(*asked) == [f"did {item}" for item in range(50)]


async def test_what_comes_meanwhile__waits_for_the_first_batch_that_returns() -> None:
    wire = Wire(in_flight_max=2)
    do(wire, 1)
    await wire.settle()
    do(wire, 2)
    await wire.settle()
    do(wire, 3)
    await wire.settle()
    late = do(wire, 4, 5)
    await wire.settle()
    assert wire.batches == [[1], [2]]

    wire.open(1)
    await wire.settle()

    assert wire.batches == [[1], [2], [3, 4, 5]]
    wire.open(2)
    assert await asyncio.gather(*late) == ["did 4", "did 5"]


async def test_batch__is_no_larger_than_its_bound() -> None:
    wire = Wire(size_max=3, in_flight_max=2)
    asked = do(wire, *range(7))
    await wire.settle()
    assert wire.batches == [[0, 1, 2], [3, 4, 5]]
    wire.open(0)
    await wire.settle()
    assert wire.batches[2] == [6]
    wire.open(1)
    wire.open(2)
    assert len(await asyncio.gather(*asked)) == 7


async def test_refused_item__disturbs_no_other() -> None:
    wire = Wire()
    asked = do(wire, 1, -2, 3)
    await wire.settle()
    wire.open(0)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["did 1", "-2", "did 3"]
    assert isinstance(answers[1], BadInputError)


async def test_failed_batch__fails_its_items_and_the_next_is_sent() -> None:
    wire = Wire(in_flight_max=1)
    first = do(wire, 1, 2)
    await wire.settle()
    (second,) = do(wire, 3)
    wire.error = StoreUnavailableError("The disk is gone.")
    wire.open(0)
    assert {type(answer) for answer in await asyncio.gather(*first, return_exceptions=True)} == {StoreUnavailableError}

    wire.error = None
    await wire.settle()
    wire.open(1)

    assert await second == "did 3"


async def test_too_many_waiting__are_refused() -> None:
    wire = Wire(in_flight_max=1, waiting_max=2)
    do(wire, 1)
    await wire.settle()
    do(wire, 2, 3)
    await wire.settle()
    with pytest.raises(OverloadedError):
        await wire.batcher.do(4)


async def test_cancelled_before_it_was_sent__is_never_sent() -> None:
    wire = Wire(in_flight_max=1)
    do(wire, 1)
    await wire.settle()
    given_up, kept = do(wire, 2, 3)
    await wire.settle()
    given_up.cancel()
    await wire.settle()

    wire.open(0)
    await wire.settle()

    assert wire.batches == [[1], [3]]
    wire.open(1)
    assert await kept == "did 3"


async def test_cancelled_after_it_was_sent__does_not_disturb_its_batch() -> None:
    wire = Wire()
    given_up, kept = do(wire, 1, 2)
    await wire.settle()
    given_up.cancel()
    await wire.settle()
    wire.open(0)
    assert await kept == "did 2"


async def test_everybody_cancelled__sends_nothing_and_goes_on() -> None:
    wire = Wire(in_flight_max=1)
    do(wire, 1)
    await wire.settle()
    (given_up,) = do(wire, 2)
    await wire.settle()
    given_up.cancel()
    wire.open(0)
    await wire.settle()
    assert wire.batches == [[1]]

    (asked,) = do(wire, 3)
    await wire.settle()
    wire.open(1)

    assert await asked == "did 3"
