import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.simulator.chat import Chat, Message, Tool, ToolCall, ToolResult
from cluster.simulator.filler import fill
from cluster.simulator.refusal import Refusal
from cluster.simulator.reply import Speech, reply_to
from cluster.simulator.synthetic import read_order, speech_for
from cluster.simulator.usage import text_tokens
from runtime.project.schemas import SCHEMAS

ADD = Tool(
    name="add",
    description="",
    parameters={"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
)


def said(text: str, *more: Message, **chat: Any) -> Speech:
    messages = [Message(role="user", text=text), *more]
    order = read_order(messages)
    assert order is not None
    return speech_for(order, Chat(model="m", messages=messages, prompt_tokens=1, **chat))


@given(st.integers(1, 500), st.integers(0, 2**40))
def test_text__has_exactly_the_tokens_ordered_and_is_the_same_again(tokens: int, seed: int) -> None:
    text = said(f"synthetic tokens={tokens} seed={seed}").text

    assert text_tokens(text) == tokens
    assert said(f"synthetic tokens={tokens} seed={seed}").text == text


def test_pace__is_as_ordered() -> None:
    speech = said("synthetic tokens=9 delay_ms=50 piece_ms=5 piece_tokens=2\nballast")

    assert (speech.delay_s, speech.piece_s, speech.piece_chars) == (0.05, 0.005, 8)
    assert said("synthetic").delay_s is None


def test_text__that_orders_nothing_is_left_to_the_scenarios() -> None:
    for text in ("", "Hello", "synthetics are fine", "a synthetic echo", "synthetic_x"):
        assert read_order([Message(role="user", text=text)]) is None


@pytest.mark.parametrize(
    "line",
    [
        "synthetic tokens=-1",
        "synthetic tokens=9999999",
        "synthetic tokens=٣",
        "synthetic bogus",
        "synthetic bogus=1",
        "synthetic tool",
        "synthetic args={}",
        "synthetic tool=add args={",
        "synthetic tool=add args=[1]",
        "synthetic tool=add args=" + "[" * 100_000,
        "synthetic echo,json",
        "synthetic delay_ms=" + "9" * 5_000,
    ],
)
def test_order__that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(Refusal):
        read_order([Message(role="user", text=line)])


@given(st.text(max_size=60))
def test_order__never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(Refusal):
        read_order([Message(role="user", text=f"synthetic {text}")])


def test_tools__are_called_as_ordered_and_their_results_quoted() -> None:
    line = 'synthetic tool=add args={"a": 1, "b": "x y"} tool=add'
    first = said(line, tools=(ADD,))
    calls = Message(role="assistant", tool_calls=(ToolCall(id="1", name="add", arguments="{}"),))
    after = said(line, calls, Message(role="user", tool_results=(ToolResult(call_id="1", text="3"),)), tools=(ADD,))

    assert [(call.name, call.arguments) for call in first.tool_calls] == [
        ("add", '{"a": 1, "b": "x y"}'),
        ("add", "{}"),
    ]
    assert (after.text, after.tool_calls) == ("The tools answered: 3", ())


def test_tool__that_is_not_offered_is_not_called() -> None:
    assert not said("synthetic tool=add").tool_calls
    assert not said("synthetic tool=add", tools=(ADD,), tool_choice="none").tool_calls


@pytest.mark.parametrize("choice", ["required", "tool:add"])
def test_tool__that_must_be_called_gets_arguments_of_its_schema(choice: str) -> None:
    [call] = said("synthetic tokens=5", tools=(ADD,), tool_choice=choice).tool_calls

    assert json.loads(call.arguments) == {"a": 3}


WITHOUT_PATTERNS = [name for name, model in SCHEMAS.items() if "'pattern'" not in str(model.model_json_schema())]


@pytest.mark.parametrize("name", WITHOUT_PATTERNS)
def test_filled_schema__fits(name: str) -> None:
    model = SCHEMAS[name]
    text = said("synthetic json", schema=model.model_json_schema()).text

    model.model_validate_json(text)


@pytest.mark.parametrize(
    ("schema", "filled"),
    [
        ({"type": "OBJECT", "properties": {"n": {"type": "NUMBER", "maximum": 0}}}, {"n": 0}),
        ({"type": ["null", "string"], "minLength": 12}, "synthetic..."),
        ({"type": "array", "minItems": 2, "items": {"enum": ["a", "b"]}}, ["a", "a"]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"allOf": [{"$ref": "#/$defs/t"}], "$defs": {"t": {"const": 7}}}, 7),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({}, "synthetic"),
    ],
)
def test_filler__knows(schema: dict[str, Any], filled: object) -> None:
    assert fill(schema) == filled


def test_filler__ends_where_a_schema_refers_to_itself() -> None:
    node = {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#"}}, "required": ["name"]}

    assert fill(node)["child"]["name"] == "synthetic"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"type": "array", "minItems": 99, "items": {"type": "array", "minItems": 99, "items": {"minItems": 99,
         "type": "array", "items": {}}}},
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"anyOf": 3},
        {"properties": 3},
        {"type": "array", "minItems": "many"},
        {"type": "integer", "exclusiveMinimum": "one"},
    ],
)  # fmt: skip
def test_filler__refuses_what_has_no_end_or_is_no_schema(schema: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        fill(schema)


@given(st.integers(1, 40))
def test_reply__never_uses_more_than_it_is_allowed(tokens_max: int) -> None:
    chat = Chat(model="m", messages=[], prompt_tokens=1, tokens_max=tokens_max)
    speech = Speech(text="ab€", tool_calls=(ToolCall(id="", name="add", arguments='{"text": "' + "x" * 50 + '"}'),))

    reply = reply_to(chat, speech, "id", 0)

    assert reply.completion_tokens <= tokens_max
    assert (reply.finish == "tool_calls") == bool(reply.tool_calls)
    assert reply.finish == "tool_calls" or reply.completion_tokens == text_tokens(reply.text)
