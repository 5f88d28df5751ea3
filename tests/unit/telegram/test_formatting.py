"""Markdown becomes Telegram's HTML, and a long text several messages."""

import time

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.telegram.formatting import (
    UNITS_MAX,
    Message,
    escape,
    fitted,
    messages,
    plain,
    to_html,
    unmarked,
    utf16_units,
)
from tests.unit.telegram.telegram_html import read


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**b** *i* ~~s~~ `c` ||x||", "<b>b</b> <i>i</i> <s>s</s> <code>c</code> <tg-spoiler>x</tg-spoiler>"),
        ("# Head *x*\n\ntext", "<b>Head <i>x</i></b>\n\ntext"),
        ("one\ntwo  \nthree", "one\ntwo\nthree"),
        ("a || b || c, a |b", "a || b || c, a |b"),
        ("***both***", "<i><b>both</b></i>"),
        ("**b `c` b**", "<b>b </b><code>c</code><b> b</b>"),
        ("**a __b__**", "<b>a b</b>"),
        ("[x `c`](https://e.org/?a=1&b=2)", '<a href="https://e.org/?a=1&amp;b=2">x c</a>'),
        ('[x](https://e.org/"><b>)', '<a href="https://e.org/%22%3E%3Cb%3E">x</a>'),
        ("[x](tg://user?id=5)", '<a href="tg://user?id=5">x</a>'),
        ("[](https://e.org)", '<a href="https://e.org">https://e.org</a>'),
        ("<https://e.org>", '<a href="https://e.org">https://e.org</a>'),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ("[x](docs/x.md)", "x (docs/x.md)"),
        ("<me@e.org>", "me@e.org"),
        ("![cat](https://e.org/c.png)", '<a href="https://e.org/c.png">cat</a>'),
        ("![](https://e.org/c.png)", '<a href="https://e.org/c.png">https://e.org/c.png</a>'),
        (
            "[![alt](https://e.org/i.png)](https://e.org)",
            '<a href="https://e.org">alt (https://e.org/i.png)</a>',
        ),
        ("<b>x</b> &amp; &lt;i&gt; <!-- c -->", "&lt;b&gt;x&lt;/b&gt; &amp; &lt;i&gt; &lt;!-- c --&gt;"),
        ("- a\n- b\n  - c\n    d\n- e", "• a\n• b\n  • c\n    d\n• e"),
        ("3. a\n4. b", "3. a\n4. b"),
        ("- a\n\n  b\n\n- c", "• a\n\n  b\n\n• c"),
        ("- ```\n  x\n  ```\n- > q", "•\n<pre>x</pre>\n•\n  <blockquote>q</blockquote>"),
        ("> a\n>\n> > b `c`\n\nd", "<blockquote>a\n\nb <code>c</code></blockquote>\n\nd"),
        (
            "```python\nif a < b:\n    pass\n```",
            '<pre><code class="language-python">if a &lt; b:\n    pass</code></pre>',
        ),
        ('```"><b>\nx\n```', "<pre>x</pre>"),
        ("    indented", "<pre>indented</pre>"),
        ("```\nunclosed **x**", "<pre>unclosed **x**</pre>"),
        ("a\n\n---\n\nb", "a\n\n———\n\nb"),
        ("", ""),
    ],
)
def test_markdown__becomes_telegrams_html(markdown: str, html: str) -> None:
    written = to_html(markdown)
    assert "".join(line.rstrip() + "\n" for line in written.split("\n")) == html + "\n"
    read(written)


def test_table__is_aligned_in_code() -> None:
    assert plain("|Name|n|\n|--|--|\n|漢字 **x**|1|\n|a\\|b||").split("\n") == [
        "Name   │ n",
        "───────┼──",
        "漢字 x │ 1",
        "a|b    │",
    ]
    assert to_html("|a|\n|-|\n|<b>|") == "<pre>a\n───\n&lt;b&gt;</pre>"


def test_table__with_a_huge_cell_stays_small() -> None:
    table = "|a|b|\n|-|-|\n" + f"|{'x' * 5_000}|y|\n" + "|1|2|\n" * 1_000
    assert len(plain(table)) < 70_000


