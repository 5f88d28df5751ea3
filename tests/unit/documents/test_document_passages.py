from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.documents.passages import CHARACTERS_MAX, CHARACTERS_MIN, OVERLAP_CHARACTERS, Passage, passages_of
from runtime.documents.section import Section

SENTENCE = "The bridge over the river is five metres long. "


def cut(*texts: str) -> list[Passage]:
    return list(passages_of(Section(text=text, page=number) for number, text in enumerate(texts, 1)))


def words(passages: Sequence[Passage]) -> set[str]:
    return {word for passage in passages for word in passage.text.split()}


WORD = st.text("abcxyzäßλ漢", min_size=1, max_size=150)
GAP = st.sampled_from([" ", "  ", "\n", "\n\n", ". ", ".\n", "! ", " " * 300, "\n \n", "\t", '." ', ",", "。"])
TEXT = st.lists(st.tuples(WORD, GAP), max_size=120).map(lambda parts: "".join(word + gap for word, gap in parts))
SECTIONS = st.lists(
    st.builds(Section, text=TEXT, page=st.integers(1, 9), heading=st.sampled_from(["", "A", "B"])), max_size=8
)


@settings(max_examples=300, deadline=None)
@given(SECTIONS)
def test_passages__hold_every_word_in_its_order(sections: list[Section]) -> None:
    passages = list(passages_of(sections))

    numbered = [(number, word) for number, section in enumerate(sections) for word in section.text.split()]
    assert all(len(passage.text) <= CHARACTERS_MAX for passage in passages)
    assert [passage.index for passage in passages] == list(range(len(passages)))
    place = 0
    for _, word in numbered:
        if not any(letter.isalnum() for letter in word) or len(word) > 2 * OVERLAP_CHARACTERS:
            continue
        while place < len(passages) and word not in passages[place].text:
            place += 1
        assert place < len(passages), f"{word} is lost, or stands before what came before it"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=4_000))
def test_passages__of_any_text_lose_no_letter(text: str) -> None:
    passages = cut(text)
    assert all(0 < len(passage.text) <= CHARACTERS_MAX for passage in passages)
    lost = Counter(letter for letter in text if letter.isalnum())
    lost.subtract(Counter("".join(passage.text for passage in passages)))
    assert max(lost.values(), default=0) <= 0


def test_text__without_punctuation_is_cut_within_the_bound() -> None:
    text = "".join(chr(ord("a") + number % 26) for number in range(5_000))
    passages = cut(text)
    assert len(passages) == 7
    assert max(len(passage.text) for passage in passages) == CHARACTERS_MAX
    assert passages[0].text + "".join(passage.text[OVERLAP_CHARACTERS:] for passage in passages[1:-1]) == text[:4_800]


@pytest.mark.parametrize("stop", [". ", "\n", "\n\n"])
def test_window__whose_only_boundary_is_near_its_start_goes_on(stop: str) -> None:
    text = ("x" * 150 + stop + "y" * 2_000) * 5
    passages = cut(text)
    assert len(passages) <= len(text) // 200
    assert sum(passage.text.count("y") for passage in passages) >= 10_000


def test_note__of_twenty_characters_is_one_passage() -> None:
    assert [passage.text for passage in cut("Twenty characters ok")] == ["Twenty characters ok"]


@pytest.mark.parametrize("text", ["", " \n\t ", "---- **** ----", "_" * 3_000])
def test_text__without_words_has_no_passage(text: str) -> None:
    assert cut(text) == []


def test_cut__is_made_between_paragraphs_before_sentences() -> None:
    paragraph = SENTENCE * 8
    passages = cut("\n\n".join([paragraph.strip()] * 4))
    assert passages[0].text == "\n\n".join([paragraph.strip()] * 2)


def test_cut__is_made_between_sentences_before_words() -> None:
    passages = cut(SENTENCE * 60)
    assert all(passage.text.startswith("The bridge") for passage in passages)
    assert all(passage.text.endswith("long.") for passage in passages)


