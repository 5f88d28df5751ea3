"""Patterns by which faults and limits choose their calls."""

from typing import Annotated

from pydantic import AfterValidator

KEY_PREFIX = "sim-"


def fits(pattern: str, text: str) -> bool:
    """Equal, or beginning alike where the pattern ends in `*`."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def narrowness(pattern: str) -> tuple[bool, int]:
    """Larger for the pattern that says more."""
    return not pattern.endswith("*"), len(pattern)


def _may_be_a_key(pattern: str) -> str:
    if not pattern.endswith("*") and (not pattern.startswith(KEY_PREFIX) or pattern == KEY_PREFIX):
        raise ValueError(f"no key is {pattern!r}: end it in * to mean all keys that begin so")
    return pattern


KeyPattern = Annotated[str, AfterValidator(_may_be_a_key)]
"""A whole key, or the beginning of keys and a `*`."""
