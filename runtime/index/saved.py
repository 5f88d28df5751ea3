"""An index as bytes. What is read back is checked before anything of it is used, and nothing in it is code."""

import hashlib
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from runtime.errors import BadInputError, UnavailableError
from runtime.index.bm25 import Postings
from runtime.index.chunk import Chunk
from runtime.index.dense import DenseVectors
from runtime.index.embedder import Embedder, Named
from runtime.index.ranking import FIELDS
from runtime.index.source import Reading
from runtime.index.tree import IndexedFile, IndexedTree

MAGIC = b"masterbuilder-index-4\n"
"""Raise the number whenever chunks, terms or this layout change: older indexes are then rebuilt."""

UNREAD = "unread"
_TENSORS = {
    "chunk_ids": ("int64",),
    "ids": ("int64",),
    "vectors": ("float32", "float16"),
    "terms": ("int64",),
    "postings_per_term": ("int32",),
    "owners": ("int32",),
    "counts": ("uint16",),
    "lengths": ("uint32",),
}
"""What each may be kept as."""
_DIGEST_BYTES = 32


class UnusableIndexError(ValueError):
    """The bytes are not an index that this version can use with this embedder. The index has to be rebuilt."""


class _SavedFile(msgspec.Struct, forbid_unknown_fields=True):
    content_id: str
    skipped: str
    chunks: list[Chunk]


