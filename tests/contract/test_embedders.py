"""Every embedder: its port, and for MiniLM the model that it claims to be."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from runtime.errors import NotEmbeddedError, UnavailableError
from runtime.index.behalf import Behalf, on_behalf
from runtime.index.embedder import Embedder, NoEmbedder, SentenceTransformersEmbedder, choose_embedder
from runtime.index.minilm import MiniLMEmbedder, Weights, find_weights
from tests.contract.embedding_world import ANN, EmbeddingWorld, embedding_world

WEIGHTS = find_weights()
TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "def total(prices: list[int]) -> int:\n    return sum(prices)",
    "class Cart:\n    items = []",
    "",
    "ärger mit UTF-8 💥",
    "runtime/index/shard.py\nIndexShard.search\n" + "scores = tree.scores(query)\n" * 40,
]

needs_weights = pytest.mark.skipif(WEIGHTS is None, reason="the weights package is not installed")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def minilm(models_dir: Path) -> MiniLMEmbedder:
    if WEIGHTS is None:
        pytest.skip("the weights package is not installed")
    return MiniLMEmbedder(WEIGHTS, models_dir)


@cache
def reference() -> SentenceTransformersEmbedder:
    """The same weights under sentence-transformers, from the weights package's own folder."""
    pytest.importorskip("sentence_transformers")
    if WEIGHTS is None:
        pytest.skip("the weights package is not installed")
    return SentenceTransformersEmbedder(WEIGHTS.model.parent)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingWorld]:
    """In a thread of its own, as the loop of a host is beside the threads that embed."""
    opened, done = threading.Event(), asyncio.Event()
    made: list[EmbeddingWorld] = []

    async def serve() -> None:
        async with embedding_world(tmp_path_factory.mktemp("services")) as world:
            await world.give(ANN, 10**9)
            made.append(world)
            opened.set()
            await done.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert opened.wait(60)
    yield made[0]
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


PROVIDERS = ["openai/text-embedding-3-small", "openai/text-embedding-3-large@256", "gemini/gemini-embedding-001"]


@pytest.fixture(params=["none", "minilm", "sentence-transformers", *PROVIDERS, "kept"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    makers: dict[str, Callable[[], Any]] = {
        "none": NoEmbedder,
        "minilm": lambda: request.getfixturevalue("minilm"),
        "sentence-transformers": reference,
    }
    with on_behalf(Behalf(owner=ANN, shard=f"{request.node.name}.index")):
        if request.param in (*PROVIDERS, "kept"):
            name = PROVIDERS[0] if request.param == "kept" else request.param
            kept = request.getfixturevalue("services").embedders.named(name)
            yield kept if request.param == "kept" else kept.inner
        else:
            yield makers[request.param]()


def test_embed__gives_a_row_of_length_one_for_each_text(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)

    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    if embedder.dimension:
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-4)


def test_embed__of_nothing_is_empty(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_embed__of_a_text_does_not_depend_on_the_others(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])

    assert np.abs(together - alone).max(initial=0) < 1e-5


def test_embed__survives_huge_and_odd_texts(embedder: Embedder) -> None:
    assert embedder.embed(["x" * 1_000_000, "\0" * 100, " " * 5000]).shape == (3, embedder.dimension)


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider__has_texts_of_the_same_words_near_each_other(services: EmbeddingWorld, name: str) -> None:
    """As the simulator makes them: so what a search finds through it means something."""
    embedder = services.embedders.named(name)
    with on_behalf(Behalf(owner=ANN, shard="near.index")):
        price, same, other = embedder.embed(["the total price", "price of the total", "a lovely sunny weather"])
    assert price @ same > 0.6 > 0.3 > price @ other


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider__sends_no_more_at_once_than_it_takes(services: EmbeddingWorld, name: str) -> None:
    embedder = services.embedders.named(name)
    before = len(services.served())
    with on_behalf(Behalf(owner=ANN, shard="many.index")):
        embedder.embed([f"text {number} of {name}" for number in range(300)])
        embedder.embed([f"{number} of {name} " + "long " * 2_000 for number in range(30)])
    requests = len(services.served()) - before
    assert requests == {"openai": 2 + 3, "gemini": 3 + 1}[name.split("/")[0]]


def test_provider__asks_nothing_for_nobody(services: EmbeddingWorld) -> None:
    before = len(services.served())
    with pytest.raises(NotEmbeddedError, match="nobody"):
        services.embedders.named(PROVIDERS[0]).embed(["a text"])
    assert len(services.served()) == before


def test_minilm__gives_the_published_similarities(minilm: MiniLMEmbedder) -> None:
    """Source: the quickstart of sbert.net, which prints these for all-MiniLM-L6-v2. int8 is within 0.03 of them."""
    vectors = minilm.embed(TEXTS[:3])

    assert vectors @ vectors.T == pytest.approx(
        np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]), abs=0.03
    )


@needs_weights
def test_graph__gives_the_published_similarities_exactly() -> None:
    vectors = _run_graph(TEXTS[:3])

    assert (vectors @ vectors.T)[np.triu_indices(3, 1)] == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)


