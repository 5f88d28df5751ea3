"""Vectors by the content of their texts, kept for their owner: what one index of his embedded, none embeds again."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.errors import MasterbuilderError
from runtime.ids import UserId
from runtime.index.behalf import Behalf, behalf

if TYPE_CHECKING:
    from runtime.index.embedder import Embedder

FOUND_AT_ONCE = 2_000
"""Texts that are looked up by one message."""
KEPT_AT_ONCE = 256

log = logging.getLogger(__name__)

Batches = Callable[[Sequence[str]], Iterable[Sequence[str]]]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindVectors:
    """Answers a mapping of hash -> float32 bytes, of those that are kept."""

    owner: UserId
    embedder: str
    hashes: Sequence[bytes]
    """SHA-256 of each text."""
    shard: str
    """Which index asks: they are forgotten with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepVectors:
    """Answers None when they are on disk. May be repeated."""

    owner: UserId
    embedder: str
    vectors: Mapping[bytes, bytes]
    shard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetVectors:
    """Answers None when all that this index was the last to use is gone."""

    owner: UserId
    shard: str


AskVectors = Callable[[FindVectors | KeepVectors | ForgetVectors], Awaitable[Any]]
"""Asks the owner's `VectorsEntity`."""


class VectorCache(Protocol):
    """For threads: blocks. Raises UnavailableError where it does not answer; nothing depends on it."""

    def find(self, message: FindVectors) -> Mapping[bytes, bytes]: ...

    def keep(self, message: KeepVectors) -> None:
        """They are on disk when this returns."""

    def keep_soon(self, message: KeepVectors) -> None:
        """Beside what comes next, or never."""


class CachedEmbedder:
    """Implements `Embedder` over another. Keeps vectors for whom texts are embedded (`on_behalf`), and for nobody else.

    Each batch is kept before the next one is begun.
    """

    def __init__(self, inner: "Embedder", cache: VectorCache, paid_batches: Batches | None = None) -> None:
        """`paid_batches`: how the texts are sent, where each batch is paid; it is on disk then before more is paid."""
        self.name = inner.name
        self.dimension = inner.dimension
        self.inner = inner
        self._cache = cache
        self._batches = paid_batches or _by_number
        self._keep = cache.keep if paid_batches else cache.keep_soon

    def over(self, inner: "Embedder") -> "CachedEmbedder":
        """The same for another embedder of this machine."""
        return CachedEmbedder(inner, self._cache)

    def embed(self, texts: Sequence[str]) -> Vectors:
        given = behalf()
        if given is None or not texts:
            return self.inner.embed(texts)
        hashes = [sha256(text.encode("utf-8", "replace")).digest() for text in texts]
        kept = self._found(given, hashes)
        vectors = np.empty((len(texts), self.dimension), np.float32)
        missing: list[int] = []
        for number, it in enumerate(hashes):
            if it in kept:
                vectors[number] = kept[it]
            else:
                missing.append(number)
        done = 0
        for batch in self._batches([texts[number] for number in missing]):
            numbers = missing[done : done + len(batch)]
            vectors[numbers] = self.inner.embed(batch)
            self._store(given, {hashes[number]: vectors[number].tobytes() for number in numbers})
            done += len(batch)
        return vectors

    def _found(self, given: Behalf, hashes: Sequence[bytes]) -> Mapping[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        try:
            for start in range(0, len(hashes), FOUND_AT_ONCE):
                some = hashes[start : start + FOUND_AT_ONCE]
                asked = FindVectors(owner=given.owner, embedder=self.name, hashes=some, shard=given.shard)
                found |= {it: np.frombuffer(vector, np.float32) for it, vector in self._cache.find(asked).items()}
        except MasterbuilderError as error:
            log.warning("kept vectors were not looked up: %s", error)
        return {it: vector for it, vector in found.items() if len(vector) == self.dimension}

    def _store(self, given: Behalf, vectors: Mapping[bytes, bytes]) -> None:
        try:
            self._keep(KeepVectors(owner=given.owner, embedder=self.name, vectors=vectors, shard=given.shard))
        except MasterbuilderError as error:
            log.warning("%d vectors are in their index alone: %s", len(vectors), error)


def _by_number(texts: Sequence[str]) -> Iterable[Sequence[str]]:
    return (texts[start : start + KEPT_AT_ONCE] for start in range(0, len(texts), KEPT_AT_ONCE))
