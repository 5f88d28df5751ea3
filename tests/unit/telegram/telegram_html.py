"""A strict reader of Telegram's HTML: what it raises for, Telegram might refuse or show differently.

Source: https://core.telegram.org/bots/api#html-style
"""

import re
from dataclasses import dataclass

_PIECE = re.compile(
    r"(?P<text>[^<>&]+)"
    r"|&(?P<entity>lt|gt|amp|quot);"
    r"|<(?P<open>b|i|u|s|tg-spoiler|code|pre|blockquote)>"
    r'|<a href="(?P<target>(?:https?|tg)://(?:[^"<>&\s]|&(?:amp|quot|lt|gt);)+)">'
    r'|<code class="language-(?P<language>[A-Za-z0-9_+#.-]+)">'
    r"|</(?P<close>b|i|u|s|tg-spoiler|code|pre|blockquote|a)>"
)
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_NOT_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Read:
    text: str
    targets: tuple[str, ...]
    languages: tuple[str, ...]


def read(html: str) -> Read:
    """What is seen of `html`, and what its links and blocks of code name. Raises ValueError."""
    opened: list[str] = []
    seen: list[str] = []
    targets: list[str] = []
    languages: list[str] = []
    place, last = 0, ""
    while place < len(html):
        found = _PIECE.match(html, place)
        if not found:
            raise ValueError(f"no HTML of Telegram's at {place}: {html[place : place + 40]!r}")
        place = found.end()
        kind = found.lastgroup
        if kind in ("text", "entity"):
            seen.append(found["text"] or _ENTITIES[found["entity"]])
        elif kind == "close":
            if not opened or opened.pop().split("-of-")[0] != found["close"]:
                raise ValueError(f"</{found['close']}> closes what is not open")
            if last == "open":
                raise ValueError(f"nothing is in {found['close']}")
        else:
            tag = found["open"] or ("a" if kind == "target" else "code-of-pre")
            _check_nesting(tag, opened)
            opened.append(tag)
            targets += [found["target"]] if kind == "target" else []
            languages += [found["language"]] if kind == "language" else []
        last = "close" if kind == "close" else "text" if kind in ("text", "entity") else "open"
    if opened:
        raise ValueError(f"{opened} is left open")
    text = "".join(seen)
    if bad := _NOT_IN_TEXT.search(text):
        raise ValueError(f"{bad[0]!r} is in the text")
    return Read(text, tuple(targets), tuple(languages))


def _check_nesting(tag: str, opened: list[str]) -> None:
    if tag == "code-of-pre":
        if opened[-1:] != ["pre"]:
            raise ValueError("a language stands outside pre")
        return
    if tag in opened:
        raise ValueError(f"{tag} is in {tag}")
    if {"code", "pre", "code-of-pre"} & set(opened):
        raise ValueError(f"{tag} is in code")
    if tag in ("code", "pre") and set(opened) - {"blockquote"}:
        raise ValueError(f"{tag} is in {opened}")
