"""Telegram's three parse modes.

HTML is held to the documentation: `&`, `<` and `>` that are no markup must be escaped, although Telegram lets some of
them pass. Where Telegram has words for a refusal they are used.

Source: https://core.telegram.org/bots/api#formatting-options
"""

import html
import re
from dataclasses import dataclass
from typing import Any

from cluster.simulator.telegram.entities import Marked, utf16_length
from cluster.simulator.telegram.refusal import bad_request, cannot_parse

_HTML_KINDS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "tg-spoiler": "spoiler",
    "span": "spoiler", "code": "code", "pre": "pre", "a": "text_link", "tg-emoji": "custom_emoji",
    "blockquote": "blockquote", "tg-time": "date_time",
}  # fmt: skip
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z-]*)((?:\s[^<>]*)?)>")
_ATTRIBUTE = re.compile(r"""([A-Za-z-]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?""")
_ESCAPE = re.compile(r"&(?:lt|gt|amp|quot|#\d+|#x[0-9A-Fa-f]+);")
_LANGUAGE = "language-"
_RESERVED = "_*[]()~`>#+-=|{}.!"
_MARKS = {"__": "underline", "_": "italic", "*": "bold", "~": "strikethrough", "||": "spoiler"}
_NAMES = {
    "bold": "Bold", "italic": "Italic", "underline": "Underline", "strikethrough": "Strikethrough",
    "spoiler": "Spoiler", "code": "Code", "pre": "Pre", "text_link": "TextUrl", "custom_emoji": "CustomEmoji",
}  # fmt: skip


def parse(text: str, mode: str) -> Marked:
    """Without a mode the text as it is. Raises TelegramRefusal for wrong markup, and for a mode that does not exist."""
    match mode.lower():
        case "":
            return Marked(text)
        case "html":
            return _Html(text).parsed()
        case "markdownv2":
            return _MarkdownV2(text).parsed()
        case "markdown":
            return _Markdown(text).parsed()
    raise bad_request("unsupported parse_mode")


@dataclass(slots=True)
class _Open:
    kind: str
    mark: str
    offset: int
    at: int
    extra: dict[str, Any]


