import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue.difficulty import WORDING_CHARACTERS_MAX, classify, intents_of, profile_for

NEUTRAL = "abacus"


@pytest.mark.parametrize(
    ("text", "level", "intents", "score", "tools"),
    [
        ("Cześć", "easy", ("conversational",), 0.0, []),
        ("Jak działa silnik spalinowy?", "medium", ("factual",), 0.1524, [("vertex_search", 0.5), ("web_search", 0.4)]),
        ("jak działa Python?", "medium", ("code",), 0.4524, []),
        ("Analyze the complexity of this algorithm and optimize it", "hard", ("analytical",), 0.6131, []),
        (" ".join([NEUTRAL] * 60), "hard", ("conversational",), 0.5, []),
        (" ".join([NEUTRAL] * 50), "medium", ("conversational",), 0.2, []),
        (" ".join([NEUTRAL] * 11), "easy", ("conversational",), 0.0, []),
        ("oblicz 15% z 200", "easy", ("math",), 0.0, [("calculate", 0.8)]),
        ("znajdź aktualną cenę Bitcoin", "easy", ("search",), 0.0, [("web_search", 0.9), ("vertex_search", 0.5)]),
        ("pokaż treść mojego dokumentu PDF", "medium", ("document",), 0.1524, [("rag_search", 0.85)]),
        ("jaka jest teraz godzina?", "easy", ("temporal",), 0.0, [("get_datetime", 0.8)]),
    ],
)
def test_classify__gives_the_reference_results_of_the_specification(text, level, intents, score, tools):
    found = classify(text)
    assert (found.level, found.intents) == (level, intents)
    assert round(found.difficulty_score, 4) == score
    assert [(hint.tool, hint.relevance) for hint in found.tools] == tools
    assert found.recommended_tool_count == len(tools)
    assert all(hint.reason for hint in found.tools)


@pytest.mark.parametrize(
    ("keywords", "score"),
    [
        ("", 0.0),
        ("algorithm", 0.508),
        ("algorithm strategy", 0.630),
        ("algorithm strategy complexity", 0.716),
        ("algorithm strategy complexity design compare", 0.838),
        ("algorithm strategy complexity design compare debug refactor implement evaluate architecture", 1.0),
    ],
)
def test_hard_keywords__count_by_the_logarithm_of_their_number(keywords, score):
    assert round(classify(keywords).hard_keyword_score, 3) == score


def test_keywords__count_once_however_often_they_occur():
    assert classify("algorithm algorithm algorithms").hard_keyword_score == pytest.approx(0.3 + 0.3 * math.log(2))


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        (NEUTRAL, 0.0),
        (f"{NEUTRAL} " * 11, 0.2),
        (f"{NEUTRAL} " * 21, 0.4),
        (f"{NEUTRAL} " * 51, 1.0),
        ("a ```x``` b", 0.3),
        ("1. a\n2) b", 0.1),
        ("- a\n- b", 0.1),
        ("* a", 0.1),
        ("A. B. C.", 0.0),
        ("A. B. C. D.", 0.2),
        (f"{NEUTRAL} " * 51 + "```x``` A. B. C. D.", 1.0),
    ],
)
def test_structure__is_length_code_lists_and_sentences(text, structure):
    assert classify(text).structural_complexity == pytest.approx(structure)


@pytest.mark.parametrize(
    ("text", "level"), [("shower gel", "easy"), ("the whole thing", "easy"), ("pokażmy przykłady", "medium")]
)
def test_keywords__are_whole_words_with_polish_endings(text, level):
    assert classify(text).level == level


@pytest.mark.parametrize(
    ("text", "intents"),
    [
        ("2024-01-15", ("conversational",)),
        ("on 15.01.2024 or 1/2/24, in 2019-2024", ("conversational",)),
        ("12+34", ("math",)),
        ("3 * (4 - 1)", ("math",)),
        ("let us go home", ("conversational",)),
        ("a loop in Go code", ("code",)),
        ("golang", ("code",)),
        ("my dog", ("conversational",)),
        ("my files", ("document",)),
        ("update my address", ("memory",)),
        ("jakie są średnie ceny", ("math", "search")),
        ("centrum miasta", ("conversational",)),
        ("sumy i procenty", ("math",)),
        ("write a poem", ("creative",)),
        ("Co robi rząd", ("factual",)),
        ("You like it?", ("factual",)),
        ("Thanks a lot", ("conversational",)),
        ("porównaj dwa algorytmy sortowania", ("analytical",)),
        ("funkcjami i błędami", ("code",)),
        ("```x```", ("code",)),
        ("what year was it", ("temporal",)),
        ("data science team", ("conversational",)),
        ("jaka jest data?", ("temporal",)),
    ],
)
def test_intents__are_those_the_words_tell(text, intents):
    assert intents_of(text) == intents


def test_intents__may_hold_together_and_bring_their_tools_sorted():
    found = classify("find the latest price and calculate 15% of it")
    assert found.intents == ("math", "search")
    assert [hint.tool for hint in found.tools] == ["web_search", "calculate", "vertex_search"]


@pytest.mark.parametrize(
    ("level", "role", "profile"),
    [
        ("hard", "DEMO", "smart"),
        ("hard", "FULL_ACCESS", "deep"),
        ("hard", "ADMIN", "deep"),
        ("medium", "DEMO", "smart"),
        ("easy", "ADMIN", "eco"),
    ],
)
def test_profile__follows_the_level_and_spares_demo_the_deep_one(level, role, profile):
    assert profile_for(level, role) == profile


@given(st.text(max_size=500))
def test_classify__takes_any_text_and_stays_within_its_ranges(text):
    found = classify(text)
    assert 0 <= found.difficulty_score <= 0.4 + 0.5 + 0.3 + 0.3
    assert 0.5 <= found.confidence <= 1
    assert found.intents
    assert [hint.relevance for hint in found.tools] == sorted((hint.relevance for hint in found.tools), reverse=True)
    assert len({hint.tool for hint in found.tools}) == len(found.tools)


def test_classify__reads_only_the_beginning_of_a_huge_text():
    huge = f"{NEUTRAL} " * WORDING_CHARACTERS_MAX + "algorithm"
    assert classify(huge).hard_keyword_score == 0
    assert classify(huge).structural_complexity == 1.0
