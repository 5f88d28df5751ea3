"""The host's side of the call path: where messages of callers come in, and replies wait until they are fetched.

A call between processes costs a millisecond whatever it carries, so it carries all it can: every call of a caller
brings its new messages along and takes home whatever replies are ready, to whichever messages. The newest call waits
for the next reply, and the one before it returns; so a slow message holds up nobody, and a caller never has more than
a few calls under way, however many messages it waits for.
"""

import asyncio
import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.errors import EntityFailedError, MasterbuilderError, UnavailableError
from runtime.ids import EntityId

log = logging.getLogger(__name__)

DESK_IDLE_S = 60.0
"""A caller that did not call for so long is gone: its replies are thrown away."""
TICKS = 3
"""Turns of the loop that the first ready reply waits for others: a group commit readies many at once."""

Envelope = tuple[int, EntityId, bytes, float]
"""(id, entity, pickled message, seconds it may still take): a plain tuple, for it is made for every message."""
Reply = tuple[int, bytes]
"""(id of the envelope, pickled (True, answer) or (False, error))"""
Post = Callable[[EntityId, Any, float], "asyncio.Future[Any]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One call. Every envelope's id is new within the session."""

    session: str
    incarnation: str
    """The host process that has answered the session before; empty while none has."""
    envelopes: Sequence[Envelope]
    withdrawn: Sequence[int]
    """Messages whose caller gave up: what was not begun is not run."""
    wait_s: float
    """The call returns after this, with or without a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    incarnation: str
    accepted: bool
    """False: this process does not know the session. Nothing of the call was done and no reply will come to what the
    session sent before.
    """
    replies: Sequence[Reply]


class Desks:
    """One desk a session. `post` puts a message into a mailbox, for so many seconds at most: the future of its answer,
    which is cancelled when the caller gave up.
    """

    def __init__(self, incarnation: str, post: Post) -> None:
        self._incarnation = incarnation
        self._post = post
        self._desks: dict[str, _Desk] = {}

    async def exchange(self, call: Exchange) -> Exchanged:
        desk = self._desks.get(call.session)
        if desk is None and call.incarnation:
            return Exchanged(incarnation=self._incarnation, accepted=False, replies=())
        if desk is None:
            self._sweep()
            desk = self._desks[call.session] = _Desk(self._post)
        for id in call.withdrawn:
            desk.withdraw(id)
        for envelope in call.envelopes:
            desk.accept(envelope)
        return Exchanged(incarnation=self._incarnation, accepted=True, replies=await desk.fetch(call.wait_s))

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for session in [session for session, desk in self._desks.items() if desk.is_deserted(now)]:
            del self._desks[session]


class _Desk:
    def __init__(self, post: Post) -> None:
        self._post = post
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._ready: list[Reply] = []
        self._waiter: asyncio.Future[None] | None = None
        self._calls = 0
        self._left_at = 0.0

    def accept(self, envelope: Envelope) -> None:
        id, entity, data, timeout_s = envelope
        try:
            answer = self._post(entity, pickle.loads(data), timeout_s)
        except Exception as error:
            self._reply(id, _refusal(entity, error))
            return
        self._open[id] = answer
        answer.add_done_callback(partial(self._answered, id, entity))

    def withdraw(self, id: int) -> None:
        answer = self._open.pop(id, None)
        if answer is not None:
            answer.cancel()

    async def fetch(self, wait_s: float) -> Sequence[Reply]:
        """What is ready, once anything is, or a newer call has come, or `wait_s` is over."""
        self._release()
        self._calls += 1
        try:
            if not self._ready:
                await self._something(wait_s)
            for _ in range(TICKS):
                await asyncio.sleep(0)
        finally:
            self._calls -= 1
            self._left_at = asyncio.get_running_loop().time()
        ready, self._ready = self._ready, []
        return ready

    def is_deserted(self, now: float) -> bool:
        return not self._calls and now - self._left_at > DESK_IDLE_S

    async def _something(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(wait_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def _release(self) -> None:
        if self._waiter is not None:
            _wake(self._waiter)

    def _answered(self, id: int, entity: EntityId, answer: "asyncio.Future[Any]") -> None:
        error = _gone(entity) if answer.cancelled() else answer.exception()
        if self._open.pop(id, None) is None:
            return
        if error is not None:
            self._reply(id, _refusal(entity, error))
            return
        try:
            self._reply(id, pickle.dumps((True, answer.result()), 5))
        except Exception as unreadable:
            self._reply(id, _refusal(entity, unreadable))

    def _reply(self, id: int, outcome: bytes) -> None:
        self._ready.append((id, outcome))
        self._release()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _gone(entity: EntityId) -> UnavailableError:
    return UnavailableError(f"{entity} was interrupted.", "Try again.")


def _refusal(entity: EntityId, error: BaseException) -> bytes:
    """Only what callers know crosses as it is."""
    if not isinstance(error, MasterbuilderError):
        log.error("a message to %s failed", entity, exc_info=error)
        error = EntityFailedError(
            f"A message to {entity} met an error of ours ({type(error).__name__}).",
            "Try again; if it goes on, `masterbuilder status` shows the error.",
        )
    return pickle.dumps((False, error), 5)
