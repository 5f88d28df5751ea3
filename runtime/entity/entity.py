"""What an entity is: a pure fold of events into state, answers to messages, and long work that runs as tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from runtime.entity.journal import EventRecord

if TYPE_CHECKING:
    from runtime.entity.activation import Activation

State = TypeVar("State")


class Entity(ABC, Generic[State]):
    """One noun with an id. The host makes it, replays its journal, wakes it, then gives it messages.

    State changes only when an event is on disk; so what a caller was told and what survives a crash are the same.
    """

    kind: ClassVar[str]
    read_only: ClassVar[tuple[type, ...]] = ()
    """Messages answered at once, beside a running one."""

    activation: "Activation[State]"
    """Set by the host before anything else is called."""

    @abstractmethod
    def initial(self) -> State:
        """The state before the first event."""

    @abstractmethod
    def fold(self, state: State, event: EventRecord) -> State:
        """The state after one event. Pure; unknown types leave it as it is, so older code reads newer journals."""

    @abstractmethod
    def head(self, state: State) -> Mapping[str, Any]:
        """What may be read about the entity without waking it. JSON-able; sealed at rest."""

    @abstractmethod
    def is_open(self, state: State) -> bool:
        """True while there is unfinished work: the entity is then woken after a restart, and never passivated."""

    def is_over(self, state: State) -> bool:
        """True when nothing may happen to it any more: every later event is refused."""
        return False

    @abstractmethod
    async def receive(self, message: Any) -> Any:
        """Answers one message. One at a time, except those in `read_only`. A raised error is the caller's answer."""

    async def wake(self) -> None:
        """Runs once, after the replay and before the first message: starts the tasks the state calls for."""

    @property
    def state(self) -> State:
        return self.activation.state
