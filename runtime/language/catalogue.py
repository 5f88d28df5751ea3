"""The catalogues: one `.po` file a language in `catalogues/`, read as it is. No compiled file is kept."""

from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from runtime.language.languages import LANGUAGES

SOURCE: Final = "en"
"""The language that the code is written in, which has no catalogue."""
TRANSLATED: Final = tuple(code for code in LANGUAGES if code != SOURCE)
_FOLDER = Path(__file__).with_name("catalogues")


def read(code: str, folder: Path = _FOLDER) -> Catalog:
    """The catalogue of a language of `TRANSLATED`. Raises KeyError for another one, PoFileError for a broken file."""
    if code not in TRANSLATED:
        raise KeyError(code)
    with (folder / f"{code}.po").open("rb") as file:
        return read_po(file, locale=code, abort_invalid=True)


def write(catalogue: Catalog, code: str, folder: Path = _FOLDER) -> None:
    """Sorted by the files that the texts stand in, without line numbers: an edit elsewhere changes nothing here."""
    with (folder / f"{code}.po").open("wb") as file:
        write_po(file, catalogue, sort_by_file=True, include_lineno=False, ignore_obsolete=True)
