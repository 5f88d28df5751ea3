"""What is promised of documents that strangers made, tried through the sandboxed process. Needs bubblewrap."""

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.documents import reading
from runtime.documents.formats import recognise
from runtime.documents.passages import CHARACTERS_MAX, Passage, passages_of
from runtime.documents.reading import Bounds, DocumentReader
from runtime.documents.section import Section
from runtime.errors import BadInputError, SandboxUnavailableError, TooLargeError
from runtime.implementer.sandbox import Sandbox
from tests.unit.documents.made_files import docx, encrypted_pdf, extra_number, paragraph, pdf, style, table

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

FACT = "The bridge was opened on 4 May 1931."
FILLER = "This line is about something else altogether.\n" * 40


async def sections(name: str, content: bytes, **bounds: float) -> Sequence[Section]:
    reader = DocumentReader(Sandbox(), bounds=Bounds(**bounds))  # type: ignore[arg-type]
    return await reader.read(recognise(name, content))


async def passages(name: str, content: bytes) -> list[Passage]:
    found = list(passages_of(await sections(name, content)))
    assert all(len(passage.text) <= CHARACTERS_MAX for passage in found)
    return found


async def refusal(name: str, content: bytes, **bounds: float) -> str:
    with pytest.raises(BadInputError) as refused:
        await sections(name, content, **bounds)
    assert refused.value.message.startswith(f"{name} ")
    return refused.value.message


async def test_fact__on_the_last_page_of_fifty_is_found_there() -> None:
    found = await passages("report.pdf", pdf([FILLER] * 49 + [FILLER + FACT]))
    assert [passage.page for passage in found if FACT in passage.text] == [50]


async def test_pdf__of_five_hundred_pages_is_read_to_its_end() -> None:
    read = await sections("report.pdf", pdf([f"{FILLER}Page {number}." for number in range(1, 501)]))
    assert [section.page for section in read] == list(range(1, 501))
    assert all(f"Page {section.page}." in section.text for section in read)


async def test_docx__tells_headings_and_tables() -> None:
    body = paragraph("Bridges", "H") + paragraph(FACT) + table([["Name", "Length"], ["Old bridge", "5 m"]])
    (passage,) = await passages("report.docx", docx(body, styles=style("H", "heading 1")))
    assert passage.heading == "Bridges"
    assert FACT in passage.text
    assert "Old bridge | 5 m" in passage.text


async def test_html__is_read_as_it_declares_its_letters() -> None:
    page = "<meta charset=macintosh><h1>Brücke</h1><p>Größe: fünf Meter</p><script>no()</script>"
    (passage,) = await passages("page.html", page.encode("mac-roman"))
    assert (passage.heading, passage.text) == ("Brücke", "Brücke\n\nGröße: fünf Meter")


async def test_json__is_read_with_its_paths() -> None:
    (passage,) = await passages(
        "data.json", json.dumps({"bridges": [{"name": "Старый", "length": 5}]}).encode("utf-16")
    )
    assert passage.text == "bridges[0].name: Старый\nbridges[0].length: 5"


async def test_pdf__that_is_encrypted_is_refused() -> None:
    assert "is encrypted: it opens with a password only" in await refusal("report.pdf", encrypted_pdf())


async def test_pdf__without_text_is_refused() -> None:
    assert "has no text: scanned pages are not read" in await refusal("scan.pdf", pdf(["", ""]))


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.7\n" + b"no such thing " * 100,
        b"%PDF-",
        pdf(["A page."])[:120],
        pdf(["A page."]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
        pdf(["A page."]).replace(b"/Type /Page /Parent", b"/Type /Nono /Nonono"),
        pdf(["A page."]).replace(b"/Count 1", b"/Count 999999999"),
    ],
)
async def test_pdf__that_is_broken_is_read_or_refused(content: bytes) -> None:
    told = ""
    try:
        (section,) = await sections("report.pdf", content)
        told = section.text
    except (BadInputError, TooLargeError) as refused:
        told = refused.message
    assert told == "A page." or told.startswith("report.pdf ")


async def test_pdf__whose_page_tree_is_cut_off_is_refused() -> None:
    assert "is broken" in await refusal("report.pdf", b"%PDF-1.7\n" + b"no such thing " * 100)


