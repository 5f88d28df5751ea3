"""The searchable index of one project."""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from runtime.errors import BadInputError, ConflictError, NotEmbeddedError, StoreUnavailableError
from runtime.files import remove_unfinished
from runtime.index.chunk import Chunk
from runtime.index.embedder import Embedder, Named, NoEmbedder, Vectors, for_questions, no_other
from runtime.index.filter import EVERYTHING, Filter
from runtime.index.hit import Hit, IndexStatus, Place, Related
from runtime.index.ranking import Ranked
from runtime.index.relations import Relations
from runtime.index.saved import UnusableIndexError, index_bytes, index_from_bytes
from runtime.index.source import Source
from runtime.index.tree import IndexedTree
from runtime.store.seal import Seal

HITS_MAX = 200
QUERY_CHARS_MAX = 8192
QUERIES_KEPT = 256
"""Vectors of questions asked before, in each shard for itself: what one owner asked speeds up nobody else's search."""

_UNFINISHED_S = 600.0
"""A save takes seconds; a file that is older and not in its place belongs to a process that died."""
_log = logging.getLogger(__name__)


class IndexShard:
    """Searched and updated from any threads, also at the same time; updates take turns.

    A search sees the whole tree of the last finished update, never a part of one. An update that raises changes
    nothing. Everything here blocks on the CPU: asynchronous callers use a thread.
    """

    def __init__(self, embedder: Embedder, *, named: Named = no_other, generation: str = "") -> None:
        """Empty, with `embedder`. What was made with another is taken where that is `named`, and goes on with it."""
        self._default = embedder
        self._named = named
        self._updating = threading.Lock()
        self._tree = IndexedTree.empty(embedder, generation)
        self._vector_of = _Questions()
        self._relations = self._tree, Relations(())
        """Of the tree that was last asked for some."""

    @property
    def status(self) -> IndexStatus:
        """`commit` is empty until the first update."""
        tree = self._tree
        return IndexStatus(
            commit=tree.commit,
            chunks=len(tree.chunks),
            embedder=tree.embedder.name,
            embedded=tree.embedded,
            generation=tree.generation,
            waits=tree.waits,
        )

    @property
    def state(self) -> object:
        """The same object for as long as nothing changed, however often it is asked."""
        return self._tree

    @property
    def skipped(self) -> Mapping[str, str]:
        """Paths that are not, or not wholly, searchable, each with the reason."""
        return {path: file.skipped for path, file in self._tree.files.items() if file.skipped}

    @property
    def content_ids(self) -> Mapping[str, str]:
        """Of each path, as its source named it; empty for what has to be read again."""
        return {path: file.content_id for path, file in self._tree.files.items()}

    @property
    def chunk_counts(self) -> Mapping[str, int]:
        """Of each path."""
        return {path: len(file.chunks) for path, file in self._tree.files.items()}

    def update(self, source: Source) -> IndexStatus:
        """Makes `source` what is searched. Idempotent.

        Only files that changed are read and only chunks that changed are embedded; a path that is not in it is no
        longer found. Raises what source and embedder raise, but for NotEmbeddedError: it is searched by words and names
        then, and says so (`waits`). What is embedded already is kept for the next time.
        """
        with self._updating:
            self._tree = self._tree.updated(source)
            return self.status

    def complete(self) -> IndexStatus:
        """Has embedded what it waits for, if it does, and if that can be done now."""
        with self._updating:
            self._tree = self._tree.completed()
            return self.status

    def search(self, query: str, limit: int, wanted: Filter = EVERYTHING, score_min: float = 0.0) -> list[Hit]:
        """The best `limit` chunks (0 to HITS_MAX) that `wanted` allows, best first, as `Ranking.best` has them.

        Ties by path and line. Empty for an empty index or query. Of the query, the first QUERY_CHARS_MAX characters
        count.
        """
        tree, query = self._tree, _cleaned(query)
        if not tree.chunks or not query:
            return []
        limit = max(0, min(limit, HITS_MAX))
        best = tree.ranking.best(query, self._vector_of(query, tree), limit, tree.allowed(wanted))
        return [_hit(tree, ranked) for ranked in best if ranked.score >= score_min]

    def related(self, symbol: str) -> Related:
        """Definitions, callers and callees of `Class.method`, or of the end of it: `method`."""
        tree = self._tree
        made_for, relations = self._relations
        if made_for is not tree:
            relations = Relations(tree.chunks)
            self._relations = tree, relations

        def places(numbers: Iterable[int]) -> list[Place]:
            return [_place(tree.chunks[number]) for number in numbers]

        return Related(
            commit=tree.commit,
            definitions=places(relations.definitions_of(symbol)),
            callers=places(relations.callers_of(symbol)),
            callees=places(relations.callees_of(symbol)),
        )

    def similar(self, query: str, limit: int) -> list[tuple[Chunk, float]]:
        """At most `limit` chunks that mean the most like `query`, best first, as `Ranking.similar` has them."""
        tree, query = self._tree, _cleaned(query)
        if not tree.chunks or not query:
            return []
        similar = tree.ranking.similar(query, self._vector_of(query, tree), limit)
        return [(tree.chunks[place], similarity) for place, similarity in similar]

    def dumps(self) -> bytes:
        """The index for a blob store. It holds source text: seal it as the source itself is sealed."""
        return index_bytes(self._tree)

    def loads(self, saved: bytes) -> IndexStatus:
        """Takes the state that `dumps` gave, with its embedder; none, when it is damaged, foreign, of another version,
        or its embedder is not here.

        `commit` of the result says where the index stands now; when that is not the head (or empty), update it.
        """
        with self._updating:
            try:
                self._tree = index_from_bytes(saved, self._default, self._named)
            except UnusableIndexError as error:
                _log.log(logging.WARNING if saved else logging.INFO, "the saved index has to be rebuilt: %s", error)
                self._tree = IndexedTree.empty(self._default)
            return self.status

    def adopt(self, saved: bytes, instead_of: str) -> IndexStatus:
        """Takes the state that another shard's `dumps` gave, with its embedder, where this one stands at `instead_of`.

        Idempotent. Raises BadInputError for what `loads` would not take, or holds nothing, and ConflictError where this
        shard has moved on to yet another commit; nothing changes then.
        """
        with self._updating:
            try:
                tree = index_from_bytes(saved, self._default, self._named)
            except UnusableIndexError as error:
                raise BadInputError(f"The index cannot be taken: {error}.", "Make it anew.") from error
            if not tree.commit:
                raise BadInputError("The index cannot be taken: it holds nothing.", "Make it anew.")
            if self._tree.commit not in (instead_of, tree.commit):
                raise ConflictError(
                    f"The index stands at {self._tree.commit or 'nothing'} by now, not at {instead_of or 'nothing'}.",
                    "Bring yours to the newest commit, and try again.",
                )
            self._tree = tree
            return self.status

    def save(self, path: Path, seal: Seal) -> None:
        """Writes `dumps()`, sealed, to `path` (mode 0600), whole or not at all. Raises StoreUnavailableError."""
        beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(seal.close(self.dumps(), path.name))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise StoreUnavailableError(
                f"The index cannot be written to {path}: {error.strerror}.",
                "Free disk space there, or make it writable.",
            ) from error
        finally:
            with suppress(OSError):
                beside.unlink()

    def load(self, path: Path, seal: Seal) -> IndexStatus:
        """`loads` of the file. One that is not there, cannot be read or does not open is as a damaged one."""
        try:
            remove_unfinished(path, older_than_s=_UNFINISHED_S)
            saved = seal.open(path.read_bytes(), path.name)
        except (OSError, StoreUnavailableError) as error:
            _log.info("there is no saved index to read: %s", error)
            saved = b""
        return self.loads(saved)


