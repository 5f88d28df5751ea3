"""An entity without a journal: what it holds is made from what others have, and made again where it is lost."""

from collections.abc import Mapping
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord


class Unjournaled(Entity[None]):
    """Has no state but what it keeps itself, and nothing that a restart would have to go on with."""

    def initial(self) -> None:
        return None

    def fold(self, state: None, event: EventRecord) -> None:
        return None

    def head(self, state: None) -> Mapping[str, Any]:
        return {}

    def is_open(self, state: None) -> bool:
        return False
