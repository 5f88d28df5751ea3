"""A person's documents: which there are, and how far each is."""

import asyncio
import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runtime.documents.messages import (
    AddDocument,
    DeleteDocument,
    DocumentsFound,
    DocumentsIndexed,
    Item,
    LibraryFound,
    ListDocuments,
    SearchDocuments,
    SearchLibrary,
    StoredDocument,
    UpdateDocuments,
    version_of,
)
from runtime.documents.state import LibraryState
from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord
from runtime.entity.port import Entities
from runtime.errors import (
    BadInputError,
    ConflictError,
    MasterbuilderError,
    NotFoundError,
    UnavailableError,
)
from runtime.ids import BlobId, DocumentId, EntityId, UserId, documents_entity, name_of
from runtime.ledger.port import Ledger

DOCUMENTS_MAX = 200
BYTES_MAX = 500_000_000
"""Of all that one person has. Source of both: spec/assistant.md §10."""
INDEX_S_MAX = 600.0
RETRY_S = 5.0
TRIES_MAX = 12
"""Of a document that cannot be read now. Then it fails with what is in the way: a minute is longer than a restart."""

log = logging.getLogger(__name__)


class Library(Entity[LibraryState]):
    """Has one writer for what a person uploads and deletes: no quota is passed, and nothing is there twice.

    A document's file is stored under its id and its content, so no other person's file is ever the same one: removing
    it asks nobody, and nobody learns by an upload what others have.
    """

    kind = "library"
    read_only = (ListDocuments, SearchLibrary)
    keeps_history = False

    def __init__(self, entity: EntityId, ledger: Ledger, entities: Entities) -> None:
        self._user = UserId(name_of(entity))
        self._ledger = ledger
        self._entities = entities
        self._index = documents_entity(self._user)
        self._updating = asyncio.Lock()
        self._tries: Counter[DocumentId] = Counter()
        """How often each could not be read, by this process."""

    def initial(self) -> LibraryState:
        return LibraryState()

    def fold(self, state: LibraryState, event: EventRecord) -> LibraryState:
        return state.after(event)

    def head(self, state: LibraryState) -> Mapping[str, Any]:
        return {"documents": len(state.items)}

    def freeze(self, state: LibraryState) -> Mapping[str, Any]:
        return state.frozen()

    def thaw(self, data: Mapping[str, Any]) -> LibraryState:
        return LibraryState.thawed(data)

    def is_open(self, state: LibraryState) -> bool:
        return bool(state.unread or state.leaving)

    async def wake(self) -> None:
        if self.is_open(self.state):
            self.activation.spawn(self._work_off(), "documents")

    async def receive(self, message: Any) -> Item | bool | Sequence[Item] | LibraryFound:
        match message:
            case AddDocument():
                return await self._add(message)
            case DeleteDocument(document=document):
                return await self._delete(document)
            case ListDocuments():
                return list(self.state.items.values())[::-1]
            case SearchLibrary():
                return await self._search(message)
            case _:
                raise BadInputError(f"A library does not understand {type(message).__name__}.")

    async def _add(self, message: AddDocument) -> Item:
        content_sha256 = hashlib.sha256(message.content).hexdigest()[:16]
        same = [item for item in self.state.items.values() if item.content_sha256 == content_sha256]
        if same and same[0].status != "failed":
            return same[0]
        if same:
            # What failed may have failed by chance: it is tried again, as the document that the caller sends now.
            await self._delete(same[0].id)
        self._check_room(len(message.content))
        document = DocumentId(str(uuid.uuid4()))
        stored = document.encode() + message.content
        item = {
            "id": document,
            "filename": message.filename,
            "ending": message.ending,
            "size_bytes": len(message.content),
            "content_sha256": content_sha256,
            "blob": hashlib.sha256(stored).hexdigest(),
        }
        # Named before it is stored, so that whatever is on disk can be found again, and removed.
        await self.activation.emit("document.added", f"add/{document}", {"item": item})
        await self._ledger.put_blob(stored)
        self.activation.spawn(self._work_off(), "documents")
        return self.state.items[document]

    def _check_room(self, size_bytes: int) -> None:
        items = self.state.items.values()
        remove = "Delete some that you no longer need."
        if len(items) >= DOCUMENTS_MAX:
            raise ConflictError(f"You have {len(items)} documents; {DOCUMENTS_MAX} are allowed.", remove)
        used = sum(item.size_bytes for item in items)
        if used + size_bytes > BYTES_MAX:
            raise ConflictError(
                f"Your documents have {used / 1e6:.1f} MB; with this one they would pass {BYTES_MAX // 1_000_000} MB.",
                remove,
            )

    async def _delete(self, document: DocumentId) -> bool:
        if document not in self.state.items:
            raise NotFoundError("You have no document with this id.", "GET /api/v1/rag/list lists yours.")
        await self.activation.emit("document.deleted", f"delete/{document}", {"document": document})
        self.activation.spawn(self._work_off(), "documents")
        return True

    async def _search(self, message: SearchLibrary) -> LibraryFound:
        """What was deleted is never found, whatever the index still has."""
        search = SearchDocuments(
            owner=self._user, query=message.query, limit=message.limit, score_min=message.score_min
        )
        found: DocumentsFound = await self._entities.ask(self._index, search)
        is_behind = found.version != version_of(item.id for item in self.state.searched)
        if is_behind and not self._updating.locked():
            async with self._updating:
                await self._update([])
            found = await self._entities.ask(self._index, search)
        items = self.state.items
        hits = [replace(hit, filename=items[hit.document].filename) for hit in found.hits if hit.document in items]
        return LibraryFound(embedder=found.embedder, hits=hits)

    async def _work_off(self) -> None:
        """Until nothing is unread and no file of a deleted document is left. One at a time, whoever began it."""
        async with self._updating:
            while self.is_open(self.state):
                waiting: list[Item] = []
                try:
                    waiting = [item for item in self.state.unread if not await self._read(item)]
                    await self._update([])
                    left = [blob for blob in sorted(self.state.leaving) if not await self._remove(blob)]
                except UnavailableError as error:
                    log.warning("documents of %s wait: %s", self._user, error)
                    left = [BlobId("")]
                if waiting or left:
                    await asyncio.sleep(RETRY_S)
            await self.activation.save()  # Then what tells of deleted documents can be let go.

    async def _read(self, item: Item) -> bool:
        """Whether that is done, one way or the other: else it is tried again, and those behind it go first."""
        if item.status == "pending":
            await self.activation.emit("document.processing", f"processing/{item.id}", {"document": item.id})
        try:
            indexed = await self._update([item])
            chunks, reason = indexed.chunks.get(item.id), indexed.failed.get(item.id, "It could not be read.")
        except UnavailableError as error:
            log.warning("document %s of %s waits: %s", item.id, self._user, error)
            self._tries[item.id] += 1
            if self._tries[item.id] < TRIES_MAX:
                return False
            chunks, reason = None, f"{error.message} Send it again later."
        self._tries.pop(item.id, None)
        if item.id in self.state.items:
            ended = "indexed" if chunks is not None else "failed"
            told = {"chunks": chunks} if chunks is not None else {"reason": reason}
            await self.activation.emit(f"document.{ended}", f"{ended}/{item.id}", {"document": item.id, **told})
        return True

    async def _update(self, more: Sequence[Item]) -> DocumentsIndexed:
        """Makes what is indexed, and `more`, what is searched."""
        documents = tuple(
            StoredDocument(id=item.id, filename=item.filename, ending=item.ending, blob=item.blob)
            for item in [*self.state.searched, *more]
        )
        update = UpdateDocuments(owner=self._user, documents=documents)
        indexed: DocumentsIndexed = await self._entities.ask(self._index, update, timeout_s=INDEX_S_MAX)
        return indexed

    async def _remove(self, blob: BlobId) -> bool:
        try:
            if not await self._ledger.remove_blob(blob):
                return False
        except MasterbuilderError as error:
            log.warning("a file of a deleted document stays for now: %s", error)
            return False
        await self.activation.emit("document.removed", f"removed/{blob}", {"blob": blob})
        return True
