"""Places where a build waits for its owner, when the owner asked for it at the start."""

from runtime.entity.activation import Activation
from runtime.project.messages import Gate
from runtime.project.state import State


class Gates:
    def __init__(self, activation: Activation[State]) -> None:
        self._activation = activation

    async def plan(self) -> bool:
        """True once the plan is approved, or when nobody asked to see it; False when it was turned down."""
        todo = self._state.plan
        text = f"The plan has {len(todo.items)} tasks in {len(todo.phases)} phases. Approve it, or say what to change."
        return await self._passes("plan", f"plan/{self._state.plan_round + 1}", text)

    async def phase(self, number: int) -> bool:
        """As `plan`, for a phase that was verified."""
        turned_down = sum(wish.phase == number for wish in self._state.wishes)
        name = self._state.plan.phases[number - 1]
        text = f"Phase {number} ({name}) is built and verified. Approve it, or say what is to be mended."
        return await self._passes("phase", f"phase/{number}/{1 + turned_down + self._state.rewound}", text)

    async def delivery(self) -> bool:
        """As `plan`, for the package that is ready."""
        text = "Everything is built, checked and packed. Approve the delivery, or say what should be different."
        return await self._passes("delivery", f"delivery/{self._state.packages + len(self._state.wishes)}", text)

    async def _passes(self, gate: Gate, name: str, text: str) -> bool:
        if gate not in self._state.gates or name in self._state.approved:
            return True
        if self._state.gate != name:
            await self._activation.emit("gate.opened", f"gate/{name}", {"gate": name, "text": text})
        await self._activation.changed(lambda: self._state.gate != name)
        return name in self._state.approved

    @property
    def _state(self) -> State:
        return self._activation.state