@pytest.mark.parametrize(
    "action",
    [
        b"<< /S /JavaScript /JS (while (true) { app.launchURL('http://127.0.0.1/'); }) >>",
        b"<< /S /Launch /F (/bin/sh) /NewWindow true >>",
        b"<< /S /URI /URI (file:///etc/passwd) >>",
        b"<< /S /ImportData /F (/etc/passwd) >>",
    ],
)
async def test_pdf__action_is_not_carried_out(action: bytes) -> None:
    content = pdf([FACT], catalog=f"/OpenAction {extra_number(1)} 0 R", extra=[action])
    assert [section.text for section in await sections("report.pdf", content)] == [FACT]


async def test_docx__that_unpacks_to_too_much_is_refused_before_it_is() -> None:
    bomb = docx("", parts={"word/document.xml": bytes(101_000_000)})
    assert len(bomb) < 200_000
    with pytest.raises(TooLargeError, match="unpacks to more than 100 MB"):
        await sections("report.docx", bomb)


async def test_docx__that_declares_less_than_it_unpacks_to_is_refused() -> None:
    honest = docx(paragraph("word " * 1_000_000))
    (size,) = {info.file_size for info in zipfile.ZipFile(io.BytesIO(honest)).infolist() if "document" in info.filename}
    lying = honest.replace(size.to_bytes(4, "little"), (1_000).to_bytes(4, "little"))
    assert lying != honest
    assert "is broken" in await refusal("report.docx", lying)


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY {to} "{f"&{of};" * 10}">' for of, to in zip("abcdefghi", "bcdefghij", strict=True))
        + "]>",
        '<!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd" [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
        '<?xml version="1.0"?><!DOCTYPE x>',
    ],
)
async def test_docx__entities_are_refused(head: str) -> None:
    body = "<w:p><w:r><w:t>&j;</w:t></w:r></w:p>" if "j " in head else paragraph(FACT)
    assert "declares a document type" in await refusal("report.docx", docx(body, head=head))


async def test_docx__link_in_its_archive_is_not_followed() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo("word/document.xml")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../../tmp/outside.txt", "outside")
    assert "its XML is wrong in line 1" in await refusal("report.docx", packed.getvalue())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (docx("<w:p>" * 600 + "</w:p>" * 600), "nested deeper than 500"),
        (docx("<w:p><w:r>"), "its XML is wrong"),
        (docx(paragraph(FACT))[:-40], "cannot be unpacked"),
        (b"PK\x03\x04 word/document.xml", "cannot be unpacked"),
        (docx("", parts={"word/document.xml": b""}), "its XML is wrong"),
        (docx(""), "has no text."),
    ],
)
async def test_docx__that_is_broken_is_refused(content: bytes, reason: str) -> None:
    assert reason in await refusal("report.docx", content)


async def test_zip__that_only_mentions_a_document_is_refused() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("readme.txt", "word/document.xml")
    assert "is no Word document" in await refusal("report.docx", packed.getvalue())


async def test_html__of_a_hundred_thousand_levels_is_read() -> None:
    page = f"<p>start</p>{'<div>' * 100_000}{FACT}{'</div>' * 100_000}<p>end</p>"
    assert (await passages("page.html", page.encode()))[0].text == f"start\n\n{FACT}\n\nend"


@pytest.mark.parametrize(
    "page",
    [
        '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]><p>read &x;</p>',
        '<p>read</p><iframe src="file:///etc/passwd"></iframe><link rel=import href="file:///etc/passwd">',
        '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/><p>read</p>',
        '<?xml version="1.0"?><?xml-stylesheet href="file:///etc/passwd"?><p>read</p><object data="/etc/passwd">',
    ],
)
async def test_html__draws_in_no_other_file(page: str) -> None:
    text = "".join(section.text for section in await sections("page.html", page.encode()))
    assert "read" in text
    assert "builder" not in text, "the sandbox's own /etc/passwd"


