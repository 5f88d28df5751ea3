"""The clients people have, against the model door by base URL alone: the official SDKs, LiteLLM's and Aider.

Each also reaches the providers of the other wires. Behind the door stands the simulator, which makes up what a request
orders (`cluster.simulator.synthetic`).
"""

import base64
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from runtime.keys.pool import TTL_UNLIMITED_S
from tests.e2e.aimock import aimock
from tests.e2e.live import Live
from tests.e2e.npm import missing_programs
from tests.e2e.upstream import CLAUDE, GEMINI, GPT, MODELS, simulated, three_wires

AIDER_VENV = Path(os.environ.get("AIDER_VENV") or Path(__file__).parents[2] / ".venv-aider").absolute()
needs_aider = pytest.mark.skipif(
    not (AIDER_VENV / "bin" / "aider").exists(), reason=f"no Aider environment in {AIDER_VENV}; set AIDER_VENV"
)

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
ARGUMENTS = {"city": "Łódź", "days": 3}
CALLS_A_TOOL = f"synthetic tool=weather args={json.dumps(ARGUMENTS, ensure_ascii=False)}"
TWELVE_WORDS = "synthetic tokens=12 piece_tokens=1 seed=5"
"""Comes in twelve pieces."""


class Verdict(BaseModel):
    verdict: Literal["pass", "fail"]
    reasons: list[str]
    score: int


@pytest.fixture(scope="module")
def up(live: Live) -> Live:
    started = live.run("up", **simulated(live))
    assert started.returncode == 0, started.stderr
    return live


@pytest.fixture(scope="module")
def openai_sdk(up: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{up.url}/v1", api_key=up.client_token, max_retries=0, timeout=120.0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_sdk(up: Live) -> Iterator[Anthropic]:
    with Anthropic(base_url=up.url, api_key=up.client_token, max_retries=0, timeout=120.0) as client:
        yield client


# The `openai` SDK


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__chats(openai_sdk: OpenAI, model: str) -> None:
    reply = openai_sdk.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": TWELVE_WORDS}],
        max_tokens=100,
        temperature=0.5,
    )
    assert len((reply.choices[0].message.content or "").split()) == 12
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage
    assert reply.usage.completion_tokens == 12
    assert reply.usage.prompt_tokens > 5


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__is_told_that_the_reply_was_cut_off(openai_sdk: OpenAI, model: str) -> None:
    reply = openai_sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": TWELVE_WORDS}], max_tokens=5
    )
    assert reply.choices[0].finish_reason == "length"
    assert len((reply.choices[0].message.content or "").split()) == 5


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__streams_every_piece_by_itself(openai_sdk: OpenAI, model: str) -> None:
    stream = openai_sdk.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": TWELVE_WORDS}],
        max_tokens=100,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) == 12
    assert len("".join(pieces).split()) == 12
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 12
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__gets_no_usage_in_a_stream_it_did_not_ask_for(openai_sdk: OpenAI, model: str) -> None:
    stream = openai_sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": TWELVE_WORDS}], max_tokens=100, stream=True
    )
    chunks = list(stream)
    assert [chunk for chunk in chunks if chunk.usage] == []
    assert [chunk for chunk in chunks if not chunk.choices] == []


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__runs_a_streamed_tool_loop(openai_sdk: OpenAI, model: str) -> None:
    # given a tool that the model wants to use
    question: dict[str, Any] = {"role": "user", "content": CALLS_A_TOOL}
    asked: dict[str, Any] = {
        "model": model,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}],
        "max_tokens": 200,
        "stream": True,
    }
    call = _streamed_call(openai_sdk.chat.completions.create(messages=[question], **asked))
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    # when it gets the result
    answer = openai_sdk.chat.completions.create(
        messages=[
            question,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny, 21 °C"},
        ],
        **asked,
    )
    # then it speaks of it
    said = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    assert "sunny, 21 °C" in said


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__gets_json_of_its_schema(openai_sdk: OpenAI, model: str) -> None:
    reply = openai_sdk.chat.completions.parse(
        model=model,
        messages=[{"role": "user", "content": "synthetic json"}],
        response_format=Verdict,
        max_tokens=300,
    )
    assert isinstance(reply.choices[0].message.parsed, Verdict)


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
@pytest.mark.parametrize("model", ["openai/text-embedding-3-small", "gemini/gemini-embedding-001"])
def test_openai_sdk__embeds(openai_sdk: OpenAI, model: str, encoding: Any) -> None:
    chosen = {} if encoding is None else {"encoding_format": encoding}
    reply = openai_sdk.embeddings.create(model=model, input=["one text", "another", "one text"], **chosen)
    vectors = [item.embedding for item in reply.data]
    if encoding == "base64":
        vectors = [list(base64.b64decode(str(vector))) for vector in vectors]
    assert [item.index for item in reply.data] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert len(vectors[0]) > 100
    assert reply.usage.prompt_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_openai_sdk__shows_a_picture(openai_sdk: OpenAI, model: str) -> None:
    picture = png()
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    reply = openai_sdk.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "synthetic image"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            }
        ],
        max_tokens=100,
    )
    assert f"1 images: image/png {len(picture)} bytes" in (reply.choices[0].message.content or "")


