import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Settings
from runtime.errors import (
    AllProvidersFailedError,
    BadInputError,
    DailyCapError,
    NotEnoughCreditsError,
    ProviderError,
    ProviderRefusedError,
    ReplyRejectedError,
    StoreUnavailableError,
    UnavailableError,
    UnpricedModelError,
)
from runtime.ids import CallId, RunId, UserId
from runtime.keys.keys import ProviderKey
from runtime.keys.ring import KeyRing
from runtime.ledger.port import Hold, Meter
from runtime.providers.attempts import RETRIES_MAX
from runtime.providers.bounds import OUTPUT_TOKENS_MIN, size_of
from runtime.providers.calls import ModelCalls, longest_call_s
from runtime.providers.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Finish,
    Finished,
    Message,
    Text,
    TextDelta,
    UsageSoFar,
)
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.order import CallOrder
from runtime.providers.usage import Usage

SETTINGS = Settings()
HI = ChatRequest(system=(), messages=(Message(role="user", parts=(Text(text="hi"),)),), output_tokens_max=100)
USED = Usage(input_tokens=11, output_tokens=5)
ORDER = CallOrder(
    call=CallId("project:p/plan#1/1"),
    user=UserId("ann"),
    run=RunId("project:p/plan#1"),
    task_type="planning",
    model="openai/gpt-4o",
)