class _Parser:
    """`_place` is where in the source, `_units` how long the text without markup is by now."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._place = 0
        self._parts: list[str] = []
        self._units = 0
        self._open: list[_Open] = []
        self._entities: list[dict[str, Any]] = []

    def _rest(self, mark: str) -> bool:
        return self._source.startswith(mark, self._place)

    def _say(self, text: str, consumed: int) -> None:
        self._parts.append(text)
        self._units += utf16_length(text)
        self._place += consumed

    def _begin(self, kind: str, mark: str, consumed: int, **extra: Any) -> None:
        self._open.append(_Open(kind, mark, self._units, self._byte(), extra))
        self._place += consumed

    def _end(self, consumed: int) -> _Open:
        entity = self._open.pop()
        if self._units > entity.offset:
            length = self._units - entity.offset
            self._entities.append({"type": entity.kind, "offset": entity.offset, "length": length, **entity.extra})
        self._place += consumed
        return entity

    def _byte(self, place: int | None = None) -> int:
        return len(self._source[: self._place if place is None else place].encode("utf-8", "surrogatepass"))

    def _marked(self) -> Marked:
        ordered = sorted(self._entities, key=lambda entity: (entity["offset"], -entity["length"]))
        return Marked("".join(self._parts), tuple(ordered))


class _Html(_Parser):
    def parsed(self) -> Marked:
        while self._place < len(self._source):
            character = self._source[self._place]
            if character == "<":
                self._tag()
            elif character == "&":
                self._escaped()
            elif character == ">":
                raise cannot_parse(f"Unescaped '>' at byte offset {self._byte()}")
            else:
                self._say(character, 1)
        if self._open:
            raise cannot_parse(f'Can\'t find end tag corresponding to start tag "{self._open[-1].mark}"')
        return self._marked()

    def _escaped(self) -> None:
        match = _ESCAPE.match(self._source, self._place)
        if match is None:
            raise cannot_parse(f"Unescaped '&' at byte offset {self._byte()}")
        self._say(html.unescape(match[0]), len(match[0]))

    def _tag(self) -> None:
        match = _TAG.match(self._source, self._place)
        if match is None:
            name = re.match(r"</?([^\s<>/]*)", self._source[self._place :])
            if ">" in self._source[self._place :] and name is not None:
                raise cannot_parse(f'Unsupported start tag "{name[1]}" at byte offset {self._byte()}')
            raise cannot_parse(f"Unclosed start tag at byte offset {self._byte()}")
        closes, tag, attributes = match[1], match[2].lower(), _attributes(match[3])
        if closes:
            self._close(tag, len(match[0]))
        else:
            kind, extra = self._kind(tag, attributes)
            self._begin(kind, tag, len(match[0]), **extra)

    def _kind(self, tag: str, attributes: dict[str, str]) -> tuple[str, dict[str, Any]]:
        if tag not in _HTML_KINDS:
            raise cannot_parse(f'Unsupported start tag "{tag}" at byte offset {self._byte()}')
        kind = _HTML_KINDS[tag]
        if tag == "span" and attributes.get("class") != "tg-spoiler":
            raise cannot_parse(f'Tag "span" must have class "tg-spoiler" at byte offset {self._byte()}')
        if tag == "a":
            if not attributes.get("href"):
                raise cannot_parse(f'Tag "a" must have an attribute "href" at byte offset {self._byte()}')
            return kind, {"url": attributes["href"]}
        if tag == "tg-emoji":
            return kind, {"custom_emoji_id": attributes.get("emoji-id", "")}
        if tag == "tg-time":
            if not re.fullmatch(r"\d{1,10}", attributes.get("unix", ""), re.ASCII):
                raise cannot_parse(f'Tag "tg-time" must have an attribute "unix" at byte offset {self._byte()}')
            return kind, {"unix_time": int(attributes["unix"])}
        if tag == "blockquote" and "expandable" in attributes:
            return "expandable_blockquote", {}
        language = attributes.get("class", "")
        if tag == "code" and language.startswith(_LANGUAGE):
            return kind, {"language": language.removeprefix(_LANGUAGE)}
        return kind, {}

    def _close(self, tag: str, consumed: int) -> None:
        if not self._open:
            raise cannot_parse(f"Unexpected end tag at byte offset {self._byte()}")
        top = self._open[-1]
        if top.mark != tag:
            raise cannot_parse(
                f'Unmatched end tag at byte offset {self._byte()}, expected "</{top.mark}>", found "</{tag}>"'
            )
        outer = self._open[-2] if len(self._open) > 1 else None
        if tag == "code" and outer is not None and outer.mark == "pre":
            outer.extra |= top.extra
            self._open.pop()
            self._place += consumed
            return
        if tag == "code":
            top.extra.pop("language", None)
        self._end(consumed)


class _MarkdownV2(_Parser):
    def parsed(self) -> Marked:
        while self._place < len(self._source):
            self._step()
        if self._quote is not None and self._open and self._open[-1] is self._quote:
            self._end(0)
        if self._open:
            raise self._unended(self._open[-1])
        return self._marked()

    @property
    def _quote(self) -> _Open | None:
        return next((entity for entity in self._open if entity.mark == ">"), None)

    def _step(self) -> None:
        character = self._source[self._place]
        following = self._source[self._place + 1 : self._place + 2]
        if character == "\\" and following and ord(following) < 127:
            self._say(following, 2)
        elif self._open and self._open[-1].kind in ("code", "pre"):
            self._code_step(character)
        elif character == "\n":
            self._line_end(following)
        elif self._at_line_start() and self._rest("**>"):
            self._begin("expandable_blockquote", ">", 3)
        elif character == ">" and self._at_line_start():
            self._quote_line()
        elif character not in _RESERVED:
            self._say(character, 1)
        elif not self._ends():
            self._starts(character)

    def _code_step(self, character: str) -> None:
        mark = self._open[-1].mark
        if self._rest(mark):
            self._end(len(mark))
        elif character == "`":
            raise self._unended(self._open[-1])
        else:
            self._say(character, 1)

    def _at_line_start(self) -> bool:
        return self._place == 0 or self._source[self._place - 1] == "\n"

    def _quote_line(self) -> None:
        if self._quote is None:
            self._begin("blockquote", ">", 1)
        else:
            self._place += 1

    def _line_end(self, following: str) -> None:
        quote = self._quote
        if quote is not None and following != ">":
            if self._open[-1] is not quote:
                raise self._unended(self._open[-1])
            self._end(0)
        self._say("\n", 1)

    def _ends(self) -> bool:
        """Whether here something ends."""
        quote = self._quote
        after = self._source[self._place + 2 : self._place + 3]
        if quote is not None and self._open[-1] is quote and self._rest("||") and after in ("", "\n"):
            quote.kind = "expandable_blockquote"
            self._end(2)
            return True
        if not self._open or self._open[-1] is quote:
            return False
        mark = self._open[-1].mark
        if (mark == "_" and self._rest("__")) or not self._rest(mark):
            return False
        if mark == "]":
            self._end_link()
        else:
            self._end(len(mark))
        return True

    def _end_link(self) -> None:
        link = self._open[-1]
        self._place += 1
        url = ""
        if self._rest("("):
            begin = self._place + 1
            end = re.compile(r"(?:\\.|[^\\)])*").match(self._source, begin)
            if end is None or end.end() >= len(self._source):
                name = "custom emoji" if link.kind == "custom_emoji" else "a URL"
                raise cannot_parse(f"Can't find end of {name} at byte offset {self._byte(begin)}")
            url = re.sub(r"\\(.)", r"\1", end[0])
            self._place = end.end() + 1
        if link.kind == "custom_emoji":
            link.extra["custom_emoji_id"] = url.rpartition("id=")[2]
        else:
            link.extra["url"] = url
        self._end(0)

    def _starts(self, character: str) -> None:
        for mark, kind in _MARKS.items():
            if self._rest(mark):
                return self._begin(kind, mark, len(mark))
        if self._rest("["):
            return self._begin("text_link", "]", 1)
        if self._rest("!["):
            return self._begin("custom_emoji", "]", 2)
        if self._rest("```"):
            language = re.compile(r"([^\s`]+)\n").match(self._source, self._place + 3)
            extra = {"language": language[1]} if language else {}
            skipped = len(language[0]) if language else int(self._source[self._place + 3 : self._place + 4] == "\n")
            return self._begin("pre", "```", 3 + skipped, **extra)
        if self._rest("`"):
            return self._begin("code", "`", 1)
        raise cannot_parse(f"Character '{character}' is reserved and must be escaped with the preceding '\\'")

    def _unended(self, entity: _Open) -> Exception:
        name = "PreCode" if "language" in entity.extra else _NAMES.get(entity.kind, "BlockQuote")
        return cannot_parse(f"Can't find end of {name} entity at byte offset {entity.at}")


class _Markdown(_Parser):
    """The old mode: nothing nests."""

    def parsed(self) -> Marked:
        while self._place < len(self._source):
            character = self._source[self._place]
            following = self._source[self._place + 1 : self._place + 2]
            if character == "\\" and following and following in "_*`[":
                self._say(following, 2)
            elif character in "_*`[":
                self._entity(character)
            else:
                self._say(character, 1)
        return self._marked()

    def _entity(self, character: str) -> None:
        mark = "```" if self._rest("```") else character
        kind = {"_": "italic", "*": "bold", "`": "code", "```": "pre", "[": "text_link"}[mark]
        start, closing = self._place, "]" if mark == "[" else mark
        end = self._source.find(closing, start + len(mark))
        if end < 0:
            raise cannot_parse(f"Can't find end of the entity starting at byte offset {self._byte(start)}")
        self._begin(kind, mark, len(mark))
        self._say(self._source[self._place : end], end - self._place)
        address = re.compile(r"\(([^)]*)\)").match(self._source, end + 1) if mark == "[" else None
        if mark == "[" and address is None:
            self._open.pop()
            self._place += 1
            return
        if address is not None:
            self._open[-1].extra["url"] = address[1]
        self._end(len(closing) + (len(address[0]) if address else 0))


def _attributes(text: str) -> dict[str, str]:
    return {name.lower(): html.unescape(value.strip("\"'")) for name, value in _ATTRIBUTE.findall(text)}
