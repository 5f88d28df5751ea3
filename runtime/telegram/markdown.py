"""Markdown, as models and people write it, to text with Telegram's styles.

What Telegram has no style for keeps its text: headings are bold, lists have bullets and indentation, tables are aligned
in code, pictures are links, and HTML is shown as it is written.
Source: https://spec.commonmark.org, with GitHub's tables and strikethrough, and Telegram's ||spoiler||.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.tree import SyntaxTreeNode
from rich.cells import cell_len

from runtime.telegram.rich_text import RichText, Style, clean, escape

_NESTING_MAX = 60
"""Of anything. The parser drops what quotes and lists have deeper, so a text that comes near stays as it is written."""
_BRACKETS_MAX = 10_000
"""Looking for links takes the square of their number."""
_TARGET_UNITS_MAX = 1_000
"""A longer one would leave a message no room for its text."""
_CELL_WIDTH_MAX = 40
"""A longer cell moves what follows it, so that one of them cannot make a table huge."""
_TARGET = re.compile(r"(?:https?://[^\s/]|tg://)\S*", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,30}")
_STYLES = {"strong": Style("b"), "em": Style("i"), "s": Style("s"), "spoiler": Style("tg-spoiler")}
_CODE = ("fence", "code_block", "table")
_RULE = "———"


def parse(markdown: str) -> RichText:
    """Never fails: what is no Markdown is text."""
    source = clean(markdown)
    tokens = _parser(with_links=source.count("[") <= _BRACKETS_MAX).parse(source)
    written = RichText()
    if any(token.level >= _NESTING_MAX - 1 for block in tokens for token in (block, *(block.children or ()))):
        written.add(source)
    else:
        _Writer(written).blocks(SyntaxTreeNode(tokens).children)
    return written


def _parser(*, with_links: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _NESTING_MAX}).enable(["table", "strikethrough"])
    parser.inline.add_terminator_char("|")
    parser.inline.ruler.after("strikethrough", "spoiler", _spoiler)
    return parser if with_links else parser.disable(["link", "image"])


def _spoiler(state: StateInline, silent: bool) -> bool:
    """`||hidden||`, without space inside its bars, so that `a || b` is none."""
    if not state.src.startswith("||", state.pos):
        return False
    begin = state.pos + 2
    end = state.src.find("||", begin, state.posMax)
    if end <= begin:
        return False
    if state.src[begin].isspace() or state.src[end - 1].isspace():
        return False
    if not silent:
        whole = state.posMax
        state.push("spoiler_open", "", 1)
        state.pos, state.posMax = begin, end
        state.md.inline.tokenize(state)
        state.posMax = whole
        state.push("spoiler_close", "", -1)
    state.pos = end + 2
    return True


@dataclass(slots=True)
class _Writer:
    written: RichText
    styles: list[Style] = field(default_factory=list)
    indent: str = ""

    def blocks(self, nodes: Sequence[SyntaxTreeNode], *, after_marker: bool = False) -> None:
        """One after another; the first goes on in the line of a list's marker where it is a paragraph."""
        for number, node in enumerate(nodes):
            in_line = not number and (not after_marker or node.type == "paragraph")
            if number:
                self._gap(is_tight=_is_tight(node) or _is_tight(nodes[number - 1]))
            elif not in_line:
                self._add("\n")
            if not in_line and node.type not in _CODE:
                self._add(self.indent)
            self._block(node)

    def _block(self, node: SyntaxTreeNode) -> None:
        match node.type:
            case "paragraph":
                self.inline(node.children)
            case "heading":
                self._styled(Style("b"), node.children)
            case "blockquote":
                self.styles.append(Style("blockquote"))
                self.blocks(node.children)
                self.styles.pop()
            case "bullet_list":
                self._items(node, ("• " for _ in node.children))
            case "ordered_list":
                first = int(node.attrs.get("start", 1))
                self._items(node, (f"{number}. " for number in range(first, first + len(node.children))))
            case "fence" | "code_block":
                named = _LANGUAGE.fullmatch(node.info.strip().split(" ")[0])
                self._code(node.content.removesuffix("\n"), named[0].lower() if named else "")
            case "table":
                self._code("\n".join(_table(node)))
            case "hr":
                self._add(_RULE)
            case _:
                self._add(node.content)

    def _items(self, node: SyntaxTreeNode, markers: Iterator[str]) -> None:
        outer = self.indent
        blocks = [block for item in node.children for block in item.children if block.type == "paragraph"]
        is_tight = all(map(_is_tight, blocks))
        for number, (item, marker) in enumerate(zip(node.children, markers, strict=True)):
            if number:
                self._gap(is_tight=is_tight)
                self._add(outer)
            self._add(marker)
            self.indent = outer + " " * len(marker)
            self.blocks(item.children, after_marker=True)
            self.indent = outer

    def _gap(self, *, is_tight: bool) -> None:
        self._add("\n" if is_tight else "\n\n")
        if not is_tight:
            self.written.begin_paragraph()

    def _code(self, text: str, language: str = "") -> None:
        self.written.add(text, [*self.styles, Style("pre", language)])

    def inline(self, nodes: Sequence[SyntaxTreeNode]) -> None:
        for node in nodes:
            match node.type:
                case "inline":
                    self.inline(node.children)
                case "softbreak" | "hardbreak":
                    self._add("\n" + self.indent)
                case "strong" | "em" | "s" | "spoiler":
                    self._styled(_STYLES[node.type], node.children)
                case "code_inline":
                    self.written.add(node.content, [*self.styles, Style("code")])
                case "link":
                    self._link(str(node.attrs["href"]), node.children)
                case "image":
                    self._link(str(node.attrs["src"]), node.children)
                case _:
                    self._add(node.content)

    def _styled(self, style: Style, nodes: Sequence[SyntaxTreeNode]) -> None:
        self.styles.append(style)
        self.inline(nodes)
        self.styles.pop()

    def _link(self, target: str, nodes: Sequence[SyntaxTreeNode]) -> None:
        """One that Telegram would not follow is its text, and then its target."""
        before = len(self.written)
        inside_another = any(style.tag == "a" for style in self.styles)
        works = _TARGET.fullmatch(target) and len(escape(target)) <= _TARGET_UNITS_MAX and not inside_another
        if works:
            self._styled(Style("a", target), nodes)
            if len(self.written) == before:
                self.written.add(target, [*self.styles, Style("a", target)])
            return
        self.inline(nodes)
        shown = self.written.text_between(before, len(self.written))
        if shown not in (target, target.removeprefix("mailto:")):
            self._add(f" ({target})" if shown else target)

    def _add(self, text: str) -> None:
        self.written.add(text, self.styles)


def _is_tight(node: SyntaxTreeNode) -> bool:
    """A paragraph in a list whose items have no empty lines between them."""
    return node.type == "paragraph" and node.hidden


def _table(node: SyntaxTreeNode) -> Iterator[str]:
    """Its lines, with columns of one width and a rule under the heads."""
    rows = [[_cell(cell) for cell in row.children] for part in node.children for row in part.children]
    widths = [
        max(min(cell_len(cell), _CELL_WIDTH_MAX) for cell in column) for column in zip_longest(*rows, fillvalue="")
    ]
    for number, row in enumerate(rows):
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)]
        yield " │ ".join(cells).rstrip()
        if number == 0:
            yield "─┼─".join("─" * width for width in widths)


def _cell(node: SyntaxTreeNode) -> str:
    text = RichText()
    _Writer(text).inline(node.children)
    return text.plain(0, len(text)).replace("\n", " ")
