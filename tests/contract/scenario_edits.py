"""The code of the demo's scenario, written by an edit engine: one task after the other, each on what came before."""

from collections.abc import Mapping

from cluster.simulator.scenario import SCENARIOS, Scenario
from runtime.implementer.engine import EditEngine, EditRequest
from runtime.project.schemas import PlanItem, TodoReply, task_line

_SCENARIO = Scenario.load(SCENARIOS / "expense_tracker")
TASKS: list[PlanItem] = [
    item
    for phase in TodoReply.model_validate_json(_SCENARIO.replies["plan.todo", "project", 1]).phases
    for item in phase.items
]


async def write_code(engine: EditEngine, url: str) -> Mapping[str, bytes | None]:
    """`url` is a simulator's, with `/v1`. Every task must succeed."""
    tree: dict[str, bytes | None] = {}
    for task in TASKS:
        last = max(number for name, id, number in _SCENARIO.replies if (name, id) == ("code.edit", task.id))
        outcome = await engine.edit(
            EditRequest(
                instruction=task_line(task="code.edit", id=task.id, attempt=last, brief=_SCENARIO.brief),
                files={path: tree.get(path) for path in task.files},
                read_only={path: content for path in task.tests if (content := tree.get(path)) is not None},
                model="openai/gpt-4o-mini",
                gateway_url=url,
                token="sim-test",
            )
        )
        assert outcome.error == "", f"{task.id}: {outcome.error}"
        assert outcome.files, task.id
        tree |= outcome.files
    return tree
