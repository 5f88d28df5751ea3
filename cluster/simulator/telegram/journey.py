"""From /start to the ZIP: a person who answers what is asked, agrees to the scope and downloads what was built.

What the bot says is not known here: questions, the scope and the delivery are told by their buttons and their file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.seen import SeenMessage
from cluster.simulator.telegram.transcript import Line
from runtime.errors import UnavailableError

STEPS_MAX = 200
"""Messages that ask for something, before it is said that the talk does not end."""


@dataclass(frozen=True, slots=True)
class Tap:
    """An answer by pressing the button with this label."""

    label: str


def is_zip(message: SeenMessage) -> bool:
    return message.kind == "document" and message.file is not None and message.file.name.endswith(".zip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """`questions` as they were asked, `scope` what was agreed to. Without name and content where the message that
    delivers has no file but, say, a link."""

    file_name: str
    content: bytes = field(repr=False)
    message: SeenMessage
    questions: tuple[str, ...]
    scope: str
    transcript: tuple[Line, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """`answers` in the order of the questions: a text, or a button to tap; `otherwise` is tapped for those beyond them.

    A message is a question when it has the button of `otherwise`, unless `asks` decides; it is the scope when it has
    the button `yes`. `opening` is said before the idea, each line when the bot has answered the one before.
    """

    idea: str
    answers: Sequence[str | Tap] = ()
    yes: str
    otherwise: Tap = Tap("You decide")
    opening: Sequence[str] = ("/start",)
    asks: Callable[[SeenMessage], bool] | None = None
    delivers: Callable[[SeenMessage], bool] = is_zip
    step_s: float = 60.0
    """How long the bot may be silent before the scope is agreed to."""
    build_s: float = 600.0
    """And after it."""

    async def made_by(self, person: Person) -> Delivered:
        """Raises UnavailableError where the bot is silent for too long, or asks without an end."""
        for line in self.opening:
            await person.says(line)
            await person.hears(timeout_s=self.step_s)
        await person.says(self.idea)
        answers = list(self.answers)
        questions: list[str] = []
        answered: set[tuple[int, str]] = set()
        scope = ""

        def concerns(message: SeenMessage) -> bool:
            if (message.id, message.text) in answered:
                return False
            return self.delivers(message) or self.yes in message.labels or self._asks(message)

        for _ in range(STEPS_MAX):
            message = await person.hears(concerns, timeout_s=self.build_s if scope else self.step_s)
            answered.add((message.id, message.text))
            if self.delivers(message):
                return await self._delivered(person, message, tuple(questions), scope)
            if self.yes in message.labels:
                scope = message.text
                await person.presses(self.yes, on=message)
            else:
                questions.append(message.text)
                await _answer(person, message, answers.pop(0) if answers else self.otherwise)
        raise UnavailableError(f"The bot asked {STEPS_MAX} times and delivered nothing.")

    def _asks(self, message: SeenMessage) -> bool:
        return self.otherwise.label in message.labels if self.asks is None else self.asks(message)

    async def _delivered(
        self, person: Person, message: SeenMessage, questions: tuple[str, ...], scope: str
    ) -> Delivered:
        return Delivered(
            file_name=message.file.name if message.file else "",
            content=await person.downloads(message) if message.file else b"",
            message=message,
            questions=questions,
            scope=scope,
            transcript=await person.transcript(),
        )


async def _answer(person: Person, question: SeenMessage, answer: str | Tap) -> None:
    if isinstance(answer, Tap):
        await person.presses(answer.label, on=question)
    else:
        await person.says(answer)
