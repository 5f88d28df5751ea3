"""Texts in somebody's language."""

from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import pytest
from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.pofile import write_po

from runtime.language import texts as module
from runtime.language.catalogue import TRANSLATED, read
from runtime.language.languages import LANGUAGES
from runtime.language.texts import Texts, texts

FORMS = {
    "pl": ("{n} plik w {where}", "{n} pliki w {where}", "{n} plików w {where}"),
    "ru": ("{n} файл в {where}", "{n} файла в {where}", "{n} файлов в {where}"),
}


@pytest.fixture
def translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Texts]:
    """Catalogues with a text and one with plurals, read from files as ours are."""
    for code, greeting in (("pl", "{name}, witaj w {place}"), ("ru", "{name}, добро пожаловать: {place}")):
        catalogue = Catalog(locale=code)
        catalogue.add("Welcome to {place}, {name}", greeting)
        catalogue.add("Not sure", "Guessed", flags=["fuzzy"])
        catalogue.add(("{n} file in {where}", "{n} files in {where}"), FORMS[code])
        written = BytesIO()
        write_po(written, catalogue)
        (tmp_path / f"{code}.po").write_bytes(written.getvalue())
    monkeypatch.setattr(module, "read", lambda code: read(code, tmp_path))
    return {code: Texts(code, Locale.parse(code), module._translations(code)) for code in LANGUAGES}


def test_say__translates_and_then_fills(translated: dict[str, Texts]) -> None:
    said = {code: say("Welcome to {place}, {name}", name="Ada", place="X") for code, say in translated.items()}
    assert said == {
        "en": "Welcome to X, Ada",
        "pl": "Ada, witaj w X",
        "ru": "Ada, добро пожаловать: X",
    }


@pytest.mark.parametrize(
    ("n", "polish", "russian"),
    [
        (0, "0 plików", "0 файлов"),
        (1, "1 plik", "1 файл"),
        (2, "2 pliki", "2 файла"),
        (5, "5 plików", "5 файлов"),
        (12, "12 plików", "12 файлов"),
        (21, "21 plików", "21 файл"),
        (22, "22 pliki", "22 файла"),
        (112, "112 plików", "112 файлов"),
        (21_000, "21\xa0000 plików", "21\xa0000 файлов"),
    ],
)
def test_count__has_the_form_of_each_language(translated: dict[str, Texts], n: int, polish: str, russian: str) -> None:
    def said(code: str) -> str:
        return translated[code].count("{n} file in {where}", "{n} files in {where}", n, where="X")

    assert said("pl") == f"{polish} w X"
    assert said("ru") == f"{russian} в X"
    assert said("en") == (f"{n:,} file in X" if n == 1 else f"{n:,} files in X")


def test_say__inserts_values_as_they_are(translated: dict[str, Texts]) -> None:
    say = translated["pl"]
    assert say("Welcome to {place}, {name}", name="{place} %s <b>", place="{name}") == "{place} %s <b>, witaj w {name}"
    assert texts("en").count("{n} of {a}", "{n} of {a}", 2, a="{n}") == "2 of {n}"


def test_say__without_a_value_is_an_error_that_names_it(translated: dict[str, Texts]) -> None:
    with pytest.raises(KeyError, match=r"'place' has no value in the text .*witaj"):
        translated["pl"]("Welcome to {place}, {name}", name="Ada")
    with pytest.raises(KeyError, match="'where'"):
        translated["ru"].count("{n} file in {where}", "{n} files in {where}", 3)


def test_say__of_what_has_no_sure_translation_is_english(translated: dict[str, Texts]) -> None:
    assert translated["pl"]("Unknown") == "Unknown"
    assert translated["pl"]("Not sure") == "Not sure"
    assert translated["pl"]("") == "", "gettext would give the header"


def test_texts__are_read_once() -> None:
    assert texts("pl") is texts("pl")
    assert [texts(code).code for code in LANGUAGES] == list(LANGUAGES)
    with pytest.raises(KeyError):
        texts("de")


def test_credits__have_two_decimals_and_are_never_a_float() -> None:
    assert [texts(code).credits(1_067_500_000) for code in LANGUAGES] == ["1,067.50", "1\xa0067,50", "1\xa0067,50"]
    assert texts("en").credits(-5_000) == "0.00"
    assert texts("en").credits(-1_015_000) == "-1.02"
    assert texts("en").credits(90_071_992_547_409_930_000) == "90,071,992,547,409.93"


def test_date__is_in_utc_and_says_so() -> None:
    moment = datetime(2026, 11, 30, 1, 31, tzinfo=timezone(timedelta(hours=2)))
    assert [texts(code).date(moment) for code in LANGUAGES] == [
        "Nov 29, 2026, 23:31 UTC",
        "29 lis 2026, 23:31 UTC",
        "29 нояб. 2026\u202fг., 23:31 UTC",  # noqa: RUF001
    ]
    with pytest.raises(AssertionError, match="time zone"):
        texts("en").date(datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_time_left__is_in_one_unit() -> None:
    assert [texts(code).time_left(timedelta(minutes=90)) for code in LANGUAGES] == [
        "90 minutes",
        "90 minut",
        "90 минут",
    ]
    assert texts("en").time_left(timedelta(days=3, hours=2)) == "3 days"
    assert texts("en").time_left(timedelta(seconds=-5)) == "0 seconds"


def test_size__is_in_the_unit_that_is_read_best() -> None:
    say = texts("en")
    given = [0, 1, 999, 1_500, 999_949, 999_950, 20_000_000, 5 * 10**12, 10**18]
    assert [say.size(size) for size in given] == [
        "0 bytes",
        "1 byte",
        "999 bytes",
        "1.5 kB",
        "999.9 kB",
        "1 MB",
        "20 MB",
        "5 TB",
        "1,000,000 TB",
    ]
    assert [texts(code).size(1_500_000) for code in TRANSLATED] == ["1,5 MB", "1,5 МБ"]
