import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from runtime.config import Settings
from runtime.errors import (
    BadInputError,
    NotEnoughCreditsError,
    ProviderError,
    ReplyRejectedError,
    StoreUnavailableError,
    UnavailableError,
    UnpricedModelError,
)
from runtime.ids import CallId, RunId, UserId
from runtime.ledger.port import Hold, Meter
from runtime.providers.calls import RETRIES_MAX, CallOrder, ModelCalls, longest_call_s
from runtime.providers.catalogue import CATALOGUE
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.keys import KeyRing, ProviderKey
from runtime.providers.openai_compatible import Completion, Part
from runtime.providers.usage import Usage

SETTINGS = Settings()
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
USED = Usage(input_tokens=11, output_tokens=5)
ORDER = CallOrder(
    call=CallId("project:p/plan#1/1"),
    user=UserId("ann"),
    run=RunId("project:p/plan#1"),
    task_type="planning",
    provider="openai",
    model="gpt-4o",
)


class FakeLedger:
    """Remembers, and refuses or breaks when told to. `story` is shared, to see what came before what."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.holds: list[Hold] = []
        self.meters: list[Meter] = []
        self.refuses: Exception | None = None
        self.breaks: Exception | None = None
        self.metering = asyncio.Event()
        self.may_meter = asyncio.Event()
        self.may_meter.set()

    async def hold(self, hold: Hold) -> None:
        if self.refuses:
            raise self.refuses
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
    """Plays a script: an exception is raised, a Completion is returned, a list of parts and exceptions is streamed."""

    def __init__(self, story: list[str], *script: Any) -> None:
        self.story = story
        self.script = list(script)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.closed = 0
        self.was_asked = asyncio.Event()

    async def complete(self, lease: Any, call: CallId, body: Any) -> Completion:
        self._note(lease, call, body)
        step = self.script.pop(0)
        if isinstance(step, asyncio.Event):
            await step.wait()
        if isinstance(step, Exception):
            raise step
        return step

    async def stream(self, lease: Any, call: CallId, body: Any) -> AsyncGenerator[Part, None]:
        self._note(lease, call, body)
        try:
            for step in self.script.pop(0):
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass

    def _note(self, lease: Any, call: CallId, body: Any) -> None:
        self.asked.append((lease.key_id, call, dict(body)))
        self.story.append("ask")
        self.was_asked.set()


class Bench:
    """ModelCalls with a fake ledger and provider, a real key ring, and a clock that only sleeping moves."""

    def __init__(self, *script: Any, keys: Sequence[str] = ("k1",)) -> None:
        self.story: list[str] = []
        self.now_s = 0.0
        self.slept: list[float] = []
        self.ledger = FakeLedger(self.story)
        self.adapter = FakeAdapter(self.story, *script)
        ring = KeyRing(
            [ProviderKey(provider="openai", key_id=name, base_url="http://x/v1", key="sk") for name in keys],
            cooldown_s=60,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )
        self.calls = ModelCalls(
            self.ledger, ring, CATALOGUE, SETTINGS, adapter=self.adapter, clock=lambda: self.now_s, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    async def streamed(self, body: dict[str, Any]) -> list[Any]:
        events = [event async for event in self.calls.stream(ORDER, {**body, "stream": True})]
        lines = b"".join(events).decode().split("\n\n")
        return [line if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in lines if line]


def reply(text: str = "hello", usage: Usage = USED, finish_reason: str = "stop") -> Completion:
    body = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}]}
    return Completion(body=body, usage=usage)


def text_part(text: str, usage: Usage | None = None) -> Part:
    return Part(chunk={"choices": [{"delta": {"content": text}}], "usage": None}, usage=usage, only_usage=False)


USAGE_PART = Part(chunk={"choices": [], "usage": {"prompt_tokens": 11}}, usage=USED, only_usage=True)


def limited(after_s: float | None) -> RateLimitedError:
    return RateLimitedError("slow down", retry_after_s=after_s)


# A whole reply


async def test_complete__holds_the_worst_case_then_asks_then_meters_real_usage():
    bench = Bench(reply())
    answered = await bench.calls.complete(ORDER, BODY)
    assert answered["choices"][0]["message"]["content"] == "hello"
    assert bench.story == ["hold", "ask", "meter"]
    (hold,) = bench.ledger.holds
    assert (hold.call, hold.run, hold.user) == (ORDER.call, ORDER.run, ORDER.user)
    assert hold.output_tokens_max == 100
    assert hold.input_tokens_max >= len(json.dumps(BODY))
    assert hold.price == CATALOGUE.price("openai", "gpt-4o")
    (meter,) = bench.ledger.meters
    assert (meter.call, meter.input_tokens, meter.output_tokens, meter.key_id) == (ORDER.call, 11, 5, "k1")
    assert not meter.provider_failed


async def test_complete__of_an_unpriced_model_or_a_bad_request_holds_and_asks_nothing():
    bench = Bench()
    with pytest.raises(UnpricedModelError):
        await bench.calls.complete(CallOrder(**{**_fields(ORDER), "model": "gpt-9"}), BODY)
    with pytest.raises(BadInputError):
        await bench.calls.complete(ORDER, {})
    assert bench.story == []


async def test_complete__asks_nothing_when_the_hold_is_refused():
    bench = Bench()
    bench.ledger.refuses = NotEnoughCreditsError("too little")
    with pytest.raises(NotEnoughCreditsError):
        await bench.calls.complete(ORDER, BODY)
    assert bench.adapter.asked == []
    assert bench.ledger.meters == []


async def test_rate_limit__is_waited_out_as_long_as_the_provider_asks_under_the_same_call():
    bench = Bench(limited(7), limited(3), reply())
    await bench.calls.complete(ORDER, BODY)
    assert bench.slept == [7, 3]
    assert {call for _, call, _ in bench.adapter.asked} == {ORDER.call}
    assert len(bench.ledger.holds) == len(bench.ledger.meters) == 1


async def test_rate_limit__moves_to_another_key_without_waiting():
    bench = Bench(limited(60), reply(), keys=("k1", "k2"))
    await bench.calls.complete(ORDER, BODY)
    assert [key for key, _, _ in bench.adapter.asked] == ["k1", "k2"]
    assert bench.slept == []
    assert bench.ledger.meters[0].key_id == "k2"


async def test_rate_limit__longer_than_a_call_may_wait_gives_the_hold_back_and_says_how_long():
    bench = Bench(limited(3600))
    with pytest.raises(UnavailableError, match="3600 s"):
        await bench.calls.complete(ORDER, BODY)
    assert bench.slept == []
    assert [meter.provider_failed for meter in bench.ledger.meters] == [True]


async def test_rate_limit__again_and_again_ends_within_the_bound():
    bench = Bench(*[limited(0)] * 1000)
    with pytest.raises(UnavailableError):
        await bench.calls.complete(ORDER, BODY)
    assert len(bench.adapter.asked) <= 20
    assert bench.now_s <= longest_call_s(SETTINGS)
    assert bench.ledger.meters[0].provider_failed


async def test_refused_key__is_replaced_by_another_and_without_one_gives_the_hold_back():
    bench = Bench(KeyRefusedError("401"), reply(), keys=("k1", "k2"))
    await bench.calls.complete(ORDER, BODY)
    assert [key for key, _, _ in bench.adapter.asked] == ["k1", "k2"]
    alone = Bench(KeyRefusedError("401"))
    with pytest.raises(ProviderError, match="refuses every key"):
        await alone.calls.complete(ORDER, BODY)
    assert [meter.provider_failed for meter in alone.ledger.meters] == [True]


async def test_outage__is_tried_three_times_more_with_growing_pauses_and_then_given_back():
    bench = Bench(*[OutageError("500")] * 10)
    with pytest.raises(OutageError):
        await bench.calls.complete(ORDER, BODY)
    assert len(bench.adapter.asked) == 1 + RETRIES_MAX
    assert bench.slept == [0.5, 1.0, 2.0]
    (meter,) = bench.ledger.meters
    assert meter.provider_failed
    assert (meter.input_tokens, meter.output_tokens) == (0, 0)


async def test_outage__that_passes_is_charged_once():
    bench = Bench(OutageError("500"), OutageError("timeout", retry_after_s=4.0), reply())
    await bench.calls.complete(ORDER, BODY)
    assert bench.slept == [0.5, 4.0]
    assert [meter.provider_failed for meter in bench.ledger.meters] == [False]


async def test_refused_request__is_not_sent_again():
    bench = Bench(ProviderError("openai refused the request (400): too long"))
    with pytest.raises(ProviderError, match="too long"):
        await bench.calls.complete(ORDER, BODY)
    assert len(bench.adapter.asked) == 1
    assert bench.ledger.meters[0].provider_failed


async def test_broken_reply__costs_the_user_nothing_and_its_usage_is_told_to_the_ledger():
    bench = Bench(BrokenReplyError("empty", usage=USED))
    with pytest.raises(BrokenReplyError):
        await bench.calls.complete(ORDER, BODY)
    (meter,) = bench.ledger.meters
    assert meter.provider_failed
    assert (meter.input_tokens, meter.output_tokens) == (11, 5)


async def test_reply__is_not_handed_over_when_it_could_not_be_metered():
    bench = Bench(reply())
    bench.ledger.breaks = StoreUnavailableError("disk full")
    with pytest.raises(StoreUnavailableError):
        await bench.calls.complete(ORDER, BODY)


async def test_cancelled_call__leaves_its_hold_because_nobody_knows_what_was_used():
    bench = Bench(asyncio.Event())
    task = asyncio.create_task(bench.calls.complete(ORDER, BODY))
    await bench.adapter.was_asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.ledger.holds) == 1
    assert bench.ledger.meters == []


async def test_call_cancelled_while_it_waits_for_a_key__gives_its_hold_back():
    bench = Bench(limited(30))
    asleep = asyncio.Event()

    async def sleep_for_ever(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    bench.calls._keys._sleep = sleep_for_ever
    task = asyncio.create_task(bench.calls.complete(ORDER, BODY))
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [meter.provider_failed for meter in bench.ledger.meters] == [True]


async def test_metering__goes_through_when_the_caller_is_cancelled_meanwhile():
    bench = Bench(reply())
    bench.ledger.may_meter.clear()
    task = asyncio.create_task(bench.calls.complete(ORDER, BODY))
    await bench.ledger.metering.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.ledger.may_meter.set()
    await bench.calls.close()
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]


# A stream


async def test_stream__is_metered_before_its_end_is_told():
    bench = Bench([text_part("he"), text_part("llo"), USAGE_PART])
    events = bench.calls.stream(ORDER, {**BODY, "stream": True})
    assert b"he" in await anext(events)
    assert b"llo" in await anext(events)
    assert bench.ledger.meters == []
    assert await anext(events) == b"data: [DONE]\n\n"
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]


async def test_stream__shows_usage_only_to_a_client_that_asked():
    plain = await Bench([text_part("hi", USED), USAGE_PART]).streamed(BODY)
    assert plain == [{"choices": [{"delta": {"content": "hi"}}]}, "data: [DONE]"]
    asked = await Bench([text_part("hi"), USAGE_PART]).streamed({**BODY, "stream_options": {"include_usage": True}})
    assert asked[0] == {"choices": [{"delta": {"content": "hi"}}], "usage": None}
    assert asked[1:] == [USAGE_PART.chunk, "data: [DONE]"]


async def test_stream__meters_the_last_of_several_reports():
    early = Usage(input_tokens=11, output_tokens=1)
    bench = Bench([text_part("a", early), text_part("b", USED)])
    await bench.streamed(BODY)
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]


async def test_stream__that_fails_before_its_first_piece_is_begun_again():
    bench = Bench([OutageError("cut")], [limited(2)], [], [text_part("hi"), USAGE_PART])
    assert (await bench.streamed(BODY))[-1] == "data: [DONE]"
    assert len(bench.ledger.holds) == len(bench.ledger.meters) == 1


async def test_stream__cut_off_after_its_first_piece_is_never_begun_again_and_keeps_its_hold():
    bench = Bench([text_part("he"), OutageError("cut")], [text_part("other text")])
    events = bench.calls.stream(ORDER, BODY)
    await anext(events)
    with pytest.raises(OutageError):
        await anext(events)
    assert len(bench.adapter.asked) == 1
    assert bench.ledger.meters == []


async def test_stream__cut_off_when_usage_is_known_is_metered_and_says_so():
    bench = Bench([text_part("he", USED), OutageError("cut")])
    events = bench.calls.stream(ORDER, BODY)
    await anext(events)
    with pytest.raises(OutageError) as cut:
        await anext(events)
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]
    assert cut.value.charged != "Nothing was charged."


async def test_stream__that_never_reports_usage_is_an_error_and_is_not_charged_a_guess():
    bench = Bench([text_part("hello")])
    events = bench.calls.stream(ORDER, BODY)
    await anext(events)
    with pytest.raises(OutageError, match="how many tokens"):
        await anext(events)
    assert bench.ledger.meters == []


async def test_stream__closed_by_the_client_closes_the_providers_and_keeps_its_hold():
    bench = Bench([text_part("he"), text_part("llo"), USAGE_PART])
    events = bench.calls.stream(ORDER, BODY)
    await anext(events)
    await events.aclose()
    assert bench.adapter.closed == 1
    assert bench.ledger.meters == []


async def test_stream__closed_by_the_client_when_usage_is_known_is_metered():
    bench = Bench([text_part("he", USED), text_part("llo")])
    events = bench.calls.stream(ORDER, BODY)
    await anext(events)
    await events.aclose()
    assert [meter.output_tokens for meter in bench.ledger.meters] == [5]


async def test_stream__that_drips_for_ever_is_cut_off():
    bench = Bench([text_part("x")] * 10)
    events = bench.calls.stream(ORDER, BODY)
    for _ in range(5):
        await anext(events)
        bench.now_s += SETTINGS.call_timeout_s + 1
    with pytest.raises(OutageError, match="in time"):
        await anext(events)
    assert bench.adapter.closed == 1


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
    ((_, call, body),) = bench.adapter.asked
    assert call == ORDER.call
    assert body["response_format"]["json_schema"]["schema"]["properties"].keys() == {"name", "hue"}
    assert body["messages"][0]["content"].startswith("task line\n")
    assert body["max_tokens"] == 50


async def test_ask_json__shows_a_reply_that_does_not_fit_to_the_model_once_as_a_second_call():
    bench = Bench(reply('{"name": "teal", "hue": 999}'), reply('{"name": "teal", "hue": 99}'))
    assert (await _ask(bench)).hue == 99
    first, second = bench.adapter.asked
    assert second[1] == f"{ORDER.call}/2"
    assert [message["role"] for message in second[2]["messages"]] == ["system", "user", "assistant", "user"]
    assert "hue: Input should be less than or equal to 359" in second[2]["messages"][3]["content"]
    assert [hold.call for hold in bench.ledger.holds] == [first[1], second[1]]
    assert len(bench.ledger.meters) == 2


async def test_ask_json__gives_up_after_the_second_reply_that_does_not_fit():
    bench = Bench(reply("no json"), reply('{"name": 5}'))
    with pytest.raises(ReplyRejectedError, match="name"):
        await _ask(bench)
    assert len(bench.adapter.asked) == 2


async def test_ask_json__tells_a_model_that_was_cut_off_to_be_shorter():
    bench = Bench(reply('{"name": "te', finish_reason="length"), reply('{"name": "teal", "hue": 1}'))
    await _ask(bench)
    assert "cut off at 50 tokens" in bench.adapter.asked[1][2]["messages"][3]["content"]


async def test_ask_json__puts_the_schema_into_the_prompt_where_the_service_knows_none():
    bench = Bench(reply('{"name": "teal", "hue": 1}'))
    ring = KeyRing([ProviderKey(provider="deepseek", key_id="d", base_url="http://x", key="sk")], cooldown_s=1)
    bench.calls._keys = ring
    await _ask(bench, CallOrder(**{**_fields(ORDER), "provider": "deepseek", "model": "deepseek-chat"}))
    body = bench.adapter.asked[0][2]
    assert body["response_format"] == {"type": "json_object"}
    assert '"hue"' in body["messages"][0]["content"]


def _fields(order: CallOrder) -> dict[str, Any]:
    return {name: getattr(order, name) for name in CallOrder.__dataclass_fields__}
