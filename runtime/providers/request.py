"""A chat request as it may be sent: only what we can put an upper bound on before the call.

What a provider bills beyond text tokens (images, audio, web search, priority tiers, other models as fallbacks) has no
bound yet, so a request that asks for it is refused rather than passed on.
"""

import json
from dataclasses import dataclass
from typing import Any

from runtime.errors import BadInputError
from runtime.providers.catalogue import Model

FIELDS = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature",
    "top_p", "stop", "seed", "user", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs",
    "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
    "response_format", "reasoning_effort", "verbosity", "metadata", "safety_identifier", "prompt_cache_key",
    "top_k", "min_p", "repetition_penalty",
}  # fmt: skip
CHOICES_MAX = 8
TOKENS_MAX = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What goes to the provider, and the most it can use. `wants_usage`: the client of a stream asked for usage."""

    body: dict[str, Any]
    input_tokens_max: int
    output_tokens_max: int
    wants_usage: bool


def chat_request(body: dict[str, Any], model: Model) -> ChatRequest:
    """Checks a client's request and bounds it.

    Input: a token is at least one byte, so the UTF-8 bytes of the request's JSON are an upper bound. Output: the
    caller's limit, else the model's, times the number of choices.
    Raises BadInputError naming the field.
    """
    unknown = sorted(str(name)[:40] for name in body if name not in FIELDS)
    if unknown:
        raise BadInputError(f"Not supported here: {', '.join(unknown)[:300]}.", "Leave it out and send the rest.")
    _check_messages(body.get("messages"))
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(t, dict) and t.get("type") == "function" for t in tools):
        raise BadInputError("tools must be a list of functions.", "Correct it and send it again.")
    streams = body.get("stream", False)
    if streams not in (True, False, None):
        raise BadInputError("stream must be true or false.", "Correct it and send it again.")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadInputError("stream_options must be an object.", "Correct it and send it again.")
    limits = [_count(body, name, TOKENS_MAX) for name in ("max_completion_tokens", "max_tokens")]
    output_limit = next((limit for limit in limits if limit is not None), model.output_tokens_max)
    sent = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    sent["model"] = model.name
    return ChatRequest(
        body=sent,
        input_tokens_max=len(_encoded(sent)),
        output_tokens_max=output_limit * (_count(body, "n", CHOICES_MAX) or 1),
        wants_usage=bool(options and options.get("include_usage")),
    )


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise BadInputError("messages must be a list with at least one message.", "Add one and send it again.")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadInputError("Each message must be an object with a role.", "Correct it and send it again.")
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        parts = content if isinstance(content, list) else [content]
        if not all(isinstance(part, dict) and part.get("type") in ("text", "refusal") for part in parts):
            raise BadInputError("Messages may hold text only; images, audio and files are not supported here.",
                                "Describe the content in words.")  # fmt: skip


def _count(body: dict[str, Any], name: str, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise BadInputError(f"{name} must be a whole number from 1 to {most}.", "Correct it and send it again.")
    return value


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            "The request cannot be written as JSON in UTF-8 (half a surrogate pair, not-a-number, or nested too deep).",
            "Correct the text and send it again.",
        ) from error
