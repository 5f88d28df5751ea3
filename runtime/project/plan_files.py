"""The files of a project that say what is planned, as its state has it."""

from collections.abc import Mapping
from dataclasses import replace

from runtime.project.documents import requirements_document
from runtime.project.schemas import Requirement, RequirementsReply
from runtime.project.state import State
from runtime.project.todo import Todo


def plan_files(state: State, todo: Todo, amended: Mapping[str, Requirement]) -> dict[str, str]:
    """`TODO.md`, and `docs/requirements.md` with what a change amends."""
    reply = RequirementsReply.model_validate(state.steps.results["plan/requirements"]["reply"])
    requirements = replace(state, amended={**state.amended, **amended}).with_amended(reply.requirements)
    return {
        "TODO.md": todo.render(state.title),
        "docs/requirements.md": requirements_document(state.title, reply.summary, state.scope or "", requirements),
    }
