"""PDF: the text of each page, as PDFium reads it. Nothing in it is run, and nothing it names is opened."""

import re
from collections.abc import Iterator
from pathlib import Path

from pypdfium2 import PdfDocument, PdfiumError  # type: ignore[import-untyped]

from runtime.documents.parsers.refusal import Budget, Refusal
from runtime.documents.section import Section

_PASSWORD_ERROR = 4
"""Source: fpdfview.h, FPDF_ERR_PASSWORD."""
_HYPHEN_AT_LINE_END = re.compile("[\x02\ufffe](?:\r?\n)?")
"""How PDFium marks a hyphen that only the line's end asked for."""


def sections_of(path: Path, budget: Budget) -> Iterator[Section]:
    """One for each page with text. A page that is broken is passed over as long as another is not."""
    document = _opened(path)
    count = len(document)
    if count > budget.pages_max:
        raise Refusal(f"has {count:,} pages; {budget.pages_max:,} are read", is_too_large=True)
    broken = 0
    for number in range(count):
        try:
            text = _HYPHEN_AT_LINE_END.sub("", _text(document, number))
        except PdfiumError:
            broken += 1
            continue
        if text.strip():
            yield Section(text=budget.spend(text), page=number + 1)
    if broken == count:
        raise Refusal("is broken: none of its pages can be read")


def _opened(path: Path) -> PdfDocument:
    try:
        return PdfDocument(path)
    except PdfiumError as error:
        if error.err_code == _PASSWORD_ERROR:
            raise Refusal("is encrypted: it opens with a password only") from error
        raise Refusal("is broken: it cannot be opened as a PDF") from error


def _text(document: PdfDocument, number: int) -> str:
    page = document[number]
    try:
        of_page = page.get_textpage()
        try:
            text = of_page.get_text_bounded()
            assert isinstance(text, str)
            return text
        finally:
            of_page.close()
    finally:
        page.close()
