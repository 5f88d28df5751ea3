"""The index of one person's documents as an entity. It has no journal: the library has, and names the files."""

import asyncio
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from runtime.documents.formats import recognise
from runtime.documents.messages import (
    DocumentsFound,
    DocumentsIndexed,
    PassageHit,
    SearchDocuments,
    StoredDocument,
    UpdateDocuments,
    version_of,
)
from runtime.documents.passages import passages_of
from runtime.documents.reading import DocumentReader
from runtime.errors import BadInputError, ExpiredError, NotFoundError, RefusedError
from runtime.ids import DocumentId, EntityId, UserId, name_of
from runtime.index.chunk import Chunk
from runtime.index.embedder import LEXICAL, Embedder, Named, no_other
from runtime.index.shard_entity import ShardEntity
from runtime.index.source import Reading
from runtime.index.vector_cache import AskVectors, ForgetVectors
from runtime.ledger.port import Ledger
from runtime.store.seal import Seal

PASSAGES_MAX = 60_000
"""Of one document: 20 MB of text and its overlaps. What is beyond is not searched, and the document says so."""
KEYWORD_BONUS = 0.05
"""Source: spec/assistant.md §10."""

_ID_BYTES = 36
"""A stored file begins with its document's id."""
_WORD = re.compile(r"\w+")

log = logging.getLogger(__name__)


class DocumentsEntity(ShardEntity):
    """Holds one shard, in which a document is a file and a passage a chunk. Lost, it is read from the files again."""

    kind = "documents"
    read_only = (SearchDocuments, *ShardEntity.read_only)

    def __init__(
        self,
        entity: EntityId,
        ledger: Ledger,
        embedder: Embedder,
        folder: Path,
        seal: Seal,
        reader: DocumentReader,
        *,
        named: Named = no_other,
        vectors: AskVectors | None = None,
    ) -> None:
        """`vectors`: what keeps those of its texts, if they are kept."""
        super().__init__(folder / f"library-{name_of(entity)}.index", seal, embedder, named)
        self._owner = UserId(name_of(entity))
        self._ledger = ledger
        self._reader = reader
        self._vectors = vectors

    async def receive(self, message: Any) -> Any:
        match message:
            case SearchDocuments():
                return await self._search(message)
            case UpdateDocuments(documents=documents):
                return await self._update(documents)
            case _:
                return await super().receive(message)

    async def _update(self, documents: Sequence[StoredDocument]) -> DocumentsIndexed:
        known = self._shard.chunk_counts
        readings: dict[str, Reading] = {}
        failed: dict[DocumentId, str] = {}
        for document in documents:
            if document.id not in known:
                try:
                    readings[document.id] = await self._read(document)
                except (RefusedError, ExpiredError) as error:
                    failed[document.id] = error.message
        kept = [document.id for document in documents if document.id not in failed]
        version = version_of(kept)
        if self._shard.status.commit != version:
            await self._forget_vectors(known.keys() - set(kept))
            source = _Documents(version, kept, readings)
            await self._embedding(self._owner, None, partial(self._shard.update, source))
            self._kept.save_soon()
        else:
            self._complete_soon(self._owner, None)
        counts = self._shard.chunk_counts
        return DocumentsIndexed(version=version, chunks={it: counts[it] for it in kept}, failed=failed)

    async def _read(self, document: StoredDocument) -> Reading:
        """Raises RefusedError for what cannot be read. What only does not answer now goes up: it is tried again."""
        try:
            stored = await self._ledger.get_blob(document.blob)
        except NotFoundError as error:
            raise BadInputError("The upload was cut off.", "Send it again.") from error
        recognised = await asyncio.to_thread(recognise, document.filename, stored[_ID_BYTES:])
        sections = await self._reader.read(recognised)
        return await asyncio.to_thread(_reading, document.id, sections)

    async def _search(self, it: SearchDocuments) -> DocumentsFound:
        version = self._shard.status.commit
        self._complete_soon(self._owner, None)
        near = await self._embedding(self._owner, None, partial(self._shard.similar, it.query, 2 * it.limit))
        hits = [_hit(chunk, similarity, it.query) for chunk, similarity in near if similarity >= it.score_min]
        best = sorted(hits, key=lambda hit: -hit.score)[: it.limit]
        status = self._shard.status
        return DocumentsFound(version=version, embedder=LEXICAL if status.waits else status.embedder, hits=best)

    async def _forget_vectors(self, gone: Collection[str]) -> None:
        """Before documents leave the index, what is kept of its texts beside it goes: nobody asks for those again.

        Raises UnavailableError: then they leave the next time.
        """
        if gone and self._vectors is not None:
            await self._vectors(ForgetVectors(owner=self._owner, shard=self._name))


class _Documents:
    """What is searched: passages that were read before, and those of documents that are read now."""

    def __init__(self, version: str, documents: Sequence[DocumentId], readings: Mapping[str, Reading]) -> None:
        self.commit = version
        self.ids = {str(document): str(document) for document in documents}
        self._readings = readings

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        return {path: self._readings[path] for path in paths if path in self._readings}


def _reading(document: DocumentId, sections: Any) -> Reading:
    chunks: list[Chunk] = []
    for passage in passages_of(sections):
        if len(chunks) == PASSAGES_MAX:
            return Reading(chunks=chunks, skipped=f"only its first {PASSAGES_MAX} passages")
        chunks.append(
            Chunk(
                path=document,
                start_line=passage.index + 1,
                end_line=passage.index + 1,
                symbol=passage.heading,
                docstring="",
                text=passage.text,
                kind="passage",
                page=passage.page,
            )
        )
    return Reading(chunks=chunks)


def _hit(chunk: Chunk, similarity: float, query: str) -> PassageHit:
    """Every distinct word of the query that is in the passage adds KEYWORD_BONUS, up to 1."""
    said = set(_WORD.findall(chunk.text.lower()))
    matches = len(said & set(_WORD.findall(query.lower())))
    return PassageHit(
        document=DocumentId(chunk.path),
        filename="",
        index=chunk.start_line - 1,
        page=chunk.page,
        heading=chunk.symbol,
        text=chunk.text,
        similarity=similarity,
        keyword_matches=matches,
        score=min(1.0, similarity + KEYWORD_BONUS * matches),
    )
