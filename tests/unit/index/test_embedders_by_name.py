"""Embedders by their names: which there are, and that each is loaded once."""

from pathlib import Path

import pytest

from cluster.reindex_commands import _chosen
from runtime.config import Settings
from runtime.errors import BadInputError, UnavailableError
from runtime.index import embedder
from runtime.index.embedder import Embedders, default_name, full_name, is_paid, no_other


def test_lexical__is_there_without_any_model_and_is_always_the_same(tmp_path: Path) -> None:
    embedders = Embedders(tmp_path)
    assert embedders.named("lexical").dimension == 0
    assert embedders.named("lexical") is embedders.named("lexical")


@pytest.mark.parametrize("name", ["", "minilm-2", "sentence-transformers:", "LEXICAL"])
def test_name__that_nobody_knows_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError) as refused:
        Embedders(tmp_path).named(name)
    listed = ("lexical", "minilm", "sentence-transformers:MODEL", "PROVIDER/MODEL")
    assert all(each in refused.value.next_step for each in listed)


def test_minilm__has_two_names_and_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    class Loaded:
        name = "all-MiniLM-L6-v2-int8"

        def __init__(self, weights: object, models_dir: Path, *, threads: int) -> None:
            assert models_dir == tmp_path
            loads.append(threads)

    monkeypatch.setattr(embedder, "MiniLMEmbedder", Loaded)
    monkeypatch.setattr(embedder, "find_weights", lambda: "weights")
    embedders = Embedders(tmp_path, threads=1)

    found = {id(embedders.named(name)) for name in ("minilm", "all-MiniLM-L6-v2-int8", "minilm")}

    assert found == {id(embedders.default)}
    assert loads == [1]


def test_default__without_weights_is_lexical_and_minilm_is_then_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedder, "find_weights", lambda: None)
    assert (default_name(), Embedders(tmp_path).default.name) == ("lexical", "lexical")
    with pytest.raises(UnavailableError, match="not installed"):
        Embedders(tmp_path).named("minilm")


def test_model__of_sentence_transformers_keeps_its_whole_name() -> None:
    """By which it can be had again."""
    assert full_name("sentence-transformers:BAAI/bge-small-en") == "sentence-transformers:BAAI/bge-small-en"


def test_no_other__knows_none() -> None:
    with pytest.raises(BadInputError):
        no_other("lexical")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("openai/text-embedding-3-small", "openai/text-embedding-3-small@1536"),
        ("openai/text-embedding-3-large@1024", "openai/text-embedding-3-large@1024"),
        ("google/gemini-embedding-001", "gemini/gemini-embedding-001@3072"),
        ("ollama/nomic-embed-text:v1.5@768", "ollama/nomic-embed-text:v1.5@768"),
        ("ours/some/model@64", "ours/some/model@64"),
    ],
)
def test_provider__is_named_with_the_length_of_its_vectors(name: str, full: str) -> None:
    assert (full_name(name), full_name(full)) == (full, full)
    assert is_paid(full)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("ollama/nomic-embed-text", "@768"),
        ("opnai/text-embedding-3-small", "@768"),
        ("openai/text-embedding-3-small@4096", "1536"),
        ("openai/text-embedding-3-small@0", "1536"),
        ("openai/text-embedding-ada-002@99999", "8192"),
    ],
)
def test_provider__whose_vectors_length_nobody_knows_is_refused_with_what_to_say(name: str, instead: str) -> None:
    with pytest.raises(BadInputError) as refused:
        full_name(name)
    assert instead in refused.value.next_step


def test_provider__is_never_the_default_unless_it_was_chosen(tmp_path: Path) -> None:
    assert not is_paid(default_name())
    assert not is_paid(Embedders(tmp_path).default.name)
    with pytest.raises(UnavailableError, match="service"):
        Embedders(tmp_path, default="openai/text-embedding-3-small").named("openai/text-embedding-3-small")


def test_setting__of_an_embedder_that_nobody_knows_is_refused_at_the_start() -> None:
    with pytest.raises(BadInputError, match="no embedder"):
        Settings.from_environment({"EMBEDDER": "minilm-2"})
    assert Settings.from_environment({"EMBEDDER": "lexical"}).embedder == "lexical"


def test_job__embeds_with_what_costs_only_where_that_was_asked_for() -> None:
    """Whoever starts a job pays for it."""
    small = "openai/text-embedding-3-small"
    with pytest.raises(BadInputError, match="operator pays"):
        _chosen("", small)
    assert _chosen(small, "") == f"{small}@1536"
    assert _chosen("", "lexical") == "lexical"
