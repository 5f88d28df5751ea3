"""Why packages that a project asks for are not fetched, said so that whoever wrote the manifest can mend it."""

from typing import Self

from runtime.errors import BadInputError

LINE_CHARACTERS_MAX = 120


class ManifestRefusedError(BadInputError):
    """The same manifest will be refused again."""

    code = "manifest_refused"

    @classmethod
    def at(cls, path: str, line: int, text: str) -> Self:
        """`line` is counted from 1; 0 when it is not known."""
        where = f"{path}, line {line}" if line else path
        return cls(f"{where}: {text}", "Name packages and versions only, as the default registry has them.")


def shown(text: str) -> str:
    """A line of a manifest in a message: whole when it is short, and never more than one line."""
    line = " ".join(text.split())
    return line if len(line) <= LINE_CHARACTERS_MAX else line[:LINE_CHARACTERS_MAX] + "..."


def line_of(text: str, piece: str) -> int:
    """The first line that holds `piece`, counted from 1; 0 when none does."""
    return next((number for number, line in enumerate(text.splitlines(), 1) if piece in line), 0)
