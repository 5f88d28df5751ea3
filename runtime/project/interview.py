"""From a brief to an explicit yes: questions, the scope, the quote."""

import re
from collections.abc import Mapping

from runtime.catalogue.catalogue import Catalogue
from runtime.config import Settings
from runtime.entity.activation import Activation
from runtime.entity.journal import Moves
from runtime.errors import ReplyRejectedError
from runtime.ledger.money import credits_text
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.quote import ceiling_of, prices_of, quote_ucredits
from runtime.project.schemas import TOPICS, InterviewReply, Topic, TopicText
from runtime.project.state import State
from runtime.project.undecided import is_undecided

QUESTIONS: Mapping[Topic, str] = {
    "audience": "Who will use it, and for what?",
    "platforms": "Where must it run: in a browser, on phones, on a desktop, in a terminal, on a server?",
    "features": "What must it be able to do? Is anything missing from your description?",
    "performance": "How many people, how much data and how fast?",
    "integrations": "Which programs or services must it exchange data with?",
    "budget": "Is there a limit of money or time that the plan must respect?",
}
"""Asked where the model asks nothing useful about a topic that nothing covers."""
ASSUMED = "Left to us: the simplest choice that meets everything else."
_NUMBERED = re.compile(r"^\s*(?:[-*]\s+)?\**\d+[.)]", re.MULTILINE)


