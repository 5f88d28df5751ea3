import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadInputError
from runtime.providers.catalogue import CATALOGUE
from runtime.providers.request import chat_request

MODEL = CATALOGUE.model("openai", "gpt-4o-mini")
HELLO = [{"role": "user", "content": "zażółć"}]


def test_bounds__are_the_bytes_of_the_request_and_the_callers_limit():
    request = chat_request({"model": "openai/gpt-4o-mini", "messages": HELLO, "max_tokens": 7}, MODEL)
    assert request.body["model"] == "gpt-4o-mini"
    assert request.input_tokens_max == len(json.dumps(request.body, ensure_ascii=False).encode())
    assert request.output_tokens_max == 7


def test_output_bound__without_a_limit_is_the_models_and_counts_every_choice():
    assert chat_request({"messages": HELLO}, MODEL).output_tokens_max == 16_384
    assert chat_request({"messages": HELLO, "n": 3, "max_completion_tokens": 5}, MODEL).output_tokens_max == 15


def test_stream_fields__are_ours_to_set():
    request = chat_request({"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}, MODEL)
    assert request.wants_usage
    assert not request.body.keys() & {"stream", "stream_options"}
    assert not chat_request({"messages": HELLO, "stream": True}, MODEL).wants_usage


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "text only"),
        ({"messages": [{"role": "user", "content": 5}]}, "text only"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": -1}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": True}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": "9"}, "max_tokens"),
        ({"messages": HELLO, "max_tokens": 10**30}, "max_tokens"),
        ({"messages": HELLO, "n": 10**6}, "n must"),
        ({"messages": HELLO, "service_tier": "priority"}, "service_tier"),
        ({"messages": HELLO, "web_search_options": {}}, "web_search_options"),
        ({"messages": HELLO, "models": ["openai/o1-pro"]}, "models"),
        ({"messages": HELLO, "tools": [{"type": "web_search"}]}, "tools"),
        ({"messages": HELLO, "stream": "yes"}, "stream"),
        ({"messages": HELLO, "stream_options": 1}, "stream_options"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "UTF-8"),
        ({"messages": HELLO, "temperature": float("nan")}, "not-a-number"),
    ],
)
def test_request__that_has_no_bound_or_no_sense_is_refused_by_name(body, named):
    with pytest.raises(BadInputError, match=named):
        chat_request(body, MODEL)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["messages", "max_tokens", "n", "stream", "stream_options", "tools", "temperature", "model"])


@given(st.dictionaries(fields | st.text(max_size=10), junk, max_size=6))
def test_request__of_any_junk_is_bounded_or_refused(body):
    try:
        request = chat_request(body, MODEL)
    except BadInputError:
        return
    assert request.input_tokens_max > 0
    assert request.output_tokens_max > 0
