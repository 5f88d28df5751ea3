"""Back to where a phase began: main goes on from there, and what it held until then stays under a branch of its own."""

import asyncio

from runtime.entity.activation import Activation
from runtime.project.plan_files import plan_files
from runtime.project.repository import ProjectRepository
from runtime.project.state import Base, State
from runtime.project.workbench import PRODUCT_AUTHOR, Workbench


class Rewinding:
    def __init__(self, activation: Activation[State], workbench: Workbench) -> None:
        self._activation = activation
        self._workbench = workbench

    async def carry_out(self) -> None:
        """What was asked for, if anything was. Cut off at any point it may be begun again."""
        state = self._activation.state
        if state.rewind_to is None:
            return
        phase, base, branch = state.rewind_to, state.bases[state.rewind_to], f"rewound/{state.rewound + 1}"
        async with self._workbench.alone() as repository:
            commit = await asyncio.to_thread(self._go_back, repository, base, branch, phase)
            committed = await self._workbench.keep(commit, await asyncio.to_thread(repository.bundle))
            after = state.plan.reset(base.done)
            await self._activation.emit(
                "project.rewound",
                branch,
                {
                    **committed.fields(),
                    "phase": phase,
                    "branch": branch,
                    "from_commit": state.commit,
                    "base_commit": base.commit,
                    "reopened": [item.id for item in state.plan.items if item.done and item.id not in base.done],
                    "done": after.done_count(),
                    "total": len(after.items),
                },
            )

    def _go_back(self, repository: ProjectRepository, base: Base, branch: str, phase: int) -> str:
        """Blocking. The new head of main: the old tree, with the plan as it is now and the later items open."""
        state = self._activation.state
        repository.keep_branch(branch, state.commit)
        repository.reset_hard(base.commit)
        files = plan_files(state, state.plan.reset(base.done), {})
        return repository.write_and_commit(files, f"todo: back to the beginning of phase {phase}", PRODUCT_AUTHOR)
