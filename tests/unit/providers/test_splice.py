import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue.catalogue import CATALOGUE
from runtime.errors import BadInputError
from runtime.ledger.money import Tariff
from runtime.providers.splice import FIELDS, splice

CHAT, EMBED, CLAUDE = "/chat/completions", "/embeddings", "/messages"
HELLO = [{"role": "user", "content": "zażółć"}]
PICTURE = base64.b64encode(b"\x89PNG" * 500).decode()
IMAGE_URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "openai/gpt-4o-mini", "messages": HELLO, **fields}).encode()


def claude(**fields: Any) -> bytes:
    return json.dumps({"model": "claude/haiku", "max_tokens": 9, "messages": HELLO, **fields}).encode()


def test_request__keeps_every_byte_but_the_models_name():
    odd = b'{ "temperature":1.000, "model" : "x/y", "messages":[ {"role":"user", "content":"\\u0041 \\n\xc3\xa9"} ]}'
    sent = splice(odd, CHAT).sent("openai", "gpt-4o")
    assert (
        sent
        == b'{"temperature":1.000,"model":"gpt-4o","messages":[ {"role":"user", "content":"\\u0041 \\n\xc3\xa9"} ]}'
    )


def test_null__is_a_field_that_is_not_there():
    """Some services refuse a null where OpenAI takes one, and LiteLLM's client sends it."""
    body = json.dumps({"model": "m", "input": "x", "encoding_format": None, "user": None}).encode()
    assert json.loads(splice(body, EMBED).sent("openai", "n")) == {"model": "n", "input": "x"}
    assert not splice(chat(functions=None), CHAT).tools


def test_stream__always_asks_the_provider_for_usage_and_remembers_whether_the_client_did():
    request = splice(chat(stream=True, stream_options={"include_obfuscation": False}), CHAT)
    assert json.loads(request.sent("openai", "m"))["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert (request.streams, request.wants_usage) == (True, False)
    assert splice(chat(stream=True, stream_options={"include_usage": True}), CHAT).wants_usage
    assert "stream_options" not in json.loads(splice(chat(), CHAT).sent("openai", "m"))
    assert "stream_options" not in json.loads(splice(claude(stream=True), CLAUDE).sent("openai", "m"))


def test_size__counts_every_byte_but_the_pictures_data():
    bare = splice(chat(), CHAT)
    assert bare.size.text_bytes == len(chat())
    seen = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE_URL]}])
    request = splice(seen, CHAT)
    assert request.size.text_bytes == len(seen) - len(IMAGE_URL["image_url"]["url"])
    assert (request.size.images, request.size.frames, request.images, bare.images) == (1, 3, True, False)
    inside = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}]}]
    assert splice(claude(messages=inside), CLAUDE).size.images == 1


def test_output_bound__is_the_larger_of_the_callers_limits_for_each_choice():
    assert splice(chat(), CHAT).size.output_tokens_max is None
    size = splice(chat(max_tokens=5, max_completion_tokens=7, n=3), CHAT).size
    assert (size.output_tokens_max, size.choices) == (7, 3)


def test_need__is_read_off_the_request():
    function = {"type": "function", "function": {"name": "f"}}
    request = splice(chat(tools=[function], response_format={"type": "json_schema", "json_schema": {}}), CHAT)
    assert (request.tools, request.json_schema, request.size.tools) == (True, True, 1)
    assert splice(claude(tools=[{"name": "f", "input_schema": {}}]), CLAUDE).tools
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]
    assert splice(chat(messages=turns), CHAT).last_user_text() == "a\nb"


def test_embeddings__are_bounded_by_their_texts():
    one = json.dumps({"model": "m", "input": "hi"}).encode()
    assert splice(one, EMBED).size.frames == 1
    assert splice(json.dumps({"model": "m", "input": ["a", "b"]}).encode(), EMBED).size.frames == 2
    assert splice(json.dumps({"model": "m", "input": [1, 2, 3]}).encode(), EMBED).size.frames == 1
    assert splice(one, EMBED).size.output_tokens_max == 0


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (CHAT, b"", "not JSON"),
        (CHAT, b"[]", "object"),
        (CHAT, b"{", "not JSON"),
        (CHAT, b'{"model": "\xff"}', "UTF-8"),
        (CHAT, b'{"model": NaN}', "not JSON"),
        (CHAT, b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
        (CHAT, b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', "not JSON"),
        (CHAT, chat(model=None), "model"),
        (CHAT, chat(model=5), "model"),
        (CHAT, chat(model=""), "model"),
        (CHAT, chat(messages=[]), "messages"),
        (CHAT, chat(messages="hi"), "messages"),
        (CHAT, chat(messages=[{"content": "hi"}]), "role"),
        (CHAT, chat(messages=[{"role": "root", "content": "hi"}]), "role"),
        (CHAT, chat(messages=[{"role": "user", "content": 5}]), "content"),
        (CHAT, chat(messages=[{"role": "assistant", "audio": {"id": "a"}}]), "audio"),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]), "input_audio"),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "file"}]}]), "file"),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "picture"),
        (
            CHAT,
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
            "not fetched",
        ),
        (CHAT, chat(max_tokens=0), "max_tokens"),
        (CHAT, chat(max_tokens=-1), "max_tokens"),
        (CHAT, chat(max_tokens=True), "max_tokens"),
        (CHAT, chat(max_tokens="9"), "max_tokens"),
        (CHAT, chat(max_tokens=10**30), "max_tokens"),
        (CHAT, chat(n=10**6), "n must"),
        (CHAT, chat(service_tier="priority"), "service_tier"),
        (CHAT, chat(web_search_options={}), "web_search_options"),
        (CHAT, chat(models=["openai/o1-pro"]), "models"),
        (CHAT, chat(tools=[{"type": "web_search"}]), "tools"),
        (CHAT, chat(tools={}), "tools"),
        (CHAT, chat(stream="yes"), "stream"),
        (CHAT, chat(stream_options=1), "stream_options"),
        (CHAT, chat(response_format="json"), "response_format"),
        (EMBED, b'{"model": "m"}', "input"),
        (EMBED, b'{"model": "m", "input": []}', "input"),
        (EMBED, b'{"model": "m", "input": {"a": 1}}', "input"),
        (EMBED, json.dumps({"model": "m", "input": ["a"] * 3000}).encode(), "at most"),
        (CLAUDE, claude(max_tokens=None), "max_tokens"),
        (CLAUDE, claude(messages=[{"role": "system", "content": "x"}]), "role"),
        (CLAUDE, claude(messages=[{"role": "user", "content": [{"type": "document"}]}]), "document"),
        (CLAUDE, claude(system=[{"type": "document"}]), "document"),
        (CLAUDE, claude(system=[{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]), "ttl"),
        (CLAUDE, claude(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools"),
        (CLAUDE, claude(tools=[{"name": "f", "cache_control": {"ttl": "1h"}}]), "ttl"),
        (CLAUDE, claude(mcp_servers=[]), "mcp_servers"),
        (
            CLAUDE,
            claude(messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]),
            "messages",
        ),
    ],
)  # fmt: skip
def test_request__that_has_no_bound_or_no_sense_is_refused_by_name(path, body, named):
    with pytest.raises(BadInputError, match=named):
        splice(body, path)


