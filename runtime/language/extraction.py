"""Finds the texts in the code: the literals of `say("...")` and `say.count("...", "...", n)`.

`extract` is an extraction method as Babel calls them, so its own tools can use it too.
Source: https://babel.pocoo.org/en/latest/messages.html#writing-extraction-methods
"""

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file

from runtime.errors import BadInputError

ROOT: Final = Path(__file__).parents[2]
_PACKAGES = ("runtime", "actors", "serve_apps", "cluster")
_OF_OTHER_PRODUCTS = "scenarios"
_METHOD = "runtime.language.extraction:extract"
_KEYWORDS: Final = {"say": None, "say.count": (1, 2)}
_TEXTS = {"say": 1, "say.count": 2}


def template(root: Path = ROOT) -> Catalog:
    """All texts of the code, each with the files that it stands in. Raises BadInputError for one that is no literal."""
    catalogue = Catalog(project="masterbuilder")
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root)
            if _OF_OTHER_PRODUCTS not in name.parts:
                _add_file(catalogue, path, str(name))
    return catalogue


def _add_file(catalogue: Catalog, path: Path, name: str) -> None:
    try:
        for line, text, comments, _ in extract_from_file(_METHOD, path, keywords=_KEYWORDS):
            catalogue.add(text, locations=[(name, line)], auto_comments=comments)
    except ValueError as error:
        raise BadInputError(f"{name}: {error}.", "Write the text itself there, so that it can be translated.") from None


def extract(
    source: IO[bytes],
    keywords: Collection[str],
    comment_tags: Collection[str],
    options: Mapping[str, Any],
) -> Iterator[tuple[int, str, tuple[str, ...], list[str]]]:
    """Line, keyword and texts of each call; nothing of one on an attribute, as `self.say(...)`.

    Raises ValueError with the line of a call whose text is missing, empty or not a literal.
    """
    calls = [node for node in ast.walk(ast.parse(source.read())) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        keyword = _keyword(call.func)
        if keyword in keywords:
            yield call.lineno, keyword, _literals(call, _TEXTS[keyword]), []


def _keyword(called: ast.expr) -> str:
    if isinstance(called, ast.Attribute):
        return f"{_name(called.value)}.{called.attr}"
    return _name(called)


def _name(named: ast.expr) -> str:
    return named.id if isinstance(named, ast.Name) else ""


def _literals(call: ast.Call, number: int) -> tuple[str, ...]:
    given = [node.value for node in call.args[:number] if isinstance(node, ast.Constant)]
    texts = tuple(text for text in given if isinstance(text, str) and text)
    if len(texts) != number:
        raise ValueError(f"line {call.lineno} says what is not a literal text")
    return texts
