"""A provider's embedding model. It costs: each request is held, charged and counted like any other model call."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.model import ANY_MODEL, canonical_provider
from runtime.errors import BadInputError, MasterbuilderError, NotEmbeddedError, UnavailableError
from runtime.ids import EVERYBODY, LOCAL_ADMIN, UserId, new_call_id
from runtime.index.behalf import Behalf, behalf
from runtime.keys.keys import Priority
from runtime.providers.chat import Embeddings, EmbedRequest
from runtime.providers.order import CallOrder

BATCH_BYTES_MAX = 100_000
"""UTF-8 bytes of one request, which are at least as many as its tokens. OpenAI takes 300,000 tokens; what is held for a
request, and lost with a process that dies in it, is smaller here.
Source: https://platform.openai.com/docs/api-reference/embeddings/create"""
BATCH_TEXTS_MAX = 256
"""OpenAI takes 2,048."""
BATCH_TEXTS_MAX_OF = {"gemini": 100}
"""Source: https://ai.google.dev/api/embeddings, batchEmbedContents."""
TEXT_BYTES_MAX = 8_000
"""Of one text: the rest is not embedded. A chunk has some 600, and the model of this machine reads 500."""
DIMENSIONS_MAX = 8_192

BATCH_S_MAX = 60.0
"""For one request, its wait for a key and its repeats included."""
QUESTION_S_MAX = 10.0
REST_S = 30.0
"""After a provider did not answer, for the same payer."""
_RESTS_MAX = 1_000
_BLANK = "."
"""In place of a text without a word, which providers refuse."""

