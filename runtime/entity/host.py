"""The home of many entities: it claims partitions, activates on first message, and keeps one message at a time."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runtime.entity.activation import Activation
from runtime.entity.entity import Entity
from runtime.entity.journal import Claim, EventRecord, Journal
from runtime.errors import BadInputError, UnavailableError
from runtime.ids import EntityId, UserId, kind_of, partition_of

log = logging.getLogger(__name__)

NO_EPOCH = 0
"""No partition ever has it, so the store refuses every append under it."""

Factory = Callable[[EntityId], Entity[Any]]


class Host:
    """Implements `Entities` for one process.

    `factories` says which kinds live here. `incarnation` is new for every start of the process: claiming
    `partitions` with it makes every append of an earlier copy fail. A host without partitions can journal nothing:
    its entities have their memory elsewhere.
    """

    def __init__(
        self,
        *,
        name: str,
        incarnation: str,
        journal: Journal,
        factories: Mapping[str, Factory],
        partitions: Sequence[int],
    ) -> None:
        self._claim = Claim(host=name, incarnation=incarnation, partitions=partitions)
        self._journal = journal
        self._factories = factories
        self._has_claimed = False
        self._epochs: Mapping[int, int] = {}
        self._residents: dict[EntityId, Resident] = {}
        self._stopping: set[asyncio.Future[None]] = set()
        self._claiming = asyncio.Lock()

    async def start(self) -> None:
        """Claims the partitions, once, and wakes every entity with unfinished work that is not awake.

        Asked again and again by whoever watches the host, so that an entity whose waking failed, or that lost its
        place after an append of unknown outcome, is not forgotten.
        """
        await self._claimed()
        for entity in await self._journal.open_entities(tuple(self._factories)):
            if entity in self._residents:
                continue
            try:
                await self._resident(entity, None)
            except Exception:
                log.exception("%s could not be woken", entity)
            else:
                log.info("woke %s", entity)

    async def _claimed(self) -> None:
        async with self._claiming:
            if not self._has_claimed:
                self._epochs = await self._journal.claim(self._claim)
                self._has_claimed = True

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        await self._claimed()
        resident = await self._resident(entity, getattr(message, "owner", None))
        try:
            async with asyncio.timeout(timeout_s):
                return await resident.receive(message)
        except TimeoutError as error:
            raise UnavailableError(
                f"{entity} did not answer in {timeout_s:g} s.", "Ask again: messages are safe to repeat."
            ) from error

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        await self._claimed()
        resident = await self._resident(entity, None)
        return await resident.activation.events(after_seq, wait_s)

    async def stop(self) -> None:
        await asyncio.gather(*(resident.activation.stop() for resident in self._residents.values()))
        self._residents.clear()

    async def _resident(self, entity: EntityId, owner: UserId | None) -> "Resident":
        """The one live activation of an entity; whoever waited for one that failed tries with a fresh one."""
        while True:
            if entity not in self._residents:
                # Registered before the first await, so that two first messages share one activation.
                self._residents[entity] = self._arrive(entity)
            resident = self._residents[entity]
            try:
                await resident.activate(owner)
            except BaseException:
                if resident.dead:
                    self._drop(entity, resident)
                raise
            if not resident.dead:
                return resident

    def _arrive(self, entity: EntityId) -> "Resident":
        factory = self._factories.get(kind_of(entity))
        if factory is None:
            raise BadInputError(f"{entity} is not of a kind that lives here.")
        epoch = self._epochs.get(partition_of(entity), NO_EPOCH)
        behaviour = factory(entity)
        resident: Resident

        def lost() -> None:
            log.warning("%s has a newer owner; this copy is dropped", entity)
            self._drop(entity, resident)

        activation = Activation(
            entity=entity,
            owner=UserId(""),
            epoch=epoch,
            journal=self._journal,
            behaviour=behaviour,
            on_lost=lost,
        )
        resident = Resident(behaviour, activation, self._journal)
        return resident

    def _drop(self, entity: EntityId, resident: "Resident") -> None:
        resident.dead = True
        if self._residents.get(entity) is resident:
            del self._residents[entity]
        stopping = asyncio.ensure_future(resident.activation.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)


class Resident:
    """An entity with its activation, and the turn that one message at a time takes."""

    def __init__(self, behaviour: Entity[Any], activation: Activation[Any], journal: Journal) -> None:
        self.activation = activation
        self._behaviour = behaviour
        self._journal = journal
        self._turn = asyncio.Lock()
        self._active = False
        self.dead = False
        """True once it may not be used any more: it failed to activate, or somebody newer owns the entity."""

    async def activate(self, owner: UserId | None) -> None:
        """Replays and wakes, once. `owner` is who a new entity will belong to. A failure leaves it dead for good."""
        if self._active or self.dead:
            return
        async with self._turn:
            if self._active or self.dead:
                return
            try:
                entity = self.activation.entity
                head = await self._journal.head(entity)
                self.activation.owner = head.owner if head else owner or UserId("")
                self.activation.replay(await self._journal.read(entity, self.activation.last_seq))
                await self._behaviour.wake()
            except BaseException:
                self.dead = True
                raise
            self._active = True

    async def receive(self, message: Any) -> Any:
        if isinstance(message, self._behaviour.read_only):
            return await self._behaviour.receive(message)
        async with self._turn:
            if self.dead:
                raise UnavailableError(f"{self.activation.entity} moved meanwhile.", "Ask again.")
            return await self._behaviour.receive(message)
