"""What may be uploaded, and whether a file is what its name says."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from runtime.errors import BadInputError, TooLargeError

FILE_BYTES_MAX = 20_000_000
NAME_CHARACTERS_MAX = 120
NAMELESS = "document"


class Format(StrEnum):
    """How a file is read."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"


FORMATS = MappingProxyType({
    ".txt": Format.TEXT, ".md": Format.MARKDOWN, ".pdf": Format.PDF, ".docx": Format.DOCX, ".html": Format.HTML,
    ".json": Format.JSON, ".py": Format.TEXT, ".js": Format.TEXT, ".ts": Format.TEXT, ".java": Format.TEXT,
    ".cpp": Format.TEXT, ".c": Format.TEXT, ".go": Format.TEXT, ".rs": Format.TEXT,
})  # fmt: skip
"""By the ending of the name."""
ACCEPTED = f"Accepted are {', '.join(FORMATS)}."

_PDF = b"%PDF-"
_PDF_WITHIN_BYTES = 1024
"""Readers accept something before the header. Source: ISO 32000-1, annex H, 3.4.1, note 13."""
_ZIP = b"PK\x03\x04"
_WORD_PART = b"word/document.xml"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16, and of UTF-32 where it is little-endian; other UTF-32 nobody writes."""
_WIDE_SAMPLE_BYTES = 8192
_TEXT_CONTROLS = b"\t\n\v\f\r\x1b"
_CONTROLS = bytes(set(range(32)) - set(_TEXT_CONTROLS))
_CONTROL_SHARE_MAX = 0.02
"""A stray control character is left over from a program; of compressed data they are a tenth."""
_HIDDEN_CATEGORIES = ("C", "Zl", "Zp")
"""Controls, bidi overrides, surrogates, private and unassigned characters; line and paragraph separators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file whose name and content agree as far as can be told without reading all of it."""

    name: str
    """For people. Nothing is ever stored or opened under it."""
    ending: str
    """A key of FORMATS."""
    content: bytes

    @property
    def format(self) -> Format:
        return FORMATS[self.ending]


def recognise(name: str, content: bytes, *, bytes_max: int = FILE_BYTES_MAX) -> Document:
    """Raises TooLargeError, and BadInputError where the ending is not accepted or the content is something else."""
    shown = label(name)
    stem, dot, last = shown.rpartition(".")
    ending = f"{dot}{last}".lower()
    if ending not in FORMATS or not stem:
        what = f"{ending} files are" if dot and stem else "a file without an ending is"
        raise BadInputError(f"{shown} cannot be read: {what} not accepted.", ACCEPTED)
    if len(content) > bytes_max:
        raise TooLargeError(
            f"{shown} has {_mb(len(content))}; a document may have {_mb(bytes_max)}.", "Send it in parts."
        )
    if not content.strip():
        raise BadInputError(f"{shown} is empty.", ACCEPTED)
    if fault := _contradiction(FORMATS[ending], content):
        raise BadInputError(f"{shown} is not what its name says: {fault}.", ACCEPTED)
    return Document(name=shown, ending=ending, content=content)


def label(name: str) -> str:
    """A file's name as it may be shown: no folders, nothing invisible, one line; NAMELESS where nothing is left."""
    visible = "".join(
        letter for letter in unicodedata.normalize("NFC", name) if not _is_hidden(unicodedata.category(letter))
    )
    # A name that ends in dots or blanks has another ending than it seems to; one that begins so is hidden.
    last = re.split(r"[/\\]", visible)[-1].strip(". \u00a0")
    named = " ".join(last.split())
    if named.lower() in {ending[1:] for ending in FORMATS} and visible.rstrip().lower().endswith(f".{named.lower()}"):
        named = f"{NAMELESS}.{named}"
    stem, dot, ending = named.rpartition(".")
    if dot and len(ending) < NAME_CHARACTERS_MAX // 2:
        return f"{stem[: NAME_CHARACTERS_MAX - len(ending) - 1]}.{ending}"
    return named[:NAME_CHARACTERS_MAX] or NAMELESS


def _is_hidden(category: str) -> bool:
    return category.startswith(_HIDDEN_CATEGORIES)


def _contradiction(expected: Format, content: bytes) -> str | None:
    """What speaks against it, or None."""
    if expected is Format.PDF:
        return None if _is_pdf(content) else "it does not begin with %PDF-"
    if expected is Format.DOCX:
        return _docx_fault(content)
    if content.startswith(_PDF):
        return "it is a PDF"
    if content.startswith(_ZIP):
        return "it is a ZIP archive"
    return "it is binary, not text" if _is_binary(content) else None


def _is_pdf(content: bytes) -> bool:
    return _PDF in content[: _PDF_WITHIN_BYTES + len(_PDF)]


def _docx_fault(content: bytes) -> str | None:
    if content.startswith(_OLE):
        return "it is an old .doc, or it is protected by a password"
    if not content.startswith(_ZIP):
        return "it is no ZIP archive, as every .docx is"
    # The archive's list of names is not compressed. What it really holds is seen where it is safe to open it.
    return None if _WORD_PART in content else "it is a ZIP archive without word/document.xml"


def _is_binary(content: bytes) -> bool:
    if content.startswith(_WIDE_MARKS):
        return _is_no_utf16(content[:_WIDE_SAMPLE_BYTES])
    controls = len(content) - len(content.translate(None, _CONTROLS))
    return b"\0" in content or controls > len(content) * _CONTROL_SHARE_MAX


def _is_no_utf16(sample: bytes) -> bool:
    text = sample.decode("utf-16", "replace")
    odd = sum(letter == "\ufffd" or unicodedata.category(letter) in ("Cc", "Cn", "Co") for letter in text)
    return odd - text.count("\n") - text.count("\r") - text.count("\t") > len(text) * _CONTROL_SHARE_MAX + 1


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
