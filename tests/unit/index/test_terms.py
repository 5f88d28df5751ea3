"""Words of code."""

import numpy as np
import pytest

from runtime.index.terms import count_terms, query_terms, term_keys


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("getHTTPResponse", "get http response"),
        ("get_http_response", "GET Http Response"),
        ("Parser2Json", "parser 2 json"),
        ("parses parsed parsing", "parse parse parse"),
        ("queries boxes classes", "query boxe class"),
        ("naïve Straße", "Naïve straße"),
    ],
)
def test_term_keys__splits_identifiers_and_stems(code: str, words: str) -> None:
    assert term_keys(code) == term_keys(words)


def test_term_keys__are_the_same_in_every_process() -> None:
    assert term_keys("router") == [7792910590267250419]


def test_term_keys__tells_different_words_apart() -> None:
    assert len(set(term_keys("ledger journal wallet entity shard"))) == 5


def test_count_terms__counts_each_field() -> None:
    counts = count_terms(("run the run", "Runner.run", ""))

    run = int(np.flatnonzero(counts.keys == term_keys("run")[0])[0])
    assert counts.counts[run].tolist() == [2.0, 1.0, 0.0]
    assert counts.lengths.tolist() == [3.0, 2.0, 0.0]
    assert (np.diff(counts.keys) > 0).all()


def test_term_keys__survives_text_that_is_no_unicode() -> None:
    assert len(term_keys("ok \ud800x")) >= 1


def test_query_terms__have_beginnings_that_count_less_and_each_once() -> None:
    found = query_terms("the configuration, configurations")

    whole = dict(zip(found.keys.tolist(), found.weights.tolist(), strict=True))
    assert len(found.keys) == len(whole)
    assert whole[term_keys("configuration")[0]] == 1.0
    assert whole[term_keys("config")[0]] == pytest.approx(0.6)
    assert term_keys("the")[0] not in whole
    assert min(whole.values()) == pytest.approx(0.6)


def test_query_terms__of_words_that_stand_everywhere_are_those() -> None:
    assert query_terms("is it").keys.tolist() == [*term_keys("is"), *term_keys("it")]
    assert query_terms("!?").keys.tolist() == []
