"""What a project needs from outside itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.config import Settings
from runtime.entity.port import Entities
from runtime.implementer.work import CheckReport, CheckWork, EditResult, EditWork
from runtime.ledger.port import Ledger
from runtime.providers.calls import ModelCalls


class Implementers(Protocol):
    """Where tasks are carried out. Work that a dead worker had is not repeated here: UnavailableError says so."""

    async def probe(self) -> None:
        """Raises EngineUnavailableError or SandboxUnavailableError when code cannot be edited or confined here."""

    async def prepare(self) -> None:
        """Starts to warm the edit engines up, so that the first task does not wait for them. Returns at once."""

    async def edit(self, work: EditWork) -> EditResult: ...

    async def check(self, work: CheckWork) -> CheckReport: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    settings: Settings
    ledger: Ledger
    calls: ModelCalls
    implementers: Implementers
    entities: Entities
    """How a project reaches its index."""
    scratch_dir: Path
    """Working copies; each is a cache of the project's newest bundle."""