class FakeLedger:
    """Remembers, and refuses or breaks when told to. `story` is shared, to see what came before what."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.holds: list[Hold] = []
        self.meters: list[Meter] = []
        self.refuses: Exception | None = None
        self.refuses_once: Exception | None = None
        self.breaks: Exception | None = None
        self.metering = asyncio.Event()
        self.may_meter = asyncio.Event()
        self.may_meter.set()

    async def hold(self, hold: Hold) -> None:
        if self.refuses:
            raise self.refuses
        if self.refuses_once:
            refusal, self.refuses_once = self.refuses_once, None
            raise refusal
        self.holds.append(hold)
        self.story.append("hold")

    async def meter(self, meter: Meter) -> None:
        self.metering.set()
        await self.may_meter.wait()
        if self.breaks:
            raise self.breaks
        self.meters.append(meter)
        self.story.append("meter")


class FakeAdapter:
    """Plays a script: an exception is raised, a reply is returned, a list of events and exceptions is streamed."""

    def __init__(self, story: list[str], *script: Any) -> None:
        self.story = story
        self.script = list(script)
        self.asked: list[tuple[str, str, ChatRequest]] = []
        self.closed = 0
        self.was_asked = asyncio.Event()
        self.on_piece: Callable[[], None] = lambda: None

    def of(self, provider: str) -> "FakeAdapter":
        return self

    async def complete(self, lease: Any, call: CallId, request: ChatRequest) -> ChatReply:
        self._note(lease, call, request)
        step = self.script.pop(0)
        if isinstance(step, asyncio.Event):
            await step.wait()
        if isinstance(step, Exception):
            raise step
        return step

    async def stream(self, lease: Any, call: CallId, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        self._note(lease, call, request)
        try:
            for step in self.script.pop(0):
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    self.on_piece()
                    yield step
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass

    def _note(self, lease: Any, call: CallId, request: ChatRequest) -> None:
        self.asked.append((lease.key_id, call, request))
        self.story.append(f"ask {lease.provider}")
        self.was_asked.set()


class Bench:
    """ModelCalls with a fake ledger and provider, a real key ring, and a clock that only sleeping moves."""

    def __init__(self, *script: Any, keys: Sequence[str] = ("k1",), providers: Sequence[str] = ("openai",)) -> None:
        self.story: list[str] = []
        self.now_s = 0.0
        self.slept: list[float] = []
        self.ledger = FakeLedger(self.story)
        self.adapter = FakeAdapter(self.story, *script)
        ring = KeyRing(
            [
                ProviderKey(provider=provider, key_id=name, base_url="http://x/v1", key="sk")
                for provider in providers
                for name in (keys if len(providers) == 1 else [f"{provider}-{key}" for key in keys])
            ],
            cooldown_s=60,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )
        self.keys = ring
        self.drip_s = 0.0
        self.adapter.on_piece = self._drip
        self.calls = ModelCalls(
            self.ledger,
            ring,
            Market(Routes(CATALOGUE), configured=providers),
            SETTINGS,
            adapters=self.adapter,  # type: ignore[arg-type]
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def _drip(self) -> None:
        self.now_s += self.drip_s

    def stream(self, order: CallOrder = ORDER) -> AsyncGenerator[ChatEvent, None]:
        return self.calls.stream(order, HI)


def reply(text: str = "hello", usage: Usage = USED, finish: Finish = "stop") -> ChatReply:
    return ChatReply(id="r", model="gpt-4o", parts=(Text(text=text),), finish=finish, usage=usage)


def said(text: str) -> TextDelta:
    return TextDelta(text=text)


END = Finished(finish="stop", usage=USED)


def limited(after_s: float | None) -> RateLimitedError:
    return RateLimitedError("slow down", retry_after_s=after_s)


# A whole reply


async def test_complete__holds_the_worst_case_then_asks_then_meters_real_usage():
    bench = Bench(reply())
    answered = await bench.calls.complete(ORDER, HI)
    assert answered.text == "hello"
    assert bench.story == ["hold", "ask openai", "meter"]
    (hold,) = bench.ledger.holds
    assert (hold.call, hold.run, hold.user) == (ORDER.call, ORDER.run, ORDER.user)
    assert hold.output_tokens_max == 100
    assert hold.input_tokens_max >= len("hi")
    assert hold.price == CATALOGUE.price("openai", "gpt-4o")
    (meter,) = bench.ledger.meters
    assert (meter.call, meter.input_tokens, meter.output_tokens, meter.key_id) == (ORDER.call, 11, 5, "k1")
    assert not meter.provider_failed


async def test_complete__of_an_unpriced_model_or_a_bad_request_holds_and_asks_nothing():
    bench = Bench()
    with pytest.raises(UnpricedModelError):
        await bench.calls.complete(replace(ORDER, model="openai/gpt-9"), HI)
    with pytest.raises(BadInputError):
        await bench.calls.complete(replace(ORDER, model="nonsense"), HI)
    assert bench.story == []


async def test_complete__asks_nothing_when_the_hold_is_refused():
    bench = Bench()
    bench.ledger.refuses = NotEnoughCreditsError("too little")
    with pytest.raises(NotEnoughCreditsError):
        await bench.calls.complete(ORDER, HI)
    assert bench.adapter.asked == []
    assert bench.ledger.meters == []


async def test_rate_limit__is_waited_out_as_long_as_the_provider_asks_under_the_same_call():
    bench = Bench(limited(7), limited(3), reply())
    await bench.calls.complete(ORDER, HI)
    assert bench.slept == [7, 3]
    assert {call for _, call, _ in bench.adapter.asked} == {ORDER.call}
    assert len(bench.ledger.holds) == len(bench.ledger.meters) == 1


async def test_rate_limit__moves_to_another_key_without_waiting():
    bench = Bench(limited(60), reply(), keys=("k1", "k2"))
    await bench.calls.complete(ORDER, HI)
    assert [key for key, _, _ in bench.adapter.asked] == ["k1", "k2"]
    assert bench.slept == []
    assert bench.ledger.meters[0].key_id == "k2"


async def test_rate_limit__longer_than_a_call_may_wait_gives_the_hold_back_and_says_how_long():
    bench = Bench(limited(3600))
    with pytest.raises(UnavailableError, match="3600 s"):
        await bench.calls.complete(ORDER, HI)
    assert bench.slept == []
    assert [meter.provider_failed for meter in bench.ledger.meters] == [True]


async def test_rate_limit__again_and_again_ends_within_the_bound():
    bench = Bench(*[limited(0)] * 1000)
    with pytest.raises(UnavailableError):
        await bench.calls.complete(ORDER, HI)
    assert len(bench.adapter.asked) <= 20
    assert bench.now_s <= longest_call_s(SETTINGS)
    assert bench.ledger.meters[0].provider_failed


async def test_refused_key__is_replaced_by_another_and_without_one_gives_the_hold_back():
    bench = Bench(KeyRefusedError("401"), reply(), keys=("k1", "k2"))
    await bench.calls.complete(ORDER, HI)
    assert [key for key, _, _ in bench.adapter.asked] == ["k1", "k2"]
    alone = Bench(KeyRefusedError("401"))
    with pytest.raises(ProviderError, match="refuses every key"):
        await alone.calls.complete(ORDER, HI)
    assert [meter.provider_failed for meter in alone.ledger.meters] == [True]


async def test_outage__is_tried_three_times_more_with_growing_pauses_and_then_given_back():
    bench = Bench(*[OutageError("500")] * 10)
    with pytest.raises(OutageError):
        await bench.calls.complete(ORDER, HI)
    assert len(bench.adapter.asked) == 1 + RETRIES_MAX
    assert bench.slept == [0.5, 1.0, 2.0]
    (meter,) = bench.ledger.meters
    assert meter.provider_failed
    assert (meter.input_tokens, meter.output_tokens) == (0, 0)


async def test_outage__that_passes_is_charged_once():
    bench = Bench(OutageError("500"), OutageError("timeout", retry_after_s=4.0), reply())
    await bench.calls.complete(ORDER, HI)
    assert bench.slept == [0.5, 4.0]
    assert [meter.provider_failed for meter in bench.ledger.meters] == [False]


async def test_refused_request__is_not_sent_again():
    bench = Bench(ProviderError("openai refused the request (400): too long"))
    with pytest.raises(ProviderError, match="too long"):
        await bench.calls.complete(ORDER, HI)
    assert len(bench.adapter.asked) == 1
    assert bench.ledger.meters[0].provider_failed


async def test_broken_reply__costs_the_user_nothing_and_its_usage_is_told_to_the_ledger():
    bench = Bench(BrokenReplyError("empty", usage=USED))
    with pytest.raises(BrokenReplyError):
        await bench.calls.complete(ORDER, HI)
    (meter,) = bench.ledger.meters
    assert meter.provider_failed
    assert (meter.input_tokens, meter.output_tokens) == (11, 5)


async def test_reply__is_not_handed_over_when_it_could_not_be_metered():
    bench = Bench(reply())
    bench.ledger.breaks = StoreUnavailableError("disk full")
    with pytest.raises(StoreUnavailableError):
        await bench.calls.complete(ORDER, HI)


async def test_cancelled_call__costs_the_user_nothing_and_an_estimate_is_the_platforms_loss():
    bench = Bench(asyncio.Event())
    task = asyncio.create_task(bench.calls.complete(ORDER, HI))
    await bench.adapter.was_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (meter,) = bench.ledger.meters
    assert (meter.provider_failed, meter.unserved, meter.estimated) == (False, True, True)


async def test_call_cancelled_while_it_waits_for_a_key__gives_its_hold_back():
    bench = Bench(limited(30))
    asleep = asyncio.Event()

    async def sleep_for_ever(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    bench.keys._sleep = sleep_for_ever
    task = asyncio.create_task(bench.calls.complete(ORDER, HI))
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [meter.provider_failed for meter in bench.ledger.meters] == [True]


async def test_metering__goes_through_when_the_caller_is_cancelled_meanwhile():
    bench = Bench(reply())
    bench.ledger.may_meter.clear()
    task = asyncio.create_task(bench.calls.complete(ORDER, HI))
    await bench.ledger.metering.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.ledger.may_meter.set()
    await bench.calls.close()
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]


# A stream


async def test_stream__is_metered_before_its_end_is_told():
    bench = Bench([said("he"), said("llo"), END])
    events = bench.stream()
    assert await anext(events) == said("he")
    assert await anext(events) == said("llo")
    assert bench.ledger.meters == []
    assert await anext(events) == END
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]


async def test_stream__that_fails_before_its_first_piece_is_begun_again():
    bench = Bench([OutageError("cut")], [limited(2)], [], [said("hi"), END])
    assert [event async for event in bench.stream()][-1] == END
    assert len(bench.ledger.holds) == len(bench.ledger.meters) == 1


async def test_stream__cut_off_after_its_first_piece_is_never_begun_again_and_costs_the_user_nothing():
    bench = Bench([said("hello there"), OutageError("cut")], [said("other text")])
    events = bench.stream()
    await anext(events)
    with pytest.raises(OutageError):
        await anext(events)
    assert len(bench.adapter.asked) == 1
    (meter,) = bench.ledger.meters
    assert (meter.provider_failed, meter.estimated) == (True, True)
    assert meter.output_tokens == len("hello there") // 4


async def test_stream__cut_off_when_some_usage_is_known_costs_the_user_nothing_either():
    bench = Bench([UsageSoFar(usage=Usage(input_tokens=40, output_tokens=1)), said("hello there"), OutageError("cut")])
    events = bench.stream()
    await anext(events)
    await anext(events)
    with pytest.raises(OutageError) as cut:
        await anext(events)
    (meter,) = bench.ledger.meters
    assert meter.provider_failed
    assert meter.estimated
    assert (meter.input_tokens, meter.output_tokens) == (40, len("hello there") // 4)
    assert cut.value.charged == "Nothing was charged."


async def test_stream__that_the_client_leaves_before_anything_was_said_costs_the_platform_what_is_known():
    bench = Bench([UsageSoFar(usage=Usage(input_tokens=40, output_tokens=1)), said("hello")])
    events = bench.stream()
    await anext(events)
    await events.aclose()
    (meter,) = bench.ledger.meters
    assert (meter.provider_failed, meter.unserved, meter.estimated) == (False, True, True)
    assert (meter.input_tokens, meter.output_tokens) == (40, 1)


async def test_stream__closed_by_the_client_closes_the_providers_and_charges_an_estimate_of_what_came():
    bench = Bench([said("hello"), said(" dear"), END])
    events = bench.stream()
    await anext(events)
    await events.aclose()
    assert bench.adapter.closed == 1
    (meter,) = bench.ledger.meters
    assert (meter.provider_failed, meter.estimated) == (False, True)
    assert meter.output_tokens == len("hello") // 4


async def test_stream__closed_by_the_client_charges_the_input_that_is_known():
    bench = Bench([UsageSoFar(usage=Usage(input_tokens=40, output_tokens=1)), said("hello there"), said("llo")])
    events = bench.stream()
    await anext(events)
    await anext(events)
    await events.aclose()
    (meter,) = bench.ledger.meters
    assert (meter.input_tokens, meter.output_tokens, meter.estimated) == (40, len("hello there") // 4, True)


async def test_stream__that_drips_for_ever_is_cut_off():
    bench = Bench([said("x")] * 10)
    bench.drip_s = SETTINGS.call_timeout_s + 1
    events = bench.stream()
    for _ in range(6):
        await anext(events)
    with pytest.raises(OutageError, match="come to an end in time"):
        await anext(events)
    assert bench.adapter.closed == 1
    assert bench.ledger.meters[0].provider_failed


async def test_stream__that_its_client_does_not_read_is_charged_an_estimate_of_what_it_was_sent():
    bench = Bench([said("hello there")] * 10)
    events = bench.stream()
    await anext(events)
    bench.now_s += 6 * SETTINGS.call_timeout_s
    with pytest.raises(OutageError, match="not read in time"):
        await anext(events)
    (meter,) = bench.ledger.meters
    assert (meter.provider_failed, meter.estimated, meter.output_tokens) == (False, True, len("hello there") // 4)


# A route of several models

SMART = replace(ORDER, run=None, model="smart")


async def test_route__moves_on_at_an_outage_and_each_model_is_held_and_given_back_under_its_own_id():
    bench = Bench(OutageError("500"), reply(), providers=("deepseek", "gemini", "groq"))
    await bench.calls.complete(SMART, HI)
    assert [hold.call for hold in bench.ledger.holds] == [ORDER.call, f"{ORDER.call}~2"]
    assert [hold.provider for hold in bench.ledger.holds] == ["deepseek", "gemini"]
    assert [(meter.call, meter.provider_failed) for meter in bench.ledger.meters] == [
        (ORDER.call, True),
        (f"{ORDER.call}~2", False),
    ]
    assert bench.slept == []


async def test_route__that_fails_everywhere_tells_each_attempts_own_error():
    bench = Bench(
        OutageError("one is down"),
        BrokenReplyError("two says nothing"),
        *[OutageError("three is down")] * 4,
        providers=("deepseek", "gemini", "groq"),
    )
    with pytest.raises(AllProvidersFailedError) as failed:
        await bench.calls.complete(SMART, HI)
    for text in ("one is down", "two says nothing", "three is down", "deepseek", "gemini", "groq"):
        assert text in str(failed.value)
    assert [meter.provider_failed for meter in bench.ledger.meters] == [True] * 3


async def test_route__goes_on_where_a_providers_cap_of_the_day_is_reached():
    bench = Bench(reply(), providers=("deepseek", "gemini"))
    bench.ledger.refuses_once = DailyCapError("deepseek's is spent", scope="provider")
    answer = await bench.calls.complete(SMART, HI)
    assert answer.text
    assert [hold.provider for hold in bench.ledger.holds] == ["gemini"]


async def test_route__of_capped_providers_says_when_the_caps_begin_anew():
    bench = Bench(providers=("deepseek", "gemini"))
    bench.ledger.refuses = DailyCapError("spent", retry_after_s=60.0, scope="provider")
    with pytest.raises(DailyCapError) as capped:
        await bench.calls.complete(SMART, HI)
    assert capped.value.retry_after_s == 60.0


@pytest.mark.parametrize("scope", ["user", "platform"])
async def test_route__ends_where_a_cap_of_the_day_binds_every_model(scope):
    bench = Bench(reply(), providers=("deepseek", "gemini"))
    bench.ledger.refuses_once = DailyCapError("spent", scope=scope)
    with pytest.raises(DailyCapError):
        await bench.calls.complete(SMART, HI)
    assert bench.adapter.asked == []


async def test_route__is_not_followed_where_the_request_itself_is_refused():
    bench = Bench(ProviderRefusedError("no such tool"), providers=("deepseek", "gemini"))
    with pytest.raises(ProviderRefusedError):
        await bench.calls.complete(SMART, HI)
    assert len(bench.adapter.asked) == 1


async def test_route__skips_a_provider_that_failed_three_times_and_tries_it_again_later():
    bench = Bench(
        *[step for _ in range(3) for step in (OutageError("500"), reply())],
        reply(),
        reply(),
        providers=("deepseek", "gemini"),
    )
    for number in range(4):
        await bench.calls.complete(replace(SMART, call=CallId(f"c{number}")), HI)
    assert [hold.provider for hold in bench.ledger.holds] == ["deepseek", "gemini"] * 3 + ["gemini"]
    bench.now_s += 31
    await bench.calls.complete(replace(SMART, call=CallId("c5")), HI)
    assert bench.ledger.holds[-1].provider == "deepseek"


async def test_route__of_one_is_asked_even_after_failures():
    bench = Bench(*[OutageError("500")] * 4, reply())
    with pytest.raises(OutageError):
        await bench.calls.complete(ORDER, HI)
    await bench.calls.complete(replace(ORDER, call=CallId("again")), HI)


# A call that the wallet cannot cover in full

TALK = replace(ORDER, run=None, task_type="chat")
PRICE = CATALOGUE.price("openai", "gpt-4o")


class Wallet(FakeLedger):
    """Refuses what is more than `free_ucredits`, and after each refusal has what `others` leave of it."""

    def __init__(self, story: list[str], free_ucredits: int, *others: int) -> None:
        super().__init__(story)
        self.left = [free_ucredits, *others]

    async def hold(self, hold: Hold) -> None:
        needed = SETTINGS.tariff.credits_for(PRICE.cost_pusd(hold.input_tokens_max, hold.output_tokens_max))
        left = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if needed > left:
            raise NotEnoughCreditsError("too little", left_ucredits=left)
        await super().hold(hold)


def pays_for(output_tokens: int) -> int:
    """Microcredits for the request HI with so long an answer, and not for a token more."""
    return SETTINGS.tariff.credits_for(PRICE.cost_pusd(INPUT_TOKENS_MAX, output_tokens))


INPUT_TOKENS_MAX = size_of(HI).bounds(CATALOGUE.model("openai", "gpt-4o")).input_tokens_max
LONG = replace(HI, output_tokens_max=2_000)


@pytest.mark.parametrize("asked", [LONG, replace(HI, output_tokens_max=None)])
async def test_answer__is_as_long_as_the_wallet_pays_for_and_what_is_sent_says_so(asked: ChatRequest):
    bench = Bench(reply())
    wallet = Wallet(bench.story, pays_for(700))
    bench.calls._attempts._credit = wallet
    await bench.calls.complete(TALK, asked)
    assert [hold.output_tokens_max for hold in wallet.holds] == [700]
    assert [request.output_tokens_max for _, _, request in bench.adapter.asked] == [700]


async def test_answer__is_cut_again_where_somebody_came_in_between():
    bench = Bench([said("hi"), END])
    wallet = Wallet(bench.story, pays_for(700), pays_for(300))
    bench.calls._attempts._credit = wallet
    assert [event async for event in bench.calls.stream(TALK, LONG)][-1] == END
    assert [hold.output_tokens_max for hold in wallet.holds] == [300]


@pytest.mark.parametrize(
    ("order", "asked", "left_tokens"),
    [
        (TALK, LONG, OUTPUT_TOKENS_MIN - 1),  # too short to be of use
        (TALK, HI, 99),  # less than the little that was asked for
        (ORDER, LONG, 1_999),  # a step of a build waits for credits instead
    ],
)
async def test_call__is_refused_where_too_little_would_be_left_of_its_answer(
    order: CallOrder, asked: ChatRequest, left_tokens: int
):
    bench = Bench(reply())
    bench.calls._attempts._credit = Wallet(bench.story, pays_for(left_tokens))
    with pytest.raises(NotEnoughCreditsError):
        await bench.calls.complete(order, asked)
    assert bench.story == []


async def test_call__for_which_others_always_leave_less_ends_with_the_refusal():
    bench = Bench(reply())
    others = [pays_for(1_990 - number) for number in range(20)]
    bench.calls._attempts._credit = Wallet(bench.story, *others)
    with pytest.raises(NotEnoughCreditsError):
        await bench.calls.complete(TALK, LONG)
    assert bench.story == []


async def test_cap_of_a_provider__cuts_the_answer_of_the_routes_last_model_only():
    bench = Bench(reply(), providers=("deepseek", "gemini"))
    enough = SETTINGS.tariff.credits_for(10**12)
    bench.ledger.refuses_once = DailyCapError("spent", scope="provider", left_ucredits=enough)
    await bench.calls.complete(SMART, LONG)
    assert [hold.provider for hold in bench.ledger.holds] == ["gemini"]
    alone = Bench(reply())
    alone.ledger.refuses_once = DailyCapError("spent", scope="provider", left_ucredits=pays_for(400))
    await alone.calls.complete(TALK, LONG)
    assert [hold.output_tokens_max for hold in alone.ledger.holds] == [400]


# JSON


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    hue: int = Field(ge=0, le=359)


async def _ask(bench: Bench, order: CallOrder = ORDER) -> Colour:
    return await bench.calls.ask_json(
        order, system="task line\nrest", user="which?", schema=Colour, max_output_tokens=50
    )


async def test_ask_json__gives_the_parsed_reply_and_sends_the_schema():
    bench = Bench(reply('{"name": "teal", "hue": 180}'))
    assert await _ask(bench) == Colour(name="teal", hue=180)
    ((_, call, request),) = bench.adapter.asked
    assert call == ORDER.call
    assert request.json is not None
    assert request.json.schema is not None
    assert request.json.schema["properties"].keys() == {"name", "hue"}
    assert request.system[0].startswith("task line\n")
    assert request.output_tokens_max == 50


async def test_ask_json__shows_a_reply_that_does_not_fit_to_the_model_once_as_a_second_call():
    bench = Bench(reply('{"name": "teal", "hue": 999}'), reply('{"name": "teal", "hue": 99}'))
    assert (await _ask(bench)).hue == 99
    first, second = bench.adapter.asked
    assert second[1] == f"{ORDER.call}/2"
    assert [message.role for message in second[2].messages] == ["user", "assistant", "user"]
    assert "hue: Input should be less than or equal to 359" in last_text(second[2])
    assert [hold.call for hold in bench.ledger.holds] == [first[1], second[1]]
    assert len(bench.ledger.meters) == 2


async def test_ask_json__gives_up_after_the_second_reply_that_does_not_fit():
    bench = Bench(reply("no json"), reply('{"name": 5}'))
    with pytest.raises(ReplyRejectedError, match="name"):
        await _ask(bench)
    assert len(bench.adapter.asked) == 2


async def test_ask_json__tells_a_model_that_was_cut_off_to_be_shorter():
    bench = Bench(reply('{"name": "te', finish="length"), reply('{"name": "teal", "hue": 1}'))
    await _ask(bench)
    assert "cut off at 50 tokens" in last_text(bench.adapter.asked[1][2])


def last_text(request: ChatRequest) -> str:
    (part,) = request.messages[-1].parts
    assert isinstance(part, Text)
    return part.text
