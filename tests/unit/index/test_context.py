"""Hits in a prompt."""

from dataclasses import replace

from runtime.index.context import context_for
from runtime.index.hit import Hit, Why

HIT = Hit(
    path="a.py",
    start_line=1,
    end_line=2,
    symbol="f",
    kind="function",
    text="def f():\n    pass",
    score=0.5,
    why=Why(meaning=0.3, words=0.2, names=0.0),
    commit="c0ffee",
)


def test_context__has_a_header_with_path_lines_and_symbol() -> None:
    assert context_for([HIT], 1000) == "a.py:1-2 f\n```\ndef f():\n    pass\n```"


def test_context__is_in_order_of_path_and_line_whatever_the_order_of_the_hits() -> None:
    hits = [
        replace(HIT, path="b.py", score=0.9),
        replace(HIT, start_line=9, end_line=9, score=0.8),
        replace(HIT, score=0.1),
    ]

    text = context_for(hits, 1000)

    assert [line for line in text.split("\n") if line.startswith(("a.py", "b.py"))] == [
        "a.py:1-2 f",
        "a.py:9-9 f",
        "b.py:1-2 f",
    ]
    assert text == context_for(reversed(hits), 1000)


def test_context__names_no_commit_and_no_score() -> None:
    other = replace(HIT, commit="deadbeef", score=0.123)

    assert context_for([HIT], 1000) == context_for([other], 1000)


def test_context__never_passes_its_budget_of_bytes() -> None:
    hits = [replace(HIT, path=f"{n}.py", text="é" * (n * 7), score=1 / (n + 1)) for n in range(9)]

    for budget in range(600):
        assert len(context_for(hits, budget).encode()) <= budget


def test_context__gives_a_smaller_hit_the_room_that_a_larger_one_does_not_fit() -> None:
    large = replace(HIT, path="large.py", text="x" * 500, score=0.9)

    assert context_for([large, HIT], 100) == context_for([HIT], 100)


def test_context__takes_the_best_when_not_all_fit() -> None:
    best = replace(HIT, path="z.py", score=0.9)

    assert context_for([HIT, best], 60).startswith("z.py:1-2")


def test_context__shows_a_chunk_once() -> None:
    assert context_for([HIT, replace(HIT, score=0.4)], 1000) == context_for([HIT], 1000)


def test_context__fences_a_text_that_has_fences() -> None:
    text = context_for([replace(HIT, text="````\ncode\n````")], 1000)

    assert text.split("\n")[1] == "`````"
