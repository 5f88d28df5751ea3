import asyncio
import os

import pytest
from key_world import PoolProcess, key, run_virtually, wish

from runtime.errors import BadInputError, NoProviderError, UnavailableError, WorkLostError
from runtime.keys import permits as permits_of
from runtime.keys.desk import Ask
from runtime.keys.keys import KeyLimits, KeyOutcome
from runtime.keys.permits import Permits
from runtime.keys.pool import START

OK = KeyOutcome(kind="ok", tokens=5)


class World:
    def __init__(self, folder, *keys):
        self.loop = asyncio.get_running_loop()
        self.pool = PoolProcess(folder, keys, self.loop)
        self.permits = self.process()

    def process(self):
        return Permits("openai", self.pool.exchange, clock=self.loop.time)

    async def call(self, wait_s=10, outcome=OK, **wanted):
        lease = await self.permits.lease(wish(**wanted), wait_s)
        self.permits.report(lease, outcome)
        return lease

    def states(self):
        return {state.key_id: state for state in self.pool.pool.states(self.loop.time())}


def in_world(*keys):
    """Runs the test's coroutine in virtual time, in a world with these keys."""

    def decorate(test):
        def run(tmp_path):
            async def main():
                world = World(tmp_path, *keys)
                await test(world)
                await world.permits.close()

            run_virtually(main)

        run.__name__ = test.__name__
        return run

    return decorate


@in_world(key("a"), key("b"))
async def test_lease__carries_what_a_call_needs_and_takes_keys_in_turn(world):
    leases = [await world.call(tokens=7) for _ in range(4)]
    assert {lease.key_id for lease in leases} == {"a", "b"}
    assert {(lease.provider, lease.model, lease.tokens_max, lease.base_url) for lease in leases} == {
        ("openai", "m", 7, "http://x/v1")
    }
    assert "sk-a" not in repr(leases)


@in_world(key("a"), key("b"), key("c"))
async def test_keys__take_turns_whether_permits_come_from_stock_or_from_the_pool(world):
    used = []
    for number in range(90):
        used.append((await world.call()).key_id)
        await asyncio.sleep(0.01 if number % 20 else 0.4)
    assert [set(used[first : first + 3]) for first in range(0, 90, 3)] == [{"a", "b", "c"}] * 30


@in_world(key("a"))
async def test_stock__serves_calls_without_going_to_the_pool(world):
    for _ in range(200):
        await world.call()
        await asyncio.sleep(0.01)
    exchanges = world.pool.exchanges
    for _ in range(200):
        await world.call()
        await asyncio.sleep(0.01)
    assert world.pool.exchanges - exchanges < 20


@in_world(key("a", requests_per_minute=600))
async def test_stock__that_is_not_used_goes_back(world):
    for _ in range(50):
        await world.call()
        await asyncio.sleep(0.01)
    await asyncio.sleep(3)
    state = world.states()["a"]
    assert (state.in_flight, state.calls_last_minute) == (0, 50)


@in_world(key("a"))
async def test_stock__of_limits_unknown_is_dropped_when_the_first_answer_tells_of_limits(world):
    await world.call()
    await asyncio.sleep(0.01)
    told = KeyOutcome(kind="ok", tokens=5, limits=KeyLimits(requests_per_minute=3, requests_left=2))
    await world.call(outcome=told)
    await asyncio.sleep(1)
    await world.call()
    with pytest.raises(UnavailableError, match="rate limited"):
        await world.call(wait_s=5)
    assert START > 3


@in_world(key("a"), key("b"))
async def test_refused_key__is_not_used_again_not_even_from_stock(world):
    for _ in range(100):
        lease = await world.call()
        await asyncio.sleep(0.01)
    bad = lease.key_id
    world.permits.report(await world.permits.lease(wish(), 1), OK)
    lease = await world.permits.lease(wish(), 1)
    while lease.key_id != bad:
        lease = await world.permits.lease(wish(), 1)
    world.permits.report(lease, KeyOutcome(kind="key_refused"))
    assert bad not in {(await world.call()).key_id for _ in range(50)}
    await asyncio.sleep(1)
    assert world.pool.pool.vitals(world.loop.time()).refused == (bad,)


@in_world(key("a", concurrency=1))
async def test_waiting__ends_when_another_call_does(world):
    lease = await world.permits.lease(wish(), 1)
    waiting = asyncio.create_task(world.permits.lease(wish(), 100))
    await asyncio.sleep(20)
    assert not waiting.done()
    world.permits.report(lease, OK)
    await asyncio.sleep(0.05)
    assert waiting.done()


@in_world(key("a", concurrency=1))
async def test_cancelled__before_or_after_its_grant_it_takes_nothing(world):
    lease = await world.permits.lease(wish(), 1)
    waiting = asyncio.create_task(world.permits.lease(wish(), 100))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.sleep(1)
    assert world.pool.pool.vitals(world.loop.time()).waiting == 0
    waiting = asyncio.create_task(world.permits.lease(wish(), 100))
    await asyncio.sleep(1)
    hand_over = world.permits._hand_over

    def hand_over_too_late(number, block):
        hand_over(number, block)
        waiting.cancel()

    world.permits._hand_over = hand_over_too_late
    world.permits.report(lease, OK)
    await asyncio.sleep(1)
    assert waiting.cancelled()
    world.permits._hand_over = hand_over
    await world.permits.lease(wish(), 1)


