"""A talk with the bot is in one language from its first word to its last, and fits on the phone."""

import re
from collections.abc import Iterator, Sequence
from html import unescape

import pytest

from runtime.language.catalogue import TRANSLATED, read
from runtime.language.languages import LANGUAGES
from runtime.telegram.formatting import utf16_units
from tests.unit.telegram import telegram_html
from tests.unit.telegram.scripted_talk import talk_in

UNITS_MAX = {"text": 4096, "caption": 1024, "toast": 200, "button": 40, "title": 32, "description": 255}
"""Source: Telegram Bot API, of each field; a button's is ours, as wide as a phone."""
MENU_UNITS_MAX = 256
NOT_TRANSLATED = re.compile(
    r"<(pre|code)>.*?</\1>|/[a-z_]+(?: credits_\d+| full_access_monthly)?|https?:[^\s\"<]+", re.DOTALL
)
WORD = re.compile(r"[^\W\d_]{2,}")
NAMES = {"SHA", "Telegram", "ZIP", "API", "HTTP", "UTC"}
IN_A_ROW = 3
"""So many words that stand together in the English text too are a piece of it."""


@pytest.mark.parametrize("language", TRANSLATED)
async def test_talk__has_no_english_left(language: str) -> None:
    english, translated = await talk_in("en"), await talk_in(language)
    assert [(line.step, line.field) for line in english] == [(line.step, line.field) for line in translated]
    left = [
        f"{theirs.step}, {theirs.field}: {piece!r} in {theirs.text!r}"
        for ours, theirs in zip(english, translated, strict=True)
        for piece in english_left(ours.text, theirs.text)
    ]
    assert left == []


@pytest.mark.parametrize("language", LANGUAGES)
async def test_talk__is_within_what_telegram_takes(language: str) -> None:
    for line in await talk_in(language):
        seen = telegram_html.read(line.text).text if line.is_html else line.text
        most = MENU_UNITS_MAX if line.step.endswith("menu") else UNITS_MAX[line.field]
        assert 0 < utf16_units(seen.strip()) <= most, line


@pytest.mark.parametrize("language", TRANSLATED)
def test_translation__is_html_that_telegram_takes(language: str) -> None:
    """Those too that no talk comes to."""
    for message in read(language):
        for text in (message.string,) if isinstance(message.string, str) else message.string:
            if message.id:
                telegram_html.read(re.sub(r"\{[a-z]+\}", "https://1.pl", text))


async def test_language__says_which_one_it_is() -> None:
    said = {code: [line.text for line in await talk_in(code) if line.step == "/language CODE"] for code in LANGUAGES}
    assert said == {
        "en": ["👍 I speak English now."] * 2,
        "pl": ["👍 Mówię teraz po polsku."] * 2,
        "ru": ["👍 Теперь я говорю по-русски."] * 2,
    }


@pytest.mark.parametrize(
    ("english", "translated", "left"),
    [
        ("Your project goes on: 1", "Your project goes on: 2", ["Your project goes on: 1"]),
        (
            "One\nYour project <b>goes on</b> now",
            "Jeden\nTeraz your project goes on",
            ["project goes on", "your project goes"],
        ),
        ("✖️ Cancel", "✖️ Cancel", ["✖️ Cancel"]),
        ("/start: begin", "/start: zacznij", []),
        ("<code>a b c</code> of it", "<code>a b c</code> tego", []),
        ("Polski", "Polski", []),
        ("5⭐", "5⭐", []),
    ],
)
def test_search_for_english__finds_whole_lines_and_pieces(english: str, translated: str, left: Sequence[str]) -> None:
    assert [piece.lower() for piece in english_left(english, translated)] == [piece.lower() for piece in left]


def english_left(english: str, translated: str) -> Iterator[str]:
    """Lines that are the same in both but for numbers, and pieces of a sentence that both have."""
    ours, theirs = _cleared(english), _cleared(translated)
    same = {tuple(_words(line)) for line in theirs.split("\n")}
    whole = [line for line in ours.split("\n") if _words(line) and tuple(_words(line)) in same]
    yield from whole
    if not whole:
        pieces = _pieces(ours) & _pieces(theirs)
        yield from sorted(" ".join(piece) for piece in pieces)


def _cleared(text: str) -> str:
    return unescape(re.sub(r"<[^<>]*>", "", NOT_TRANSLATED.sub("", text)))


def _words(text: str) -> list[str]:
    """Latin ones, without names that every language has."""
    known = NAMES | set(LANGUAGES.values())
    return [word.lower() for word in WORD.findall(text) if word.isascii() and word not in known]


def _pieces(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[n : n + IN_A_ROW]) for n in range(len(words) - IN_A_ROW + 1)}
