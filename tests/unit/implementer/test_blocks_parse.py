import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.implementer.blocks_parse import BLOCKS_MAX, Delete, Edit, MalformedReplyError, Rename, Replace, parse
from runtime.implementer.moves import read_moves

PATHS = st.from_regex(r"[a-z]{1,6}(/[a-z_.]{1,6}[a-z]){0,2}", fullmatch=True)
LINES = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(["=======", "```", "<<<<<<< SEARCH", ">>>>>>> REPLACE", "<<<<<<< DELETE a", "src/app.py", ""]),
    max_size=6,
)
EDITS = st.lists(
    st.builds(Replace, path=PATHS, search=LINES.map(tuple), replace=LINES.map(tuple))
    | st.builds(Delete, path=PATHS)
    | st.builds(Rename, path=PATHS, new_path=PATHS),
    max_size=5,
)


def written(edit: Edit, fence: str = "```") -> str:
    """As the prompt asks for it; with longer markers where the lines hold shorter ones."""
    match edit:
        case Delete():
            return f"<<<<<<< DELETE {edit.path}\n"
        case Rename():
            return f"<<<<<<< RENAME {edit.path} => {edit.new_path}\n"
        case Replace():
            lines = {line.rstrip() for line in (*edit.search, *edit.replace)}
            size = next(size for size in (7, 9) if "=" * size not in lines and not clash(lines, size))
            block = [f"{'<' * size} SEARCH", *edit.search, "=" * size, *edit.replace, f"{'>' * size} REPLACE"]
            return "\n".join((edit.path, f"{fence}python", *block, fence, ""))


def clash(lines: set[str], size: int) -> bool:
    return bool(lines & {f"{'<' * size} SEARCH", f"{'>' * size} REPLACE"})


@settings(max_examples=60)
@given(EDITS, st.sampled_from(["```", "````", "~~~"]))
def test_parse__reads_what_was_written(edits: list[Edit], fence: str) -> None:
    reply = "I do it.\n\n" + "\nThen this:\n".join(written(edit, fence) for edit in edits) + "\nDone.\n"
    assert parse(reply) == edits
    moves = [(edit.path, getattr(edit, "new_path", None)) for edit in edits if not isinstance(edit, Replace)]
    if not any(line.startswith("<<<<<<< ") for edit in edits if isinstance(edit, Replace) for line in edit.replace):
        assert [move for move in read_moves(reply) if move in moves] == moves


@settings(max_examples=60)
@given(st.text() | st.lists(LINES).map(lambda parts: "\n".join(line for part in parts for line in part)))
def test_parse__of_anything_is_edits_or_a_refusal(reply: str) -> None:
    with contextlib.suppress(MalformedReplyError):
        assert all(edit.path.strip() for edit in parse(reply))


@settings(max_examples=60)
@given(EDITS.filter(bool), st.data())
def test_parse__never_takes_half_a_block_for_a_whole_one(edits: list[Edit], data: st.DataObject) -> None:
    """However a reply is cut, what is read of it is a beginning of what was written."""
    reply = "".join(written(edit) for edit in edits)
    cut = reply[: data.draw(st.integers(0, len(reply)))]
    try:
        found = parse(cut)
    except MalformedReplyError:
        return
    whole = [edit for edit in found if isinstance(edit, Replace)]
    assert whole == [edit for edit in edits if isinstance(edit, Replace)][: len(whole)]


@pytest.mark.parametrize(
    "line", ["**src/app.py**", "`src/app.py`", "### src/app.py", "src/app.py:", "### `src/app.py`:"]
)
def test_parse__takes_a_path_out_of_its_wrapping(line: str) -> None:
    reply = f"{line}\n```\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n```\n"
    assert parse(reply) == [Replace(path="src/app.py", search=("a",), replace=("b",))]


def test_parse__takes_blocks_that_follow_one_another_for_the_same_file() -> None:
    block = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n"
    reply = f"a.py\n```\n{block}{block}```\n\n```\n{block}```\nb.py\n{block}"
    assert [edit.path for edit in parse(reply)] == ["a.py", "a.py", "a.py", "b.py"]


def test_parse__reads_lines_that_end_as_on_windows() -> None:
    reply = "a.py\r\n```\r\n<<<<<<< SEARCH\r\na\r\n=======\r\nb\r\n>>>>>>> REPLACE\r\n```\r\n"
    assert parse(reply) == [Replace(path="a.py", search=("a",), replace=("b",))]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("```\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n```", "no path"),
        ("a.py\n<<<<<<< SEARCH\na\n=======\nb\n", "is not ended"),
        ("a.py\n<<<<<<< SEARCH\na\n", "is not ended"),
        ("a.py\n<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "was to come"),
        ("a.py\n<<<<<<< SEARCH\na\n=======\nb\n=======\nc\n>>>>>>> REPLACE\n", "longer"),
        ("a.py\n<<<<<<< SEARCH\na\n=======\n<<<<<<< SEARCH\n", "was to come"),
        ("prose\n>>>>>>> REPLACE\n", "was not begun"),
        ("<<<<<<< DELETE a\n" * (BLOCKS_MAX + 1), "more than"),
    ],
)
def test_parse__says_what_is_wrong(reply: str, told: str) -> None:
    with pytest.raises(MalformedReplyError, match=told):
        parse(reply)
