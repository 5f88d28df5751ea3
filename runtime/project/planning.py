"""From the agreed scope to a checked plan in a repository."""

import asyncio

from runtime.entity.activation import Activation
from runtime.errors import ReplyRejectedError
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.documents import (
    GITIGNORE,
    architecture_document,
    requirements_document,
)
from runtime.project.schemas import MarkdownReply, RequirementsReply, StackReply, TodoReply
from runtime.project.state import State
from runtime.project.todo import Todo
from runtime.project.workbench import Workbench

PLAN_TRIES_MAX = 2


class Planning:
    def __init__(self, activation: Activation[State], architect: Architect, workbench: Workbench) -> None:
        self._activation = activation
        self._architect = architect
        self._workbench = workbench

    async def carry_out(self) -> None:
        """Requirements, stack, architecture, then plan and API draft side by side; then the first commit."""
        if self._state.todo is None:
            await self._plan()
        if self._state.bundle is None:
            await self._commit_documents()

    @property
    def _state(self) -> State:
        return self._activation.state

    async def _plan(self) -> None:
        ask, subject = self._architect.ask, self._architect.subject
        scope = self._state.scope or ""
        requirements = await ask("plan/requirements", prompts.requirements(subject(), scope), RequirementsReply)
        stack = await ask("plan/stack", prompts.stack(subject()), StackReply)
        await ask("plan/architecture", prompts.architecture(subject()), MarkdownReply)
        plan, _ = await asyncio.gather(
            self._checked_plan(requirements),
            ask("docs/api", prompts.document("docs.api", subject()), MarkdownReply),
        )
        await self._activation.emit(
            "plan.ready",
            "plan",
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

    async def _checked_plan(self, requirements: RequirementsReply) -> TodoReply:
        """A plan whose graph works. One that does not is sent back once with the reasons."""
        ids = [each.id for each in requirements.requirements]
        fault = ""
        for attempt in range(1, PLAN_TRIES_MAX + 1):
            prompt = prompts.todo(self._architect.subject(), fault, attempt)
            plan = await self._architect.ask(f"plan/todo/{attempt}", prompt, TodoReply, attempt=attempt)
            try:
                Todo.from_plan(plan, ids)
            except ReplyRejectedError as error:
                fault = error.message
            else:
                return plan
        raise ReplyRejectedError(fault, "Describe the project in more detail and start it again.")

    async def _commit_documents(self) -> None:
        state, subject = self._state, self._architect.subject()
        assert state.todo is not None, "documents are committed after the plan is ready"
        assert state.stack is not None, "documents are committed after the plan is ready"
        requirements = RequirementsReply.model_validate(state.steps.results["plan/requirements"]["reply"])
        api = MarkdownReply.model_validate(state.steps.results["docs/api"]["reply"])
        committed = await self._workbench.commit_files(
            {
                "docs/requirements.md": requirements_document(
                    state.title, requirements.summary, state.scope or "", requirements.requirements
                ),
                "docs/architecture.md": architecture_document(subject.architecture, state.stack),
                "docs/api_documentation.md": api.markdown,
                "TODO.md": state.todo.render(state.title),
                ".gitignore": GITIGNORE,
            },
            "docs: requirements, architecture, API draft and plan",
        )
        await self._activation.emit("repository.committed", "repository/plan", committed.fields())
