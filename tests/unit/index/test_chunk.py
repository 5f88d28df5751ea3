"""Files to chunks."""

import pytest

from runtime.index import chunk as chunking
from runtime.index.chunk import CHUNK_ROWS_MAX, CHUNKS_PER_FILE_MAX, Chunk, chunk_file, why_unreadable

SHOP = '''"""A shop."""

import os

LIMIT = 3


# Sums up.
@cached
def total(
    prices: list[int],
) -> int:
    """The sum.

    Of all prices.
    """
    return sum(prices)


class Cart(Base):
    """Holds items."""

    size = 0

    def add(self, item: str) -> None:
        self.items.append(item)

    class Line:
        async def price(self) -> int:
            return 1


if os.name == "nt":

    def windows_only() -> None:
        pass
'''


def by_symbol(chunks: list[Chunk]) -> dict[str, Chunk]:
    assert len({chunk.symbol for chunk in chunks}) == len(chunks)
    return {chunk.symbol: chunk for chunk in chunks}


def test_python__gives_a_chunk_for_each_function_class_and_the_rest_of_the_module() -> None:
    chunks = by_symbol(chunk_file("shop.py", SHOP.encode()))

    assert {symbol: (chunk.start_line, chunk.end_line) for symbol, chunk in chunks.items()} == {
        "": (1, 33),
        "total": (8, 17),
        "Cart": (20, 28),
        "Cart.add": (25, 26),
        "Cart.Line": (28, 29),
        "Cart.Line.price": (29, 30),
        "windows_only": (35, 36),
    }


def test_python__a_function_has_its_decorators_and_the_comment_above_and_its_docstring() -> None:
    total = by_symbol(chunk_file("shop.py", SHOP.encode()))["total"]

    assert total.text == "\n".join(SHOP.split("\n")[7:17])
    assert total.docstring == "The sum."


def test_python__a_class_shows_the_signatures_of_its_methods_and_not_their_bodies() -> None:
    cart = by_symbol(chunk_file("shop.py", SHOP.encode()))["Cart"]

    assert cart.text == (
        'class Cart(Base):\n    """Holds items."""\n\n    size = 0\n    ...\n'
        "    def add(self, item: str) -> None:\n    ...\n    class Line:"
    )


def test_python__the_rest_of_a_module_marks_what_is_left_out() -> None:
    rest = by_symbol(chunk_file("shop.py", SHOP.encode()))[""]

    assert rest.text == '"""A shop."""\n\nimport os\n\nLIMIT = 3\n...\nif os.name == "nt":'


def test_a_long_function__is_split_evenly_and_repeats_its_signature() -> None:
    # given a function of 100 lines
    body = [f"    step_{number}()" for number in range(98)]
    source = "\n".join(["", "def long(", ") -> None:", *body[:97], ""])

    chunks = chunk_file("long.py", source.encode())

    assert [(chunk.start_line, chunk.end_line) for chunk in chunks] == [(2, 34), (35, 67), (68, 100)]
    assert all(chunk.text.startswith("def long(\n) -> None:\n") for chunk in chunks)
    assert chunks[1].text.split("\n")[2:4] == ["    ...", "    step_31()"]
    assert all(chunk.end_line - chunk.start_line < CHUNK_ROWS_MAX for chunk in chunks)


def test_every_line_of_code__is_in_some_chunk() -> None:
    lines = SHOP.split("\n")
    seen = {line for chunk in chunk_file("shop.py", SHOP.encode()) for line in chunk.text.split("\n")}

    assert {line for line in lines if line.strip()} <= seen


def test_line_numbers__count_only_newlines() -> None:
    # given characters that Python's splitlines() takes for line ends
    source = 'A = "\x0c \u2028 \x85"\r\n\r\ndef found():\r\n    pass\r\n'

    chunks = by_symbol(chunk_file("a.py", source.encode()))

    assert (chunks["found"].start_line, chunks["found"].end_line) == (3, 4)


def test_definitions_on_one_line__lose_no_line() -> None:
    source = "class A: x = 1; y = 2\nclass B:\n    def f(self): return 1\n    def g(self): return 2\n"

    chunks = chunk_file("a.py", source.encode())

    assert [(chunk.symbol, chunk.start_line, chunk.end_line) for chunk in chunks] == [
        ("A", 1, 1),
        ("B", 2, 4),
        ("B.f", 3, 3),
        ("B.g", 4, 4),
    ]


@pytest.mark.parametrize(
    ("path", "source", "symbols", "wheel"),
    [
        (
            "a.js",
            "/** Doc. */\nexport const load = async (x) => {\n  return 1\n}\nclass A {\n"
            "  h = () => {\n  }\n  m() {\n  }\n}\n",
            {"load": (1, 4), "A": (5, 10), "A.h": (6, 7), "A.m": (8, 9)},
            "tree_sitter_javascript",
        ),
        (
            "a.ts",
            "export interface I {\n  a: string\n}\nnamespace N {\n  export function f(): void {\n  }\n}\n",
            {"I": (1, 3), "N": (4, 7), "N.f": (5, 6)},
            "tree_sitter_typescript",
        ),
        (
            "a.tsx",
            "export function View(): Node {\n  return <p>hi</p>\n}\n",
            {"View": (1, 3)},
            "tree_sitter_typescript",
        ),
        (
            "a.go",
            "package a\n\n// F does.\nfunc F() int {\n\treturn 1\n}\n\ntype T struct {\n\ta int\n}\n",
            {"": (1, 1), "F": (3, 6), "T": (8, 10)},
            "tree_sitter_go",
        ),
    ],
)
def test_other_languages__are_read_by_their_row_where_the_grammar_is_installed(
    path: str, source: str, symbols: dict[str, tuple[int, int]], wheel: str
) -> None:
    pytest.importorskip(wheel)

    chunks = by_symbol(chunk_file(path, source.encode()))

    assert {symbol: (chunk.start_line, chunk.end_line) for symbol, chunk in chunks.items()} == symbols