def test_plain__has_the_targets_of_links_and_no_marks() -> None:
    assert plain("# T\n\n**b** [x](https://e.org) <https://e.org>") == "T\n\nb x (https://e.org) https://e.org"


def test_escape__makes_text_of_anything() -> None:
    assert escape('<a href="x">&\x00\ud800') == "&lt;a href=&quot;x&quot;&gt;&amp;�"
    assert read(f'<a href="https://x/{escape(chr(34) + "<>&")}">{escape("<>&")}</a>').text == "<>&"


@pytest.mark.parametrize(("text", "units"), [("", 0), ("aż漢", 3), ("👍", 2), ("🇵🇱", 4)])
def test_units__are_what_telegram_counts(text: str, units: int) -> None:
    assert utf16_units(text) == units


UNSEEN = regex.compile(r"[\s\p{Z}\p{Cf}]")


def seen(made: list[Message]) -> str:
    return "".join(read(message.html).text for message in made)


def check(markdown: str, footer: str = "") -> list[Message]:
    """What must hold of any text."""
    made = list(messages(markdown, footer))
    for message in made:
        assert utf16_units(message.html) <= UNITS_MAX
        assert utf16_units(message.plain) <= UNITS_MAX
        assert read(message.html).text.strip(), "Telegram refuses an empty message"
    whole = read(to_html(markdown)).text
    tail = f"\n\n---\n{footer}" if footer.strip() else ""
    assert UNSEEN.sub("", seen(made)) == UNSEEN.sub("", whole + tail)
    return made


def test_messages__of_a_long_answer_with_code_are_complete() -> None:
    """Line 105 of the acceptance list."""
    code = "".join(f"    if value_{n} < limit and ready:\n        go({n})\n" for n in range(60))
    part = f"## Part\n\n{'Words of *some* meaning. ' * 40}\n\n```python\ndef f():\n{code}```\n\n"
    answer = (part * 3)[:10_000]
    made = check(answer, "smart · gpt-4o · 2 credits")
    assert 3 <= len(made) <= 6
    assert [message.html.count("smart · gpt-4o") for message in made] == [0] * (len(made) - 1) + [1]
    assert [message.plain.count("smart · gpt-4o") for message in made] == [0] * (len(made) - 1) + [1]
    assert seen(made) == read(to_html(answer)).text + "\n\n---\nsmart · gpt-4o · 2 credits"


def test_messages__close_a_block_of_code_and_open_it_again() -> None:
    lines = [f"line {number}" for number in range(1_000)]
    made = check("```sh\n" + "\n".join(lines) + "\n```")
    assert len(made) > 1
    for message in made:
        assert message.html.startswith('<pre><code class="language-sh">')
        assert read(message.html).languages == ("sh",)
        assert set(read(message.html).text.strip().split("\n")) <= set(lines), "cut inside a line"


def test_messages__are_cut_at_paragraphs_then_lines_then_words() -> None:
    one, two = "a" * 3_000, "b" * 3_000
    assert [message.plain.strip() for message in messages(f"{one}\n\n{two}")] == [one, two]
    assert [message.plain.strip() for message in messages(f"{one}\n{two}")] == [one, two]
    assert [message.plain.strip() for message in messages(f"{one} {two}")] == [one, two]
    lines = f"{'x ' * 400}\n\n{'y ' * 1_400}\n{'z ' * 400}"
    assert messages(lines)[0].plain.strip() == ("x " * 400).strip(), "a paragraph goes before a later line"


def test_messages__leave_code_whole_where_they_can() -> None:
    made = messages("word " * 400 + "\n\n```\n" + "code\n\n" * 500 + "```")
    assert len(made) == 2
    assert "code" not in made[0].plain


def test_messages__keep_a_short_paragraph_with_what_follows() -> None:
    made = messages(f"Yes.\n\n{'word ' * 1_000}")
    assert len(made) == 2
    assert len(made[0].plain) > 4_000


