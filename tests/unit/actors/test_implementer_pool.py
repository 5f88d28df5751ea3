"""What the pool makes of an implementer's word that it only checks an edit now."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors import implementers
from actors.implementers import ImplementerPoolActor
from runtime.config import Settings
from runtime.ids import RunId
from runtime.implementer.work import CheckReport, EditResult, EditWork


class Worker:
    """In the place of an implementer's handle: an edit is begun, and checked until it is told to end."""

    def __init__(self) -> None:
        self.start = SimpleNamespace(remote=self._start)
        self.edit = SimpleNamespace(remote=self._edit)
        self.begun: asyncio.Queue[RunId] = asyncio.Queue()
        self.edited = asyncio.Event()
        self.checked = asyncio.Event()

    async def _start(self) -> None: ...

    async def _edit(self, work: EditWork, pool: Any) -> EditResult:
        self.begun.put_nowait(work.run)
        await self.edited.wait()
        await pool.edited.remote(work.run)
        await self.checked.wait()
        return EditResult(patch=b"p", changed=(), engine="e", engine_log="", checks=CheckReport(results=()))


def work(run: str) -> EditWork:
    return EditWork(
        tree={}, instruction="", files=["a"], read_only=[], model="m", gateway_url="", token="", checks=[],
        run=RunId(run), project="p",
    )  # fmt: skip


async def test_implementer_that_only_checks__is_given_the_next_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    pool: ImplementerPoolActor

    async def told(run: RunId) -> None:
        await pool.edited(run)

    monkeypatch.setattr(implementers, "ensure", lambda *_, **__: worker)
    monkeypatch.setattr(implementers, "this_actor", lambda: SimpleNamespace(edited=SimpleNamespace(remote=told)))
    monkeypatch.setattr(implementers, "EntitiesHandle", lambda: None)
    pool = ImplementerPoolActor(Settings(implementers=1))
    async with asyncio.timeout(10):
        edits = [asyncio.create_task(pool.edit(work(run))) for run in ("r1", "r2")]
        assert await worker.begun.get() == "r1"
        await asyncio.sleep(0.05)
        assert worker.begun.empty()
        worker.edited.set()
        assert await worker.begun.get() == "r2"
        assert not edits[0].done()
        worker.checked.set()
        assert [result.patch for result in await asyncio.gather(*edits)] == [b"p", b"p"]
    assert (await pool.vitals()).busy == 0
