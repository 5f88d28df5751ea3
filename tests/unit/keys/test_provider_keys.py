from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue.endpoints import Endpoint
from runtime.entity.vitals import KeyPoolVitals
from runtime.errors import BadInputError, NoProviderError, ProviderError, UnavailableError
from runtime.ids import UserId
from runtime.keys.keys import KeyOutcome, ProviderKey, Wish, open_key, provider_key, seal_key
from runtime.keys.ring import KeyRing

MASTER = bytes(range(32))
WISH = Wish(provider="openai", model="gpt-4o-mini", user=UserId("u-1"))
LIMITED = KeyOutcome(kind="rate_limited", retry_after_s=30)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def ring(time: Time, *names: str, provider: str = "openai") -> KeyRing:
    keys = [ProviderKey(provider=provider, key_id=name, base_url="http://x/v1", key=f"sk-{name}") for name in names]
    return KeyRing(keys, cooldown_s=60, clock=time.clock, sleep=time.sleep)


async def test_lease__goes_round_the_keys():
    keys = ring(Time(), "a", "b", "c")
    assert [(await keys.lease(WISH, 0)).key_id for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


async def test_lease__passes_over_a_limited_key_until_its_time_is_up():
    time = Time()
    keys = ring(time, "a", "b")
    keys.report(await keys.lease(WISH, 0), LIMITED)
    assert {(await keys.lease(WISH, 0)).key_id for _ in range(3)} == {"b"}
    time.now_s += 30
    assert {(await keys.lease(WISH, 0)).key_id for _ in range(2)} == {"a", "b"}


async def test_lease__waits_for_the_first_key_to_cool_down():
    time = Time()
    keys = ring(time, "a")
    keys.report(await keys.lease(WISH, 0), LIMITED)
    assert (await keys.lease(WISH, 45)).key_id == "a"
    assert time.slept == [30]


async def test_lease__says_at_once_that_a_wait_would_be_too_long():
    time = Time()
    keys = ring(time, "a")
    keys.report(await keys.lease(WISH, 0), LIMITED)
    with pytest.raises(UnavailableError, match="another 30 s"):
        await keys.lease(WISH, 29)
    assert time.slept == []


async def test_limit__without_a_hint_lasts_the_usual_cooldown():
    time = Time()
    keys = ring(time, "a")
    keys.report(await keys.lease(WISH, 0), KeyOutcome(kind="rate_limited"))
    await keys.lease(WISH, 120)
    assert time.slept == [60]


async def test_limit__is_never_shortened_by_a_later_and_smaller_hint():
    time = Time()
    keys = ring(time, "a")
    lease = await keys.lease(WISH, 0)
    keys.report(lease, LIMITED)
    keys.report(lease, KeyOutcome(kind="rate_limited", retry_after_s=0))
    await keys.lease(WISH, 60)
    assert sum(time.slept) == 30


async def test_refused_key__is_never_leased_again_and_the_last_one_says_which():
    keys = ring(Time(), "a", "b")
    keys.report(await keys.lease(WISH, 0), KeyOutcome(kind="key_refused"))
    assert {(await keys.lease(WISH, 0)).key_id for _ in range(3)} == {"b"}
    keys.report(await keys.lease(WISH, 0), KeyOutcome(kind="key_refused"))
    with pytest.raises(ProviderError, match=r"refuses every key .*\(a, b\)") as refused:
        await keys.lease(WISH, 0)
    assert "sk-a" not in str(refused.value)


async def test_vitals__count_keys_that_rest_and_calls_that_wait():
    time = Time()
    counts = []
    keys = ring(time, "a", "b", "c")

    async def sleep(seconds: float) -> None:
        counts.append(keys.vitals("openai"))
        await time.sleep(seconds)

    keys._sleep = sleep
    keys.report(await keys.lease(WISH, 0), KeyOutcome(kind="key_refused"))
    keys.report(await keys.lease(WISH, 0), LIMITED)
    assert keys.vitals("openai") == KeyPoolVitals(provider="openai", keys=3, cooling=2, waiting=0, refused=("a",))
    keys.report(await keys.lease(WISH, 0), LIMITED)
    await keys.lease(WISH, 60)
    assert counts == [KeyPoolVitals(provider="openai", keys=3, cooling=3, waiting=1, refused=("a",))]
    assert keys.vitals("openai").waiting == 0


async def test_lease__without_any_key_says_how_to_add_one():
    with pytest.raises(NoProviderError, match="export OPENAI_API_KEY"):
        await ring(Time()).lease(WISH, 10)


async def test_lease__knows_providers_by_their_aliases():
    assert (await ring(Time(), "a", provider="grok").lease(replace(WISH, provider="xAI"), 0)).key_id == "a"


async def test_report__for_a_key_that_is_gone_does_no_harm():
    lease = await ring(Time(), "a").lease(WISH, 0)
    ring(Time(), "b").report(lease, LIMITED)


@given(st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=300))
def test_sealed_key__opens_to_what_was_sealed_and_holds_neither_key_nor_address(key):
    endpoint = Endpoint(provider="openai", base_url="http://127.0.0.1:1/v1", key=key)
    sealed = seal_key(endpoint, MASTER)
    assert open_key(sealed, MASTER) == provider_key(endpoint)
    assert len(key) < 4 or key.encode() not in sealed.sealed
    assert repr(open_key(sealed, MASTER)) == repr(replace(open_key(sealed, MASTER), key="another"))


def test_sealed_key__does_not_open_when_altered_moved_or_under_another_master_key():
    sealed = seal_key(Endpoint(provider="openai", base_url="http://x/v1", key="sk-1"), MASTER)
    flipped = sealed.sealed[:-1] + bytes([sealed.sealed[-1] ^ 1])
    for changed, master in (
        (sealed, MASTER[::-1]),
        (replace(sealed, sealed=flipped), MASTER),
        (replace(sealed, sealed=b""), MASTER),
        (replace(sealed, provider="deepseek"), MASTER),
        (replace(sealed, key_id="openai-000000000000"), MASTER),
    ):
        with pytest.raises(BadInputError, match="API_KEY_ENCRYPTION_KEY"):
            open_key(changed, master)


def test_sealing__the_same_key_twice_gives_the_same_name_and_different_bytes():
    endpoint = Endpoint(provider="openai", base_url="http://x/v1", key="sk-1")
    one, two = seal_key(endpoint, MASTER), seal_key(endpoint, MASTER)
    assert one.key_id == two.key_id
    assert one.sealed != two.sealed
