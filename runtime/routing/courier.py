"""The caller's side of the call path to one host: many messages in few calls, replies matched by id."""

import asyncio
import itertools
import logging
import pickle
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import MovedError
from runtime.ids import EntityId
from runtime.routing.desk import Envelope, Exchange, Exchanged

log = logging.getLogger(__name__)

CALLS_MAX = 2
"""Calls under way: one waits at the host for replies while another brings it what came since, and relieves it."""
BATCH_MAX = 256
BATCH_BYTES_MAX = 4 << 20
"""A batch ends with the message that passes it."""
FETCH_S = 10.0
"""A call returns after this, so that a host that forgot us is found out."""
CALL_S_MAX = 30.0
"""A host that has not even returned a call after this is taken for gone."""


@dataclass(slots=True, eq=False)
class Parcel:
    """A message on its way, until it is answered or its caller gives up."""

    entity: EntityId
    data: bytes
    deadline: float
    """By the loop's clock."""
    answer: "asyncio.Future[Any]"
    version: int = 0
    """Of the route by which it was sent last."""
    courier: "Courier | None" = None
    id: int = 0
    trouble: str = ""
    """Why it had to be sent again, the last time."""


@dataclass(slots=True, eq=False)
class _Session:
    """What is known of one host process. When that process is gone, so is its session with all that was sent."""

    name: str = field(default_factory=lambda: secrets.token_hex(8))
    incarnation: str = ""
    calls: int = 0
    away: dict[int, Parcel] = field(default_factory=dict)
    withdrawn: list[int] = field(default_factory=list)


class Courier:
    """Carries messages to one host, at once while a call is free, else with the next one.

    `give_back` gets parcels that this host did not take: it refused them as not its own, or it is gone and nobody knows
    whether they were carried out. Used from one event loop.
    """

    def __init__(
        self,
        exchange: Callable[[Exchange], Awaitable[Exchanged]],
        give_back: Callable[[Sequence[Parcel], Exception], None],
    ) -> None:
        self._exchange = exchange
        self._give_back = give_back
        self._waiting: deque[Parcel] = deque()
        self._session = _Session()
        self._ids = itertools.count(1)
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, parcel: Parcel) -> None:
        parcel.courier = self
        self._waiting.append(parcel)
        self._schedule()

    def withdraw(self, parcel: Parcel) -> None:
        """Its caller gave up: `answer` is done already."""
        if self._session.away.pop(parcel.id, None) is not None:
            self._session.withdrawn.append(parcel.id)
            self._schedule()

    def recall(self, belongs_here: Callable[[EntityId], bool]) -> Sequence[Parcel]:
        """Takes back what should go elsewhere, sent or not."""
        away = self._session.away
        wrong = [parcel for parcel in (*away.values(), *self._waiting) if not belongs_here(parcel.entity)]
        for parcel in wrong:
            away.pop(parcel.id, None)
        self._waiting = deque(parcel for parcel in self._waiting if belongs_here(parcel.entity))
        return wrong

    def _schedule(self) -> None:
        """At the end of this turn of the loop, so that all who ask in one turn go together."""
        if not self._is_scheduled and self._session.calls < CALLS_MAX:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        session = self._session
        while session.calls < CALLS_MAX:
            envelopes = self._pack(session)
            is_fetching = session.away and not session.calls
            if not (envelopes or session.withdrawn or is_fetching):
                break
            call = Exchange(
                session=session.name,
                incarnation=session.incarnation,
                envelopes=envelopes,
                withdrawn=tuple(session.withdrawn),
                wait_s=FETCH_S,
            )
            session.withdrawn.clear()
            session.calls += 1
            task = asyncio.create_task(self._call(session, call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _pack(self, session: _Session) -> list[Envelope]:
        envelopes: list[Envelope] = []
        now = asyncio.get_running_loop().time()
        size_bytes = 0
        while self._waiting and len(envelopes) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX:
            parcel = self._waiting.popleft()
            if parcel.answer.done():
                continue
            parcel.id = next(self._ids)
            session.away[parcel.id] = parcel
            size_bytes += len(parcel.data)
            envelopes.append((parcel.id, parcel.entity, parcel.data, max(0.0, parcel.deadline - now)))
        return envelopes

    async def _call(self, session: _Session, call: Exchange) -> None:
        try:
            async with asyncio.timeout(CALL_S_MAX):
                answer = await self._exchange(call)
        except Exception as error:
            session.calls -= 1
            if session is self._session:
                self._leave(error)
            return
        session.calls -= 1
        if session is not self._session:
            return
        if not answer.accepted or session.incarnation not in ("", answer.incarnation):
            self._begin_again()
            return
        session.incarnation = answer.incarnation
        for id, outcome in answer.replies:
            parcel = session.away.pop(id, None)
            if parcel is not None:
                self._hand_over(parcel, outcome)
        self._schedule()

    def _hand_over(self, parcel: Parcel, outcome: bytes) -> None:
        if parcel.answer.done():
            return
        try:
            is_answer, result = pickle.loads(outcome)
        except Exception as error:
            log.exception("the reply of %s cannot be read", parcel.entity)
            is_answer, result = False, error
        if is_answer:
            parcel.answer.set_result(result)
        elif isinstance(result, MovedError):
            self._give_back((parcel,), result)
        else:
            parcel.answer.set_exception(result)

    def _leave(self, error: Exception) -> None:
        """The host is gone: whoever knows where its work goes may have it all."""
        parcels = [*self._session.away.values(), *self._waiting]
        self._session = _Session()
        self._waiting.clear()
        self._give_back(parcels, error)

    def _begin_again(self) -> None:
        """Another process answers by the host's name, or it forgot us: it gets everything again."""
        self._waiting.extendleft(reversed(self._session.away.values()))
        self._session = _Session()
        self._schedule()
