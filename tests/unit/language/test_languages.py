"""Which language somebody gets."""

import pytest

from runtime.config import Settings
from runtime.errors import BadInputError
from runtime.language.languages import LANGUAGES, choose


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (("ru", "pl", "en"), "ru"),
        ((None, "pl", "ru"), "pl"),
        (("", "pl-PL"), "pl"),
        (("PL_pl",), "pl"),
        (("de", "ru-Latn-RU"), "ru"),
        (("de-DE,pl;q=0.7,ru;q=0.9, en;q=0.1",), "ru"),
        (("pl;q=0, ru;q=0.001",), "ru"),
        (("ru,pl",), "ru"),
        (("pl ; q = 0.5 , ru",), "ru"),
    ],
)
def test_choose__takes_the_first_that_there_are_texts_for(wanted: tuple[str | None, ...], chosen: str) -> None:
    assert choose(*wanted, default="en") == chosen


@pytest.mark.parametrize(
    "header", ["", "de", "*", ";;,,=", "pl;q=x", "pl;q=2", "pl;q=nan", "plx", ",".join(["x"] * 99) + ",pl"]
)
def test_choose__falls_back_on_the_default(header: str) -> None:
    assert choose(None, header, default="ru") == "ru"
    assert choose(header) == "en"


def test_setting__of_the_default_language_is_one_that_there_is() -> None:
    for code in LANGUAGES:
        assert Settings.from_environment({"DEFAULT_LANGUAGE": code}).default_language == code
    with pytest.raises(BadInputError, match="DEFAULT_LANGUAGE"):
        Settings.from_environment({"DEFAULT_LANGUAGE": "de"})
