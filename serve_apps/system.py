"""What the doors stand on. `actors.system.connect` makes one; tests make one of fakes."""

from collections.abc import Mapping
from typing import Protocol

from runtime.config import Settings
from runtime.entity.journal import Journal
from runtime.entity.port import Entities
from runtime.ledger.port import Ledger
from runtime.providers.calls import ModelCalls


class System(Protocol):
    @property
    def settings(self) -> Settings: ...

    @property
    def entities(self) -> Entities: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def journal(self) -> Journal:
        """Read from here only: entities alone write."""

    @property
    def calls(self) -> ModelCalls: ...

    async def health(self) -> Mapping[str, str]:
        """`ledger` is `ok` or what is wrong with it; `provider` names the configured ones, or is `none`."""