def test_messages__leave_room_for_the_footer() -> None:
    for length in range(UNITS_MAX - 20, UNITS_MAX + 3):
        made = check("x" * length, "foot")
        assert made[-1].html.endswith("x\n\n---\nfoot")
    assert [message.html for message in messages("x", "<f>")] == ["x\n\n---\n&lt;f&gt;"]
    assert [message.html for message in messages("x", " \n")] == ["x"]
    made = check("x", "f" * 5_000)
    assert "".join(message.plain for message in made).count("f") == 5_000


@pytest.mark.parametrize("nothing", ["", " \n\n ", "\u200b\u200f", "```\n\n```", "[]()", "\x00\x01" * 0, "&nbsp;"])
def test_messages__of_nothing_are_none_but_for_the_footer(nothing: str) -> None:
    assert list(messages(nothing)) == []
    assert list(messages(nothing, "foot")) == [Message("---\nfoot", "---\nfoot")]


@pytest.mark.parametrize("seen_as_one", ["🇵🇱", "👩‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "e\u0301", "👍🏽", "한", "ก็"])
def test_messages__are_not_cut_inside_what_is_seen_as_one(seen_as_one: str) -> None:
    for before in range(4):
        for message in check("x" * before + seen_as_one * 5_000):
            whole = message.plain.strip("x")
            assert whole == seen_as_one * (len(whole) // len(seen_as_one))


def test_messages__are_not_cut_between_a_space_and_its_accent() -> None:
    assert messages(f"{'a' * 3_000} \u0301{'b' * 3_000}")[0].plain.endswith("b")


def test_links__are_as_written_where_there_are_too_many_brackets() -> None:
    assert "<a" in to_html("[x](https://e.org) " * 10_000)
    assert "<a" not in to_html("[x](https://e.org) " * 10_001)


def test_messages__cut_what_is_seen_as_one_where_it_fits_in_none() -> None:
    assert len(check("a" + "\u0301" * 10_000)) == 3


def test_messages__of_plain_text_have_links_whole_wherever_they_are_cut() -> None:
    made = check("[x](https://e.org/very/long) word " * 500)
    assert all("https://e.org/very/long)" in message.plain for message in made)
    long = "https://e.org/" + "x" * 4_090
    assert "".join(message.plain for message in check(f"[x]({long}) {'y' * 4_000}")).count("x") == 4_091


HOSTILE = {
    "stars": "*" * 100_000,
    "stars and words": "*a **b " * 14_000,
    "open brackets": "[" * 100_000,
    "pictures": "![" * 4_999,
    "links": "[a](" * 9_999,
    "unbalanced fences": "```\n~~~\n````x\n" * 5_000,
    "backticks": "".join("`" * n + " " for n in range(400)),
    "open tags": "<" * 100_000,
    "quotes": ">" * 1_000 + " deep",
    "lists": "- " * 1_000 + "deep",
    "quotes by lines": "\n".join(">" * n + " x" for n in range(300)),
    "emphasis": "*_" * 1_000 + "x" + "_*" * 1_000,
    "flags": "🇵🇱" * 25_000,
    "half a flag": "🇵" * 9_999,
    "families": "👩\u200d" * 30_000,
    "accents": "a" + "\u0301" * 100_000,
    "controls": "".join(map(chr, range(160))) * 100,
    "zero bytes": "a\x00" * 10_000,
    "right to left": "\u202e\u200f\u2067a" * 10_000,
    "lone surrogates": "\ud83d \udc4d\ud83d" * 10_000,
    "references of controls": "&#1;&#0;&#13;&#x85;&#xD800;&#x110000;" * 1_000,
    "spaces": "a" + " " * 50_000 + "b",
    "lines in code": "```\na" + "\n" * 50_000 + "b\n```",
    "bars": "|" * 3_000 + "\n" + "|-" * 3_000 + "|\n" + "|\n" * 3_000,
    "spoilers": "||a||b" * 10_000,
    "escapes": "&<>" * 20_000,
    "bold of code": "**`a`" * 5_000 + "**",
}


@pytest.mark.parametrize("markdown", HOSTILE.values(), ids=HOSTILE)
def test_messages__of_hostile_text_are_valid_and_soon_there(markdown: str) -> None:
    began = time.process_time()
    made = messages(markdown, "foot")
    assert time.process_time() - began < 5
    assert made[-1].html.endswith("---\nfoot")
    check(markdown, "foot")


@pytest.mark.parametrize(
    "deep", ["> " * 100 + "needle", "- " * 100 + "needle", ">" * 58 + "needle", "*_" * 40 + "needle"]
)
def test_text__that_is_nested_too_deep_is_shown_all_the_same(deep: str) -> None:
    assert "needle" in to_html(deep)


MARKS = [
    "**",
    "*",
    "_",
    "~~",
    "||",
    "`",
    "```",
    "\\",
    "|",
    "[",
    "](https://e.org/a_b)",
    "![",
    "](x)",
    "# ",
    "&",
    "<",
    "<b>",
]
BLOCKS = ["\n", "\n\n", "  \n", "\n```py\n", "\n> ", "\n- ", "\n1. ", "\n    ", "\n|a|b|\n|-|-|\n|c|d|\n"]
LETTERS = [
    "word",
    " ",
    "\t",
    "🇵🇱",
    "👩‍👩‍👧‍👦",
    "e\u0301",
    "\u202e",
    "\x00",
    "\ud83d",
    "&amp;",
    "漢字",
    "w" * 700,
    "👍" * 500,
    "&" * 300,
]
WORDS = st.sampled_from([*MARKS, *BLOCKS, *LETTERS])
MARKDOWN = st.one_of(st.text(), st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=80).map("".join))
FOOTERS = st.one_of(st.just(""), st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=60))


@settings(max_examples=300, deadline=None)
@given(MARKDOWN, FOOTERS)
def test_messages__lose_nothing_and_are_valid(markdown: str, footer: str) -> None:
    check(markdown, footer)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["🇵🇱", "👍🏽", "e\u0301", "a", "👩‍🚀"]), min_size=1, max_size=40), st.integers(0, 40))