def test_openai_sdk__lists_the_models_it_may_call(openai_sdk: OpenAI) -> None:
    listed = {model.id for model in openai_sdk.models.list()}
    assert {*MODELS, "openai/text-embedding-3-small"} <= listed


def test_openai_sdk__reads_our_refusals(up: Live, openai_sdk: OpenAI) -> None:
    hello: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai_sdk.with_options(api_key="mb-wrong").chat.completions.create(model=GPT, messages=hello)
    assert unknown.value.code == "not_authenticated"
    with pytest.raises(openai.APIStatusError, match="no-such-model") as unpriced:
        openai_sdk.chat.completions.create(model="openai/no-such-model", messages=hello)
    assert 400 <= unpriced.value.status_code < 500
    with pytest.raises(openai.BadRequestError, match="made_up") as unforeseen:
        openai_sdk.chat.completions.create(model=GPT, messages=hello, extra_body={"made_up": 1})
    with pytest.raises(openai.NotFoundError):
        openai_sdk.completions.create(model=GPT, prompt="hello")
    for refused in (unknown, unpriced, unforeseen):
        assert refused.value.request_id
        assert refused.value.body["request_id"] == refused.value.request_id  # type: ignore[index]
        assert refused.value.type


def _streamed_call(stream: "openai.Stream[ChatCompletionChunk]") -> dict[str, Any]:
    """The one tool call of a stream, put together as the format says."""
    call: dict[str, Any] = {"type": "function", "id": "", "function": {"name": "", "arguments": ""}}
    finish = None
    for chunk in stream:
        if not chunk.choices:
            continue
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.index == 0
            call["id"] += delta.id or ""
            if delta.function:
                call["function"]["name"] += delta.function.name or ""
                call["function"]["arguments"] += delta.function.arguments or ""
        finish = chunk.choices[0].finish_reason or finish
    assert finish == "tool_calls"
    return call


# The `anthropic` SDK


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_sdk__talks(anthropic_sdk: Anthropic, model: str) -> None:
    reply = anthropic_sdk.messages.create(
        model=model,
        system="Be brief.",
        messages=[{"role": "user", "content": TWELVE_WORDS}],
        max_tokens=100,
    )
    (block,) = reply.content
    assert block.type == "text"
    assert len(block.text.split()) == 12
    assert reply.stop_reason == "end_turn"
    assert reply.usage.output_tokens == 12
    assert reply.usage.input_tokens > 5


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_sdk__streams_every_piece_by_itself(anthropic_sdk: Anthropic, model: str) -> None:
    with anthropic_sdk.messages.stream(
        model=model, messages=[{"role": "user", "content": TWELVE_WORDS}], max_tokens=100
    ) as stream:
        pieces = list(stream.text_stream)
        whole = stream.get_final_message()
    assert len(pieces) == 12
    assert len("".join(pieces).split()) == 12
    assert whole.usage.output_tokens == 12
    assert whole.usage.input_tokens > 5
    assert whole.stop_reason == "end_turn"


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_sdk__runs_a_streamed_tool_loop(anthropic_sdk: Anthropic, model: str) -> None:
    # given a tool that the model wants to use
    question: Any = {"role": "user", "content": CALLS_A_TOOL}
    asked: dict[str, Any] = {
        "model": model,
        "tools": [{"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER}],
        "max_tokens": 200,
    }
    with anthropic_sdk.messages.stream(messages=[question], **asked) as stream:
        turn = stream.get_final_message()
    assert turn.stop_reason == "tool_use"
    (call,) = [block for block in turn.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("weather", ARGUMENTS)
    # when it gets the result
    result: Any = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 °C"}],
    }
    replied: Any = {"role": "assistant", "content": turn.content}
    with anthropic_sdk.messages.stream(messages=[question, replied, result], **asked) as stream:
        said = "".join(stream.text_stream)
    # then it speaks of it
    assert "sunny, 21 °C" in said


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_sdk__shows_a_picture(anthropic_sdk: Anthropic, model: str) -> None:
    picture = png()
    source: Any = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture).decode()}
    reply = anthropic_sdk.messages.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "synthetic image"}, {"type": "image", "source": source}],
            }
        ],
        max_tokens=100,
    )
    (block,) = reply.content
    assert block.type == "text"
    assert f"1 images: image/png {len(picture)} bytes" in block.text


