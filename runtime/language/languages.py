"""The languages there are, and which of them somebody gets."""

from collections.abc import Iterator
from typing import Final, Literal

Language = Literal["en", "pl", "ru"]
LANGUAGES: Final = {"en": "English", "pl": "Polski", "ru": "Русский"}
"""By code, each under its own name."""
_SOURCES_MAX = 32
"""Languages of one header that are looked at; browsers send fewer than ten."""


def choose(*wanted: str | None, default: str = "en") -> str:
    """The first of `wanted` that there are texts for, else `default`.

    Each may be a code (`pl`), one with a region (`pl-PL`, as Telegram's `language_code`), or a whole `Accept-Language`
    header, whose languages are tried from the most to the least wanted. What is none of these is passed over.
    Source: RFC 9110 §12.5.4.
    """
    for header in wanted:
        for code in _by_weight(header or ""):
            if code in LANGUAGES:
                return code
    return default


def _by_weight(header: str) -> Iterator[str]:
    weighted = []
    for entry in header.split(",", _SOURCES_MAX)[:_SOURCES_MAX]:
        tag, _, parameter = entry.partition(";")
        weight = _weight(parameter)
        if weight > 0:
            weighted.append((weight, tag.strip().replace("_", "-").partition("-")[0].lower()))
    for _, code in sorted(weighted, key=lambda known: -known[0]):
        yield code


def _weight(parameter: str) -> float:
    """0 to 1; 1 where none is given, 0 for what is no weight."""
    name, _, value = parameter.replace(" ", "").partition("=")
    if not name:
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if name.lower() == "q" and 0 <= weight <= 1 else 0.0
