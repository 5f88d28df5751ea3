from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.simulator.telegram.entities import pieces, trimmed, utf16_length
from cluster.simulator.telegram.markup import parse
from cluster.simulator.telegram.refusal import TelegramRefusal


def marked(text: str, mode: str) -> tuple[str, list[tuple[Any, ...]]]:
    parsed = parse(text, mode)
    extra = ("url", "language", "custom_emoji_id", "unix_time")
    return parsed.text, [
        (one["type"], one["offset"], one["length"], *(one[name] for name in extra if name in one))
        for one in parsed.entities
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>bold <i>both</i></b> plain", ("bold both plain", [("bold", 0, 9), ("italic", 5, 4)])),
        ("😀<u>x</u>", ("😀x", [("underline", 2, 1)])),
        ("a &lt;b&gt; &amp; &#33; &quot;", ('a <b> & ! "', [])),
        ('<a href="https://example.org/?a=1&amp;b=2">here</a>', ("here", [("text_link", 0, 4, "https://example.org/?a=1&b=2")])),
        ('<pre><code class="language-python">x = 1</code></pre>', ("x = 1", [("pre", 0, 5, "python")])),
        ("<code>x &lt; 1</code>", ("x < 1", [("code", 0, 5)])),
        ('<span class="tg-spoiler">s</span><tg-spoiler>s</tg-spoiler>', ("ss", [("spoiler", 0, 1), ("spoiler", 1, 1)])),
        ("<blockquote expandable>q</blockquote>", ("q", [("expandable_blockquote", 0, 1)])),
        ('<tg-emoji emoji-id="5">👍</tg-emoji>', ("👍", [("custom_emoji", 0, 2, "5")])),
        ("<b></b>nothing", ("nothing", [])),
    ],
)  # fmt: skip
def test_html__becomes_text_and_entities(text: str, expected: tuple[str, list[Any]]) -> None:
    assert marked(text, "HTML") == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<b>open", 'Can\'t find end tag corresponding to start tag "b"'),
        ("<b><i>x</b></i>", 'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"'),
        ("é</b>", "Unexpected end tag at byte offset 2"),
        ("a <h1>title</h1>", 'Unsupported start tag "h1" at byte offset 2'),
        ("line<br/>", 'Unsupported start tag "br" at byte offset 4'),
        ("1 < 2", "Unclosed start tag at byte offset 2"),
        ("1 > 2", "Unescaped '>' at byte offset 2"),
        ("salt & pepper", "Unescaped '&' at byte offset 5"),
        ("&nbsp;", "Unescaped '&' at byte offset 0"),
        ("<a>x</a>", 'Tag "a" must have an attribute "href"'),
        ('<tg-time unix="soon">x</tg-time>', 'Tag "tg-time" must have an attribute "unix"'),
        ("<span>x</span>", 'Tag "span" must have class "tg-spoiler"'),
    ],
)
def test_html__that_is_wrong_is_refused(text: str, why: str) -> None:
    with pytest.raises(TelegramRefusal) as refused:
        parse(text, "HTML")
    assert refused.value.description.startswith(f"Bad Request: can't parse entities: {why}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*bold _both_* ||hid||", ("bold both hid", [("bold", 0, 9), ("italic", 5, 4), ("spoiler", 10, 3)])),
        ("~gone~", ("gone", [("strikethrough", 0, 4)])),
        ("_it __both__ it_", ("it both it", [("italic", 0, 10), ("underline", 3, 4)])),
        ("__under__ _it_", ("under it", [("underline", 0, 5), ("italic", 6, 2)])),
        (r"1\. a\-b \\ \!", ("1. a-b \\ !", [])),
        ("`a.b*c`", ("a.b*c", [("code", 0, 5)])),
        ("```python\nx = 1\n```", ("x = 1\n", [("pre", 0, 6, "python")])),
        (r"[here](https://example.org/a_\(b\))", ("here", [("text_link", 0, 4, "https://example.org/a_(b)")])),
        ("![👍](tg://emoji?id=5)", ("👍", [("custom_emoji", 0, 2, "5")])),
        (">one\n>two\nthree", ("one\ntwo\nthree", [("blockquote", 0, 7)])),
        (">one\n>two||\nthree", ("one\ntwo\nthree", [("expandable_blockquote", 0, 7)])),
    ],
)  # fmt: skip
def test_markdown_v2__becomes_text_and_entities(text: str, expected: tuple[str, list[Any]]) -> None:
    assert marked(text, "MarkdownV2") == expected


