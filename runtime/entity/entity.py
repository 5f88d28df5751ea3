"""What an entity is: a pure fold of events into state, answers to messages, and long work that runs as tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from runtime.entity.journal import EventRecord

if TYPE_CHECKING:
    from runtime.entity.activation import Activation

State = TypeVar("State")


class Entity(ABC, Generic[State]):
    """One noun with an id. The host makes it, restores its state, wakes it, then gives it messages.

    State changes only when an event is on disk; so what a caller was told and what survives a crash are the same.
    """

    kind: ClassVar[str]
    read_only: ClassVar[tuple[type, ...]] = ()
    """Messages answered at once, beside a running one."""
    snapshot_version: ClassVar[int] = 1
    """Raised when `freeze` changes its shape. A snapshot of another version is passed over."""
    keeps_history: ClassVar[bool] = True
    """False when nobody reads events that a snapshot covers: they may then be compacted away."""

    after_end: ClassVar[frozenset[str]] = frozenset()
    """Types of events that may happen to the entity when it is over: those of its erasure."""

    activation: "Activation[State]"
    """Set by the host before anything else is called."""

    @abstractmethod
    def initial(self) -> State:
        """The state before the first event."""

    @abstractmethod
    def fold(self, state: State, event: EventRecord) -> State:
        """The state after one event. Pure; unknown types leave it as it is, so older code reads newer journals.

        Old versions of a type stay readable for ever: `event.version` says which one it is.
        """

    @abstractmethod
    def head(self, state: State) -> Mapping[str, Any]:
        """What may be read about the entity without waking it. JSON-able; sealed at rest."""

    def freeze(self, state: State) -> Mapping[str, Any] | None:
        """The state as JSON-able data, or None: such an entity has no snapshots and is restored from all its events."""
        return None

    def thaw(self, data: Mapping[str, Any]) -> State:
        """The state that `freeze` gave, in the present `snapshot_version`."""
        raise NotImplementedError

    @abstractmethod
    def is_open(self, state: State) -> bool:
        """True while there is unfinished work: the entity is then woken after a restart, and never passivated."""

    def is_over(self, state: State) -> bool:
        """True when nothing may happen to it any more: every later event that `after_end` does not name is refused."""
        return False

    def lets_go(self, state: State) -> bool:
        """True when the events that a snapshot of this state covers may be compacted away."""
        return not self.keeps_history

    @abstractmethod
    async def receive(self, message: Any) -> Any:
        """Answers one message. One at a time, except those in `read_only`.

        A raised MasterbuilderError is the caller's answer. Any other error is a fault of ours: the entity is reset
        from its journal, and quarantined when it goes on failing.
        """

    async def wake(self) -> None:
        """Runs once, when the state is there and before the first message: starts the tasks the state calls for."""

    @property
    def state(self) -> State:
        return self.activation.state
