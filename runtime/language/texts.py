"""Texts in somebody's language.

English is the source: a text stands in the code as `say("You have {credits} credits.", credits=...)`, where `say` is a
`Texts`, and what it is in another language stands in that language's catalogue under the English text. `make texts`
finds such calls by the name `say`, so the text must be a literal there.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO

from babel import Locale
from babel.dates import format_date, format_time, format_timedelta
from babel.messages.mofile import write_mo
from babel.numbers import format_decimal
from babel.units import format_unit

from runtime.language.catalogue import SOURCE, read
from runtime.ledger.money import credits_text

_SIZES = ("byte", "kilobyte", "megabyte", "gigabyte", "terabyte")


@cache
def texts(code: str) -> "Texts":
    """The texts of a language of `LANGUAGES`. Its catalogue is read once a process. Raises KeyError for another one."""
    return Texts(code, Locale.parse(code), _translations(code))


def _translations(code: str) -> NullTranslations:
    if code == SOURCE:
        return NullTranslations()
    compiled = BytesIO()
    write_mo(compiled, read(code))
    compiled.seek(0)
    return GNUTranslations(compiled)


@dataclass(frozen=True, slots=True)
class Texts:
    code: str
    locale: Locale
    translations: NullTranslations

    def __call__(self, message: str, /, **values: object) -> str:
        """`message` in this language, with `{name}` filled from `values`.

        A value is inserted as it is: what in it looks like a placeholder or like HTML stays. Raises KeyError for a
        placeholder without a value.
        """
        return _fill(self.translations.gettext(message) if message else "", values)

    def count(self, one: str, many: str, n: int, /, **values: object) -> str:
        """The form that the language has for `n` of something: `say.count("{n} file", "{n} files", n)`.

        `{n}` is filled with the number as the language writes it. Raises as a call does.
        """
        return _fill(self.translations.ngettext(one, many, n), {"n": format_decimal(n, locale=self.locale)} | values)

    def credits(self, amount_ucredits: int) -> str:
        """The number alone, with 2 decimals: `1,067.50`."""
        amount = Decimal(credits_text(amount_ucredits)) + 0  # what rounds to nothing has no sign
        return format_decimal(amount, "#,##0.00", self.locale)

    def date(self, moment: datetime) -> str:
        """Day and minute in UTC, and says so: `Nov 29, 2026, 21:31 UTC`."""
        assert moment.tzinfo is not None, "a moment without a time zone"
        day = moment.astimezone(UTC)
        return f"{format_date(day, 'medium', self.locale)}, {format_time(day, 'HH:mm', locale=self.locale)} UTC"

    def time_left(self, left: timedelta) -> str:
        """In one unit, of which there are at least two: `90 minutes`, `3 days`. Nothing is left of a negative one."""
        return format_timedelta(max(left, timedelta()), threshold=2, locale=self.locale)

    def size(self, size_bytes: int) -> str:
        """In units of 1,000, with at most one decimal: `20 MB`, `1.5 kB`, `12 bytes`."""
        number, power = Decimal(size_bytes), 0
        while round(number, 1) >= 1000 and power + 1 < len(_SIZES):
            number, power = number / 1000, power + 1
        shown = round(number) if round(number, 1) == round(number) else round(number, 1)
        return format_unit(shown, _SIZES[power], "short" if power else "long", locale=self.locale)


def _fill(text: str, values: dict[str, object]) -> str:
    try:
        return text.format_map(values)
    except KeyError as missing:
        raise KeyError(f"{missing.args[0]!r} has no value in the text {text!r}") from None
