"""Steps whose worst cases do not fit beside one another: who waits, and when the owner is asked for more."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.catalogue.catalogue import CATALOGUE
from runtime.config import Settings
from runtime.entity.journal import EventRecord
from runtime.errors import DoesNotFitError
from runtime.ids import CallId
from runtime.implementer.work import EditResult, EditWork
from runtime.ledger.money import Tariff
from runtime.ledger.port import Hold, Meter
from runtime.project.messages import Resume, Status
from runtime.project.shared_lock import SharedLock
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from tests.unit.project.scripted import Scripted, item, passes, plan

ITEMS = ["T-001", "T-002", "T-003"]
TOKENS_MAX = 4_000_000
"""Worth far more than the whole quote."""


PROVIDER, _, MODEL = Settings().implementer_model.partition("/")
PRICE = CATALOGUE.price(PROVIDER, MODEL)
HOLD_UCREDITS = Tariff().credits_for(PRICE.cost_pusd(TOKENS_MAX, 1))


class Costly(Scripted):
    """Every edit holds far more than it uses in the end, and all that are under way ask at once."""

    def __init__(self, folder: Path, wallet_ucredits: int) -> None:
        replies = {
            "plan.todo": [plan([item(id) for id in ITEMS])],
            "verify.phase": [passes(*ITEMS)],
            "qa.review": [passes(*ITEMS)],
        }
        super().__init__(
            folder, replies, max_parallel_implementers=3, verify_every_n_items=100, quote_ceiling_factor=1_000
        )
        self.ledger = MemoryLedger(Tariff(), wallet_ucredits)
        self.journal = MemoryJournal(self.ledger)
        self.edit = self.implementers.edit
        self.implementers.edit = self.held  # type: ignore[method-assign]
        self.asked = self.refused = 0
        self.all_asked = asyncio.Event()

    async def held(self, work: EditWork) -> EditResult:
        identity = await self.ledger.authenticate(token_hash(work.token))
        assert identity is not None
        assert identity.run is not None
        call = CallId(f"{identity.run}/large")
        try:
            await self.ledger.hold(
                Hold(
                    call=call, user=identity.user, run=identity.run, task_type="coding", provider=PROVIDER, model=MODEL,
                    input_tokens_max=TOKENS_MAX, output_tokens_max=1, price=PRICE,
                )
            )  # fmt: skip
        except DoesNotFitError:
            self.refused += 1
            raise
        finally:
            self.asked += 1
            if self.asked >= len(ITEMS):
                self.all_asked.set()
        await self.all_asked.wait()
        await self.ledger.meter(Meter(call=call, input_tokens=1, output_tokens=1, response_time_ms=1, key_id="k"))
        return await self.edit(work)


def paused(events: Sequence[EventRecord]) -> list[str]:
    return [each.data["status"] for each in events if each.type == "project.status" and "paused" in each.data["status"]]


@pytest.mark.parametrize("in_wallet", [False, True])
async def test_calls_that_fit_one_after_the_other__pause_nothing(tmp_path: Path, in_wallet: bool) -> None:
    room = HOLD_UCREDITS * 3 // 2
    build = Costly(tmp_path, room if in_wallet else 10**9)
    await build.start(max_ucredits=10**9 if in_wallet else room)
    events = await build.until("project.finished")
    assert (build.refused, paused(events)) == (2, [])
    assert events[-1].data["status"] == Status.COMPLETED
    rejected = [each.data["task"] for each in events if each.type == "task.rejected"]
    assert rejected == [], "no attempt is counted against a task"


async def test_call_that_does_not_fit_alone__asks_the_owner(tmp_path: Path) -> None:
    build = Costly(tmp_path, 10**9)
    await build.start(max_ucredits=HOLD_UCREDITS - 1)
    await build.until_status(Status.PAUSED_QUOTE)
    assert build.refused == len(ITEMS) + 1, "all at once, and one alone"
    await build.tell(Resume(key="more", ceiling_ucredits=HOLD_UCREDITS * 2))
    events = await build.until("project.finished")
    assert paused(events) == ["paused_quote"]
    assert events[-1].data["status"] == Status.COMPLETED


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.lists(st.integers(0, 7), max_size=4), st.randoms())
@settings(deadline=None, max_examples=60)
def test_shared_lock__alone_is_alone_and_everybody_comes_to_an_end(
    wants: list[bool], broken_off: list[int], dice: object
) -> None:
    async def play() -> None:
        lock = SharedLock()
        inside: set[int] = set()

        async def work(number: int, alone: bool) -> None:
            async with lock.held(alone=alone) as accompanied:
                inside.add(number)
                met = False
                try:
                    for _ in range(dice.randrange(4)):  # type: ignore[attr-defined]
                        met |= len(inside) > 1
                        await asyncio.sleep(0)
                    met |= len(inside) > 1
                    assert not (alone and met)
                    assert accompanied() >= met
                finally:
                    inside.remove(number)

        tasks = [asyncio.create_task(work(number, alone)) for number, alone in enumerate(wants)]
        for number in broken_off:
            await asyncio.sleep(0)
            tasks[number % len(tasks)].cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        async with asyncio.timeout(5), lock.held(alone=True):
            assert not inside

    asyncio.run(play())
