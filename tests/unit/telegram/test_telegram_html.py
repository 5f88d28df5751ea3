"""The reader that the other tests trust refuses what Telegram might."""

import pytest

from tests.unit.telegram.telegram_html import read


@pytest.mark.parametrize(
    "html",
    [
        "<b>x",
        "x</b>",
        "<b><i>x</b></i>",
        "a < b",
        "a & b",
        "&nbsp;",
        "<u><u>x</u></u>",
        "<script>x</script>",
        "<b class='x'>x</b>",
        '<a href="javascript:x">x</a>',
        '<a href="https://x"y">x</a>',
        "<code><b>x</b></code>",
        "<b><code>x</code></b>",
        "<blockquote><blockquote>x</blockquote></blockquote>",
        '<code class="language-x">x</code>',
        "<b></b>",
        "a\x00b",
        "a\ud800b",
    ],
)
def test_reader__refuses(html: str) -> None:
    with pytest.raises(ValueError, match=r"is in|is left|closes|stands|no HTML"):
        read(html)


def test_reader__tells_what_is_seen() -> None:
    html = '<pre><code class="language-c">a &lt; b</code></pre> <b>x<a href="https://x/?a&amp;b">y</a></b>'
    found = read(html)
    assert (found.text, found.targets, found.languages) == ("a < b xy", ("https://x/?a&amp;b",), ("c",))
