"""Texts on their way to a provider and to what is kept of them: in order, within bounds, and none of them twice."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.errors import BadInputError, NotEmbeddedError, NotEnoughCreditsError, ProviderError, StoreUnavailableError
from runtime.ids import EVERYBODY, LOCAL_ADMIN, ProjectId, UserId
from runtime.index.behalf import Behalf, on_behalf
from runtime.index.provider_embedder import BATCH_BYTES_MAX, ProviderEmbedder, ProviderModel
from runtime.index.vector_cache import CachedEmbedder, FindVectors, KeepVectors
from runtime.providers.chat import Embeddings, EmbedRequest
from runtime.providers.order import CallOrder
from runtime.providers.usage import Usage

ANN, BOB = UserId("ann"), UserId("bob")
SHOP = ProjectId("p1")


@dataclass(slots=True)
class Calls:
    """Implements `EmbedCalls`: vectors from the hash of a text, until it is told to fail."""

    asked: list[tuple[CallOrder, EmbedRequest, float]] = field(default_factory=list)
    fails_at: int = -1
    """The request that is not answered."""
    error: Exception = field(default_factory=lambda: ProviderError("It did not answer."))

    def embed(self, order: CallOrder, request: EmbedRequest, timeout_s: float) -> Embeddings:
        number = len(self.asked)
        self.asked.append((order, request, timeout_s))
        if number == self.fails_at:
            raise self.error
        return Embeddings(
            model="m", vectors=tuple(map(vector_of, request.texts)), usage=Usage(input_tokens=1, output_tokens=0)
        )

    @property
    def texts(self) -> list[str]:
        return [text for _, request, _ in self.asked for text in request.texts]


@dataclass(slots=True)
class Memory:
    """Implements `VectorCache`."""

    kept: dict[tuple[UserId, str, bytes], bytes] = field(default_factory=dict)
    breaks: bool = False

    def find(self, message: FindVectors) -> Mapping[bytes, bytes]:
        if self.breaks:
            raise StoreUnavailableError("The disk is full.")
        keys = {it: (message.owner, message.embedder, it) for it in message.hashes}
        return {it: self.kept[key] for it, key in keys.items() if key in self.kept}

    def keep(self, message: KeepVectors) -> None:
        if self.breaks:
            raise StoreUnavailableError("The disk is full.")
        for it, vector in message.vectors.items():
            self.kept[message.owner, message.embedder, it] = vector

    def keep_soon(self, message: KeepVectors) -> None:
        self.keep(message)


def vector_of(text: str) -> tuple[float, ...]:
    return tuple(float(byte) + 1 for byte in hashlib.sha256(text.encode()).digest()[:4])


def model(name: str = "openai/text-embedding-3-small@4") -> ProviderModel:
    parsed = ProviderModel.parse(name)
    assert parsed is not None
    return parsed


def unit(text: str) -> list[float]:
    vector = np.array(vector_of(text))
    return list(vector / np.linalg.norm(vector))


anns = Behalf(owner=ANN, shard="p1.index", project=SHOP)
texts_of_any_kind = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.text(st.characters(codec=None), max_size=20),
        st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(1, 20_000)),
    ),
    max_size=400,
)


@settings(deadline=None, max_examples=60)
@example(["\x1f", "\0", "", "\ud800"], "openai/text-embedding-3-small@4")
@given(texts_of_any_kind, st.sampled_from(["openai/text-embedding-3-small@4", "gemini/gemini-embedding-001@4"]))
def test_requests__hold_every_text_in_its_order_and_no_more_than_providers_take(texts: list[str], name: str) -> None:
    calls = Calls()
    embedder = ProviderEmbedder(model(name), calls)
    with on_behalf(anns):
        vectors = embedder.embed(texts)
    assert len(calls.texts) == len(texts)
    assert vectors == pytest.approx(np.array([unit(text) for text in calls.texts]).reshape(-1, 4), abs=1e-6)
    for _, request, _ in calls.asked:
        sizes = [len(text.encode()) for text in request.texts]
        assert 0 < len(sizes) <= (100 if name.startswith("gemini") else 256)
        assert sum(sizes) <= BATCH_BYTES_MAX
        assert max(sizes) <= (2_048 if name.startswith("gemini") else 8_000)
        assert all(text.strip() and "\0" not in text for text in request.texts)
    for sent, text in zip(calls.texts, texts, strict=True):
        clean = text.encode("utf-8", "replace").decode().replace("\0", " ")
        assert clean.startswith(sent) or not sent.strip(". ")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.sets(st.integers(0, 600), max_size=600)), max_size=6),
    st.lists(st.integers(0, 8), max_size=3),
)
def test_text__is_paid_once_an_owner_whatever_fails_in_between(
    rounds: Sequence[tuple[UserId, set[int]]], failures: Sequence[int]
) -> None:
    calls, memory = Calls(), Memory()
    answered: list[tuple[UserId, str]] = []
    for owner, numbers in rounds:
        texts = [f"text {number}" for number in sorted(numbers)]
        embedder = ProviderEmbedder(model(), calls)  # Another process: it knows nothing.
        kept = CachedEmbedder(embedder, memory, embedder.batches)
        before = len(calls.asked)
        calls.fails_at = before + failures[len(answered) % len(failures)] if failures else -1
        with on_behalf(Behalf(owner=owner, shard="p1.index")):
            try:
                vectors = kept.embed(texts)
                assert vectors == pytest.approx(np.array([unit(text) for text in texts]).reshape(-1, 4), abs=1e-6)
            except NotEmbeddedError:
                pass
        for number, (order, request, _) in enumerate(calls.asked[before:], before):
            assert order.user == owner
            if number != calls.fails_at:
                answered += [(owner, text) for text in request.texts]
    assert len(answered) == len(set(answered))


def test_order__names_who_pays_the_project_and_that_it_can_wait() -> None:
    calls = Calls()
    embedder = ProviderEmbedder(model(), calls)
    with on_behalf(anns):
        embedder.embed(["a"])
        embedder.for_questions().embed(["b"])
    (update, _, update_s), (question, _, question_s) = calls.asked
    for order in (update, question):
        assert (order.user, order.project, order.task_type, order.run) == (ANN, SHOP, "code_embedding", None)
    assert (update.priority, question.priority) == ("background", "interactive")
    assert question_s < update_s
    assert update.call != question.call


@pytest.mark.parametrize(
    ("owner", "payer", "pays"), [(ANN, None, ANN), (EVERYBODY, None, LOCAL_ADMIN), (ANN, LOCAL_ADMIN, LOCAL_ADMIN)]
)
def test_payer__other_than_the_owner_pays_beside_his_project(owner: UserId, payer: UserId | None, pays: UserId) -> None:
    calls = Calls()
    with on_behalf(Behalf(owner=owner, shard="s", project=SHOP)):
        ProviderEmbedder(model(), calls, payer).embed(["a"])
    assert (calls.asked[0][0].user, calls.asked[0][0].project) == (pays, SHOP if pays == owner else None)


def test_provider__that_did_not_answer_is_not_asked_again_at_once_but_money_may_have_come() -> None:
    now_s = [0.0]
    calls = Calls(fails_at=0)
    embedder = ProviderEmbedder(model(), calls, clock=lambda: now_s[0])

    def embeds(owner: UserId) -> bool:
        try:
            with on_behalf(Behalf(owner=owner, shard="s")):
                embedder.embed(["a"])
        except NotEmbeddedError:
            return False
        return True

    assert [embeds(ANN), embeds(ANN), embeds(BOB)] == [False, False, True]
    assert len(calls.asked) == 2
    now_s[0] = 31.0
    assert embeds(ANN)
    calls.fails_at, calls.error = len(calls.asked), NotEnoughCreditsError("Too little is left.")
    assert [embeds(ANN), embeds(ANN)] == [False, True]


def test_kept__vectors_of_another_length_are_not_used() -> None:
    calls, memory = Calls(), Memory()
    kept = CachedEmbedder(ProviderEmbedder(model(), calls), memory)
    memory.kept[ANN, kept.name, hashlib.sha256(b"a").digest()] = b"1234"
    with on_behalf(anns):
        assert list(kept.embed(["a"])[0]) == pytest.approx(unit("a"))


def test_kept__vectors_whose_disk_is_full_are_embedded_all_the_same() -> None:
    embedder = ProviderEmbedder(model(), Calls())
    with on_behalf(anns):
        assert len(CachedEmbedder(embedder, Memory(breaks=True), embedder.batches).embed(["a", "b"])) == 2


def test_model__that_is_cut_short_is_asked_to_be() -> None:
    assert model("openai/text-embedding-3-large@1024").is_shortened
    assert not model("openai/text-embedding-3-large").is_shortened
    assert not model("ollama/nomic-embed-text@768").is_shortened
    with pytest.raises(BadInputError):
        ProviderModel.parse("ollama/nomic-embed-text")
    assert ProviderModel.parse("sentence-transformers:BAAI/bge-small-en@4") is None
