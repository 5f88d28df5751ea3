"""What the bot has not heard yet, in the order of `update_id`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from cluster.simulator.telegram.changes import Changes
from cluster.simulator.telegram.refusal import bad_request

_ON_REQUEST = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
"""Source: https://core.telegram.org/bots/api#getupdates, `allowed_updates`."""
FIRST_UPDATE_ID = 700_000_001


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """`lane`: the chat or person; updates of one lane are delivered one after the other."""

    id: int
    kind: str
    lane: int
    wire: Mapping[str, Any]


class Updates:
    def __init__(self) -> None:
        self.changes = Changes()
        self.pending: dict[int, Update] = {}
        self.all: dict[int, Update] = {}
        self.allowed: tuple[str, ...] = ()
        """Empty: all but those that must be asked for."""
        self.refused: dict[str, int] = {}
        """Updates that were not made because the bot did not ask for their kind."""
        self._ids = count(FIRST_UPDATE_ID)

    def allow(self, kinds: Any) -> None:
        """None leaves it as it was."""
        if kinds is None:
            return
        if not isinstance(kinds, list):
            raise bad_request("can't parse allowed updates")
        self.allowed = tuple(str(kind) for kind in kinds)

    def add(self, kind: str, payload: Mapping[str, Any], lane: int) -> int | None:
        """Its id; None where the bot did not ask for this kind."""
        unwanted = kind not in self.allowed if self.allowed else kind in _ON_REQUEST
        if unwanted:
            self.refused[kind] = self.refused.get(kind, 0) + 1
            return None
        update_id = next(self._ids)
        self._put(Update(id=update_id, kind=kind, lane=lane, wire={"update_id": update_id, kind: payload}))
        return update_id

    def add_raw(self, wire: Mapping[str, Any]) -> int:
        """As somebody made it up: nothing of it is checked, an id is given where it has none."""
        given = wire.get("update_id")
        update_id = given if isinstance(given, int) and not isinstance(given, bool) else next(self._ids)
        kind = next((name for name in wire if name != "update_id"), "")
        self._put(Update(id=update_id, kind=kind, lane=0, wire={"update_id": update_id, **wire}))
        return update_id

    def again(self, update_id: int) -> None:
        """Once more, with the same id, as after an answer that got lost. Raises TelegramRefusal for an unknown one."""
        if update_id not in self.all:
            raise bad_request("update not found")
        self._put(self.all[update_id])

    def confirm_before(self, update_id: int) -> None:
        for id in [id for id in self.pending if id < update_id]:
            del self.pending[id]

    def keep_last(self, number: int) -> None:
        for id in sorted(self.pending)[:-number]:
            del self.pending[id]

    def done(self, update_id: int) -> None:
        self.pending.pop(update_id, None)

    def drop(self) -> None:
        self.pending.clear()

    def waiting(self) -> Sequence[Update]:
        """Those not confirmed, by their id."""
        return [self.pending[id] for id in sorted(self.pending)]

    def _put(self, update: Update) -> None:
        self.pending[update.id] = self.all[update.id] = update
        self.changes.tell()
