"""From a brief to an explicit yes: questions, the scope, the quote."""

from runtime.catalogue.catalogue import Catalogue
from runtime.config import Settings
from runtime.entity.activation import Activation
from runtime.entity.journal import Moves
from runtime.errors import ReplyRejectedError
from runtime.ledger.money import credits_text
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.quote import quote_ucredits
from runtime.project.schemas import InterviewReply
from runtime.project.state import State


class Interview:
    """Every question, answer, quote and yes is an event, so the talk goes on where it stood after a restart."""

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

    async def _ask_next(self) -> None:
        state = self._state
        prompt = prompts.interview_next(self._architect.subject(), state.asked, state.change)
        step = f"interview/{state.asked}/{state.scope_round}"
        attempt = state.asked + state.scope_round + 1
        reply = await self._architect.ask(step, prompt, InterviewReply, attempt=attempt)
        if reply.question and not reply.complete and state.asked < self._settings.max_clarifying_questions:
            await self._activation.emit(
                "project.question", f"question/{state.asked}", reply.question.model_dump(mode="json")
            )
            return
        if not reply.summary.strip():
            raise ReplyRejectedError("The interview ended without a summary of the scope.")
        await self._quote(reply)

    async def _quote(self, reply: InterviewReply) -> None:
        summary = reply.summary.strip()
        if reply.assumptions:
            assumed = "\n".join(f"- {each.topic}: {each.text}" for each in reply.assumptions)
            summary = f"{summary}\n\nAssumptions:\n{assumed}"
        quote = quote_ucredits(
            summary,
            self._catalogue.price(*_split(self._settings.architect_model)),
            self._catalogue.price(*_split(self._settings.implementer_model)),
            self._settings.tariff,
        )
        numerator, denominator = self._settings.quote_ceiling_factor.as_integer_ratio()
        ceiling = -(-quote * numerator // denominator)
        limit = self._state.max_ucredits
        await self._activation.emit(
            "project.quoted",
            f"quote/{self._state.scope_round}",
            {
                "summary": summary,
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


def _split(model: str) -> tuple[str, str]:
    provider, _, name = model.partition("/")
    return provider, name