async def test_json__of_twenty_megabytes_is_read() -> None:
    rows = (f'{{"id": {number}, "name": "bridge {number}", "tags": ["a", "b"]}}' for number in range(330_000))
    content = f"[{', '.join(rows)}, {json.dumps(FACT)}]".encode()
    assert 18_000_000 < len(content) <= 20_000_000
    (section,) = await sections("data.json", content)
    assert section.text.startswith("[0].id: 0\n[0].name: bridge 0\n[0].tags: a, b\n")
    assert section.text.endswith(f"[330000]: {FACT}\n")


@pytest.mark.parametrize("content", [b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000])
async def test_json__nested_deeply_is_refused(content: bytes) -> None:
    assert "is nested deeper than 200 levels" in await refusal("data.json", content)


async def test_script__of_five_megabytes_in_one_line_is_cut_within_the_bound() -> None:
    content = b"function a(b){return b+1};" * 200_000
    found = await passages("app.min.js", content)
    assert all(passage.start_line == 1 for passage in found)
    assert len(content) // 1_000 <= len(found) <= len(content) // 400


async def test_text__of_mixed_encodings_is_read() -> None:
    (passage,) = await passages("notes.txt", "Größe ".encode() * 3 + "Café".encode("cp1252"))
    assert passage.text == "Größe Größe Größe Café"


async def test_text__needs_no_sandbox_and_the_rest_is_not_read_without_one() -> None:
    reader = DocumentReader(Sandbox(bwrap="no-such-program"))
    assert (await reader.read(recognise("a.py", b"print(1)")))[0].start_line == 1
    for name, content in (("a.pdf", pdf([FACT])), ("a.html", b"<p>a"), ("a.json", b"1"), ("a.docx", docx(""))):
        with pytest.raises(SandboxUnavailableError):
            await reader.read(recognise(name, content))


async def test_document__that_takes_too_long_is_refused() -> None:
    assert "could not be read within 0.001 s" in await refusal("page.html", b"<p>text", seconds=0.001)


async def test_document__that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(TooLargeError, match="needs more memory"):
        await sections("data.json", b"[" + b"[[]]," * 1_500_000 + b"0]", memory_bytes=96 << 20)


async def test_document__with_too_many_pages_or_too_much_text_is_refused() -> None:
    with pytest.raises(TooLargeError, match="has 3 pages; 2 are read"):
        await sections("report.pdf", pdf([FACT] * 3), pages=2)
    with pytest.raises(TooLargeError, match="more than 50 characters"):
        await sections("page.html", FACT.encode() * 2, characters=50)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "raise SystemExit(3)",
        "print('{')",
        "print('[1]')",
        """print('{"sections": [{"text": 5}]}')""",
        """print('{"sections": [{"text": "a", "page": "/etc"}]}')""",
        "import sys\nwhile True: sys.stdout.write('x' * 65536)",
        "import sys\nfor _ in range(999): sys.stderr.write('x' * 65536)\nraise SystemExit(1)",
        "import os\nwhile True: os.fork()",
    ],
)
async def test_parser__that_a_document_took_over_can_only_fail(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(reading, "_CODE", code)
    assert "cannot be read: its content is broken" in await refusal("page.html", b"<p>text", characters=1_000)


async def test_parser__that_a_document_took_over_sees_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("open sesame")
    secret.chmod(0o644)
    monkeypatch.setenv("MASTERBUILDER_SECRET", "open sesame")
    code = f"""
import json, os, socket
seen = [*os.environ.values()]
for what in ("open({str(secret)!r}).read()", "socket.create_connection(('1.1.1.1', 53), 1)", "open('/opt/x', 'w')",
             "open('/etc/shadow').read()"):
    try:
        seen.append('DONE ' + repr(eval(what)))
    except OSError as error:
        seen.append(error.strerror)
print(json.dumps({{"refused": ' '.join(seen)[-250:]}}))
"""
    monkeypatch.setattr(reading, "_CODE", code)
    seen = await refusal("page.html", b"<p>text")
    assert "No such file" in seen
    assert "unreachable" in seen
    assert "Read-only file system" in seen
    assert "sesame" not in seen
    assert "DONE" not in seen


async def test_refusal__is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_CODE", """print('{"refused": "' + 'a\\\\n\\\\u0000' * 5000 + '"}')""")
    message = await refusal("page.html", b"<p>text")
    assert len(message) < 400
    assert message.isprintable()
