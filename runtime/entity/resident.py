"""An entity that lives here: its mailbox, and the turns that one message at a time takes."""

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.entity.activation import Activation
from runtime.entity.entity import Entity
from runtime.entity.journal import Journal, Loaded
from runtime.entity.reminders import Reminded
from runtime.errors import EntityFailedError, MasterbuilderError, StaleWriterError, UnavailableError
from runtime.ids import EntityId, UserId

log = logging.getLogger(__name__)

STOP_S_MAX = 30.0
"""How long a dead resident waits for its cancelled tasks before the next life begins all the same."""


@dataclass(frozen=True, slots=True)
class Post:
    """A message in a mailbox. Its sender withdraws it by cancelling `reply`: what has not begun is then never run,
    and what has begun is finished, journalled, and answered to nobody.
    """

    message: Any
    reply: "asyncio.Future[Any]"
    deadline: float
    """By `time.monotonic()`: it is not begun after this."""

    def answer(self, result: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(result)

    def refuse(self, error: BaseException) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)
            self.reply.exception()  # Its sender may be gone; then nobody need hear of it.


class Peek:
    """A message of the host itself, answered with the activation as soon as there is one."""


PEEK = Peek()


class Keeper(Protocol):
    """What a resident tells its host."""

    queued: int
    working: int
    reading: set["asyncio.Task[None]"]

    def turned(self, entity: EntityId) -> None:
        """A turn ended as it should, with an answer or a refusal."""

    def gone(self, resident: "Resident", left: list[Post], error: BaseException | None) -> None:
        """The resident's life is over: `left` waits for the next one. `error` is the fault that ended it, if any."""