@pytest.mark.parametrize("character", "_*[]()~`>#+-=|{}.!")
def test_markdown_v2__wants_what_is_reserved_escaped(character: str) -> None:
    with pytest.raises(TelegramRefusal, match="can't parse entities"):
        parse(f"a {character} b", "MarkdownV2")
    assert parse(f"a \\{character} b", "MarkdownV2").text == f"a {character} b"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Version 1.0", "Character '.' is reserved and must be escaped with the preceding '\\'"),
        ("🏟 🏟_abacaba", "Can't find end of Italic entity at byte offset 9"),
        ("🏟 🏟_abac * asd ", "Can't find end of Bold entity at byte offset 15"),
        ("🏟 🏟`", "Can't find end of Code entity at byte offset 9"),
        ("🏟 🏟```a", "Can't find end of Pre entity at byte offset 9"),
        ("[x](http://a", "Can't find end of a URL at byte offset 4"),
    ],
)
def test_markdown_v2__that_is_wrong_is_refused(text: str, why: str) -> None:
    with pytest.raises(TelegramRefusal) as refused:
        parse(text, "MarkdownV2")
    assert refused.value.description == f"Bad Request: can't parse entities: {why}"


def test_markdown__does_not_nest() -> None:
    assert marked("*bold* _it_ `c` [t](http://a.b) \\* 1.0", "Markdown") == (
        "bold it c t * 1.0",
        [("bold", 0, 4), ("italic", 5, 2), ("code", 8, 1), ("text_link", 10, 1, "http://a.b")],
    )
    with pytest.raises(TelegramRefusal, match="Can't find end of the entity starting at byte offset 2"):
        parse("a *b", "markdown")


MARKUP = st.lists(
    st.sampled_from([
        "<b>", "</b>", "<i>", "</i>", "<pre>", "</pre>", "<code>", "</code>", '<a href="x">', "</a>", "<", ">", "&amp;",
        "&", "*", "_", "__", "~", "||", "`", "```", "[", "](", "](x)", ")", "![", "\n", ">", "**>", "\\",
        "a", "é", "😀", " ", "!",
    ])
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(MARKUP, st.sampled_from(["HTML", "MarkdownV2", "Markdown"]))
def test_markup__of_any_kind_is_refused_or_has_its_entities_inside(text: str, mode: str) -> None:
    try:
        parsed = trimmed(parse(text, mode))
    except TelegramRefusal:
        return
    for one in parsed.entities:
        assert one["length"] > 0
        assert 0 <= one["offset"] <= one["offset"] + one["length"] <= parsed.length
    for one, other in combinations(parsed.entities, 2):
        end, other_end = one["offset"] + one["length"], other["offset"] + other["length"]
        assert other["offset"] >= end or other_end <= end


def test_mode__that_is_none_is_refused() -> None:
    with pytest.raises(TelegramRefusal, match="unsupported parse_mode"):
        parse("text", "XML")
    assert parse("<b> is *text*", "").text == "<b> is *text*"


def test_text__is_trimmed_with_its_entities() -> None:
    assert marked("<b> a </b>", "HTML") == (" a ", [("bold", 0, 3)])
    cut = trimmed(parse("\n<b> a </b><i> </i>", "HTML"))
    assert (cut.text, cut.entities) == ("a", ({"type": "bold", "offset": 0, "length": 1},))


def test_pieces__split_no_character() -> None:
    parts = pieces("a" + "😀" * 5, 4)
    assert parts == ["a😀", "😀😀", "😀😀"]
    assert all(utf16_length(part) <= 4 for part in parts)
