"""An index as bytes. What is read back is checked before anything of it is used, and nothing in it is code."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from runtime.errors import BadInputError, UnavailableError
from runtime.index.chunk import Chunk
from runtime.index.dense import DenseVectors
from runtime.index.embedder import Embedder, Named
from runtime.index.source import Reading
from runtime.index.tree import IndexedFile, IndexedTree

MAGIC = b"masterbuilder-index-3\n"
"""Raise the number whenever chunks, terms or this layout change: older indexes are then rebuilt."""

UNREAD = "unread"
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


_decoder = msgspec.msgpack.Decoder(_SavedTree)


def index_bytes(tree: IndexedTree) -> bytes:
    """MAGIC, the SHA-256 of the rest, and the rest: safetensors with `tree` (msgpack), `ids` and `vectors`."""
    dense = tree.dense or DenseVectors.empty(1)
    described = _SavedTree(
        commit=tree.commit,
        embedder=tree.embedder.name,
        files={
            path: _SavedFile(content_id=file.content_id, skipped=file.skipped, chunks=list(file.chunks))
            for path, file in tree.files.items()
        },
        generation=tree.generation,
    )
    tensors: dict[str, npt.NDArray[Any]] = {
        "tree": np.frombuffer(msgspec.msgpack.encode(described), dtype=np.uint8),
        "ids": dense.ids,
        "vectors": dense.vectors,
    }
    content = safetensors.numpy.save(tensors)
    return MAGIC + hashlib.sha256(content).digest() + content


def index_from_bytes(saved: bytes, default: Embedder, named: Named) -> IndexedTree:
    """With the embedder it was made with: `default`, or what is `named` as it says.

    Raises UnusableIndexError for anything but an undamaged index of this version and an embedder that is here.
    """
    described, tensors = _read(saved)
    embedder = default if described.embedder == default.name else _resolved(described.embedder, named)
    files = {
        path: IndexedFile.of(file.content_id, Reading(chunks=file.chunks, skipped=file.skipped))
        for path, file in sorted(described.files.items())
    }
    if embedder.dimension == 0:
        return IndexedTree.of(described.commit, embedder, described.generation, files, None, 0)
    ids, vectors = tensors["ids"], tensors["vectors"]
    is_matrix = vectors.dtype == np.float32 and vectors.shape == (len(ids), embedder.dimension)
    if not is_matrix or ids.dtype != np.int64 or ids.ndim != 1 or not np.isfinite(vectors).all():
        raise UnusableIndexError("its vectors are not this embedder's")
    if not np.array_equal(ids, sorted({it for file in files.values() for it in file.ids})):
        raise UnusableIndexError("its vectors are not those of its chunks")
    return IndexedTree.of(described.commit, embedder, described.generation, files, DenseVectors(ids, vectors), 0)


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
        return described, {name: tensors[name] for name in ("ids", "vectors")}
    except (SafetensorError, msgspec.DecodeError, KeyError) as error:
        raise UnusableIndexError(f"it is not laid out as an index is: {error}") from error


def _resolved(name: str, named: Named) -> Embedder:
    try:
        return named(name)
    except (BadInputError, UnavailableError) as error:
        raise UnusableIndexError(f"it was made with {name}: {error}") from error