def test_anthropic_sdk__lists_the_models_it_may_call(anthropic_sdk: Anthropic) -> None:
    assert set(MODELS) <= {model.id for model in anthropic_sdk.models.list()}


def test_anthropic_sdk__reads_our_refusals(anthropic_sdk: Anthropic) -> None:
    hello: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        anthropic_sdk.with_options(api_key="mb-wrong").messages.create(model=CLAUDE, messages=hello, max_tokens=9)
    with pytest.raises(anthropic.APIStatusError, match="no-such-model") as unpriced:
        anthropic_sdk.messages.create(model="claude/no-such-model", messages=hello, max_tokens=9)
    assert 400 <= unpriced.value.status_code < 500
    with pytest.raises(anthropic.BadRequestError, match="made_up") as unforeseen:
        anthropic_sdk.messages.create(model=CLAUDE, messages=hello, max_tokens=9, extra_body={"made_up": 1})
    assert error_type(unknown.value) == "authentication_error"
    assert error_type(unforeseen.value) == "invalid_request_error"
    for refused in (unknown, unpriced, unforeseen):
        assert refused.value.request_id
        assert refused.value.body["request_id"] == refused.value.request_id  # type: ignore[index]


def error_type(error: anthropic.APIStatusError) -> str:
    body: Any = error.body
    assert body["type"] == "error"
    return str(body["error"]["type"])


# Tools that people point at a base URL


@needs_aider
def test_litellm_client__talks_to_every_provider_over_both_wires(up: Live) -> None:
    """Its library, not its proxy; it stands in Aider's environment."""
    script = Path(__file__).with_name("litellm_flows.py")
    ran = subprocess.run(
        [AIDER_VENV / "bin" / "python", script, up.url, *MODELS],
        env={**bare_environment(up.folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "GATEWAY_TOKEN": up.client_token},
        cwd=up.folder, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["embedded"] == [True, True]
    for model in MODELS:
        for wire in ("openai", "anthropic"):
            assert told[f"{wire} {model}"] == {
                "words": 12, "completion_tokens": 12, "arguments": ARGUMENTS, "quoted": True, "refused": "401"
            }  # fmt: skip


@needs_aider
def test_aider__edits_a_file(up: Live, tmp_path: Path) -> None:
    variables = {"OPENAI_API_BASE": f"{up.url}/v1", "OPENAI_API_KEY": up.client_token}
    aider(tmp_path, f"openai/{GPT}", variables)


@needs_aider
def test_aider__edits_a_file_over_anthropics_wire(up: Live, tmp_path: Path) -> None:
    variables = {"ANTHROPIC_API_BASE": up.url, "ANTHROPIC_API_KEY": up.client_token}
    aider(tmp_path, f"anthropic/{GEMINI}", variables)


def aider(folder: Path, model: str, variables: dict[str, str]) -> None:
    """Has it mend a file in a repository of its own."""
    repository = folder / "repository"
    repository.mkdir()
    (repository / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    environment = {**bare_environment(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", **variables}
    for command in (
        ["git", "init", "-q"],
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "Start"],
    ):
        subprocess.run(command, cwd=repository, env=environment, check=True)
    ran = subprocess.run(
        [
            AIDER_VENV / "bin" / "aider", "--model", model, "--message", ECHOED_EDIT, "--edit-format", "diff",
            "--yes-always", "--no-check-update", "--no-analytics", "--no-show-model-warnings", "--no-gitignore",
            "--no-auto-commits", "--map-tokens", "0", "calc.py",
        ],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    edited = (repository / "calc.py").read_text()
    assert edited == "def add(a, b):\n    return a + b\n", ran.stdout + ran.stderr


ECHOED_EDIT = """synthetic echo

calc.py
```python
<<<<<<< SEARCH
    return a - b
=======
    return a + b
>>>>>>> REPLACE
```
"""


# A provider by somebody else. From here on it stands behind the door, instead of the simulator.

GREETING = "Good evening, and welcome."
FORECAST = "It will be sunny, all three days."
USED = {"prompt_tokens": 11, "completion_tokens": 7, "input_tokens": 11, "output_tokens": 7}
FIXTURES = (
    {"match": {"userMessage": "greet"}, "response": {"content": GREETING, "usage": USED}},
    {"match": {"userMessage": "Say hello."}, "response": {"content": GREETING, "usage": USED}},
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": FORECAST, "usage": USED}},
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "weather", "arguments": ARGUMENTS}], "usage": USED},
    },
)


@pytest.fixture(scope="module")
def third_party(up: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if missing := missing_programs():
        pytest.skip(f"not installed: {missing}")
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as url:
        started = up.run("up", **three_wires(url, ("third-openai", "third-anthropic", "third-gemini")))
        assert started.returncode == 0, started.stderr
        time.sleep(TTL_UNLIMITED_S + 0.5)  # So long a process may go on with the permits it has in stock.
        yield url


@pytest.mark.parametrize("model", MODELS)
def test_third_party__answers_the_openai_sdk(third_party: str, openai_sdk: OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "greet"}], "max_tokens": 100}
    whole = openai_sdk.chat.completions.create(**asked)
    streamed = list(openai_sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices]
    assert whole.choices[0].message.content == "".join(pieces) == GREETING
    assert len([piece for piece in pieces if piece]) > 3
    for usage in (whole.usage, streamed[-1].usage):
        assert usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (11, 7)


