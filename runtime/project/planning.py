"""From the agreed scope to a checked plan in a repository."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from runtime.entity.activation import Activation
from runtime.errors import ReplyRejectedError
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.documents import (
    GITIGNORE,
    architecture_document,
    requirements_document,
)
from runtime.project.plan_checks import checked_plan, command_faults, refuse, requirement_faults
from runtime.project.prompts import Prompt
from runtime.project.schemas import MarkdownReply, Reply, RequirementsReply, StackReply, TodoReply
from runtime.project.state import State
from runtime.project.workbench import Workbench

TRIES_MAX = 2

R = TypeVar("R", bound=Reply)


class Planning:
    def __init__(self, activation: Activation[State], architect: Architect, workbench: Workbench) -> None:
        self._activation = activation
        self._architect = architect
        self._workbench = workbench

    async def carry_out(self) -> None:
        """Requirements, stack, architecture, then plan and API draft side by side; then the first commit."""
        if self._state.todo is None:
            await self._plan()
        if not self._state.documented:
            await self._commit_documents()

    @property
    def _state(self) -> State:
        return self._activation.state

    async def _plan(self) -> None:
        ask, subject = self._architect.ask, self._architect.subject
        scope = self._state.scope or ""
        requirements = await self._checked(
            "plan/requirements",
            lambda fault, attempt: prompts.requirements(subject(), scope, fault, attempt),
            RequirementsReply,
            lambda reply: refuse(requirement_faults(reply.requirements), "The requirements cannot be planned for"),
        )
        stack = await self._checked(
            "plan/stack",
            lambda fault, attempt: prompts.stack(subject(), fault, attempt),
            StackReply,
            lambda reply: refuse(command_faults(reply.commands), "The stack cannot be built with"),
        )
        await ask("plan/architecture", prompts.architecture(subject()), MarkdownReply)
        plan, _ = await asyncio.gather(
            self._checked(
                "plan/todo",
                lambda fault, attempt: prompts.todo(subject(), fault, attempt),
                TodoReply,
                lambda reply: checked_plan(reply, requirements.requirements, stack.commands),
            ),
            ask("docs/api", prompts.document("docs.api", subject()), MarkdownReply),
        )
        await self._activation.emit(
            "plan.ready",
            _of_round("plan", self._state),
            {
                "title": requirements.title,
                "requirements": len(requirements.requirements),
                "requirement_ids": [each.id for each in requirements.requirements],
                "stack": stack.model_dump(mode="json"),
                "plan": plan.model_dump(mode="json"),
                "tasks": [
                    {"id": item.id, "title": item.title, "phase": phase.title, "depends": item.depends}
                    for phase in plan.phases
                    for item in phase.items
                ],
            },
        )

    async def _checked(
        self, step: str, prompt: Callable[[str, int], Prompt], shape: type[R], check: Callable[[R], object]
    ) -> R:
        """A reply that a build can rely on. One that it cannot is not paid for, and sent back once with the reasons.

        Raises ReplyRejectedError with the reasons when the second one fails too.
        """
        while len(refusals := self._state.refusals.get(step, ())) < TRIES_MAX:
            attempt = self._state.plan_round * TRIES_MAX + len(refusals) + 1
            asked = prompt(refusals[-1] if refusals else self._state.plan_wish, attempt)
            try:
                return await self._architect.ask(step, asked, shape, attempt=attempt, check=check)
            except ReplyRejectedError as error:
                refused = {"step": step, "attempt": attempt, "reason": error.message}
                await self._activation.emit("plan.refused", f"{step}/refused/{attempt}", refused)
        raise ReplyRejectedError(refusals[-1], "Describe the project in more detail and start it again.")

    async def _commit_documents(self) -> None:
        state, subject = self._state, self._architect.subject()
        requirements = RequirementsReply.model_validate(state.steps.results["plan/requirements"]["reply"])
        api = MarkdownReply.model_validate(state.steps.results["docs/api"]["reply"])
        committed = await self._workbench.commit_files(
            {
                "docs/requirements.md": requirements_document(
                    state.title, requirements.summary, state.scope or "", requirements.requirements
                ),
                "docs/architecture.md": architecture_document(subject.architecture, state.chosen_stack),
                "docs/api_documentation.md": api.markdown,
                "TODO.md": state.plan.render(state.title),
                ".gitignore": GITIGNORE,
            },
            "docs: requirements, architecture, API draft and plan",
        )
        await self._activation.emit("repository.committed", _of_round("repository/plan", state), committed.fields())


def _of_round(key: str, state: State) -> str:
    """A plan that its owner turned down is followed by another one, under a key of its own."""
    return f"{key}/{state.plan_round + 1}" if state.plan_round else key
