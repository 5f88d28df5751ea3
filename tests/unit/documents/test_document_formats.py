import pytest

from runtime.documents.formats import FORMATS, NAME_CHARACTERS_MAX, Format, label, recognise
from runtime.errors import BadInputError, TooLargeError
from tests.unit.documents.made_files import docx, paragraph, pdf

SPECIFIED = [
    f".{e}" for e in ("txt", "md", "pdf", "docx", "html", "json", "py", "js", "ts", "java", "cpp", "c", "go", "rs")
]
CONTENT = {Format.PDF: pdf(["A page."]), Format.DOCX: docx(paragraph("A paragraph."))}


def why(name: str, content: bytes) -> str:
    with pytest.raises(BadInputError) as refused:
        recognise(name, content)
    assert all(ending in refused.value.next_step for ending in SPECIFIED)
    return refused.value.message


def test_formats__are_the_fourteen() -> None:
    assert list(FORMATS) == SPECIFIED


@pytest.mark.parametrize("ending", SPECIFIED)
def test_document__of_each_format_is_accepted(ending: str) -> None:
    content = CONTENT.get(FORMATS[ending], b"Some text.")

    document = recognise(f"A report{ending.upper()}", content)

    assert (document.ending, document.content) == (ending, content)
    assert document.name == f"A report{ending.upper()}"


@pytest.mark.parametrize("name", ["setup.exe", "archive.pdf.zip", "README", "a.", "", "..", "a.p", ".bashrc"])
def test_ending__that_is_not_accepted_is_refused(name: str) -> None:
    assert "not accepted" in why(name, b"Some text.")


def test_refusal__names_the_ending() -> None:
    assert why("setup.exe", b"MZ") == "setup.exe cannot be read: .exe files are not accepted."


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", b"Some text.", "does not begin with %PDF-"),
        ("a.pdf", b" " * 1_030 + b"%PDF-1.4", "does not begin with %PDF-"),
        ("a.docx", b"Some text.", "no ZIP archive"),
        ("a.docx", b"PK\x03\x04 of something else", "without word/document.xml"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "protected by a password"),
        ("a.txt", pdf(["A page."]), "it is a PDF"),
        ("a.json", docx(paragraph("A paragraph.")), "it is a ZIP archive"),
        ("a.py", b"\x7fELF\x02\x01\x01" + bytes(64), "it is binary"),
        ("a.py", bytes(range(1, 256)) * 20, "it is binary"),
        ("a.c", b"int main; " * 99 + b"\0", "it is binary"),
        ("a.txt", b"\xff\xfe" + bytes(range(256)) * 40, "it is binary"),
    ],
)
def test_content__that_contradicts_the_name_is_refused(name: str, content: bytes, reason: str) -> None:
    assert reason in why(name, content)


@pytest.mark.parametrize("before", [b"", b"\n", b"x" * 1_024])
def test_pdf__may_have_something_before_its_header(before: bytes) -> None:
    assert recognise("a.pdf", before + pdf(["A page."])).format is Format.PDF


@pytest.mark.parametrize(
    "content",
    [
        "Größe: 3 m²".encode(),
        "Größe: 3 m²".encode("latin-1"),
        "Größe: 3 m²\n\tund mehr".encode("utf-16"),
        "漢字とかな".encode("utf-16"),
        "漢字とかな".encode("shift-jis"),
        b"\x1b[31mred\x1b[0m and a form feed \x0c",
        b"a log with one stray \x01 " + b"and much more that is text " * 3,
    ],
)
def test_text__of_any_encoding_is_no_binary(content: bytes) -> None:
    assert recognise("a.txt", content).format is Format.TEXT


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n"])
def test_document__that_is_empty_is_refused(content: bytes) -> None:
    assert why("a.txt", content) == "a.txt is empty."


def test_document__over_the_bound_is_too_large() -> None:
    assert recognise("a.txt", b"x" * 10, bytes_max=10)
    with pytest.raises(TooLargeError) as refused:
        recognise("a.txt", b"x" * 20_000_001)
    assert refused.value.message == "a.txt has 20.0 MB; a document may have 20.0 MB."
    with pytest.raises(TooLargeError):
        recognise("a.txt", b"x" * 11, bytes_max=10)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("/etc/cron.d/job.py", "job.py"),
        (r"C:\Users\me\report.docx", "report.docx"),
        (r"..\..\boot.md", "boot.md"),
        ("report.pdf\0.exe", "report.pdf.exe"),
        ("a\r\nSet-Cookie: x.txt", "aSet-Cookie: x.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("zero\u200bwidth\ufeff.txt", "zerowidth.txt"),
        ("line\u2028break.txt", "linebreak.txt"),
        ("report.exe. . ", "report.exe"),
        ("  two   blanks.md ", "two blanks.md"),
        ("u\u0308ber.txt", "über.txt"),
        ("\ud800.txt", "document.txt"),
        (".txt", "document.txt"),
        ("..", "document"),
        ("/", "document"),
        ("", "document"),
        ("folder/", "document"),
    ],
)
def test_label__shows_nothing_but_the_last_name(name: str, shown: str) -> None:
    assert label(name) == shown


def test_label__keeps_the_ending_of_a_long_name() -> None:
    shown = label("x" * 5_000 + ".txt")
    assert len(shown) == NAME_CHARACTERS_MAX
    assert shown.endswith("x.txt")
    assert len(label("x." + "y" * 5_000)) == NAME_CHARACTERS_MAX


def test_name__cannot_hide_its_ending() -> None:
    assert ".exe" in why("invoice\u202efdp.exe", b"%PDF-1.4")
    assert ".exe" in why("invoice.pdf.exe ", b"%PDF-1.4")
    assert recognise("../../../.pdf", pdf(["A page."])).name == "document.pdf"
