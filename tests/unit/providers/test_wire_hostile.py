"""Whatever a client sends: a request that every adapter can send on, or an error that says what is wrong."""

import copy
import json
from typing import Any

import pytest
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_wire_anthropic import FULL as ANTHROPIC
from test_wire_openai import FULL as OPENAI

from runtime.errors import BadInputError
from runtime.ids import CallId
from runtime.keys.keys import Lease
from runtime.providers.adapters import anthropic_sdk, gemini_sdk, openai_sdk
from runtime.providers.chat import ChatRequest
from runtime.providers.wires import anthropic, openai

LEASE = Lease(provider="openai", model="claude-sonnet-4-5", key_id="k", base_url="http://x", key="k")


def names_in(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(names_in, value))
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return {value} if isinstance(value, str) else set()


WORDS = sorted(names_in(OPENAI) | names_in(ANTHROPIC))
TEXT = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=()), max_size=8)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in ((value, key), *places_in(one))]


@st.composite
def bodies(draw: Any) -> dict[str, Any]:
    """Anything, or a good body with a few places changed, taken out or added."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.dictionaries(TEXT, JSON, max_size=6))
    body = copy.deepcopy(draw(st.sampled_from([OPENAI, ANTHROPIC])))
    for _ in range(draw(st.integers(0, 4))):
        container, key = draw(st.sampled_from(places_in(body)))
        if draw(st.booleans()) and isinstance(container, dict):
            container[draw(TEXT)] = draw(JSON)
        elif draw(st.booleans()) and isinstance(container, dict):
            container.pop(key, None)
        else:
            container[key] = draw(JSON)
    return body


def sendable(request: ChatRequest) -> None:
    """Raises where an adapter could not write the request."""
    for mode in ("json_schema", "json_object"):
        json.dumps(openai_sdk.body_of(request, LEASE, mode), allow_nan=False, ensure_ascii=False).encode()
    json.dumps(anthropic_sdk.body_of(request, LEASE)[0], allow_nan=False, ensure_ascii=False).encode()
    contents, config = gemini_sdk.body_of(request, LEASE, CallId("c"))
    types.GenerateContentConfig(**config).model_dump_json()
    for content in contents:
        types.Content(**content).model_dump_json()


@pytest.mark.parametrize("request_of", [openai.request_of, anthropic.request_of])
def test_request__of_any_json_is_a_request_or_a_clear_refusal(request_of):
    @settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies())
    def holds(body: dict[str, Any]) -> None:
        try:
            sendable(request_of(body))
        except BadInputError as error:
            refused = error
        else:
            return
        assert len(refused.message.encode()) < 1_000

    holds()


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["input", "dimensions", "encoding_format", "model", "user"]) | TEXT, JSON))
def test_embed_request__of_any_json_is_a_request_or_a_clear_refusal(body):
    try:
        request = openai.embed_request_of(body)
    except BadInputError as refused:
        refused.message.encode()
    else:
        assert all(request.texts)


def test_request__good_bodies_are_not_refused():
    sendable(openai.request_of(OPENAI))
    sendable(anthropic.request_of(ANTHROPIC))
