"""The home of many entities: it owns partitions, activates on the first message, and lets go of what is idle."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from runtime.config import Settings
from runtime.entity.activation import Activation
from runtime.entity.entity import Entity
from runtime.entity.journal import Claim, EventRecord, Journal
from runtime.entity.reminders import Reminded
from runtime.entity.resident import PEEK, Post, Resident
from runtime.entity.vitals import HostVitals, Quarantined
from runtime.errors import (
    BadInputError,
    MasterbuilderError,
    MovedError,
    OverloadedError,
    QuarantinedError,
    UnavailableError,
)
from runtime.ids import PARTITION_COUNT, EntityId, kind_of, partition_of

log = logging.getLogger(__name__)

FAILURES_MAX = 3
"""Failures without an answer in between, after which an entity is quarantined."""
EVERY_S = 1.0
REMIND_EVERY_S = 5.0
"""What reminds may be so late, and is mostly days away; asking each second was a third of what an idle ledger did."""
REMINDERS_AT_ONCE = 1_000
REMINDER_S_MAX = 60.0
SWEEP_EVERY_S = 10.0
RETIRE_AT_ONCE = 500
NO_EPOCH = 0
"""Of a host without a journal: the store refuses every append under it."""

Factory = Callable[[EntityId], Entity[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    idle_s: float = 300.0
    memory_bytes: int = 1 << 30
    mailbox_max: int = 1_000
    queue_max: int = 50_000

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            idle_s=settings.entity_idle_seconds,
            memory_bytes=settings.entity_memory_mb << 20,
            mailbox_max=settings.entity_mailbox_max,
            queue_max=settings.host_queue_max,
        )


class Host:
    """Implements `Entities` for one process.

    `factories` says which kinds live here. `incarnation` is new for every start of the process: what is claimed with
    it makes every append of an earlier copy fail. A host that is not `journaled` owns all partitions and none: its
    entities have their memory elsewhere.
    """

    def __init__(
        self,
        *,
        name: str,
        incarnation: str,
        journal: Journal,
        factories: Mapping[str, Factory],
        limits: Limits = Limits(),
        node: str = "",
        journaled: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`now` says which reminders are due."""
        self.queued = 0
        self.working = 0
        self.reading: set[asyncio.Task[None]] = set()
        self._name = name
        self._incarnation = incarnation
        self._node = node
        self._journal = journal
        self._factories = factories
        self._limits = limits
        self._journaled = journaled
        self._now = now
        self._owned: dict[int, int] = {} if journaled else dict.fromkeys(range(PARTITION_COUNT), NO_EPOCH)
        self._residents: dict[EntityId, Resident] = {}
        self._to_wake: set[EntityId] = set()
        self._unseen: set[int] = set()
        """Partitions whose unfinished entities were not looked up yet."""
        self._delivering: set[tuple[EntityId, str]] = set()
        self._failures: dict[EntityId, int] = {}
        self._quarantine: dict[EntityId, Quarantined] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept_at = time.monotonic()
        self._remind_at_s = 0.0
        """By the monotonic clock: when it asks for reminders again."""
        self._process = psutil.Process()
        self._turns = self._activations = self._passivations = self._failed = self._stale = 0

    # Messages ------------------------------------------------------------------------------------------------

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        reply = self.post(entity, message, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError as error:
            raise UnavailableError(
                f"{entity} did not answer in {timeout_s:g} s.", "Ask again: messages are safe to repeat."
            ) from error

    def post(self, entity: EntityId, message: Any, timeout_s: float) -> "asyncio.Future[Any]":
        """Puts the message into the mailbox. Cancelling the future withdraws what has not begun; what has begun is
        finished. Raises MovedError, OverloadedError, QuarantinedError or BadInputError; nothing was done then.
        """
        post = Post(message, asyncio.get_running_loop().create_future(), time.monotonic() + timeout_s)
        self._put(entity, post)
        return post.reply

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        activation: Activation[Any] = await self.ask(entity, PEEK)
        return await activation.events(after_seq, wait_s)

    def _put(self, entity: EntityId, post: Post) -> None:
        if (quarantined := self._quarantine.get(entity)) is not None:
            raise QuarantinedError(
                f"{entity} is set aside: it failed {quarantined.failures} times in a row by an error of ours. What it "
                "had done before is safe.",
                f"For its operator: `masterbuilder status` has the error, `masterbuilder pardon {entity}` lifts this.",
            )
        partition = partition_of(entity)
        if partition not in self._owned:
            raise MovedError(f"{entity} does not live in {self._name}.", "Ask again.")
        if self.queued >= self._limits.queue_max:
            raise OverloadedError(f"{self.queued} messages wait in {self._name} already.")
        resident = self._resident(entity, partition)
        waiting = resident.mailbox
        if waiting is not None and len(waiting) >= self._limits.mailbox_max:
            raise OverloadedError(f"{len(waiting)} messages wait for {entity} already.")
        resident.put(post)

    def _resident(self, entity: EntityId, partition: int) -> Resident:
        resident = self._residents.get(entity)
        if resident is None:
            factory = self._factories.get(kind_of(entity))
            if factory is None:
                raise BadInputError(f"{entity} is not of a kind that lives here.")
            resident = Resident(entity, self._owned[partition], factory(entity), self._journal, self)
            self._residents[entity] = resident
            self._activations += 1
        return resident

    # Partitions ----------------------------------------------------------------------------------------------

    @property
    def owned(self) -> Mapping[int, int]:
        """Partition -> the epoch under which it is written here."""
        return self._owned

    async def acquire(self, partitions: Mapping[int, int]) -> Mapping[int, int]:
        """Claims partitions whose epoch is still the given one (0: nobody's yet), and wakes what is unfinished in them.

        Returns those that are owned now, with their epochs. May be repeated.
        """
        if self._journaled:
            claim = Claim(host=self._name, incarnation=self._incarnation, partitions=partitions)
            granted = await self._journal.claim(claim)
            new = {partition for partition, epoch in granted.items() if self._owned.get(partition) != epoch}
            self._owned.update(granted)
            self._unseen |= new
            # Somebody else may have written between an old epoch of ours and this one.
            outdated = [resident for entity, resident in self._residents.items() if partition_of(entity) in new]
            await self._retire(outdated, 0.0, save=False)
            self._remind_at_s = 0.0
            self._start(self._look_after())
        return {partition: self._owned[partition] for partition in partitions if partition in self._owned}

    async def acquire_all(self) -> None:
        """For a host that is alone: takes every partition, whoever had it."""
        epochs = {each.partition: each.epoch for each in await self._journal.ownerships()}
        await self.acquire({partition: epochs.get(partition, 0) for partition in range(PARTITION_COUNT)})

    async def release(self, partitions: Iterable[int], drain_s: float = 10.0) -> None:
        """Lets go of partitions: refuses new messages, finishes the running turns, saves. May be repeated."""
        leaving = set(partitions) & self._owned.keys() if self._journaled else set()
        for partition in leaving:
            del self._owned[partition]
        await self._retire(
            [resident for entity, resident in self._residents.items() if partition_of(entity) in leaving], drain_s
        )

    async def _confirm(self, partition: int) -> None:
        """After an append was refused: asks whether the partition is still ours. What was granted once is granted
        again, until somebody newer has it.
        """
        epoch = self._owned.get(partition)
        if epoch is None:
            return
        claim = Claim(host=self._name, incarnation=self._incarnation, partitions={partition: epoch - 1})
        try:
            granted = await self._journal.claim(claim)
        except UnavailableError:
            return  # The next refused append asks again.
        if partition not in granted and self._owned.get(partition) == epoch:
            log.warning("partition %d has a newer owner than epoch %d of %s", partition, epoch, self._name)
            await self.release([partition], drain_s=0.0)

    # Lives and deaths ----------------------------------------------------------------------------------------

    def turned(self, entity: EntityId) -> None:
        self._turns += 1
        if self._failures:
            self._failures.pop(entity, None)

    def gone(self, resident: Resident, left: list[Post], error: BaseException | None) -> None:
        entity = resident.activation.entity
        if self._residents.get(entity) is resident:
            del self._residents[entity]
        if resident.was_lost:
            self._stale += 1
            self._start(self._confirm(partition_of(entity)))
        if error is not None:
            self._failed += 1
            if not isinstance(error, UnavailableError):
                self._count_failure(entity, error)
        if error is not None or resident.was_lost:
            self._to_wake.add(entity)
        for post in left:
            if isinstance(error, UnavailableError):
                post.refuse(error)
                continue
            try:
                self._put(entity, post)
            except MasterbuilderError as refusal:
                post.refuse(refusal)

    def _count_failure(self, entity: EntityId, error: BaseException) -> None:
        failures = self._failures.get(entity, 0) + 1
        self._failures[entity] = failures
        if failures >= FAILURES_MAX:
            del self._failures[entity]
            text = (str(error).splitlines() or [""])[0][:200]
            self._quarantine[entity] = Quarantined(
                entity=entity, error=f"{type(error).__name__}: {text}", failures=failures, since=datetime.now(UTC)
            )
            log.error("%s is quarantined after %d failures", entity, failures)

    def pardon(self, entity: EntityId) -> bool:
        """Lifts a quarantine; False when there was none."""
        known = self._quarantine.pop(entity, None) is not None
        if known:
            self._to_wake.add(entity)
        return known

    async def _retire(self, residents: Sequence[Resident], patience_s: float, *, save: bool = True) -> None:
        for start in range(0, len(residents), RETIRE_AT_ONCE):
            some = residents[start : start + RETIRE_AT_ONCE]
            await asyncio.gather(*(resident.retire(patience_s, save=save) for resident in some))

    # What happens unasked ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: wakes what is unfinished, delivers reminders, passivates."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self._look_after()

    async def _look_after(self) -> None:
        """What is missed now is done the next time."""
        try:
            await self._find_unfinished()
            self._wake()
            if time.monotonic() >= self._remind_at_s:
                await self._remind()
            if time.monotonic() - self._swept_at > min(SWEEP_EVERY_S, self._limits.idle_s / 2):
                self._swept_at = time.monotonic()
                await self.sweep()
        except UnavailableError as error:
            log.warning("%s will look after its entities later: %s", self._name, error)
        except Exception:
            log.exception("%s could not look after its entities", self._name)

    async def stop(self) -> None:
        """Ends everything at once, as a crash would, but leaves no task behind."""
        self._owned.clear()
        await self._retire(list(self._residents.values()), 0.0, save=False)
        for task in [*self._tasks, *self.reading]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self.reading, return_exceptions=True)

    async def sweep(self) -> None:
        """Passivates what was idle too long, and the longest idle while all together hold too much memory."""
        longest_first = sorted(self._residents.values(), key=lambda resident: resident.used_at)
        held_bytes = sum(resident.activation.weight_bytes for resident in longest_first)
        idle_since = time.monotonic() - self._limits.idle_s
        leaving = []
        for resident in longest_first:
            if resident.used_at > idle_since and held_bytes <= self._limits.memory_bytes:
                break
            if resident.is_idle:
                held_bytes -= resident.activation.weight_bytes
                leaving.append(resident)
        for start in range(0, len(leaving), RETIRE_AT_ONCE):
            some = [resident for resident in leaving[start : start + RETIRE_AT_ONCE] if resident.is_idle]
            await self._retire(some, 0.0)
            self._passivations += len(some)

    async def _find_unfinished(self) -> None:
        if not self._unseen:
            return
        unseen, self._unseen = self._unseen, set()
        try:
            unfinished = await self._journal.open_entities(tuple(self._factories))
        except BaseException:
            self._unseen |= unseen
            raise
        self._to_wake.update(entity for entity in unfinished if partition_of(entity) in unseen)

    def _wake(self) -> None:
        waking, self._to_wake = self._to_wake, set()
        for entity in waking - self._quarantine.keys():
            partition = partition_of(entity)
            if partition in self._owned:
                self._resident(entity, partition).work()

    async def _remind(self) -> None:
        if not self._journaled or not self._owned:
            return
        found = await self._journal.due(tuple(self._owned), self._now(), REMINDERS_AT_ONCE)
        self._remind_at_s = 0.0 if found else time.monotonic() + REMIND_EVERY_S
        for due in found:
            reminder = due.reminder
            delivery = (due.entity, reminder.name)
            if delivery not in self._delivering and due.entity not in self._quarantine:
                self._delivering.add(delivery)
                message = Reminded(name=reminder.name, due_at=reminder.due_at, data=reminder.data)
                self._start(self._deliver(due.entity, message))

    async def _deliver(self, entity: EntityId, message: Reminded) -> None:
        try:
            await self.ask(entity, message, timeout_s=REMINDER_S_MAX)
        except MasterbuilderError as error:
            log.warning("the reminder %s of %s was answered: %s", message.name, entity, error)
        finally:
            self._delivering.discard((entity, message.name))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def vitals(self) -> HostVitals:
        return HostVitals(
            name=self._name,
            incarnation=self._incarnation,
            pid=self._process.pid,
            node=self._node,
            kinds=tuple(self._factories),
            partitions=len(self._owned),
            residents=len(self._residents),
            working=self.working,
            queued=self.queued,
            memory_bytes=self._process.memory_info().rss,
            turns=self._turns,
            activations=self._activations,
            passivations=self._passivations,
            failures=self._failed,
            stale=self._stale,
            quarantined=tuple(self._quarantine.values()),
        )