_NAME = re.compile(r"(?P<provider>[A-Za-z0-9_.-]+)/(?P<model>\S+?)(?:@(?P<dimensions>\d{1,6}))?")

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderModel:
    """`PROVIDER/MODEL@DIMENSIONS`, as an index names it; vectors of other dimensions are not comparable."""

    provider: str
    model: str
    dimensions: int
    is_shortened: bool
    """The provider is asked for fewer dimensions than the model has of itself."""
    text_bytes_max: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """`PROVIDER/MODEL` alone means as many dimensions as the catalogue knows. None for what names no provider.

        Raises BadInputError where the catalogue does not know them, or there cannot be so many. Whether the model has
        a price is seen when it is called.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        provider, model, digits = canonical_provider(found["provider"]), found["model"], found["dimensions"]
        known = {(each.provider, each.name): each for each in CATALOGUE.rows()}
        row = known.get((provider, model)) or known.get((provider, ANY_MODEL))
        of_itself = row.dimensions if row else None
        dimensions = int(digits) if digits else of_itself
        if dimensions is None:
            raise BadInputError(
                f"It is not known how long the vectors of {provider}/{model} are.",
                f"Say it with its name, as {provider}/{model}@768.",
            )
        if not 1 <= dimensions <= min(DIMENSIONS_MAX, of_itself or DIMENSIONS_MAX):
            raise BadInputError(
                f"{provider}/{model} has no vectors of {dimensions} numbers.",
                f"It gives at most {of_itself or DIMENSIONS_MAX}.",
            )
        return cls(
            provider=provider,
            model=model,
            dimensions=dimensions,
            is_shortened=of_itself is not None and dimensions < of_itself,
            # A token has at least a byte, so what is no longer than this fits, whatever the model's tokens are.
            text_bytes_max=min(TEXT_BYTES_MAX, row.context_tokens if row else TEXT_BYTES_MAX),
        )

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.model}"

    @property
    def name(self) -> str:
        return f"{self.id}@{self.dimensions}"


class EmbedCalls(Protocol):
    """`ModelCalls.embed`, for a thread."""

    def embed(self, order: CallOrder, request: EmbedRequest, timeout_s: float) -> Embeddings:
        """Blocks, for `timeout_s` at most. Raises what `ModelCalls.embed` does, and UnavailableError for the time."""


class ProviderEmbedder:
    """Implements `Embedder`. Whoever a text is embedded for (`on_behalf`) pays, unless `payer` does.

    Raises NotEmbeddedError when vectors cannot be had now, for whatever reason; nothing was charged for those that are
    missing. Who waited for a provider in vain is refused at once for REST_S: a build must not wait again and again.
    """

    def __init__(
        self,
        model: ProviderModel,
        calls: EmbedCalls,
        payer: UserId | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = model.name
        self.dimension = model.dimensions
        self._model = model
        self._calls = calls
        self._payer = payer
        self._clock = clock
        self._rests: dict[UserId, tuple[float, NotEmbeddedError]] = {}
        """Until when nothing is tried for a payer, and why."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        start = 0
        for batch in self.batches(texts):
            vectors[start : start + len(batch)] = self._embed(batch, "background", BATCH_S_MAX)
            start += len(batch)
        return vectors

    def batches(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """The texts in their order, as many at a time as one request takes."""
        texts_max = BATCH_TEXTS_MAX_OF.get(self._model.provider, BATCH_TEXTS_MAX)
        batch: list[str] = []
        size_bytes = 0
        for text in texts:
            text_bytes = len(self._fitted(text).encode())
            if batch and (len(batch) == texts_max or size_bytes + text_bytes > BATCH_BYTES_MAX):
                yield batch
                batch, size_bytes = [], 0
            batch.append(text)
            size_bytes += text_bytes
        if batch:
            yield batch

    def for_questions(self) -> "ProviderQuestions":
        return ProviderQuestions(self)

    def question(self, text: str) -> Vectors:
        """float32[d]"""
        vector: Vectors = self._embed([text], "interactive", QUESTION_S_MAX)[0]
        return vector

    def _embed(self, texts: Sequence[str], priority: Priority, timeout_s: float) -> Vectors:
        """float32[n, d], of one request."""
        given = behalf()
        if given is None:
            raise NotEmbeddedError(f"{self.name} costs money, and nobody was named who pays.")
        payer = self._payer_of(given)
        order = CallOrder(
            call=new_call_id(),
            user=payer,
            task_type="code_embedding",
            model=self._model.id,
            project=given.project if payer == given.owner else None,
            priority=priority,
        )
        request = EmbedRequest(
            texts=tuple(self._fitted(text) for text in texts),
            dimensions=self.dimension if self._model.is_shortened else None,
            length=self.dimension,
        )
        self._check_rest(payer)
        try:
            found = self._calls.embed(order, request, timeout_s)
        except MasterbuilderError as error:
            refusal = NotEmbeddedError(error.message, error.next_step, error.charged)
            if isinstance(error, UnavailableError):
                self._rest(payer, refusal)
            raise refusal from error
        return _normalised(found, self.name)

    def _payer_of(self, given: Behalf) -> UserId:
        """What is for everybody is the operator's."""
        return self._payer or (LOCAL_ADMIN if given.owner == EVERYBODY else given.owner)

    def _check_rest(self, payer: UserId) -> None:
        until_s, why = self._rests.get(payer, (0.0, None))
        if why is not None and self._clock() < until_s:
            raise NotEmbeddedError(why.message, why.next_step)

    def _rest(self, payer: UserId, why: NotEmbeddedError) -> None:
        if len(self._rests) >= _RESTS_MAX:
            self._rests.clear()
        self._rests[payer] = (self._clock() + REST_S, NotEmbeddedError(why.message, why.next_step))

    def _fitted(self, text: str) -> str:
        cut = text.encode("utf-8", "replace")[: self._model.text_bytes_max].decode("utf-8", "ignore")
        clean = cut.replace("\0", " ")
        return clean if clean.strip() else _BLANK


class ProviderQuestions:
    """The same model, for questions: somebody waits for each, so it goes first, and is not waited for long."""

    def __init__(self, embedder: ProviderEmbedder) -> None:
        self.name = embedder.name
        self.dimension = embedder.dimension
        self._embedder = embedder

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = [self._embedder.question(text) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dimension)


def _normalised(found: Embeddings, name: str) -> Vectors:
    """Each row of length 1, whatever the size of its numbers."""
    rows = np.array(found.vectors, np.float64)
    with np.errstate(all="ignore"):
        rows /= np.abs(rows).max(axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = rows.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise NotEmbeddedError(
            f"{name} answered a vector without a direction.", charged="The call is charged: it was answered."
        )
    return vectors
