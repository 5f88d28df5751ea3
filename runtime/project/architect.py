"""The large model's work: every question is one step, and every answer a checked reply."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runtime.entity.activation import Activation
from runtime.ids import CallId, RunId
from runtime.project.prompts import Prompt, Subject
from runtime.project.schemas import MarkdownReply, Reply, RequirementsReply, StackReply
from runtime.project.state import State
from runtime.project.steps import PaidSteps
from runtime.project.workshop import Workshop
from runtime.providers.order import CallOrder

R = TypeVar("R", bound=Reply)


class Architect:
    def __init__(self, activation: Activation[State], steps: PaidSteps, workshop: Workshop) -> None:
        self._activation = activation
        self._steps = steps
        self._workshop = workshop

    async def ask(
        self,
        step: str,
        prompt: Prompt,
        shape: type[R],
        *,
        attempt: int = 1,
        check: Callable[[R], object] = lambda reply: None,
    ) -> R:
        """The reply, paid once. `check` raises ReplyRejectedError for one that is of no use.

        Raises ReplyRejectedError when two replies did not fit, or the check refused; nothing is charged then.
        """

        async def work(run: RunId) -> Mapping[str, Any]:
            order = CallOrder(
                call=CallId(f"{run}/1"),
                user=self._activation.state.owner,
                run=run,
                task_type=prompt.task_type,
                model=self._workshop.settings.architect_model,
                priority="background",
            )
            reply = await self._workshop.calls.ask_json(
                order,
                system=prompt.system,
                user=prompt.user,
                schema=prompt.schema,
                max_output_tokens=prompt.output_tokens_max,
            )
            dumped = reply.model_dump(mode="json")
            check(shape.model_validate(dumped))
            return {"reply": dumped}

        result = await self._steps.run(step, work, task=prompt.shown, attempt=attempt)
        return shape.model_validate(result["reply"])

    def subject(self) -> Subject:
        """What is known of the project now, for the next prompt."""
        state = self._activation.state
        requirements = self._answered("plan/requirements", RequirementsReply)
        architecture = self._answered("plan/architecture", MarkdownReply)
        return Subject(
            brief=state.brief,
            answers=state.answers,
            assumptions=state.assumptions,
            language=state.language,
            title=requirements.title if requirements else state.title,
            requirements=state.with_amended(requirements.requirements if requirements else ()),
            stack=self._answered("plan/stack", StackReply),
            architecture=architecture.markdown if architecture else "",
        )

    def _answered(self, step: str, shape: type[R]) -> R | None:
        result = self._activation.state.steps.results.get(step)
        return shape.model_validate(result["reply"]) if result else None
