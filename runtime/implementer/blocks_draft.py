"""The files of a task while a model's edits are carried out on them, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from runtime.implementer.blocks_match import find_place, nearest
from runtime.implementer.blocks_parse import Delete, Edit, Rename, Replace
from runtime.project.paths import is_plain_path

_SHOWN_CHARACTERS_MAX = 1_000
_AROUND = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of each edit: `done`, `left_out` because it makes a file that is not the task's, or a fault."""

    done: Sequence[str]
    left_out: Sequence[str]
    faults: Sequence[str]


class _FaultError(Exception):
    """An edit that cannot be carried out; its text is for the model."""


class Draft:
    """Edits build on one another. One that cannot be carried out changes nothing."""

    def __init__(self, files: Mapping[str, bytes | None]) -> None:
        """The task's files; None for one that does not exist."""
        self._given = files
        self._now = dict(files)

    def apply(self, edits: Sequence[Edit]) -> Applied:
        done: list[str] = []
        left_out: list[str] = []
        faults: list[str] = []
        for edit in edits:
            if _only_makes(edit) and edit.path not in self._given and _may_be_a_path(edit.path):
                left_out.append(edit.path)
                continue
            try:
                done.append(self._carry_out(edit))
            except _FaultError as fault:
                faults.append(str(fault))
        return Applied(done=done, left_out=left_out, faults=faults)

    def changes(self) -> dict[str, bytes | None]:
        """What differs from what was given; None for a file that was removed."""
        return {path: content for path, content in self._now.items() if content != self._given[path]}

    def _carry_out(self, edit: Edit) -> str:
        self._must_be_ours(edit.path)
        match edit:
            case Replace():
                return self._replace(edit)
            case Delete():
                self._content(edit.path)
                self._now[edit.path] = None
                return f"removed {edit.path}"
            case Rename():
                self._must_be_ours(edit.new_path)
                content = self._content(edit.path)
                if self._now[edit.new_path] is not None:
                    raise _FaultError(f"{edit.path} cannot be renamed: there is a file {edit.new_path}.")
                self._now[edit.path] = None
                self._now[edit.new_path] = content
                return f"renamed {edit.path} to {edit.new_path}"
            case _:
                assert_never(edit)

    def _replace(self, edit: Replace) -> str:
        before = self._now[edit.path]
        if edit.has_no_search and not (before and before.strip()):
            self._now[edit.path] = _encoded(edit.replace, line_end="\n", is_ended=bool(edit.replace))
            return f"wrote {edit.path}"
        try:
            text = self._content(edit.path).decode()
        except UnicodeDecodeError:
            raise _FaultError(f"{edit.path} is no text, so it cannot be edited.") from None
        line_end = "\r\n" if text.count("\r\n") == text.count("\n") > 0 else "\n"
        is_ended = text.endswith(line_end)
        lines = text.removesuffix(line_end).split(line_end)
        if edit.has_no_search:
            self._now[edit.path] = _encoded([*lines, *edit.replace], line_end=line_end, is_ended=True)
            return f"added to {edit.path}"
        place = find_place(lines, edit.search, edit.replace)
        if place.count > 1:
            raise _FaultError(
                f"{edit.path}: the SEARCH lines stand at {place.count} places; add lines around them, so that they "
                f"stand at one.\n{_shown(edit.search)}"
            )
        if place.count == 0:
            near = nearest(lines, edit.search, _AROUND)
            hint = f"\nLines of the file that look alike:\n{_shown(near)}" if near else ""
            raise _FaultError(f"{edit.path}: the SEARCH lines are not in the file.\n{_shown(edit.search)}{hint}")
        after = [*lines[: place.first], *place.replace, *lines[place.last :]]
        self._now[edit.path] = _encoded(after, line_end=line_end, is_ended=is_ended and bool(after))
        return f"changed {edit.path}"

    def _content(self, path: str) -> bytes:
        content = self._now[path]
        if content is None:
            raise _FaultError(f"{path} does not exist. To make it, leave SEARCH empty.")
        return content

    def _must_be_ours(self, path: str) -> None:
        if path in self._given:
            return
        if not is_plain_path(path):
            raise _FaultError(f"{_shown([path])} is not a path inside the project.")
        raise _FaultError(f"{_shown([path])} is not among the files you may change.")


def _only_makes(edit: Edit) -> bool:
    return isinstance(edit, Replace) and edit.has_no_search


def _may_be_a_path(path: str) -> bool:
    """A line of prose above a block is none."""
    return is_plain_path(path) and not any(character.isspace() for character in path)


def _encoded(lines: Sequence[str], *, line_end: str, is_ended: bool) -> bytes:
    return (line_end.join(lines) + (line_end if is_ended else "")).encode()


def _shown(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]} ..."