class _SavedTree(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    commit: str
    embedder: str
    files: dict[str, _SavedFile]
    generation: str = ""
    waits: str = ""


_decoder = msgspec.msgpack.Decoder(_SavedTree)


def index_bytes(tree: IndexedTree) -> bytes:
    """MAGIC, the SHA-256 of the rest, and the rest: safetensors with `tree` (msgpack) and what `_TENSORS` names."""
    dense = tree.dense or DenseVectors.empty(1)
    described = _SavedTree(
        commit=tree.commit,
        embedder=tree.embedder.name,
        files={
            path: _SavedFile(content_id=file.content_id, skipped=file.skipped, chunks=list(file.chunks))
            for path, file in tree.files.items()
        },
        generation=tree.generation,
        waits=tree.waits,
    )
    postings = tree.ranking.postings
    terms, postings_per_term = np.unique(postings.keys, return_counts=True)
    tensors: dict[str, npt.NDArray[Any]] = {
        "tree": np.frombuffer(msgspec.msgpack.encode(described), dtype=np.uint8),
        "chunk_ids": np.array([it for file in tree.files.values() for it in file.ids], np.int64),
        "ids": dense.ids,
        "vectors": dense.vectors,
        "terms": terms,
        "postings_per_term": postings_per_term.astype(np.int32),
        "owners": postings.owners,
        # A chunk has fewer words than a uint16 can count.
        "counts": postings.counts.astype(np.uint16),
        "lengths": postings.lengths.astype(np.uint32),
    }
    content = safetensors.numpy.save(tensors)
    return MAGIC + hashlib.sha256(content).digest() + content


def index_from_bytes(saved: bytes, default: Embedder, named: Named) -> IndexedTree:
    """With the embedder it was made with: `default`, or what is `named` as it says.

    Nothing is counted or hashed again: the digest says that these are the bytes that were written.

    Raises UnusableIndexError for anything but an undamaged index of this version and an embedder that is here.
    """
    described, tensors = _read(saved)
    embedder = default if described.embedder == default.name else _resolved(described.embedder, named)
    files = _files(described, tensors["chunk_ids"])
    postings = _postings(tensors, sum(len(file.chunks) for file in files.values()))
    dense, waits = (None, "") if embedder.dimension == 0 else _dense(described, tensors, embedder)
    return IndexedTree.of(described.commit, embedder, described.generation, files, postings, dense, 0, waits)


def _files(described: _SavedTree, chunk_ids: npt.NDArray[Any]) -> dict[str, IndexedFile]:
    if chunk_ids.shape != (sum(len(file.chunks) for file in described.files.values()),):
        raise UnusableIndexError("its chunks are not all named")
    ids = iter(chunk_ids.tolist())
    return {
        path: IndexedFile(
            content_id=file.content_id,
            skipped=file.skipped,
            chunks=file.chunks,
            ids=list(islice(ids, len(file.chunks))),
        )
        for path, file in described.files.items()
    }


def _postings(tensors: Mapping[str, npt.NDArray[Any]], chunks: int) -> Postings:
    terms, postings_per_term, owners = tensors["terms"], tensors["postings_per_term"], tensors["owners"]
    counts, lengths = tensors["counts"], tensors["lengths"]
    is_whole = (
        terms.shape == postings_per_term.shape == (len(terms),)
        and owners.shape == (postings_per_term.sum(),)
        and counts.shape == (len(owners), FIELDS)
        and lengths.shape == (chunks, FIELDS)
    )
    if not is_whole or (len(owners) and not 0 <= owners.min() <= owners.max() < chunks):
        raise UnusableIndexError("its words are not those of its chunks")
    keys = np.repeat(terms, postings_per_term)
    return Postings(keys, owners, counts.astype(np.float32), lengths.astype(np.float32))


def _dense(
    described: _SavedTree, tensors: Mapping[str, npt.NDArray[Any]], embedder: Embedder
) -> tuple[DenseVectors, str]:
    """And why some are missing, where they are."""
    ids, vectors = tensors["ids"], tensors["vectors"]
    if vectors.shape != (len(ids), embedder.dimension) or not np.isfinite(vectors).all():
        raise UnusableIndexError("its vectors are not this embedder's")
    wanted = np.unique(tensors["chunk_ids"])
    is_whole = np.array_equal(np.sort(ids, axis=None), wanted)
    if not is_whole and not (described.waits and len(np.unique(ids)) == len(ids) and np.isin(ids, wanted).all()):
        raise UnusableIndexError("its vectors are not those of its chunks")
    return DenseVectors.of(ids, vectors.astype(np.float32, copy=False)), "" if is_whole else described.waits


class SavedReadings:
    """What was read for a saved index, as a source for another: so it need not be read again."""

    def __init__(self, saved: bytes) -> None:
        """Raises UnusableIndexError for anything but an undamaged index of this version, whatever its embedder."""
        described, _ = _read(saved)
        self.commit = described.commit
        # What had no room is not read again here, and gets an id that the next real source does not know.
        self.ids = {path: file.content_id or UNREAD for path, file in described.files.items()}
        self._files = described.files

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        return {path: Reading(chunks=self._files[path].chunks, skipped=self._files[path].skipped) for path in paths}


def _read(saved: bytes) -> tuple[_SavedTree, Mapping[str, npt.NDArray[Any]]]:
    digest, content = saved[len(MAGIC) :][:_DIGEST_BYTES], saved[len(MAGIC) + _DIGEST_BYTES :]
    if not saved.startswith(MAGIC):
        raise UnusableIndexError("it is not an index, or one of another version")
    if hashlib.sha256(content).digest() != digest:
        raise UnusableIndexError("it is damaged")
    try:
        tensors = safetensors.numpy.load(content)
        described = _decoder.decode(tensors["tree"].tobytes())
    except (SafetensorError, msgspec.DecodeError, KeyError) as error:
        raise UnusableIndexError(f"it is not laid out as an index is: {error}") from error
    for name, types in _TENSORS.items():
        if name not in tensors or tensors[name].dtype.name not in types:
            raise UnusableIndexError(f"it is not laid out as an index is: {name}")
    return described, tensors


def _resolved(name: str, named: Named) -> Embedder:
    try:
        return named(name)
    except (BadInputError, UnavailableError) as error:
        raise UnusableIndexError(f"it was made with {name}: {error}") from error
