"""Messages from one process to many hosts: few calls, every message answered once, after its entity if need be."""

import asyncio
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from runtime.errors import (
    ConflictError,
    EntityFailedError,
    MovedError,
    OverloadedError,
    UnavailableError,
)
from runtime.ids import PARTITION_COUNT, EntityId
from runtime.routing import routed
from runtime.routing.desk import Desks, Exchange, Exchanged
from runtime.routing.placement import Route
from runtime.routing.routed import RoutedEntities, Watch

ONE, TWO = EntityId("counter:one"), EntityId("counter:two")


@dataclass
class FakeHost:
    """A process with desks. What it is asked stays open until the test answers, unless `reply` says otherwise."""

    incarnation: str = "first"
    reply: Callable[[Any], Any] | None = None
    asked: list[tuple[EntityId, Any, "asyncio.Future[Any]"]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """The size of every call's batch."""
    is_gone: bool = False
    is_cut_off: bool = False

    def __post_init__(self) -> None:
        self.desks = Desks(self.incarnation, self._post)

    def restart(self) -> None:
        self.incarnation += "+"
        self.desks = Desks(self.incarnation, self._post)
        self.asked.clear()

    async def exchange(self, call: Exchange) -> Exchanged:
        if self.is_cut_off:
            await asyncio.Event().wait()
        if self.is_gone:
            raise UnavailableError("The host is restarting.")
        self.calls.append(len(call.envelopes))
        desks = self.desks
        answer = await desks.exchange(pickle.loads(pickle.dumps(call)))
        if self.is_gone or desks is not self.desks:
            raise UnavailableError("The host is restarting.")
        return pickle.loads(pickle.dumps(answer))

    def _post(self, entity: EntityId, message: Any, timeout_s: float) -> "asyncio.Future[Any]":
        answer = asyncio.get_running_loop().create_future()
        self.asked.append((entity, message, answer))
        if self.reply is not None:
            try:
                answer.set_result(self.reply(message))
            except MovedError:
                raise
            except Exception as error:
                answer.set_exception(error)
        return answer


class World:
    """Two hosts, and a router that is told by the test."""

    def __init__(self) -> None:
        self.hosts = {"host-0": FakeHost(), "host-1": FakeHost()}
        self.now = Route(version=1, hosts=["host-0"] * PARTITION_COUNT, homes={"index": "host-1"})
        self.news = asyncio.Event()
        self.looks = 0
        self.entities = RoutedEntities(self._route, lambda name, call: self.hosts[name].exchange(call))

    def publish(self, host: str) -> None:
        self.now = Route(version=self.now.version + 1, hosts=[host] * PARTITION_COUNT, homes=self.now.homes)
        self.news.set()

    def ask(self, message: Any, entity: EntityId = ONE, timeout_s: float = 10.0) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.entities.ask(entity, message, timeout_s=timeout_s))

    async def _route(self, known: int, wait_s: float) -> Route:
        self.looks += 1
        if self.now.version == known:
            self.news.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self.news.wait()
            except TimeoutError:
                pass
        return self.now


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def echo(world: World) -> FakeHost:
    host = world.hosts["host-0"]
    host.reply = lambda message: message
    return host


async def test_messages_of_one_turn__go_in_one_call_and_each_gets_its_own_answer(world: World, echo: FakeHost) -> None:
    await world.ask("first")
    echo.calls.clear()
    answers = await asyncio.gather(*(world.ask(number) for number in range(100)))
    assert answers == list(range(100))
    assert echo.calls[0] == 100


async def test_batches__have_a_bound(world: World, echo: FakeHost) -> None:
    await asyncio.gather(*(world.ask(number) for number in range(1_000)))
    assert max(echo.calls) == 256


async def test_large_messages__go_in_more_than_one_call(world: World, echo: FakeHost) -> None:
    await asyncio.gather(*(world.ask(bytes(3 << 20)) for _ in range(4)))
    assert [size for size in echo.calls if size] == [2, 2]


