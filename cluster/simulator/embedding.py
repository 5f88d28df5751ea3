"""Vectors for texts: the same text has the same vector, and texts that share words point the same way."""

import re
from collections.abc import Sequence
from math import sqrt
from zlib import crc32

_WORD = re.compile(r"\w+")
_DIMENSIONS = 1536
_DIMENSIONS_OF = {"text-embedding-3-large": 3072, "gemini-embedding-001": 3072}


def embed(model: str, text: str, dimensions: int | None) -> Sequence[float]:
    """A unit vector of `dimensions`, or as many as the model has: each word counts at one place, by its hash.

    Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
    """
    vector = [0.0] * (dimensions or _DIMENSIONS_OF.get(model, _DIMENSIONS))
    for word in _WORD.findall(text.lower()) or [text]:
        hashed = crc32(word.encode())
        vector[(hashed >> 1) % len(vector)] += 1.0 if hashed & 1 else -1.0
    length = sqrt(sum(value * value for value in vector))
    if not length:
        vector[0] = length = 1.0
    return [value / length if value else 0.0 for value in vector]
