"""Documents as bytes, made here so that no test depends on a file that nobody can read."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def pdf(pages: Sequence[str], *, catalog: str = "", extra: Sequence[bytes] = (), trailer: str = "") -> bytes:
    """Each text on a page of its own, line by line. `extra` objects get the numbers from `extra_number` on."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>".encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, text in enumerate(pages):
        shown = _shown(text)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n" % len(shown) + shown + b"\nendstream")
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate([*objects, *extra], 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += f"trailer << /Size {len(places) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{table}\n%%EOF".encode()
    return bytes(out)


def extra_number(pages: int) -> int:
    return 4 + 2 * pages


def encrypted_pdf() -> bytes:
    """Its key is derived from a password that nobody knows."""
    unknown = "ab" * 32
    encrypt = f"<< /Filter /Standard /V 1 /R 2 /O <{unknown}> /U <{unknown}> /P -44 >>".encode()
    trailer = f"/Encrypt {extra_number(1)} 0 R /ID [<{'cd' * 16}> <{'cd' * 16}>]"
    return pdf(["Secret."], extra=[encrypt], trailer=trailer)


def docx(body: str, *, styles: str = "", parts: Mapping[str, bytes] | None = None, head: str = "") -> bytes:
    """`body` is what stands in `w:body`, `head` before the root element; `parts` are added, or take another's place."""
    files = {
        "[Content_Types].xml": b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "word/document.xml": f'{head}<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>'.encode(),
        "word/styles.xml": f'<w:styles xmlns:w="{_WORD}">{styles}</w:styles>'.encode(),
        **(parts or {}),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def paragraph(text: str, style: str = "") -> str:
    marked = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{marked}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def style(style_id: str, name: str, inner: str = "") -> str:
    return f'<w:style w:styleId="{style_id}"><w:name w:val="{name}"/>{inner}</w:style>'


def _shown(text: str) -> bytes:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    lines = " ".join(f"({line}) '" for line in escaped.split("\n"))
    return f"BT /F1 10 Tf 50 800 Td 12 TL {lines} ET".encode("cp1252")