async def test_slow_messages__hold_up_nobody_and_few_calls(world: World) -> None:
    host = world.hosts["host-0"]
    slow = [world.ask("slow") for _ in range(50)]
    await settle()
    open_slow = list(host.asked)
    host.reply = lambda message: message

    assert await asyncio.gather(*(world.ask(number) for number in range(500))) == list(range(500))

    assert not any(task.done() for task in slow)
    for _, _, answer in open_slow:
        answer.set_result("at last")
    assert set(await asyncio.gather(*slow)) == {"at last"}


async def test_replies__are_matched_whatever_their_order(world: World) -> None:
    first, second = world.ask("first"), world.ask("second")
    await settle()
    for _, message, answer in reversed(world.hosts["host-0"].asked):
        answer.set_result(f"re {message}")
        await settle()
    assert [await first, await second] == ["re first", "re second"]


async def test_kind_with_a_home__goes_there_whatever_its_partition(world: World) -> None:
    world.hosts["host-1"].reply = lambda message: message
    assert await world.ask("find", EntityId("index:one")) == "find"


async def test_refusal__reaches_its_caller_and_no_other(world: World) -> None:
    host = world.hosts["host-0"]

    def reply(message: str) -> Any:
        if message == "refuse":
            raise ConflictError("It is over.")
        if message == "break":
            raise ZeroDivisionError
        return (lambda: None) if message == "cannot be sent back" else message

    host.reply = reply
    answers = await asyncio.gather(
        *(world.ask(message) for message in ("refuse", "break", "cannot be sent back", "fine")), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [ConflictError, EntityFailedError, EntityFailedError, str]


async def test_message_that_cannot_be_sent__is_its_callers_error_alone(world: World, echo: FakeHost) -> None:
    bad, good = world.ask(lambda: None), world.ask("fine")
    assert await good == "fine"
    with pytest.raises(Exception, match="pickle"):
        await bad


async def test_moved__waits_for_news_and_is_answered_by_the_new_owner(world: World) -> None:
    def moved(message: Any) -> Any:
        raise MovedError("It does not live here.")

    world.hosts["host-0"].reply = moved
    world.hosts["host-1"].reply = lambda message: f"{message} at 1"
    asked = [world.ask(number) for number in range(10)]
    await settle()
    looks = world.looks
    assert not any(task.done() for task in asked)

    world.publish("host-1")

    assert await asyncio.gather(*asked) == [f"{number} at 1" for number in range(10)]
    assert looks <= 2, "one look serves all"


async def test_moved_but_the_route_is_newer_already__is_sent_again_without_waiting(world: World) -> None:
    host = world.hosts["host-0"]
    asked = world.ask("hello")
    await settle()
    world.publish("host-0")
    await world.entities._look(0.0)
    host.reply = lambda message: f"{message} again"
    # It was refused before the host had its partitions; since then the news have come.
    host.asked[0][2].set_exception(MovedError("It does not live here."))
    await settle()
    assert asked.done()
    assert await asked == "hello again"


async def test_host_gone__its_messages_are_repeated_when_it_is_back(world: World) -> None:
    host = world.hosts["host-0"]
    asked = [world.ask(number) for number in range(5)]
    await settle()
    host.restart()
    host.is_gone = True
    asked.append(world.ask("later"))
    await settle()
    assert not any(task.done() for task in asked)

    host.is_gone = False
    host.reply = lambda message: message
    world.publish("host-0")

    assert await asyncio.gather(*asked) == [*range(5), "later"]


async def test_host_gone_without_news__is_tried_again_all_the_same(
    world: World, echo: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routed, "LOOK_S", 0.01)
    echo.is_gone = True
    asked = world.ask("hello")
    await settle()
    echo.is_gone = False
    assert await asked == "hello"


async def test_router_gone__messages_go_by_the_old_route(
    world: World, echo: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routed, "PAUSE_S", 0.01)
    await world.ask("know the route")

    async def no_router(known: int, wait_s: float) -> Route:
        raise UnavailableError("The router is restarting.")

    world.entities._ask_route = no_router
    assert await world.ask("hello") == "hello"
    echo.is_gone = True
    asked = world.ask("hello again")
    await settle()
    echo.is_gone = False
    assert await asked == "hello again"


async def test_host_restarted_between_two_calls__is_noticed_and_gets_everything_again(world: World) -> None:
    host = world.hosts["host-0"]
    asked = [world.ask("one"), world.ask("two")]
    await settle()
    first, *_ = host.asked
    first[2].set_result("re one")
    assert await asked[0] == "re one"

    # The process that holds "two" is gone, and no call of ours was under way to fail with it.
    host.asked.clear()
    host.desks = Desks("second", host._post)
    host.reply = lambda message: f"second re {message}"
    asked.append(world.ask("three"))

    assert await asked[2] == "second re three"
    assert await asked[1] == "second re two"


async def test_host_cut_off__its_messages_go_to_the_new_owner(world: World) -> None:
    world.hosts["host-1"].reply = lambda message: f"{message} at 1"
    world.hosts["host-0"].is_cut_off = True
    asked = world.ask("hello")
    await settle()
    world.publish("host-1")
    await world.entities._look(0.0)
    assert await asked == "hello at 1"


async def test_deadline__says_so_and_why(world: World) -> None:
    world.hosts["host-0"].is_gone = True
    with pytest.raises(UnavailableError, match=r"counter:one did not answer in 0.05 s. The host is restarting"):
        await world.ask("hello", timeout_s=0.05)


async def test_cancelled_caller__withdraws_its_message_and_no_other(world: World) -> None:
    given_up, kept = world.ask("given up"), world.ask("kept")
    await settle()
    (_, _, first), (_, _, second) = world.hosts["host-0"].asked
    given_up.cancel()
    await settle()
    assert first.cancelled()
    second.set_result("fine")
    assert await kept == "fine"


async def test_cancelled_before_it_was_sent__never_arrives(world: World, echo: FakeHost) -> None:
    await world.ask("know the route")
    echo.asked.clear()
    given_up = world.ask("given up")
    await asyncio.sleep(0)
    given_up.cancel()
    await settle()
    assert not echo.asked


async def test_work_cut_off_in_the_host__is_answered_as_unavailable(world: World) -> None:
    asked = world.ask("hello")
    await settle()
    world.hosts["host-0"].asked[0][2].cancel()
    with pytest.raises(UnavailableError, match="interrupted"):
        await asked


async def test_too_many_messages__are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routed, "CARRIED_MAX", 2)
    world.ask(1)
    world.ask(2)
    await settle()
    with pytest.raises(OverloadedError):
        await world.ask(3)


async def test_events__are_asked_from_the_host_as_a_message(world: World, echo: FakeHost) -> None:
    echo.reply = lambda message: (message.after_seq, message.wait_s)
    assert await world.entities.events(ONE, 7, 0.5) == (7, 0.5)
    assert echo.asked[0][1] == Watch(after_seq=7, wait_s=0.5)


async def test_deserted_desk__is_cleared_away_and_its_caller_begins_again() -> None:
    desks = Desks("first", lambda entity, message, timeout_s: asyncio.get_running_loop().create_future())
    message = (1, ONE, pickle.dumps("hello"), 10.0)

    async def call(session: str, incarnation: str) -> Exchanged:
        return await desks.exchange(
            Exchange(session=session, incarnation=incarnation, envelopes=[message], withdrawn=(), wait_s=0.0)
        )

    assert (await call("old", "")).accepted
    desks._desks["old"]._left_at -= 1_000.0
    assert (await call("new", "")).accepted
    assert not (await call("old", "first")).accepted
    assert (await call("new", "first")).accepted