@in_world(key("a", concurrency=1))
async def test_report__twice_or_of_a_strangers_lease_does_no_harm(world):
    lease = await world.call()
    world.permits.report(lease, OK)
    world.process().report(lease, OK)
    await asyncio.sleep(1)
    assert world.states()["a"].calls_last_minute == 1


@in_world(key("a", requests_per_minute=1))
async def test_unused_lease__leaves_its_place_to_the_next(world):
    lease = await world.permits.lease(wish(), 1)
    world.permits.report(lease, KeyOutcome(kind="unused"))
    await world.call(wait_s=5)


@in_world(key("a", requests_per_minute=100))
async def test_permits_in_advance__are_in_the_log_before_they_leave(world):
    answer = await world.pool.desk.exchange(Ask(session="x", incarnation="", advance=[("m", 5, 1)]))
    assert str(answer.grants[0][0]).encode() in world.pool.path.read_bytes()


@in_world(key("a", requests_per_minute=1))
async def test_long_call__counts_from_when_the_provider_was_first_heard(world):
    lease = await world.permits.lease(wish(), 1)
    await asyncio.sleep(50)
    world.permits.report(lease, KeyOutcome(kind="ok", tokens=5, heard_s_ago=49))
    began = world.loop.time()
    await world.call(wait_s=100)
    assert world.loop.time() - began == pytest.approx(11, abs=0.5)


@in_world()
async def test_no_key__is_said_at_once(world):
    with pytest.raises(NoProviderError):
        await world.call(wait_s=50)
    assert world.loop.time() < 1_001


@in_world(key("a", requests_per_minute=5))
async def test_pool_restart__knows_what_was_used_and_calls_go_on(world):
    for _ in range(4):
        await world.call()
    await asyncio.sleep(1)
    world.pool.kill()
    waiting = asyncio.create_task(world.call(wait_s=30))
    await asyncio.sleep(2)
    world.pool.start()
    await waiting
    assert world.loop.time() < 1_000 + 15
    with pytest.raises(UnavailableError, match="rate limited"):
        await world.call(wait_s=10)


@in_world(key("a", requests_per_minute=5))
async def test_pool_restart__hears_how_calls_ended_that_it_did_not_begin(world):
    leases = [await world.permits.lease(wish(), 1) for _ in range(5)]
    await asyncio.sleep(1)
    world.pool.kill()
    for lease in leases:
        world.permits.report(lease, KeyOutcome(kind="unused"))
    await asyncio.sleep(1)
    world.pool.start()
    await asyncio.sleep(10)
    assert world.states()["a"].in_flight == 0
    await world.call(wait_s=0)


@in_world(key("a", requests_per_minute=5))
async def test_pool_whose_log_is_gone__takes_in_what_processes_hold(world):
    leases = [await world.permits.lease(wish(), 1) for _ in range(5)]
    world.pool.kill()
    os.unlink(world.pool.path)
    world.pool.start()
    await asyncio.sleep(10)
    assert world.states()["a"].in_flight == 5
    for lease in leases:
        world.permits.report(lease, OK)
    await asyncio.sleep(1)
    assert (world.states()["a"].in_flight, world.states()["a"].calls_last_minute) == (0, 5)


@in_world(key("a", requests_per_minute=60))
async def test_dead_process__gives_its_place_back_a_minute_after_it_is_missed(world):
    dead = world.process()
    await dead.lease(wish(), 1)
    permits_of_dead = dead._beat
    permits_of_dead.cancel()
    await asyncio.sleep(30)
    assert world.states()["a"].calls_last_minute >= 1
    await asyncio.sleep(70)
    assert (world.states()["a"].in_flight, world.states()["a"].calls_last_minute) == (0, 0)


@in_world(key("a"))
async def test_trouble_of_the_pool__that_is_no_restart_is_told_to_those_who_wait(world):
    async def broken(ask):
        raise BadInputError("The stored key cannot be opened.")

    with pytest.raises(BadInputError):
        await Permits("openai", broken, clock=world.loop.time).lease(wish(), 50)


@in_world(key("a"))
async def test_pool_that_never_answers__is_waited_for_no_longer_than_said(world):
    async def gone(ask):
        raise WorkLostError("It restarts.")

    with pytest.raises(UnavailableError, match="did not answer in time"):
        await Permits("openai", gone, clock=world.loop.time).lease(wish(), 3)
    assert world.loop.time() == pytest.approx(1_003 + permits_of.TRIP_S, abs=0.5)


@in_world(key("a", requests_per_minute=30))
async def test_scarcity__costs_a_few_calls_to_the_pool_a_second(world):
    async def caller():
        for _ in range(10):
            await world.call(wait_s=1_000)

    exchanges = world.pool.exchanges
    began = world.loop.time()
    await asyncio.gather(*(caller() for _ in range(30)))
    assert (world.pool.exchanges - exchanges) / (world.loop.time() - began) < 5
