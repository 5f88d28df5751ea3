"""Embedders by their names: which there are, and that each is loaded once."""

from pathlib import Path

import pytest

from runtime.errors import BadInputError, UnavailableError
from runtime.index import embedder
from runtime.index.embedder import Embedders, default_name, full_name, no_other


def test_lexical__is_there_without_any_model_and_is_always_the_same(tmp_path: Path) -> None:
    embedders = Embedders(tmp_path)
    assert embedders.named("lexical").dimension == 0
    assert embedders.named("lexical") is embedders.named("lexical")


@pytest.mark.parametrize("name", ["", "minilm-2", "sentence-transformers:", "LEXICAL"])
def test_name__that_nobody_knows_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError) as refused:
        Embedders(tmp_path).named(name)
    assert all(each in refused.value.next_step for each in ("lexical", "minilm", "sentence-transformers:MODEL"))


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