def test_passage__repeats_the_end_of_the_one_before() -> None:
    numbered = " ".join(f"Sentence number {number} is about the bridge." for number in range(100))
    first, second = cut(numbered)[:2]
    repeated = second.text.split(". ")[0]
    assert repeated in first.text
    assert 100 <= max(size for size in range(300) if first.text.endswith(second.text[:size])) <= OVERLAP_CHARACTERS


@pytest.mark.parametrize("length", [801, 850, 899, 900, 901, 1_000, 1_601, 1_699])
def test_tail__that_is_short_goes_with_what_is_before(length: int) -> None:
    text = ("word " * 400)[:length].strip()
    own = [len(passage.text) for passage in cut(text)]
    assert min(own) >= CHARACTERS_MIN
    assert max(own) <= CHARACTERS_MAX


@pytest.mark.parametrize(("length", "count"), [(800, 1), (899, 1), (901, 2), (1_695, 2), (1_705, 3)])
def test_tail__that_is_short_is_no_passage_of_its_own(length: int, count: int) -> None:
    assert len(cut("x" * length)) == count


def test_overlap__is_no_mere_end_of_a_sentence() -> None:
    second = cut(f"{'word ' * 157}End. {'next ' * 100}")[1]
    assert second.text.startswith("word word")
    assert "word End. next" in second.text


def test_section__that_is_short_goes_with_the_next_and_the_last_with_the_one_before() -> None:
    passages = cut("Title page", SENTENCE * 40, "The end")
    assert passages[0].text.startswith("Title page\n\nThe bridge")
    assert passages[-1].text.endswith("The end")
    assert passages[0].page == 1
    assert passages[1].page == 2
    assert all(len(passage.text) >= CHARACTERS_MIN for passage in passages)


def test_passage__tells_the_page_that_its_own_text_begins_on() -> None:
    passages = cut(SENTENCE * 20, f"{SENTENCE * 10}The fact stands here. {SENTENCE * 10}", SENTENCE * 20)
    assert {passage.page for passage in passages if "The fact stands here." in passage.text} == {2}
    assert [passage.page for passage in passages] == [1, 1, 2, 2, 3, 3]
    assert passages[2].text.startswith("The bridge"), "a text goes on from page to page, so the overlap does too"
    assert "\n\n" in passages[2].text


def test_passage__under_another_heading_repeats_nothing() -> None:
    sections = [Section(text="Apples " * 50, heading="A"), Section(text="Pears " * 50, heading="B")]
    passages = list(passages_of(sections))
    assert [(passage.heading, passage.text.split()[0]) for passage in passages] == [("A", "Apples"), ("B", "Pears")]
    assert "Apples" not in passages[1].text


def test_passage__tells_the_line_that_its_own_text_begins_in() -> None:
    lines = [f"value_{number} = compute({number})" for number in range(1, 400)]
    passages = list(passages_of([Section(text="\n".join(lines), start_line=1)]))
    own = [passage.start_line for passage in passages]
    assert own[0] == 1
    for before, passage in pairwise(passages):
        assert passage.start_line is not None
        assert lines[passage.start_line - 1] in passage.text
        assert lines[passage.start_line - 2] in before.text, "the line above is the last of the passage before"
        assert lines[passage.start_line - 1] not in before.text


def test_line__is_the_first_that_is_not_blank_and_is_counted_in_its_own_section() -> None:
    sections = [
        Section(text="Title\n\n", start_line=1),
        Section(text=f"Chapter\n{SENTENCE * 15}\n\n\n\n\n{SENTENCE * 15}", start_line=3),
    ]
    assert [passage.start_line for passage in passages_of(sections)] == [1, 9]


def test_line__of_a_text_that_begins_with_blank_ones_is_that_of_its_first_word() -> None:
    assert [passage.start_line for passage in passages_of([Section(text="\n\n \nText.", start_line=1)])] == [4]