def test_size__knows_what_is_said_from_what_it_is_wrapped_in():
    parts = [{"type": "text", "text": "abcd"}, IMAGE_URL]
    asked = splice(chat(messages=[{"role": "user", "content": "żółw"}, {"role": "user", "content": parts}]), CHAT)
    assert asked.size.said_bytes == len("żółwabcd".encode())
    assert asked.size.text_bytes > asked.size.said_bytes


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "url"]) | st.text(max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.data(), st.sampled_from(sorted(FIELDS)))
def test_request__of_any_junk_is_bounded_or_refused(data, path):
    names = st.sampled_from(sorted(FIELDS[path])) | st.text(max_size=5)
    fields = data.draw(st.dictionaries(names, junk, max_size=6))
    body = json.dumps({"model": "m", "messages": HELLO, **fields} if data.draw(st.booleans()) else fields).encode()
    try:
        request = splice(body, path)
    except BadInputError:
        return
    assert 0 < request.size.text_bytes <= len(body)
    assert json.loads(request.sent("openai", "other")).pop("model") == "other"
    assert isinstance(request.last_user_text(), str)
    assert request.document()["model"] == request.model


@given(st.binary(max_size=60))
def test_bytes__of_any_kind_are_read_or_refused(body):
    try:
        splice(body, CHAT)
    except BadInputError:
        return
    raise AssertionError("Sixty random bytes are no request.")


@pytest.mark.parametrize(("provider", "name"), [("openai", "max_completion_tokens"), ("deepseek", "max_tokens")])
def test_output_limit__is_sent_under_the_name_that_the_provider_knows(provider: str, name: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 1}
    sent = json.loads(splice(json.dumps(body).encode(), "/chat/completions").sent(provider, "m"))
    assert {field: sent[field] for field in sent if field.startswith("max_")} == {name: 1}


@pytest.mark.parametrize("stated", [{}, {"max_tokens": 900}, {"max_tokens": 9, "max_completion_tokens": 900}])
def test_output_limit__that_was_cut_is_the_only_one_that_is_sent(stated: dict[str, int]) -> None:
    request = splice(chat(**stated), CHAT)
    for provider, name in (("openai", "max_completion_tokens"), ("deepseek", "max_tokens")):
        sent = json.loads(request.sent(provider, "m", 300))
        assert {field: sent[field] for field in sent if field.startswith("max_")} == {name: 300}
    assert json.loads(splice(claude(), CLAUDE).sent("claude", "m", 5))["max_tokens"] == 5


def test_thinking__is_never_left_without_room_by_a_cut() -> None:
    model = CATALOGUE.model("claude", "claude-3-5-haiku-20241022")
    request = splice(claude(max_tokens=9_000, thinking={"type": "enabled", "budget_tokens": 4_000}), CLAUDE)
    bounds = request.size.bounds(model)

    def left_for(answer_tokens: int) -> int:
        return Tariff().credits_for(model.price.cost_pusd(bounds.input_tokens_max, answer_tokens))

    assert bounds.cut_to(left_for(4_255), model.price, Tariff()) is None
    assert bounds.cut_to(left_for(4_256), model.price, Tariff()) == replace(bounds, output_tokens_max=4_256)


def test_answers__of_one_request_are_cut_alike() -> None:
    model = CATALOGUE.model("openai", "gpt-4o")
    bounds = splice(chat(n=3, max_tokens=2_000), CHAT).size.bounds(model)
    left = Tariff().credits_for(model.price.cost_pusd(bounds.input_tokens_max, 3 * 500 + 2))
    cut = bounds.cut_to(left, model.price, Tariff())
    assert cut is not None
    assert (cut.answer_tokens_max, cut.output_tokens_max) == (500, 1_500)
