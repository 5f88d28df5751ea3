"""How many tokens a call used, as the provider reports it."""

from dataclasses import dataclass
from typing import Any, TypeGuard

TOKENS_MAX = 10**9
"""A report above this is a lie or a bug, and is treated as no report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """`estimated`: the provider never says; the figures are made from the words."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False


def usage_of(reply: dict[str, Any]) -> Usage | None:
    """From the `usage` of an OpenAI reply or a stream's chunk; None where there is none that can be believed."""
    reported = reply.get("usage")
    if not isinstance(reported, dict):
        return None
    prompt, completion = reported.get("prompt_tokens"), reported.get("completion_tokens")
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    details = reported.get("completion_tokens_details")
    thoughts = details.get("reasoning_tokens") if isinstance(details, dict) else None
    written = with_thoughts(prompt, completion, thoughts if _is_count(thoughts) else None, reported.get("total_tokens"))
    return Usage(input_tokens=prompt, output_tokens=written)


def with_thoughts(prompt: int, completion: int, thoughts: int | None, total: int | None) -> int:
    """Output tokens. Some services (xAI) count a model's thoughts beside the completion: the total tells."""
    is_beside = thoughts is not None and total == prompt + completion + thoughts
    return completion + thoughts if is_beside and thoughts is not None else completion


def anthropic_usage_of(reply: dict[str, Any], before: Usage | None = None) -> Usage | None:
    """From the `usage` of an Anthropic message, or of a stream's `message_delta` event.

    A delta says only what changed: the rest stands in `before`, which came with `message_start`. Tokens written to or
    read from the cache are counted apart there, and count as input here. None where nothing can be believed.
    """
    reported = reply.get("usage")
    if not isinstance(reported, dict):
        return None
    inputs = [reported.get(name) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    output = reported.get("output_tokens")
    if type(output) is not int or not _is_count(output) or not all(n is None or _is_count(n) for n in inputs):
        return None
    if inputs[0] is None:
        return Usage(input_tokens=before.input_tokens, output_tokens=output) if before else None
    return Usage(input_tokens=min(sum(count or 0 for count in inputs), TOKENS_MAX), output_tokens=output)


def _is_count(count: Any) -> TypeGuard[int]:
    return type(count) is int and 0 <= count <= TOKENS_MAX
