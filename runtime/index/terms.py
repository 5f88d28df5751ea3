"""Words of code and text, as numbers: identifiers split, lower case, stemmed, hashed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_WORD_CHARS_MAX = 64  # longer runs are data, not words

PREFIX_CHARS_MIN = 3
PREFIX_WEIGHT = 0.6
# fmt: off
_TELLING_NOTHING = frozenset((
    "a", "all", "an", "and", "any", "are", "as", "at", "be", "but", "by", "can", "each", "for", "from", "has", "have",
    "if", "in", "into", "is", "it", "its", "not", "of", "on", "or", "than", "that", "the", "then", "this", "to", "was",
    "when", "which", "will", "with",
))
# fmt: on

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TermCounts:
    """How often each term stands in each field of one chunk."""

    keys: Keys
    """int64[u], ascending, each once."""
    counts: npt.NDArray[np.float32]
    """float32[u, fields]"""
    lengths: npt.NDArray[np.float32]
    """float32[fields]: terms in each field, repeats included."""


def term_keys(text: str) -> list[int]:
    """A key per term in reading order: `getHTTPResponses` gives those of get, http, response.

    Keys are 63-bit hashes that are the same in every process, so an index needs no vocabulary.
    """
    return [key for word in _WORD.findall(text) for key in _keys_of(word[:_WORD_CHARS_MAX])]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTerms:
    """What is looked up for a question: each term once, and the beginnings of terms, which count less."""

    keys: Keys
    weights: npt.NDArray[np.float32]


@lru_cache(maxsize=1 << 10)
def query_terms(text: str) -> QueryTerms:
    """`configuration` also finds `config`, as code shortens words. Words that stand everywhere are left out, unless
    there are no others."""
    words = [part.lower() for word in _WORD.findall(text) for part in _parts_of(word[:_WORD_CHARS_MAX])]
    telling = [word for word in words if word not in _TELLING_NOTHING] or words
    stems = list(dict.fromkeys(_stem(word) for word in telling))
    weights = dict.fromkeys(stems, 1.0)
    for stem in stems:
        for length in range(PREFIX_CHARS_MIN, len(stem)):
            weights.setdefault(stem[:length], PREFIX_WEIGHT)
    return QueryTerms(
        keys=np.array([_key(term) for term in weights], np.int64),
        weights=np.array(list(weights.values()), np.float32),
    )


def count_terms(fields: Sequence[str]) -> TermCounts:
    found = [np.array(term_keys(field), dtype=np.int64) for field in fields]
    keys = np.unique(np.concatenate(found))
    counts = np.zeros((len(keys), len(fields)), dtype=np.float32)
    for column, terms in enumerate(found):
        np.add.at(counts[:, column], np.searchsorted(keys, terms), 1.0)
    return TermCounts(keys=keys, counts=counts, lengths=np.array([len(t) for t in found], dtype=np.float32))


@lru_cache(maxsize=1 << 16)
def _keys_of(word: str) -> tuple[int, ...]:
    return tuple(_key(_stem(part.lower())) for part in _parts_of(word))


def _parts_of(word: str) -> list[str]:
    return _PART.findall(word) if word.isascii() else [word]


def _key(term: str) -> int:
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def _stem(word: str) -> str:
    """Plurals (Harman 1991, "How effective is suffixing?", the S stemmer), then -ing and -ed of longer words."""
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("us", "ss", "aes", "ees", "oes")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) >= len(suffix) + 4:
            word = word[: -len(suffix)]
            break
    return word.removesuffix("e") if len(word) > 3 else word