def test_messages__of_emoji_are_cut_between_them(emoji: list[str], before: int) -> None:
    text = "x" * before + "".join(emoji) * (3_000 // len(emoji))
    made = check(text)
    whole = regex.findall(r"\X", text)
    assert [one for message in made for one in regex.findall(r"\X", message.plain)] == whole


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), max_size=9_000))
def test_messages__of_code_say_it_letter_by_letter(code: str) -> None:
    code = code.replace("`", "'").replace("~", "-") + "."
    made = messages(f"```\n{code}\n```")
    assert "".join(read(message.html).text for message in made) == code


@pytest.mark.parametrize(
    "html",
    [
        "<b>" + "x" * 5_000 + "</b>",
        "<b>one</b>\n" * 700,
        "&lt;" * 2_000,
        "<pre>" + "&amp;" * 4_000 + "</pre>",
        "x" * 4_093 + "<b><i>yz</i></b>",
        "x" * 4_095 + "<b>y</b>",
        "\U0001f9e8" * 3_000,
        '<a href="https://example.org/?a=1&amp;b=2">' + "x" * 9_000 + "</a>",
        "<blockquote><b>" + "word " * 2_000 + "</b></blockquote>",
    ],
)
def test_fitted__cuts_what_is_too_long_and_closes_what_is_open(html: str) -> None:
    cut = fitted(html)
    assert utf16_units(cut) <= UNITS_MAX
    assert utf16_units(cut) > UNITS_MAX - 50
    assert read(cut).text.removesuffix("…") == read(html).text[: len(read(cut).text) - 1]


def test_fitted__leaves_what_fits_as_it_is() -> None:
    html = "<b>" + "x" * (UNITS_MAX - 7) + "</b>"
    assert fitted(html) == html


def test_unmarked__is_the_text_without_its_markup() -> None:
    assert unmarked('<b>1 &lt; 2</b> &amp; <a href="https://example.org">x</a>') == "1 < 2 & x"
