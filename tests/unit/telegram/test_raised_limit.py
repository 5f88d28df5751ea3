"""A button that raises a reached limit does so to what it was offered for, and while that is offered."""

from typing import Any

import pytest

from runtime.ids import ProjectId
from runtime.language.texts import texts
from runtime.project.messages import Resume, Status
from runtime.telegram.buttons import Press
from runtime.telegram.project_texts import raised
from runtime.telegram.steering import resume_pressed

PROJECT = ProjectId("11111111-1111-4111-8111-111111111111")
CEILING = 15_000_000


class View:
    id = PROJECT

    def __init__(self, status: Status) -> None:
        self.status = status
        self.ceiling_ucredits = CEILING


class FakeTalk:
    """Of the project's owner."""

    def __init__(self, status: Status) -> None:
        self.say = texts("en")
        self.asked: list[Any] = []
        self.toasts: list[str] = []
        self._view = View(status)

    async def owned(self, project: ProjectId) -> View:
        return self._view

    async def ask(self, project: ProjectId, message: Any) -> View:
        self.asked.append(message)
        return self._view

    def key(self, name: str) -> str:
        return name

    def toast(self, text: str) -> None:
        self.toasts.append(text)

    def follow(self, view: View, *, from_now: bool) -> None: ...

    def settle(self) -> None: ...


async def pressed(status: Status, about: str) -> FakeTalk:
    talk = FakeTalk(status)
    await resume_pressed(talk, Press(verb="resume", project=PROJECT, about=about))  # type: ignore[arg-type]
    return talk


async def test_limit__that_is_offered_is_raised_to() -> None:
    talk = await pressed(Status.PAUSED_QUOTE, str(raised(CEILING)))
    assert talk.asked == [Resume(key="resume", ceiling_ucredits=raised(CEILING))]


@pytest.mark.parametrize(
    ("status", "about"),
    [
        (Status.PAUSED_QUOTE, str(raised(raised(CEILING)))),
        (Status.PAUSED_QUOTE, str(CEILING)),
        (Status.PAUSED_QUOTE, "1"),
        (Status.PAUSED_QUOTE, "9" * 20),
        (Status.PAUSED_QUOTE, "x"),
        (Status.PAUSED, str(raised(CEILING))),
        (Status.IMPLEMENTING, str(raised(CEILING))),
    ],
)
async def test_limit__that_is_not_offered_is_not_raised_to(status: Status, about: str) -> None:
    talk = await pressed(status, about)
    assert talk.asked == []
    assert talk.toasts == ["This was answered already."]


async def test_pause__is_ended_without_a_limit() -> None:
    talk = await pressed(Status.PAUSED, "")
    assert talk.asked == [Resume(key="resume", ceiling_ucredits=None)]
