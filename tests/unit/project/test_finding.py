import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

from runtime.ids import BlobId, ProjectId
from runtime.index.entity import UpdateIndex
from runtime.project.finding import CodeFinder
from runtime.project.state import State


@dataclass
class Committing:
    """A project that goes on committing."""

    state: State = field(
        default_factory=lambda: State(id=ProjectId("p1"), commit="c1", bundle=BlobId("b1"), index_status="indexed")
    )


class SlowIndex:
    """Takes until it is told to go on for an update."""

    def __init__(self) -> None:
        self.updates: list[str] = []
        self.go_on = asyncio.Event()

    async def ask(self, entity: str, message: UpdateIndex, *, timeout_s: float) -> None:
        self.updates.append(message.commit)
        await self.go_on.wait()


async def test_commits_while_the_index_is_busy__are_taken_together() -> None:
    project, index = Committing(), SlowIndex()
    finder = CodeFinder(cast("Any", project), cast("Any", index))
    waiting = [asyncio.create_task(finder.refresh())]
    for number in range(2, 6):
        await asyncio.sleep(0)
        project.state = replace(project.state, commit=f"c{number}", bundle=BlobId("b"))
        waiting.append(asyncio.create_task(finder.refresh()))
    await asyncio.sleep(0)
    index.go_on.set()
    await asyncio.gather(*waiting)
    assert index.updates == ["c1", "c5"]