@needs_weights
def test_graph__is_bert_as_written_out_in_numpy_also_with_padding() -> None:
    batch = _run_graph(TEXTS)

    for text, vector in zip(TEXTS, batch, strict=True):
        assert float(vector @ _plain_bert(_tokens(text))) > 0.99999


def test_minilm__int8_is_close_to_the_exact_graph(minilm: MiniLMEmbedder) -> None:
    cosines = (minilm.embed(TEXTS) * _run_graph(TEXTS)).sum(axis=1)

    assert cosines.min() > 0.97


def test_minilm__is_the_model_that_sentence_transformers_runs(minilm: MiniLMEmbedder) -> None:
    expected = reference().embed(TEXTS)

    assert (_run_graph(TEXTS) * expected).sum(axis=1).min() > 0.9999
    assert (minilm.embed(TEXTS) * expected).sum(axis=1).min() > 0.97


def test_minilm__is_converted_once(minilm: MiniLMEmbedder, models_dir: Path) -> None:
    (model,) = models_dir.iterdir()
    made_at = model.stat().st_mtime_ns

    again = choose_embedder(models_dir)

    assert again.name == minilm.name
    assert [path.stat().st_mtime_ns for path in models_dir.iterdir()] == [made_at]


def test_minilm__a_damaged_converted_model_is_made_again(
    minilm: MiniLMEmbedder, models_dir: Path, tmp_path: Path
) -> None:
    (model,) = models_dir.iterdir()
    (tmp_path / model.name).write_bytes(model.read_bytes()[:1000])

    repaired = choose_embedder(tmp_path)

    assert (repaired.embed(TEXTS[:2]) == minilm.embed(TEXTS[:2])).all()
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


@needs_weights
@pytest.mark.parametrize("name", ["model", "tokenizer"])
def test_minilm__refuses_files_that_are_not_the_pinned_ones(tmp_path: Path, name: str) -> None:
    assert WEIGHTS is not None
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"{}")
    files = {"model": WEIGHTS.model, "tokenizer": WEIGHTS.tokenizer, name: foreign}

    with pytest.raises(UnavailableError, match="not the file"):
        MiniLMEmbedder(Weights(**files), tmp_path / "models")

    assert not (tmp_path / "models").exists()


@needs_weights
def test_minilm__says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UnavailableError, match="cannot be written"):
        choose_embedder(tmp_path / "file" / "models")


def test_choose_embedder__without_weights_is_lexical(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runtime.index.minilm.PACKAGE", "no-such-weights-package")

    assert choose_embedder(tmp_path).name == "lexical"


def test_sentence_transformers__without_the_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="semantic"):
        SentenceTransformersEmbedder(tmp_path / "no-model")


def _tokens(text: str) -> list[int]:
    from tokenizers import Tokenizer

    assert WEIGHTS is not None
    tokenizer = Tokenizer.from_file(str(WEIGHTS.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    return list(tokenizer.encode(text).ids)


@cache
def _weights() -> dict[str, npt.NDArray[np.float32]]:
    assert WEIGHTS is not None
    return dict(safetensors.numpy.load_file(WEIGHTS.model))


@cache
def _graph_session() -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    from runtime.index.minilm_graph import encoder_graph

    return onnxruntime.InferenceSession(encoder_graph(_weights()).SerializeToString())


def _run_graph(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """The float32 graph on one padded batch."""
    tokens = [_tokens(text) for text in texts]
    ids = np.zeros((len(texts), max(map(len, tokens))), np.int64)
    mask = np.zeros_like(ids)
    for row, found in enumerate(tokens):
        ids[row, : len(found)] = found
        mask[row, : len(found)] = 1
    return np.asarray(_graph_session().run(None, {"input_ids": ids, "attention_mask": mask})[0], np.float32)


def _plain_bert(tokens: Sequence[int]) -> npt.NDArray[np.float64]:
    """BERT's formulas for one text, in float64 and head by head: the slow twin that the graph is checked against."""
    weights = {name: value.astype(np.float64) for name, value in _weights().items() if value.dtype == np.float32}

    def dense(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    def norm(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    gelu = np.vectorize(lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))))
    words = weights["embeddings.word_embeddings.weight"][list(tokens)]
    places = weights["embeddings.position_embeddings.weight"][: len(tokens)]
    x = norm("embeddings.LayerNorm", words + places + weights["embeddings.token_type_embeddings.weight"][0])
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query, key, value = (dense(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for head in range(12):
            mine = slice(head * 32, head * 32 + 32)
            scores = query[:, mine] @ key[:, mine].T / math.sqrt(32)
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            heads.append(shares / shares.sum(axis=-1, keepdims=True) @ value[:, mine])
        x = norm(
            f"{name}.attention.output.LayerNorm",
            dense(f"{name}.attention.output.dense", np.concatenate(heads, axis=1)) + x,
        )
        wide = gelu(dense(f"{name}.intermediate.dense", x))
        x = norm(f"{name}.output.LayerNorm", dense(f"{name}.output.dense", wide) + x)
    mean = x.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))