@pytest.mark.parametrize("model", MODELS)
def test_third_party__answers_the_anthropic_sdk(third_party: str, anthropic_sdk: Anthropic, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "greet"}], "max_tokens": 100}
    whole = anthropic_sdk.messages.create(**asked)
    with anthropic_sdk.messages.stream(**asked) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    (block,) = whole.content
    assert block.type == "text"
    assert block.text == "".join(pieces) == GREETING
    assert len(pieces) > 3
    for usage in (whole.usage, streamed.usage):
        assert (usage.input_tokens, usage.output_tokens) == (11, 7)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("streamed", [False, True])
def test_third_party__calls_a_tool(third_party: str, openai_sdk: OpenAI, model: str, streamed: bool) -> None:
    question: dict[str, Any] = {"role": "user", "content": "weather"}
    asked: dict[str, Any] = {
        "model": model,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}],
        "max_tokens": 200,
    }
    if streamed:
        call = _streamed_call(openai_sdk.chat.completions.create(messages=[question], stream=True, **asked))
    else:
        turn = openai_sdk.chat.completions.create(messages=[question], **asked).choices[0]
        assert turn.finish_reason == "tool_calls"
        call = turn.message.tool_calls[0].model_dump()  # type: ignore[index]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    answer = openai_sdk.chat.completions.create(
        messages=[
            question,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
        ],
        **asked,
    )
    assert answer.choices[0].message.content == FORECAST


@needs_aider
def test_tokens_create__prints_settings_that_work_as_they_are_printed(up: Live, third_party: str) -> None:
    # given a token
    created = up.run("tokens", "create", "--label", "mine", "--budget", "5", "--expires", "1h")
    assert created.returncode == 0, created.stderr
    blocks = dict(block.split("\n", 1) for block in created.stdout.split("\n# ")[1:])
    assert set(blocks) == {"OpenAI SDK", "Anthropic SDK", "Aider", "curl"}
    environment = bare_environment(up.folder)
    environment["PATH"] = f"{Path(sys.executable).parent}:{AIDER_VENV / 'bin'}:{environment['PATH']}"
    environment |= {"AIDER_MESSAGE": "Say hello.", "AIDER_YES_ALWAYS": "1"}
    environment |= {"AIDER_CHECK_UPDATE": "0", "AIDER_ANALYTICS": "0"}
    for name, pasted in blocks.items():
        # when what is printed is pasted
        ran = subprocess.run(
            ["bash", "-eu", "-c", pasted], cwd=up.folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        # then it reaches the model
        assert ran.returncode == 0, f"{name}: {ran.stdout}{ran.stderr}"
        assert GREETING in ran.stdout, f"{name}: {ran.stdout}{ran.stderr}"


def test_third_party__was_asked_in_all_three_wires_and_saw_no_token_of_ours(up: Live, third_party: str) -> None:
    journal = httpx.get(f"{third_party}/__aimock/journal", trust_env=False)
    paths = {entry["path"].partition("?")[0] for entry in journal.json()}
    assert {"/v1/chat/completions", "/v1/messages"} <= paths
    assert {path.rpartition(":")[2] for path in paths} >= {"generateContent", "streamGenerateContent"}
    assert up.client_token not in journal.text


def bare_environment(home: Path) -> dict[str, str]:
    """Nothing that could lead a client elsewhere."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def png(width: int = 8, height: int = 8) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
