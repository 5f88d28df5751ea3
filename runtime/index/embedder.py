"""Texts to vectors. One port, and the one place that chooses what stands behind it."""

import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.errors import BadInputError, UnavailableError
from runtime.ids import LOCAL_ADMIN
from runtime.index.minilm import PASSAGES_NAME, MiniLMEmbedder, find_weights
from runtime.index.provider_embedder import EmbedCalls, ProviderEmbedder, ProviderModel
from runtime.index.vector_cache import CachedEmbedder, VectorCache

LEXICAL = "lexical"
MINILM = "minilm"
SENTENCE_TRANSFORMERS = "sentence-transformers:"
"""Before a model's name or folder."""
NAMES = (LEXICAL, MINILM, f"{SENTENCE_TRANSFORMERS}MODEL", "PROVIDER/MODEL")

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
        """float32[len(texts), dimension], each row of L2 length 1. Blocks on the CPU or a network; call it in a thread.

        Raises NotEmbeddedError where the vectors cannot be had now.
        """


class NoEmbedder:
    """No model, no vectors: the index ranks by words and symbol names, and its status says `lexical`."""

    name = LEXICAL
    dimension = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.empty((len(texts), 0), dtype=np.float32)


class SentenceTransformersEmbedder:
    """Any model that sentence-transformers can load, on its own choice of device. Needs the extra `semantic`."""

    def __init__(self, model: str | Path, *, tokens_max: int = 128) -> None:
        """`model` is a local folder or a model's name. Raises UnavailableError when it cannot be loaded."""
        self.name = f"{SENTENCE_TRANSFORMERS}{model}"
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
    if isinstance(embedder, CachedEmbedder):
        inner = for_passages(embedder.inner)
        return embedder if inner is embedder.inner else embedder.over(inner)
    return embedder.for_passages() if isinstance(embedder, MiniLMEmbedder) else embedder


def for_questions(embedder: Embedder) -> Embedder:
    """As it reads questions: somebody waits, and what was asked is not kept on disk."""
    if isinstance(embedder, CachedEmbedder):
        return for_questions(embedder.inner)
    return embedder.for_questions() if isinstance(embedder, ProviderEmbedder) else embedder


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What embedders reach outside of their process."""

    calls: EmbedCalls
    vectors: VectorCache


class Embedders:
    """Every embedder of this machine, by name; each is loaded when it is first asked for, once. From any threads."""

    def __init__(self, models_dir: Path, *, threads: int = 2, default: str = "", reach: Reach | None = None) -> None:
        """`threads` are what MiniLM computes with. Without `reach` nothing is kept, and no provider is asked.

        What costs is paid by whoever it is for where it is the `default` (empty: see `default_name`), and else by the
        operator, whose choice it was.
        """
        self._models_dir = models_dir
        self._threads = threads
        self._default = full_name(default) if default else default_name()
        self._reach = reach
        self._loading = threading.Lock()
        self._loaded: dict[str, Embedder] = {}

    @property
    def default(self) -> Embedder:
        """What new indexes are made with. Raises as `named` does."""
        return self.named(self._default)

    def named(self, name: str) -> Embedder:
        """By any of its names. Takes seconds the first time, for MiniLM to convert the model.

        Raises BadInputError for a name that nobody knows, and UnavailableError where the model is not installed, is not
        the pinned one, or cannot be kept.
        """
        name = full_name(name)
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> Embedder:
        model = ProviderModel.parse(name)
        if model is not None:
            return self._of_provider(model)
        local = self._local(name)
        return CachedEmbedder(local, self._reach.vectors) if self._reach and local.dimension else local

    def _of_provider(self, model: ProviderModel) -> Embedder:
        if self._reach is None:
            raise UnavailableError(f"{model.name} is asked by the service alone.", "Choose `minilm` or `lexical` here.")
        payer = None if model.name == self._default else LOCAL_ADMIN
        embedder = ProviderEmbedder(model, self._reach.calls, payer)
        return CachedEmbedder(embedder, self._reach.vectors, embedder.batches)

    def _local(self, name: str) -> Embedder:
        if name == LEXICAL:
            return NoEmbedder()
        if name == PASSAGES_NAME:
            return for_passages(self._local(MiniLMEmbedder.name))
        if name != MiniLMEmbedder.name:
            return SentenceTransformersEmbedder(name.removeprefix(SENTENCE_TRANSFORMERS))
        weights = find_weights()
        if weights is None:
            raise UnavailableError("The weights of MiniLM are not installed.", "Install them with `make setup`.")
        return MiniLMEmbedder(weights, self._models_dir, threads=self._threads)


Named = Callable[[str], Embedder]
"""`Embedders.named`, or what stands in for it."""


def no_other(name: str) -> Embedder:
    """For an index that knows one embedder. Raises BadInputError."""
    raise BadInputError(f"There is no embedder {name} here.")


def full_name(name: str) -> str:
    """The one that an index says it was made with: `all-MiniLM-L6-v2-int8` for `minilm`. Loads nothing.

    Raises BadInputError, listing the names, for one that nobody knows, or a model whose vectors' length nobody knows.
    """
    if name in (MINILM, MiniLMEmbedder.name):
        return MiniLMEmbedder.name
    if name in (LEXICAL, PASSAGES_NAME) or (name.startswith(SENTENCE_TRANSFORMERS) and name != SENTENCE_TRANSFORMERS):
        return name
    if (model := ProviderModel.parse(name)) is not None:
        return model.name
    raise BadInputError(f"There is no embedder {name!r}.", f"Use one of: {', '.join(NAMES)}.")


def default_name() -> str:
    """MiniLM where its weights are installed, else none. Loads nothing."""
    return MiniLMEmbedder.name if find_weights() else LEXICAL


@lru_cache
def is_paid(name: str) -> bool:
    """Whether the embedder of this full name asks a provider, which may cost. Such a one is never chosen by itself."""
    return ProviderModel.parse(name) is not None


def uses_gpu(name: str) -> bool:
    """Whether one would make the embedder of this full name faster."""
    return name.startswith(SENTENCE_TRANSFORMERS)


def choose_embedder(models_dir: Path) -> Embedder:
    """The default, for who needs no other. Raises as `Embedders.named` does."""
    return Embedders(models_dir).default
