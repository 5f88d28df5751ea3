"""An embedder that remembers, so that a second run does not wait for vectors it had before."""

import sqlite3
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from runtime.index.embedder import Embedder, Vectors


class RememberingEmbedder:
    """Gives another embedder's vectors. A file belongs to one embedder's name."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self.name = embedder.name
        self.dimension = embedder.dimension
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._known = sqlite3.connect(folder / f"{embedder.name}.sqlite", check_same_thread=False)
        self._known.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")

    def embed(self, texts: Sequence[str]) -> Vectors:
        keys = [sha256(text.encode("utf-8", "replace")).digest() for text in texts]
        with self._lock:
            found = {key: vector for key in keys if (vector := self._find(key)) is not None}
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
            if missing:
                computed = self._embedder.embed(list(missing.values()))
                found |= dict(zip(missing, computed, strict=True))
                rows = [(key, found[key].astype(np.float32).tobytes()) for key in missing]
                with self._known:
                    self._known.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        return np.array([found[key] for key in keys], dtype=np.float32).reshape(-1, self.dimension)

    def _find(self, key: bytes) -> Vectors | None:
        row = self._known.execute("SELECT vector FROM vectors WHERE text = ?", (key,)).fetchone()
        return np.frombuffer(row[0], dtype=np.float32) if row else None
