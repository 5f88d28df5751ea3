"""What the doors stand on. `actors.system.connect` makes one; tests make one of fakes."""

from collections.abc import Mapping
from typing import Protocol

from runtime.config import Settings
from runtime.entity.journal import Journal
from runtime.entity.port import Entities
from runtime.entity.vitals import SystemVitals
from runtime.ids import EntityId
from runtime.keys.office import KeyOffice
from runtime.ledger.port import Ledger
from runtime.providers.calls import ModelCalls
from runtime.reports.port import Reporting
from runtime.store.keeping import Keeping


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
    def keeper(self) -> Keeping:
        """For the operator: checks, backs up and compacts what journal and ledger hold."""

    @property
    def reports(self) -> Reporting:
        """For the operator: reports on the whole, and alerts."""

    @property
    def keys(self) -> KeyOffice:
        """For the operator: the providers' keys."""

    @property
    def calls(self) -> ModelCalls: ...

    async def close(self) -> None:
        """Ends what this process has under way: what its calls used is with the ledger, what it drew is given back."""

    async def health(self) -> Mapping[str, str]:
        """`ledger` is `ok` or what is wrong with it; `provider` names the configured ones, or is `none`."""

    async def vitals(self) -> SystemVitals:
        """Asks every part at once and waits a few seconds at most: a part that did not answer is named in `silent`."""

    async def pardon(self, entity: EntityId) -> bool:
        """Lifts an entity's quarantine, so that its next message is tried again; False when there was none.

        Raises UnavailableError when nobody can say, because the entity's host does not answer.
        """
