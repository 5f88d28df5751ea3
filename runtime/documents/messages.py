"""What may be asked of a person's library and of the index of its documents, and the answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from runtime.ids import BlobId, DocumentId, UserId

DocumentStatus = Literal["pending", "processing", "indexed", "failed"]
TOP_K = 5
THRESHOLD = 0.3
"""Source of both: spec/assistant.md §10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A document as its owner sees it."""

    id: DocumentId
    filename: str
    ending: str
    size_bytes: int
    content_sha256: str
    """The first 16 hex digits."""
    blob: BlobId
    created_at: datetime
    status: DocumentStatus = "pending"
    chunk_count: int = 0
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDocument:
    """Answers an `Item`: the one that is there, where the same content was uploaded before."""

    owner: UserId
    filename: str
    """As `formats.label` gives it."""
    ending: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDocument:
    """Answers True. Raises NotFoundError for one that is not there, or no longer."""

    owner: UserId
    document: DocumentId


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDocuments:
    """Answers a sequence of `Item`, the newest first."""

    owner: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLibrary:
    """Answers `LibraryFound`."""

    owner: UserId
    query: str
    limit: int = TOP_K
    score_min: float = THRESHOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageHit:
    document: DocumentId
    filename: str
    """Empty where the index answers, which does not know it."""
    index: int
    page: int | None
    heading: str
    text: str
    similarity: float
    """The cosine, 0 to 1; without a model, how well the words fit, relative to the best."""
    keyword_matches: int
    """Distinct words of the query in it."""
    score: float
    """Similarity and .05 for each of them, at most 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFound:
    embedder: str
    hits: Sequence[PassageHit]
    """Best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    id: DocumentId
    filename: str
    ending: str
    blob: BlobId


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateDocuments:
    """To the index: makes exactly these what is searched. Answers `DocumentsIndexed`. Repeating it costs nothing."""

    owner: UserId
    documents: tuple[StoredDocument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsIndexed:
    version: str
    chunks: Mapping[DocumentId, int]
    """Of those that are searched now."""
    failed: Mapping[DocumentId, str]
    """The others, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDocuments:
    """To the index. Answers `DocumentsFound`."""

    owner: UserId
    query: str
    limit: int
    score_min: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsFound:
    version: str
    """As `version_of` the documents that were searched."""
    embedder: str
    hits: Sequence[PassageHit]


def version_of(documents: Iterable[DocumentId]) -> str:
    """Names a set of documents, whose contents never change."""
    return sha256("\n".join(sorted(documents)).encode()).hexdigest()
