"""Texts to vectors. One port, and the one place that chooses what stands behind it."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.errors import UnavailableError
from runtime.index.minilm import MiniLMEmbedder, find_weights

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors; a text's vector depends on that text alone. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """Two embedders of one name give comparable vectors."""

    @property
    def dimension(self) -> int:
        """The length of a vector; 0 when there are none, and search goes by words and symbols only."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32[len(texts), dimension], each row of L2 length 1. Blocks on the CPU; call it in a thread."""


class NoEmbedder:
    """No model, no vectors: the index ranks by words and symbol names, and its status says `lexical`."""

    name = "lexical"
    dimension = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.empty((len(texts), 0), dtype=np.float32)


class SentenceTransformersEmbedder:
    """Any model that sentence-transformers can load, on its own choice of device. Needs the extra `semantic`."""

    def __init__(self, model: str | Path, *, tokens_max: int = 128) -> None:
        """`model` is a local folder or a model's name. Raises UnavailableError when it cannot be loaded."""
        self.name = f"sentence-transformers:{Path(model).name}"
        try:
            library = importlib.import_module("sentence_transformers")
            self._model: Any = library.SentenceTransformer(str(model))
        except (ImportError, OSError, ValueError) as error:
            raise UnavailableError(
                f"The embedding model {model} cannot be loaded: {error}.",
                "Install it with `pip install 'masterbuilder[semantic]'`, and check the model's name or folder.",
            ) from error
        self._model.max_seq_length = tokens_max
        self.dimension = int(self._model.encode([""], show_progress_bar=False).shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        found = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(found, dtype=np.float32)


def for_passages(embedder: Embedder) -> Embedder:
    """As it reads prose: a passage is longer than what is best for code."""
    return embedder.for_passages() if isinstance(embedder, MiniLMEmbedder) else embedder


def choose_embedder(models_dir: Path) -> Embedder:
    """MiniLM where its weights are installed, else none. Takes 3 s the first time, to convert the model.

    Raises UnavailableError when the weights are not the pinned ones, or the converted model cannot be kept.
    """
    weights = find_weights()
    return MiniLMEmbedder(weights, models_dir) if weights else NoEmbedder()