class Resident:
    """Runs one worker task while there is anything to do, and none while there is not.

    Its life ends when its activation fails, is lost to a newer owner, breaks, or retires; it is then never used again.
    """

    __slots__ = ("_active", "_behaviour", "_error", "_journal", "_keeper", "_owner", "_retiring", "_worker",
                 "activation", "dead", "mailbox", "used_at", "was_lost")  # fmt: skip

    def __init__(self, entity: EntityId, epoch: int, behaviour: Entity[Any], journal: Journal, keeper: Keeper) -> None:
        self.activation: Activation[Any] = Activation(
            entity=entity, epoch=epoch, journal=journal, behaviour=behaviour, life=self
        )
        self.mailbox: deque[Post] | None = None
        """None while it is empty, for most of many entities are idle."""
        self.dead = False
        """True once no turn may begin here any more. What is put in is kept for the next life."""
        self.was_lost = False
        """True when the store refused an append of it: the partition may be somebody else's."""
        self.used_at = time.monotonic()
        self._behaviour = behaviour
        self._journal = journal
        self._keeper = keeper
        self._owner: UserId | None = None
        self._active = False
        self._retiring = False
        self._error: BaseException | None = None
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return self._worker is None and self._active and not self.activation.is_needed

    def put(self, post: Post) -> None:
        self.used_at = time.monotonic()
        if self._active and not self.dead and self._is_aside(post.message):
            self._take_aside(post)
            return
        if not self._active and self._owner is None:
            self._owner = getattr(post.message, "owner", None)
        if self.mailbox is None:
            self.mailbox = deque()
        self.mailbox.append(post)
        self._keeper.queued += 1
        self.work()

    def work(self) -> None:
        """Activates if need be, and takes what is in the mailbox."""
        if self._worker is None and not self.dead:
            self.working(1)
            self._worker = asyncio.create_task(self._work())

    async def retire(self, patience_s: float, *, save: bool = True) -> None:
        """Finishes the running turn, if that takes no longer than `patience_s`; then saves and ends."""
        if self.dead:
            return
        self.dead = self._retiring = True
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=patience_s)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self.activation.stop()
        if save and self._active:
            try:
                await self.activation.save()
            except MasterbuilderError as error:
                log.info("%s left without a snapshot: %s", self.activation.entity, error)
        await self._leave()

    def lost(self) -> None:
        self.was_lost = True
        self._end(None)

    def fail(self, error: BaseException) -> None:
        if self.dead:
            return
        fault = None if isinstance(error, MasterbuilderError) else error
        log.error("%s failed and is reset from its journal: %s", self.activation.entity, error, exc_info=fault)
        self._end(error)

    def working(self, more: int) -> None:
        self._keeper.working += more

    async def _work(self) -> None:
        try:
            if not self._active:
                await self._activate()
                self._active = True
            while self.mailbox and not self.dead:
                self._keeper.queued -= 1
                await self._take(self.mailbox.popleft())
        except Exception as error:
            self.fail(error)
        finally:
            self.working(-1)
            self._worker = None
            if not self.mailbox:
                self.mailbox = None
            if self.dead and not self._retiring:
                self._worker = asyncio.create_task(self._leave())

    async def _activate(self) -> None:
        loaded = await self._journal.load(self.activation.entity)
        snapshot = loaded.snapshot
        if snapshot is not None and snapshot.version != self._behaviour.snapshot_version:
            events = await self._journal.read(self.activation.entity, 0)
            loaded = Loaded(head=loaded.head, snapshot=None, events=events)
        self.activation.restore(loaded, self._owner)
        await self._behaviour.wake()

    async def _take(self, post: Post) -> None:
        if post.reply.done():
            return
        if self._is_aside(post.message):
            self._take_aside(post)
        elif time.monotonic() > post.deadline:
            post.refuse(UnavailableError(f"{self.activation.entity} had no time for this message.", "Ask again."))
        elif isinstance(post.message, Reminded):
            await self._remind(post)
        else:
            await self._turn(post)

    async def _turn(self, post: Post) -> None:
        try:
            post.answer(await self._behaviour.receive(post.message))
        except asyncio.CancelledError:
            if self.dead:
                self._put_back(post)
            raise
        except MasterbuilderError as error:
            if self.dead and isinstance(error, StaleWriterError):
                self._put_back(post)
                return
            post.refuse(error)
        except Exception as error:
            post.refuse(_failed(self.activation.entity, error))
            raise
        self._keeper.turned(self.activation.entity)

    async def _remind(self, post: Post) -> None:
        """A turn, after which the reminder is forgotten unless the turn said otherwise, or could not be carried out."""
        touched: set[str] = set()
        self.activation.reminded = touched
        try:
            await self._turn(post)
        finally:
            self.activation.reminded = None
        if not post.reply.done():
            return  # Its turn comes in the next life.
        refused = not post.reply.cancelled() and post.reply.exception()
        if post.message.name not in touched and not isinstance(refused, UnavailableError):
            await self.activation.forget(post.message.name)

    def _is_aside(self, message: Any) -> bool:
        return message is PEEK or isinstance(message, self._behaviour.read_only)

    def _take_aside(self, post: Post) -> None:
        if post.message is PEEK:
            post.answer(self.activation)
            return
        reading = asyncio.create_task(self._read(post))
        self._keeper.reading.add(reading)
        reading.add_done_callback(self._keeper.reading.discard)

    async def _read(self, post: Post) -> None:
        try:
            post.answer(await self._behaviour.receive(post.message))
        except MasterbuilderError as error:
            post.refuse(error)
        except Exception as error:
            log.exception("%s failed on a message that only reads", self.activation.entity)
            post.refuse(_failed(self.activation.entity, error))

    def _put_back(self, post: Post) -> None:
        """What a turn changed is on disk and what it did not can be done again: its key tells which."""
        if self.mailbox is None:
            self.mailbox = deque()
        self.mailbox.appendleft(post)
        self._keeper.queued += 1

    def _end(self, error: BaseException | None) -> None:
        """Nothing here may be believed any more."""
        if self.dead:
            return
        self.dead = True
        self._error = error
        if self._worker is None:
            self._worker = asyncio.create_task(self._leave())
        elif self._worker is not asyncio.current_task():
            self._worker.cancel()

    async def _leave(self) -> None:
        """The next life begins only when nothing of this one runs any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S_MAX):
                await self.activation.stop()
        left = list(self.mailbox or ())
        self.mailbox = None
        self._keeper.queued -= len(left)
        self._keeper.gone(self, left, self._error)


def _failed(entity: EntityId, error: Exception) -> EntityFailedError:
    return EntityFailedError(
        f"{entity} met an error of ours ({type(error).__name__}) and was reset to what is on disk.",
        "Try again; if it goes on, `masterbuilder status` shows the error.",
    )
