import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.implementer.blocks_draft import Draft
from runtime.implementer.blocks_parse import Delete, Edit, Rename, Replace

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
FILE = st.lists(LINE | st.sampled_from(["a", "  a", "\ta ", "}"]), max_size=12).map(lambda lines: [*lines, "last"])


def replace(search: str, by: str, path: str = "a.py") -> Replace:
    return Replace(path=path, search=tuple(search.splitlines()), replace=tuple(by.splitlines()))


def edited(before: bytes | None, *edits: Edit) -> bytes | None:
    draft = Draft({"a.py": before})
    applied = draft.apply(edits)
    assert not applied.faults
    return draft.changes().get("a.py", before)


def fault(files: dict[str, bytes | None], edit: Edit) -> str:
    draft = Draft(files)
    [told] = draft.apply([edit]).faults
    assert draft.changes() == {}
    return told


@settings(max_examples=60)
@given(FILE, st.data(), st.lists(LINE, max_size=4), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_replace__changes_what_it_names_and_nothing_else(
    lines: list[str], data: st.DataObject, by: list[str], end: str, is_ended: bool
) -> None:
    # given lines of a file that stand there once
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first + 1, len(lines)))
    search = lines[first:last]
    places = [at for at in range(len(lines)) if lines[at : at + len(search)] == search]
    before = end.join(lines) + (end if is_ended else "")
    draft = Draft({"a.py": before.encode()})
    # when
    applied = draft.apply([Replace(path="a.py", search=search, replace=by)])
    # then
    if not any(line.strip() for line in search):
        kept = before.removesuffix(end) + end if before.strip() else ""
        assert draft.changes().get("a.py", before.encode()) == (kept + "".join(line + end for line in by)).encode()
    elif len(places) > 1:
        assert "places" in applied.faults[0]
    else:
        after = [*lines[:first], *by, *lines[last:]]
        # A file of one line end is of either kind; without any it is taken for the plain one.
        if before.count(end) or end == "\n":
            assert draft.changes().get("a.py", before.encode()).decode() == (  # type: ignore[union-attr]
                end.join(after) + (end if is_ended and after else "")
            )


@settings(max_examples=60)
@given(FILE, st.lists(LINE, min_size=1, max_size=4))
def test_replace__that_fits_nowhere_changes_nothing(lines: list[str], search: list[str]) -> None:
    search = [*search, "this line is longer than all others"]
    assert "not in the file" in fault(
        {"a.py": "\n".join(lines).encode() + b"\nx"}, Replace(path="a.py", search=search, replace=())
    )


def test_replace__forgives_white_space_at_the_ends_of_lines() -> None:
    assert edited(b"a  \nb\n", replace("a\nb \n", "c\n")) == b"c\n"


def test_replace__forgives_one_indentation_and_keeps_the_files() -> None:
    before = b"class A:\n    def f(self):\n        return 1\n"
    assert edited(before, replace("def f(self):\n    return 1\n", "def f(self):\n\n    return 2\n")) == (
        b"class A:\n    def f(self):\n\n        return 2\n"
    )
    deeper = replace("      def f(self):\n          return 1\n", "      def g(self):\n          return 2\n")
    assert edited(before, deeper) == b"class A:\n    def g(self):\n        return 2\n"


def test_replace__does_not_guess_between_indentations() -> None:
    twice = b"if a:\n    x()\nelse:\n    x()\n"
    assert "2 places" in fault({"a.py": twice}, replace("x()\n", "y()\n"))
    assert "not in the file" in fault({"a.py": b"    a\n  b\n"}, replace("a\nb\n", "c\n"))


def test_replace__prefers_the_place_that_fits_exactly() -> None:
    assert edited(b"  a\na\n", replace("a\n", "b\n")) == b"  a\nb\n"


def test_replace__shows_lines_that_look_alike() -> None:
    told = fault(
        {"a.py": b"x = 1\ndef total(rows):\n    return sum(rows)\n"}, replace("def total(rows):\n    pass\n", "")
    )
    assert "return sum(rows)" in told


def test_replace__in_a_file_without_a_last_line_end_adds_none() -> None:
    assert edited(b"a\nb", replace("b\n", "c\n")) == b"a\nc"


def test_replace__can_empty_a_file() -> None:
    assert edited(b"a\n", replace("a\n", "")) == b""


@pytest.mark.parametrize("before", [None, b"", b" \n"])
def test_new_file__is_written_where_there_was_nothing(before: bytes | None) -> None:
    assert edited(before, replace("", "a\n")) == b"a\n"
    assert edited(before, replace(" \n", "a\n")) == b"a\n"


def test_new_file__may_be_empty() -> None:
    assert edited(None, replace("", "")) == b""


@pytest.mark.parametrize(("before", "after"), [(b"a\n", b"a\nb\n"), (b"a", b"a\nb\n"), (b"a\r\n", b"a\r\nb\r\n")])
def test_new_file__never_takes_anothers_place_but_is_added_to_it(before: bytes, after: bytes) -> None:
    assert edited(before, replace("", "b\n")) == after


def test_new_file__that_is_not_the_tasks_is_left_out() -> None:
    draft = Draft({"a.py": None})
    applied = draft.apply([replace("", "b\n", "b.py"), replace("", "a\n")])
    assert (applied.left_out, applied.faults, draft.changes()) == (["b.py"], [], {"a.py": b"a\n"})


def test_edits__build_on_one_another() -> None:
    draft = Draft({"a.py": b"a\n", "b.py": None, "c.py": b"c\n"})
    applied = draft.apply(
        [
            replace("a\n", "b\n"),
            Rename(path="a.py", new_path="b.py"),
            replace("b\n", "c\n", "b.py"),
            Delete(path="c.py"),
            replace("", "new\n", "c.py"),
        ]
    )
    assert not applied.faults
    assert draft.changes() == {"a.py": None, "b.py": b"c\n", "c.py": b"new\n"}


@pytest.mark.parametrize(
    "path", ["../a", "/a", ".git/config", "src/.GIT/x", "git~1/x", "a\\b", "a\0b", "a//b", "./a.py", ""]
)
@pytest.mark.parametrize("kind", ["new", "change", "delete", "rename", "rename away"])
def test_paths_out_of_the_project__are_refused(path: str, kind: str) -> None:
    edits = {
        "new": replace("", "x\n", path),
        "change": replace("a\n", "x\n", path),
        "delete": Delete(path=path),
        "rename": Rename(path=path, new_path="b.py"),
        "rename away": Rename(path="a.py", new_path=path),
    }
    assert "not a path inside the project" in fault({"a.py": b"a\n", "b.py": None}, edits[kind])


def test_faults__name_what_cannot_be_done() -> None:
    files = {"a.py": b"a\n", "b.py": b"b\n", "new.py": None, "x.bin": b"\xff\xfe"}
    assert "not among the files" in fault(files, Delete(path="c.py"))
    assert "not among the files" in fault(files, replace("", "b\n", "a sentence above the block:"))
    assert "does not exist" in fault(files, Delete(path="new.py"))
    assert "does not exist" in fault(files, replace("a\n", "", "new.py"))
    assert "there is a file b.py" in fault(files, Rename(path="a.py", new_path="b.py"))
    assert "is no text" in fault(files, replace("a\n", "", "x.bin"))
