"""The parsers by themselves, on documents of ours; those of strangers are in `tests/contract`."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from runtime.documents.parsers import docx, html, json_lines, pdf
from runtime.documents.parsers.refusal import Budget, Refusal
from runtime.documents.section import Section, cleaned
from tests.unit.documents import made_files
from tests.unit.documents.made_files import paragraph, style, table


class Parser(Protocol):
    def sections_of(self, path: Path, budget: Budget) -> Iterable[Section]: ...


class Read(Protocol):
    def __call__(self, parser: Parser, content: bytes | str, characters_max: int = 10_000_000) -> list[Section]: ...


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_now(parser: Parser, content: bytes | str, characters_max: int = 10_000_000) -> list[Section]:
        file = tmp_path / "document"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(parser.sections_of(file, Budget(characters_max=characters_max, pages_max=3)))

    return read_now


def shown(sections: Iterable[Section]) -> list[tuple[str, str]]:
    return [(section.heading, section.text.strip()) for section in sections]


def test_html__is_what_a_reader_of_the_page_sees(read: Read) -> None:
    page = """<!DOCTYPE html><html><head><title>The  bridge</title><meta name=x content=no><style>p { no }</style>
    <script>if (a < b) { no() }</script></head><body onload="no()"><p>Before <b>a</b>ll.<!-- no --></p>
    <h1>Length</h1><p>Five metres &amp; more &#8364;.<br>Second line.</p><template><p>no</p></template>
    <h2>In <i>feet</i></h2><ul><li>six</li><li>teen</li></ul><noscript>seen</noscript>
    <pre>kept\n   as is</pre></body></html>"""

    assert shown(read(html, page)) == [
        ("The bridge", "The  bridge".replace("  ", " ") + "\n\nBefore all."),
        ("Length", "Length\n\nFive metres & more €.\nSecond line."),
        ("Length > In feet", "In feet\n\nsix\nteen\n\nseen\n\nkept\n   as is"),
    ]


def test_html__shows_a_table_row_by_row(read: Read) -> None:
    page = "<table><tr><th>Name</th><th>Length</th></tr>\n<tr><td>Old bridge</td>\n<td>5 m</td></tr></table>"
    assert shown(read(html, page)) == [("", "Name | Length\nOld bridge | 5 m")]


@pytest.mark.parametrize("page", ["", "<", "<p", "<h1>", "</p></div>", "<!--", "<script>", "&", "<pre></pre></pre>"])
def test_html__that_is_broken_off_is_no_error(read: Read, page: str) -> None:
    text = ""
    with suppress(Refusal):
        text = "".join(section.text for section in read(html, page))
    assert not text.strip(" \n<&p")


def test_docx__has_its_headings_by_the_name_of_their_style(read: Read) -> None:
    body = "".join([
        paragraph("Before all."),
        paragraph("Die Brücke", "berschrift1"),
        paragraph("Five metres & more."),
        paragraph("In feet", "Own"),
        paragraph("Sixteen."),
        paragraph("The end", "Titel"),
    ])  # fmt: skip
    styles = style("berschrift1", "heading 1") + style("Titel", "Title")
    styles += style("Own", "My heading", '<w:pPr><w:outlineLvl w:val="1"/></w:pPr>')

    assert shown(read(docx, made_files.docx(body, styles=styles))) == [
        ("", "Before all."),
        ("Die Brücke", "Die Brücke\n\nFive metres & more."),
        ("Die Brücke > In feet", "In feet\n\nSixteen."),
        ("The end", "The end"),
    ]


def test_docx__shows_a_table_row_by_row(read: Read) -> None:
    inner = "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>inner</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    nested = f"<w:tbl><w:tr><w:tc>{paragraph('outer')}{inner}</w:tc></w:tr></w:tbl>"
    body = paragraph("Before.") + table([["Name", "Length"], ["Old bridge", "5 m"]]) + nested + paragraph("After.")
    (section,) = read(docx, made_files.docx(body))
    assert section.text.strip() == "Before.\n\nName | Length\nOld bridge | 5 m\n\nouter inner\n\nAfter."


def test_docx__reads_runs_notes_and_boxes_once_and_nothing_deleted(read: Read) -> None:
    body = (
        "<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr><w:r><w:t>Bro</w:t></w:r><w:r><w:t>ken</w:t><w:tab/>"
        "<w:t>a</w:t><w:br/><w:t>b</w:t></w:r><w:del><w:r><w:delText>no</w:delText></w:r></w:del>"
        "<w:r><w:instrText>no</w:instrText></w:r></w:p>"
        '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><mc:Choice>'
        f"{paragraph('In a box.')}</mc:Choice><mc:Fallback>{paragraph('In a box.')}</mc:Fallback></mc:AlternateContent>"
    )
    notes = f'<w:footnotes xmlns:w="urn:any">{paragraph("A note.")}</w:footnotes>'.encode()
    (section,) = read(docx, made_files.docx(body, parts={"word/footnotes.xml": notes}))
    assert section.text.strip() == "Broken\ta\nb\n\nIn a box.\n\nA note."


def test_pdf__has_a_section_for_each_page_with_text(read: Read) -> None:
    sections = read(pdf, made_files.pdf(["First (page)\nsecond line", "", "Café 3 €"]))
    assert [(section.page, cleaned(section.text)) for section in sections] == [
        (1, "First (page)\nsecond line"),
        (3, "Café 3 €"),
    ]


def test_pdf__with_more_pages_than_are_read_is_too_large(read: Read) -> None:
    with pytest.raises(Refusal, match="has 4 pages; 3 are read") as refused:
        read(pdf, made_files.pdf(["A page."] * 4))
    assert refused.value.is_too_large


def test_json__has_a_line_for_each_value(read: Read) -> None:
    value = {
        "name": "Old bridge",
        "open": True,
        "closed": None,
        "size": {"length m": 5.50, "more": [{"a": 1}, ["x", 2, False], []]},
        "": "nameless",
    }
    (section,) = read(json_lines, json.dumps(value).replace("5.5", "5.50"))
    assert section.text.splitlines() == [
        "name: Old bridge",
        "open: true",
        "closed: null",
        "size.length m: 5.50",
        "size.more[0].a: 1",
        "size.more[1]: x, 2, false",
        "nameless",
    ]


@pytest.mark.parametrize(
    ("text", "line"), [('"a"', "a"), ("5", "5"), ("[1, 2]", "1, 2"), ('{"a": 1, "a": 2}', "a: 1\na: 2")]
)
def test_json__of_any_shape_is_read(read: Read, text: str, line: str) -> None:
    assert shown(read(json_lines, text)) == [("", line)]


def test_json__number_is_shown_as_written(read: Read) -> None:
    digits = "9" * 20_000
    assert digits in read(json_lines, f'{{"n": {digits}, "e": 1e999999}}')[0].text


def test_json__key_that_is_a_text_is_kept_and_its_path_is_not(read: Read) -> None:
    key = "word " * 1_000
    values = ", ".join(f'"k{number}": {{"x": {number}}}' for number in range(100))
    text = read(json_lines, f'{{"{key}": {{{values}}}}}')[0].text
    assert key in text
    assert len(text) < 30_000


def test_json__that_is_none_says_where(read: Read) -> None:
    with pytest.raises(Refusal, match=r"is no valid JSON: .* in line 2, column 3"):
        read(json_lines, '{"a":\n  oops}')


@pytest.mark.parametrize("depth", [202, 5_000, 200_000])
def test_json__that_is_nested_deeply_is_refused(read: Read, depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth):
        with pytest.raises(Refusal, match=r"nested deeper than 200 levels|no valid JSON"):
            read(json_lines, text)


def test_json__of_two_hundred_levels_is_read(read: Read) -> None:
    assert "fact" in read(json_lines, '{"a":' * 200 + '"fact"' + "}" * 200)[0].text


@pytest.mark.parametrize(
    ("parser", "content"),
    [
        (pdf, made_files.pdf(["word " * 20, "word " * 20])),
        (docx, made_files.docx(paragraph("word " * 40))),
        (html, "<p>" + "word " * 40),
        (html, "<h1>" + "word " * 40),
        (json_lines, json.dumps(["word " * 40])),
    ],
)
def test_text__over_the_bound_is_too_large(read: Read, parser: Parser, content: bytes | str) -> None:
    assert read(parser, content, characters_max=250)
    with pytest.raises(Refusal, match="more than 150 characters of text") as refused:
        read(parser, content, characters_max=150)
    assert refused.value.is_too_large


def test_cleaned__keeps_lines_and_drops_what_cannot_be_shown() -> None:
    assert cleaned("a\r\nb\rc\n\0\x1b\ud800d\te\x0cf") == "a\nb\nc\n   d\te f"