class Interview:
    """Every question, answer, quote and yes is an event, so the talk goes on where it stood after a restart.

    The model asks and sums up; what is covered, how often is asked and when the scope may be shown is decided here.
    """

    def __init__(
        self, activation: Activation[State], architect: Architect, settings: Settings, catalogue: Catalogue
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._settings = settings
        self._catalogue = catalogue

    async def until_confirmed(self) -> None:
        while not self._state.confirmed:
            if self._state.question is not None:
                await self._activation.changed(lambda: self._state.question is None)
            elif self._state.scope is not None and not self._state.change:
                await self._await_yes()
            else:
                await self._ask_next()

    @property
    def _state(self) -> State:
        return self._activation.state

    @property
    def _may_ask(self) -> bool:
        return self._state.asked < self._settings.max_clarifying_questions

    async def _ask_next(self) -> None:
        step = f"interview/{self._state.asked}/{self._state.scope_round}"
        change = self._state.change
        reply = await self._useful_reply(step)
        await self._record(step, reply)
        question = self._next_question(reply)
        if question is not None:
            await self._activation.emit(
                "project.question", f"question/{self._state.asked}", question.model_dump(mode="json")
            )
            return
        if not reply.summary.strip():
            raise ReplyRejectedError("The interview ended without a summary of the scope.")
        await self._assume_the_rest(step)
        await self._quote(reply, change)

    async def _useful_reply(self, step: str) -> InterviewReply:
        """A reply that brings the talk on; the second one is taken as it is."""
        state = self._state
        prompt = prompts.interview_next(
            self._architect.subject(), state.asked, state.change, _uncovered(state), may_ask=self._may_ask
        )
        attempt = state.asked + state.scope_round + 1
        reply = await self._architect.ask(step, prompt, InterviewReply, attempt=attempt)
        objections = self._objections(reply)
        if not objections:
            return reply
        again = prompts.interview_again(prompt, objections)
        return await self._architect.ask(f"{step}/again", again, InterviewReply, attempt=attempt)

    def _objections(self, reply: InterviewReply) -> list[str]:
        missing = _uncovered(self._state, reply)
        question = self._question_of(reply)
        if question is not None:
            if not self._is_news(question, reply):
                rest = f"ask about {missing[0]}" if missing else "complete the interview with a summary"
                return [f"{question.topic} is covered already: {rest}"]
            return []
        objections = []
        if missing and self._may_ask:
            objections.append(f"not covered yet: {', '.join(missing)}; ask about the first, or list assumptions")
        elif not reply.summary.strip():
            objections.append("the summary of the scope is missing")
        elif not _NUMBERED.search(reply.summary):
            objections.append("the features in the summary are not numbered")
        return objections

    def _question_of(self, reply: InterviewReply) -> TopicText | None:
        return reply.question if not reply.complete and self._may_ask else None

    def _is_news(self, question: TopicText, reply: InterviewReply) -> bool:
        """A question about a topic that is covered is news only while the person wants something changed."""
        return bool(self._state.change) or question.topic in _uncovered(self._state, reply)

    def _next_question(self, reply: InterviewReply) -> TopicText | None:
        """What the person is asked now; None when the scope can be shown."""
        question = self._question_of(reply)
        if question is not None and (self._state.change or question.topic in _uncovered(self._state)):
            return question
        missing = _uncovered(self._state)
        if missing and self._may_ask:
            return TopicText(topic=missing[0], text=QUESTIONS[missing[0]])
        return None

    async def _record(self, step: str, reply: InterviewReply) -> None:
        """Keeps what the reply found in the brief and in the answers. A later word replaces an earlier one."""
        state = self._state
        answered = {
            each.topic: each.text
            for each in reply.answered
            if not is_undecided(each.text) and not _says_already(state.answers.get(each.topic, ""), each.text)
        }
        assumptions: dict[str, str] = {}
        for each in reply.assumptions:
            if each.topic not in answered and each.text not in state.assumptions.get(each.topic, ""):
                assumptions[each.topic] = "; ".join(filter(None, (assumptions.get(each.topic), each.text)))
        if answered or assumptions or reply.language not in ("", state.language):
            await self._activation.emit(
                "project.covered",
                f"{step}/covered",
                {"answered": answered, "assumptions": assumptions, "language": reply.language},
            )

    async def _assume_the_rest(self, step: str) -> None:
        """Writes an assumption down for every topic that was left to us and that nobody wrote one for."""
        state = self._state
        left = [
            topic
            for topic in TOPICS
            if is_undecided(state.answers.get(topic, "skip")) and topic not in state.assumptions
        ]
        if left:
            await self._activation.emit(
                "project.covered",
                f"{step}/assumed",
                {"answered": {}, "assumptions": dict.fromkeys(left, ASSUMED), "language": ""},
            )

    async def _quote(self, reply: InterviewReply, change: str) -> None:
        state = self._state
        summary = reply.summary.strip()
        if state.assumptions:
            assumed = "\n".join(f"- {topic}: {text}" for topic, text in state.assumptions.items())
            summary = f"{summary}\n\nAssumptions:\n{assumed}"
        prices = prices_of(self._settings, self._catalogue)
        quote = quote_ucredits(summary, *prices, self._settings.tariff)
        ceiling = ceiling_of(quote, self._settings.quote_ceiling_factor)
        limit = state.max_ucredits
        await self._activation.emit(
            "project.quoted",
            f"quote/{state.scope_round}",
            {
                "summary": summary,
                "change": change,
                "quote_ucredits": quote,
                "ceiling_ucredits": min(ceiling, limit) if limit is not None and quote <= limit else ceiling,
            },
        )

    async def _await_yes(self) -> None:
        state = self._state
        ceiling = state.ceiling_ucredits or 0
        if state.confirmed_in_advance and (state.max_ucredits is None or ceiling <= state.max_ucredits):
            await self._confirm_in_advance(ceiling)
            return
        if state.confirmed_in_advance:
            limit = credits_text(state.max_ucredits or 0)
            text = f"The quote is above the limit of {limit} credits, so a yes is needed."
            await self._activation.emit("project.notice", f"notice/limit/{state.scope_round}", {"text": text})
        await self._activation.changed(lambda: self._state.confirmed or bool(self._state.change))

    async def _confirm_in_advance(self, ceiling_ucredits: int) -> None:
        await self._activation.emit(
            "project.confirmed",
            f"confirmed/advance/{self._state.scope_round}",
            {"ceiling_ucredits": ceiling_ucredits},
            lambda state: Moves(ceiling_ucredits=ceiling_ucredits),
        )


def _uncovered(state: State, reply: InterviewReply | None = None) -> list[Topic]:
    """The topics that neither an answer nor an assumption covers, in their order; with what a reply would add."""
    covered = {*state.answers, *state.assumptions}
    if reply is not None:
        covered |= {each.topic for each in (*reply.answered, *reply.assumptions)}
    return [topic for topic in TOPICS if topic not in covered]


def _says_already(known: str, text: str) -> bool:
    """Whether a text only repeats, perhaps in part, what is known."""
    return " ".join(text.split()).casefold() in " ".join(known.split()).casefold()
