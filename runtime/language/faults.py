"""What is wrong with a catalogue: what would be said in English, wrongly, or not at all."""

import re
from collections.abc import Iterator, Sequence
from gettext import c2py
from string import Formatter

from babel.messages.catalog import Catalog, Message
from babel.messages.plurals import get_plural

_TAG = re.compile(r"</?[a-zA-Z][^>]*>")
_NUMBERS = range(200)
"""Plural forms of the languages here depend on the last two digits."""


def faults(catalogue: Catalog, template: Catalog) -> Sequence[str]:
    """One sentence each, that names the text; none for a catalogue that fits the code."""
    return [*_of_plural_forms(catalogue), *_of_keeping(catalogue, template), *_of_translations(catalogue)]


def _of_plural_forms(catalogue: Catalog) -> Iterator[str]:
    assert catalogue.locale is not None
    wanted = get_plural(catalogue.locale)
    if catalogue.num_plurals != wanted.num_plurals:
        yield f"the header says {catalogue.num_plurals} plural forms; there are {wanted.num_plurals}"
    elif list(map(c2py(catalogue.plural_expr), _NUMBERS)) != list(map(c2py(wanted.plural_expr), _NUMBERS)):
        yield f"the header's rule for plural forms is not {wanted.plural_expr}"


def _of_keeping(catalogue: Catalog, template: Catalog) -> Iterator[str]:
    kept = {message.id for message in catalogue if message.id}
    used = {message.id for message in template if message.id}
    yield from (f"{_shown(text)} is missing" for text in sorted(map(_forms, used - kept)))
    unused = (kept - used) | {message.id for message in catalogue.obsolete.values()}
    yield from (f"{_shown(text)} is not used" for text in sorted(map(_forms, unused)))


def _of_translations(catalogue: Catalog) -> Iterator[str]:
    for message in catalogue:
        if message.id:
            yield from (f"{_shown(_forms(message.id))} {fault}" for fault in _of_one(message, catalogue))


def _of_one(message: Message, catalogue: Catalog) -> Iterator[str]:
    if message.fuzzy:
        yield "is fuzzy"
    sources, translations = _forms(message.id), _forms(message.string)
    if not all(text.strip() for text in translations):
        yield "is not translated"
        return
    if isinstance(message.id, tuple) and len(translations) != catalogue.num_plurals:
        yield f"has {len(translations)} plural forms; there are {catalogue.num_plurals}"
        return
    fields, tags = _fields(sources[-1]), _tags(sources[-1])
    for form, text in enumerate(translations):
        unneeded = {"n"} if isinstance(message.id, tuple) and _says_one(form, catalogue) else set()
        filled = _fields(text)
        if fields is None or filled is None or filled | unneeded != fields | unneeded:
            yield f"has other placeholders in {text!r}"
        if _tags(text) != tags:
            yield f"has other tags in {text!r}"


def _says_one(form: int, catalogue: Catalog) -> bool:
    """Whether the form is for the number 1 alone, so that it need not name it. In Russian it is for 21 as well."""
    rule = c2py(catalogue.plural_expr)
    return [number for number in _NUMBERS if rule(number) == form] == [1]


def _fields(text: str) -> set[str] | None:
    """None where the text has braces that are no `{name}`."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        return None
    fields = [field for field in parsed if field[1] is not None]
    plain = all(name is not None and name.isidentifier() and not spec and not how for _, name, spec, how in fields)
    return {str(name) for _, name, _, _ in fields} if plain else None


def _tags(text: str) -> Sequence[str]:
    return sorted(_TAG.findall(text))


def _forms(text: object) -> tuple[str, ...]:
    return tuple(map(str, text)) if isinstance(text, tuple | list) else (str(text),)


def _shown(texts: tuple[str, ...]) -> str:
    return " / ".join(map(repr, texts))
