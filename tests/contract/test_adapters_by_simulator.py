"""All adapters against the simulator's doors: one suite, three wires."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.simulator.scenario import SCENARIOS, Scenario
from cluster.simulator.server import Simulator
from cluster.simulator.usage import UsageFile
from runtime.errors import ProviderRefusedError
from runtime.ids import CallId
from runtime.keys.keys import Lease
from runtime.project.schemas import RequirementsReply, task_line
from runtime.providers.adapter import Adapter
from runtime.providers.adapters.adapters import Adapters
from runtime.providers.chat import (
    ChatEvent,
    ChatRequest,
    EmbedRequest,
    Finished,
    Image,
    JsonShape,
    Message,
    Text,
    TextDelta,
    ToolCall,
    ToolCallBegin,
    ToolResult,
)
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from tests.contract.model_service import PIXEL, WEATHER

BRIEF = Scenario.load(SCENARIOS / "expense_tracker").brief
MODELS = {"openai": "gpt-4o", "deepseek": "deepseek-chat", "claude": "claude-3-5-sonnet-20241022",
          "claude since 4.5": "claude-sonnet-4-6", "gemini": "gemini-2.0-flash"}  # fmt: skip


def asked(task: str, **others: Any) -> ChatRequest:
    line = task_line(task=task, id="project", attempt=1, brief=BRIEF)
    message = Message(role="user", parts=(Text(text=BRIEF),))
    return ChatRequest(system=(f"{line}\nYou are an architect.",), messages=(message,), **others)


DOCUMENT = asked("docs.api", json=JsonShape(name="document", schema=None))


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(usage_file=tmp_path / "usage.jsonl") as simulator:
        yield simulator


@pytest.fixture(params=list(MODELS))
def lease(request: pytest.FixtureRequest, simulator: Simulator) -> Lease:
    provider = request.param.split()[0]
    base_url = simulator.base_url if provider in ("openai", "deepseek") else simulator.root_url
    return Lease(provider=provider, model=MODELS[request.param], key_id="k", base_url=base_url, key="sim-1")


@pytest.fixture
async def adapter(lease: Lease) -> AsyncIterator[Adapter]:
    adapters = Adapters(timeout_s=5)
    yield adapters.of(lease.provider)
    await adapters.close()


async def order(simulator: Simulator, **fault: Any) -> None:
    async with httpx.AsyncClient() as http:
        (await http.post(f"{simulator.root_url}/simulator/faults", json=fault)).raise_for_status()


async def test_reply__whole_and_streamed_say_the_same_and_are_counted_alike(simulator, adapter, lease, tmp_path):
    whole = await adapter.complete(lease, CallId("c1"), DOCUMENT)
    events = [event async for event in adapter.stream(lease, CallId("c2"), DOCUMENT)]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole.text
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.finish, last.usage) == (whole.finish, whole.usage) == ("stop", whole.usage)
    served = UsageFile(tmp_path / "usage.jsonl").calls()
    counted = [(call.prompt_tokens, call.completion_tokens) for call in served]
    assert counted == [(whole.usage.input_tokens, whole.usage.output_tokens)] * 2


async def test_json__fits_the_schema(adapter, lease):
    shape = JsonShape(name="requirements", schema=RequirementsReply.model_json_schema())
    request = asked("plan.requirements", json=shape)
    reply = await adapter.complete(lease, CallId("c"), request)
    assert RequirementsReply.model_validate_json(reply.text).requirements
    assert reply.finish == "stop"
    events = [event async for event in adapter.stream(lease, CallId("c"), request)]
    assert json.loads("".join(e.text for e in events if isinstance(e, TextDelta))) == json.loads(reply.text)


async def test_tools__are_called_and_answered(adapter, lease):
    order = 'synthetic tool=weather args={"city": "Kraków"}'
    asking = Message(role="user", parts=(Text(text=order), Image(media_type="image/png", data=PIXEL)))
    request = ChatRequest(system=(), messages=(asking,), tools=(WEATHER,), tool_choice="weather")
    reply = await adapter.complete(lease, CallId("c"), request)
    (call,) = (part for part in reply.parts if isinstance(part, ToolCall))
    assert (call.name, reply.finish) == ("weather", "tool_calls")
    assert json.loads(call.arguments) == {"city": "Kraków"}
    events = [event async for event in adapter.stream(lease, CallId("c"), request)]
    assert [event.name for event in events if isinstance(event, ToolCallBegin)] == ["weather"]
    assert events[-1].finish == "tool_calls"
    result = Message(role="user", parts=(ToolResult(call_id=call.id, name="weather", text="rain"),))
    turns = (asking, Message(role="assistant", parts=reply.parts), result)
    last = await adapter.complete(lease, CallId("c"), replace(request, messages=turns, tool_choice="auto"))
    assert "rain" in last.text


async def test_image__is_seen(adapter, lease):
    parts = (Text(text="synthetic image"), Image(media_type="image/png", data=PIXEL))
    request = ChatRequest(system=(), messages=(Message(role="user", parts=parts),))
    assert "png" in (await adapter.complete(lease, CallId("c"), request)).text


async def test_output_limit__is_kept(adapter, lease):
    reply = await adapter.complete(lease, CallId("c"), replace(DOCUMENT, output_tokens_max=20))
    assert (reply.finish, reply.usage.output_tokens) == ("length", 20)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("status_429", RateLimitedError), ("status_500", OutageError), ("status_503", OutageError),
     ("status_529", OutageError), ("malformed_wire", (BrokenReplyError, OutageError)),
     ("empty_content", BrokenReplyError)],
)  # fmt: skip
async def test_fault__becomes_what_may_be_done_about_it(simulator, adapter, lease, kind, expected):
    await order(simulator, kind=kind, count=2, **({"retry_after_s": 3} if kind == "status_429" else {}))
    with pytest.raises(expected) as failed:
        await adapter.complete(lease, CallId("c"), DOCUMENT)
    with pytest.raises(expected):
        _ = [event async for event in adapter.stream(lease, CallId("c"), DOCUMENT)]
    if kind == "status_429":
        assert failed.value.retry_after_s == 3
    assert (await adapter.complete(lease, CallId("c"), DOCUMENT)).text


@pytest.mark.parametrize("kind", ["cut_stream", "error_in_stream"])
async def test_fault__in_a_stream_breaks_it_off(simulator, adapter, lease, kind):
    await order(simulator, kind=kind)
    said: list[ChatEvent] = []

    async def listen() -> None:
        async for event in adapter.stream(lease, CallId("c"), DOCUMENT):
            said.append(event)

    with pytest.raises(OutageError):
        await listen()
    assert any(isinstance(event, TextDelta) for event in said)


async def test_key__that_was_revoked_is_refused(simulator, adapter, lease):
    await order(simulator, kind="revoke_key", key="sim-1")
    with pytest.raises(KeyRefusedError):
        await adapter.complete(lease, CallId("c"), DOCUMENT)
    with pytest.raises(KeyRefusedError):
        _ = [event async for event in adapter.stream(lease, CallId("c"), DOCUMENT)]


async def test_embeddings__are_one_vector_a_text(adapter, lease):
    request = EmbedRequest(texts=("one two", "three"))
    if lease.provider == "claude":
        with pytest.raises(ProviderRefusedError):
            await adapter.embed(lease, CallId("c"), request)
    else:
        found = await adapter.embed(lease, CallId("c"), request)
        assert len(found.vectors) == 2
        assert found.usage.input_tokens > 0
