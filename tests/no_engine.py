"""An implementer that makes checks only."""

from runtime.implementer.engine import EditOutcome, EditRequest


class NoEngine:
    """Nothing is edited here."""

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def edit(self, request: EditRequest) -> EditOutcome:
        raise AssertionError("nothing is edited here")
