import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

from runtime.ids import BlobId, ProjectId
from runtime.index.hit import Hit, IndexStatus, Why
from runtime.index.messages import Change, Found, SearchIndex, UpdateIndex
from runtime.project.finding import CodeFinder
from runtime.project.state import State


@dataclass
class Committing:
    """A project that goes on committing."""

    state: State = field(
        default_factory=lambda: State(id=ProjectId("p1"), commit="c1", bundle=BlobId("b1"), index_status="indexed")
    )


class Workbench:
    """Knows of each change by its name alone."""

    async def change(self, since: str, commit: str) -> Change | None:
        return Change(since=since, files={}, removed=[commit]) if since else None


def at(commit: str) -> IndexStatus:
    return IndexStatus(commit=commit, chunks=1, embedder="lexical", embedded=0)


class SlowIndex:
    """Takes until it is told to go on for an update."""

    def __init__(self) -> None:
        self.updates: list[str] = []
        self.changes: list[Change | None] = []
        self.go_on = asyncio.Event()

    async def ask(self, entity: str, message: UpdateIndex, *, timeout_s: float) -> IndexStatus:
        self.updates.append(message.commit)
        self.changes.append(message.change)
        await self.go_on.wait()
        return at(message.commit)


async def test_commits_while_the_index_is_busy__are_taken_together() -> None:
    project, index = Committing(), SlowIndex()
    finder = CodeFinder(cast("Any", project), cast("Any", index), cast("Any", Workbench()))
    waiting = [asyncio.create_task(finder.refresh())]
    for number in range(2, 6):
        await asyncio.sleep(0)
        project.state = replace(project.state, commit=f"c{number}", bundle=BlobId("b"))
        waiting.append(asyncio.create_task(finder.refresh()))
    await asyncio.sleep(0)
    index.go_on.set()
    await asyncio.gather(*waiting)
    assert index.updates == ["c1", "c5"]
    assert index.changes == [None, Change(since="c1", files={}, removed=["c5"])]


class ForgetfulIndex:
    """Stands at the commit of its last update, until it forgets."""

    def __init__(self) -> None:
        self.commit = ""
        self.updates = 0

    async def ask(self, entity: str, message: object, *, timeout_s: float = 0) -> object:
        if isinstance(message, UpdateIndex):
            self.commit = message.commit
            self.updates += 1
            return at(self.commit)
        assert isinstance(message, SearchIndex)
        hit = Hit(
            path=f"{self.commit or 'nothing'}.py",
            start_line=1,
            end_line=1,
            symbol="",
            kind="module",
            text="x",
            score=1.0,
            why=Why(meaning=0, words=1, names=0),
            commit=self.commit,
        )
        return Found(commit=self.commit, hits=[hit] if self.commit else [])


async def test_an_index_that_lost_what_it_had__is_brought_to_main_before_its_answer_counts() -> None:
    index = ForgetfulIndex()
    finder = CodeFinder(cast("Any", Committing()), cast("Any", index), cast("Any", Workbench()))
    await finder.refresh()
    index.commit = ""

    assert "c1.py" in await finder.near("anything")
    assert "c1.py" in await finder.near("anything")
    assert index.updates == 2
