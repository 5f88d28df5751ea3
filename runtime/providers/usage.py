"""How many tokens a call used, as the provider reports it."""

from dataclasses import dataclass
from typing import Any

TOKENS_MAX = 10**9
"""A report above this is a lie or a bug, and is treated as no report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    input_tokens: int
    output_tokens: int


def usage_of(reply: dict[str, Any]) -> Usage | None:
    """From the `usage` of a reply or a stream's chunk; None where there is none that can be believed."""
    reported = reply.get("usage")
    if not isinstance(reported, dict):
        return None
    tokens = reported.get("prompt_tokens"), reported.get("completion_tokens")
    if not all(type(count) is int and 0 <= count <= TOKENS_MAX for count in tokens):
        return None
    return Usage(input_tokens=reported["prompt_tokens"], output_tokens=reported["completion_tokens"])