class _Questions:
    """Vectors of the newest questions, by one embedder: another begins anew."""

    def __init__(self) -> None:
        self._kept = _vectors_by(NoEmbedder())

    def __call__(self, query: str, tree: IndexedTree) -> Vectors | None:
        """None where the tree has no vectors, or the question gets none now: it is answered by words then."""
        if tree.waits:
            return None
        kept = self._kept
        if kept[0] is not tree.embedder:
            self._kept = kept = _vectors_by(tree.embedder)
        try:
            return kept[1](query)
        except NotEmbeddedError as error:
            _log.warning("a question is answered by words alone: %s", error)
            return None


def _vectors_by(embedder: Embedder) -> tuple[Embedder, Callable[[str], Vectors | None]]:
    asked = for_questions(embedder)

    @lru_cache(QUERIES_KEPT)
    def vector(query: str) -> Vectors | None:
        return asked.embed([query])[0] if asked.dimension else None

    return embedder, vector


def _cleaned(query: str) -> str:
    """What counts of a question; empty when it asks nothing."""
    text = query[:QUERY_CHARS_MAX].encode("utf-8", "replace").decode()
    return text if text.strip() else ""


def _place(chunk: Chunk) -> Place:
    return Place(
        path=chunk.path,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        symbol=chunk.symbol,
        kind=chunk.kind,
    )


def _hit(tree: IndexedTree, ranked: Ranked) -> Hit:
    chunk = tree.chunks[ranked.place]
    return Hit(
        path=chunk.path,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        symbol=chunk.symbol,
        kind=chunk.kind,
        text=chunk.text,
        score=ranked.score,
        why=ranked.why,
        commit=tree.commit,
    )
