"""Bodies nobody should send. `MODEL` stands for the name of a model, in quotes."""

import json

LONG = "x" * (1 << 20)
DEEP = "[" * 50_000 + "]" * 50_000
HELLO = '{"role": "user", "content": "synthetic"}'


def with_field(field: str) -> str:
    return '{"model": MODEL, "messages": [{"role": "user", "content": "synthetic"}], "max_tokens": 9, FIELD}'.replace(
        "FIELD", field
    )


def with_messages(messages: str) -> str:
    return '{"model": MODEL, "messages": MESSAGES, "max_tokens": 9}'.replace("MESSAGES", messages)


def with_tokens(value: str) -> str:
    return '{"model": MODEL, "messages": [{"role": "user", "content": "synthetic"}], "max_tokens": TOKENS}'.replace(
        "TOKENS", value
    )


def with_model(value: str) -> str:
    return with_tokens("9").replace("MODEL", value)


def with_part(part: str) -> str:
    return with_messages('[{"role": "user", "content": [PART]}]'.replace("PART", part))


REFUSED: dict[str, str | bytes] = {
    "nothing": "",
    "spaces": "   ",
    "a word": "hello",
    "half": '{"model": MODEL, "messages": [{"role": "us',
    "more behind it": with_tokens("9") + "}",
    "a list": "[]",
    "null": "null",
    "a number": "1e999",
    "a text": '"text"',
    "an empty object": "{}",
    "no JSON, but Python": "{'model': 'x'}",
    "NaN": "NaN",
    "zeros": b"\0" * 1_000,
    "bad UTF-8": with_messages('[{"role": "user", "content": "BAD"}]').encode().replace(b"BAD", b"\xff\xfe\xc0\xaf"),
    "a bad name": with_field('"BAD": 1').encode().replace(b"BAD", b"\xed\xa0\x80"),
    "UTF-16": with_tokens("9").encode("utf-16"),
    "a deep list": "[" * 200_000,
    "a deep closed list": "[" * 100_000 + "]" * 100_000,
    "a deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep messages": with_messages(DEEP),
    "deep content": with_part(DEEP),
    "an unknown field": with_field('"made_up": 1'),
    "many unknown fields": with_field(", ".join(f'"made_up_{number}": 1' for number in range(20_000))),
    "a long unknown field": with_field(f'"{LONG}": 1'),
    "no model": '{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}',
    "a null model": with_model("null"),
    "a number for a model": with_model("7"),
    "an empty model": with_model('""'),
    "a long model": with_model(f'"{LONG}"'),
    "a model with a path": with_model('"gemini/../../../v1/models"'),
    "a model with a query": with_model(r'"openai/gpt-4o-mini?key=1#\u0000\r\nX: 1"'),
    "a model of no provider": with_model('"nobody/nothing"'),
    "no messages": '{"model": MODEL, "max_tokens": 9}',
    "null messages": with_messages("null"),
    "a text for messages": with_messages('"hello"'),
    "an object for messages": with_messages("{}"),
    "empty messages": with_messages("[]"),
    "a null message": with_messages("[null]"),
    "a message of numbers": with_messages('[{"role": 1, "content": 2}]'),
    "a message without role": with_messages('[{"content": "hello"}]'),
    "an unknown role": with_messages('[{"role": "root", "content": "hello"}]'),
    "an unknown part": with_part('{"type": "made_up"}'),
    "a null part": with_part("null"),
    "a part without type": with_part('{"text": "hello"}'),
    "a sound": with_part('{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}'),
    "a file": with_part('{"type": "file", "file": {"file_id": "x"}}'),
    "a picture at an address": with_part('{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}'),
    "a picture at a file": with_part('{"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}'),
    **{
        f"max_tokens {value[:12]}": with_tokens(value)
        for value in (
            "-1", "0", "1.5", "1e309", "-0", "1e3", '"100"', "true", "[]", "{}", "NaN", "Infinity", "-Infinity",
            "9223372036854775808", "10000001", "1" + "0" * 400, "0x10", "1_000",
        )
    },
    **{f"stream {value}": with_field(f'"stream": {value}') for value in ('"yes"', "1", "[]", "{}")},
    **{f"tools {value}": with_field(f'"tools": {value}') for value in ("5", "{}", "[5]", '[{"type": "web_search"}]')},
}  # fmt: skip
REFUSED_CHATS: dict[str, str] = {
    **{f"n {value}": with_field(f'"n": {value}') for value in ("1000000000", "9", "0", "-1", "2.5", '"3"', "1e400")},
    "stream_options 5": with_field('"stream": true, "stream_options": 5'),
    "stream_options include_usage 5": with_field('"stream": true, "stream_options": {"include_usage": 5}'),
    "response_format 5": with_field('"response_format": 5'),
    "response_format {}": with_field('"response_format": {}'),
    "max_completion_tokens -1": with_field('"max_completion_tokens": -1'),
}
ODD: dict[str, str] = {
    "a lone surrogate": with_messages(r'[{"role": "user", "content": "synthetic echo \ud800 \udfff"}]'),
    "a zero character": with_messages(r'[{"role": "user", "content": "synthetic echo \u0000"}]'),
    "no content": with_messages('[{"role": "user"}]'),
    "null content": with_messages('[{"role": "user", "content": null}]'),
    "empty content": with_messages('[{"role": "user", "content": ""}]'),
    "an empty list of parts": with_messages('[{"role": "user", "content": []}]'),
    "only an assistant": with_messages('[{"role": "assistant", "content": "hello"}]'),
    "5,000 messages": with_messages("[" + ", ".join([HELLO] * 5_000) + "]"),
    "a hot temperature": with_field('"temperature": 1e308'),
    "an endless temperature": with_field('"temperature": 1e999'),
    "a wordy temperature": with_field('"temperature": "hot"'),
    "stops without end": with_field(f'"stop": {json.dumps(["x"] * 10_000)}'),
    "a number for a stop": with_field('"stop_sequences": 5'),
    "metadata": with_field('"metadata": [[[[1]]]]'),
    "deep metadata": with_field(f'"metadata": {DEEP}'),
    "a tool that is null": with_field('"tools": [null]'),
    "a tool without a name": with_field('"tools": [{"type": "function"}]'),
    "a tool of numbers": with_field('"tools": [{"type": "function", "function": {"name": 1, "parameters": 2}}]'),
    "a nameless custom tool": with_field('"tools": [{"input_schema": 5}]'),
    "a choice of no tool": with_field('"tool_choice": {"type": "function", "function": {"name": "x"}}'),
    "a number for a choice": with_field('"tool_choice": 5'),
    "a result without a call": with_messages('[{"role": "tool", "tool_call_id": "x", "content": "hello"}]'),
    "a result for nothing": with_part('{"type": "tool_result", "tool_use_id": "x", "content": "hello"}'),
    "a result of results": with_part('{"type": "tool_result", "content": [{"type": "tool_result"}]}'),
    "a call of nothing": with_messages('[{"role": "assistant", "tool_calls": [{}]}, {"role": "user", "content": "a"}]'),
    "a number for calls": with_messages('[{"role": "assistant", "tool_calls": 5}, {"role": "user", "content": "a"}]'),
    "calls that are no JSON": with_messages(
        '[{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"id": "x", "type": "function", '
        '"function": {"name": "f", "arguments": "{{{"}}]}, {"role": "tool", "tool_call_id": "x", "content": "a"}]'
    ),
    "a picture that is none": with_part('{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}'),
    "a picture without data": with_part('{"type": "image", "source": {"type": "base64", "data": ""}}'),
    "a picture of numbers": with_part('{"type": "image", "source": 5}'),
    "thoughts of nobody": with_part('{"type": "thinking", "thinking": 5, "signature": []}'),
    "a system of numbers": with_field('"system": 5'),
    "a system of parts": with_field('"system": [{"type": "text"}]'),
    "a user of numbers": with_field('"user": 5'),
    "a schema without end": with_field(
        '"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}'
    ),
    "a schema of numbers": with_field('"response_format": {"type": "json_schema", "json_schema": 5}'),
    "a seed without end": with_field('"seed": ' + "9" * 400),
    "names twice": with_field('"max_tokens": 5, "max_tokens": 7, "stream": false, "stream": false'),
}  # fmt: skip
"""Refused or served, as the wires and providers see it."""
