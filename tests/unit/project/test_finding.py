import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

from runtime.errors import UnavailableError
from runtime.ids import BlobId, ProjectId
from runtime.index.hit import Hit, IndexStatus, Why
from runtime.index.messages import Change, Found, SearchIndex, UpdateIndex
from runtime.project.finding import CodeFinder
from runtime.project.state import State
from runtime.project.tree import TreeAt, git_id


@dataclass
class Committing:
    """A project that goes on committing."""

    state: State = field(
        default_factory=lambda: State(id=ProjectId("p1"), commit="c1", bundle=BlobId("b1"), index_status="indexed")
    )


class Workbench:
    """Each commit has one file, of its name."""

    def __init__(self, project: Committing) -> None:
        self._project = project

    async def tree(self) -> TreeAt:
        commit = self._project.state.commit
        return TreeAt(commit, {commit: b""})


def finder_of(project: Committing, index: object) -> CodeFinder:
    return CodeFinder(cast("Any", project), cast("Any", index), cast("Any", Workbench(project)))


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
    finder = finder_of(project, index)
    waiting = [asyncio.create_task(finder.refresh())]
    for number in range(2, 6):
        await asyncio.sleep(0)
        project.state = replace(project.state, commit=f"c{number}", bundle=BlobId("b"))
        waiting.append(asyncio.create_task(finder.refresh()))
    await asyncio.sleep(0)
    index.go_on.set()
    await asyncio.gather(*waiting)
    project.state = replace(project.state, commit="c6")
    await finder.refresh()
    assert index.updates == ["c1", "c5", "c6"]
    assert index.changes == [None, None, Change(since="c5", files={"c6": (git_id(b""), b"")}, removed=["c5"])]


async def test_first_update__reads_no_file_here() -> None:
    project, index = Committing(), SlowIndex()
    index.go_on.set()
    await CodeFinder(cast("Any", project), cast("Any", index), cast("Any", None)).refresh()
    assert (index.updates, index.changes) == (["c1"], [None])


async def test_commit_whose_files_cannot_be_read__goes_by_its_bundle() -> None:
    project, index = Committing(), SlowIndex()
    index.go_on.set()

    class Broken(Workbench):
        async def tree(self) -> TreeAt:
            raise UnavailableError("git failed")

    finder = CodeFinder(cast("Any", project), cast("Any", index), cast("Any", Broken(project)))
    for commit in ("c1", "c2"):
        project.state = replace(project.state, commit=commit)
        await finder.refresh()
    assert (index.updates, index.changes) == (["c1", "c2"], [None, None])


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
    finder = finder_of(Committing(), index)
    await finder.refresh()
    index.commit = ""

    assert "c1.py" in await finder.near("anything")
    assert "c1.py" in await finder.near("anything")
    assert index.updates == 2