def test_two_functions_on_one_line__are_both_in_the_first_ones_chunk_and_no_line_is_lost() -> None:
    pytest.importorskip("tree_sitter_javascript")
    source = "function a() { return 1 } function b() {\n  return 2\n}\n"

    chunks = chunk_file("a.js", source.encode())

    assert [(chunk.symbol, chunk.start_line, chunk.end_line) for chunk in chunks] == [("a", 1, 1), ("", 2, 3)]


def test_source_over_the_parsers_bound__is_read_as_text() -> None:
    source = b"def f():\n    pass\n" + b"# filler\n" * 30_000

    assert {chunk.symbol for chunk in chunk_file("a.py", source)} == {""}


def test_markdown__is_cut_at_headings_and_names_the_sections() -> None:
    source = "Intro.\n\n# Install\nRun it.\n\n```\n# a comment\n```\n\n## Docker\nPull.\n\n# Use\n"

    chunks = chunk_file("README.md", source.encode())

    assert [(chunk.symbol, chunk.start_line, chunk.end_line) for chunk in chunks] == [
        ("", 1, 1),
        ("Install", 3, 8),
        ("Install > Docker", 10, 11),
        ("Use", 13, 13),
    ]


def test_text__keeps_paragraphs_whole_and_cuts_one_that_is_too_long() -> None:
    # given two paragraphs of 30 lines and one of 50
    source = "\n\n".join(
        "\n".join(f"{name} {n}" for n in range(rows)) for name, rows in [("a", 30), ("b", 30), ("c", 50)]
    )

    chunks = chunk_file("notes.txt", source.encode())

    assert [(chunk.start_line, chunk.end_line) for chunk in chunks] == [(1, 30), (32, 61), (63, 102), (103, 112)]


def test_unknown_language__is_cut_in_windows_of_at_most_40_lines() -> None:
    source = "\n".join(f"let x{n} = {n};" for n in range(90))

    chunks = chunk_file("main.zig", source.encode())

    assert [(chunk.start_line, chunk.end_line) for chunk in chunks] == [(1, 40), (41, 80), (81, 90)]


def test_a_very_long_line_of_text__is_all_there_in_several_chunks() -> None:
    source = "start " + "x" * 10_000 + " finish"

    chunks = chunk_file("notes.txt", source.encode())

    assert "".join(chunk.text for chunk in chunks) == source
    assert {(chunk.start_line, chunk.end_line) for chunk in chunks} == {(1, 1)}


@pytest.mark.parametrize("brackets", ["(", "[ ", '{[("', "()", "a.b", "class A:\n", "def f():\n ", "\n", "if 1: "])
@pytest.mark.parametrize("path", ["a.py", "a.js", "a.txt", "a.md"])
def test_hostile_nesting__is_bounded_in_count_and_depth(brackets: str, path: str) -> None:
    source = brackets * (200_000 // len(brackets))

    chunks = chunk_file(path, source.encode())

    assert len(chunks) <= CHUNKS_PER_FILE_MAX
    assert all(len(chunk.text) < 100_000 for chunk in chunks)


def test_nested_blocks__deeper_than_the_bound_stay_part_of_what_they_are_in() -> None:
    source = "".join(" " * depth + f"class C{depth}:\n" for depth in range(300)) + " " * 300 + "pass\n"

    chunks = chunk_file("deep.py", source.encode())

    assert chunks[0].symbol == "C0"
    assert max(chunk.symbol.count(".") for chunk in chunks) < 50
    assert chunks[-1].end_line == 301


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("a.py", b"x = 1\n", None),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        ("a.dat", bytes(range(128, 256)) * 10, "binary"),
        ("latin1.py", "# é\n".encode("latin-1") + b"def f(): pass\n" * 5, None),
        ("big.py", b"x" * (chunking.FILE_BYTES_MAX + 1), "larger than 1 MiB"),
        ("web/package-lock.json", b"{}", "generated"),
        ("web/app.min.js", b"a", "generated"),
        ("empty.py", b"", None),
    ],
)
def test_why_unreadable__names_the_reason(path: str, content: bytes, reason: str | None) -> None:
    assert why_unreadable(path, content) == reason


def test_invalid_utf8__is_read_with_replacement_characters() -> None:
    chunks = chunk_file("a.py", b'def f():\n    return "\xff\xfe"\n')

    assert chunks[0].symbol == "f"
    assert "\ufffd" in chunks[0].text


def test_content_hash__depends_on_path_symbol_and_text_and_not_on_the_lines() -> None:
    one, other = (chunk_file("a.py", source.encode())[-1] for source in ("def f(): pass", "\n\n\ndef f(): pass"))
    moved = chunk_file("b.py", b"def f(): pass")[0]

    assert one.start_line != other.start_line
    assert one.content_hash == other.content_hash
    assert one.content_hash != moved.content_hash


def test_embedded_text__of_a_later_piece_has_the_docstring() -> None:
    source = 'def long():\n    """Counts sheep\n    at night."""\n' + "    pass\n" * 60

    first, second = chunk_file("a.py", source.encode())

    assert first.embedded_text.count("Counts sheep") == 1
    assert second.embedded_text.startswith("a.py\nlong\nCounts sheep at night.\ndef long():")
