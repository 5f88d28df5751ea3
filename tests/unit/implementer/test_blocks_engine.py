"""How `blocks` talks with a model: what it shows, what it asks again, and what it keeps of it."""

from collections.abc import Sequence
from typing import Any

from runtime.implementer.blocks_door import ModelReply, NoReplyError
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.blocks_prompt import SHOWN_BYTES_MAX, Said
from runtime.implementer.engine import EditOutcome, EditRequest

NEW = "n.py\n```\n<<<<<<< SEARCH\n=======\nn\n>>>>>>> REPLACE\n```\n"


def change(search: str, by: str, path: str = "a.py") -> str:
    return f"{path}\n```\n<<<<<<< SEARCH\n{search}\n=======\n{by}\n>>>>>>> REPLACE\n```\n"


class Script:
    """A door behind which the replies are known."""

    def __init__(self, *replies: str | ModelReply | NoReplyError) -> None:
        self._replies = list(replies)
        self.asked: list[list[Said]] = []

    async def ask(self, request: EditRequest, said: Sequence[Said]) -> ModelReply:
        self.asked.append(list(said))
        reply = self._replies.pop(0)
        if isinstance(reply, NoReplyError):
            raise reply
        return ModelReply(text=reply, is_cut=False) if isinstance(reply, str) else reply


async def edit(script: Script, **changes: Any) -> EditOutcome:
    request: dict[str, Any] = {
        "instruction": "the task line\nDo it.",
        "files": {"a.py": b"a\n", "n.py": None},
        "read_only": {},
        "model": "openai/gpt-4o-mini",
        "gateway_url": "http://127.0.0.1:9/v1",
        "token": "t",
    }
    return await BlocksEngine(script).edit(EditRequest(**{**request, **changes}))


async def test_prompt__opens_with_the_instruction_and_shows_the_files() -> None:
    script = Script("Nothing to do.")
    files = {"a.py": b"a", "n.py": None, "fenced.md": b"```\nx\n```\n", "x.bin": b"\xff\xfe"}
    await edit(script, files=files, read_only={"docs/api.md": b"# Interface\n"})
    system, user = script.asked[0]
    assert (system.role, user.role) == ("system", "user")
    assert user.text.startswith("the task line\nDo it.\n")
    assert "a.py\n```\na\n```" in user.text
    assert "fenced.md\n````\n```\nx\n```\n````" in user.text
    assert "n.py (does not exist yet)" in user.text
    assert "x.bin (2 bytes that are no text)" in user.text
    assert user.text.index("must not change") < user.text.index("# Interface")


async def test_prompt__only_names_what_is_too_large() -> None:
    script = Script("Nothing to do.")
    await edit(script, files={"large.txt": b"x" * (SHOWN_BYTES_MAX + 1), "a.py": b"a\n"})
    assert f"large.txt ({SHOWN_BYTES_MAX + 1} bytes, too large to be shown)" in script.asked[0][1].text
    assert "a.py\n```\na\n```" in script.asked[0][1].text


async def test_correction__is_asked_once_and_builds_on_what_fitted() -> None:
    script = Script(NEW + change("b", "c"), change("a", "c"))
    outcome = await edit(script)
    assert (outcome.error, outcome.files) == ("", {"n.py": b"n\n", "a.py": b"c\n"})
    told = script.asked[1][-1].text
    assert "a.py: the SEARCH lines are not in the file" in told
    assert "other 1 edits are carried out" in told
    assert [said.role for said in script.asked[1]] == ["system", "user", "assistant", "user"]


async def test_correction__that_fails_leaves_nothing_and_names_it() -> None:
    outcome = await edit(Script(NEW + change("b", "c"), change("x", "c")))
    assert outcome.files == {}
    assert outcome.cause == "edits"
    assert "could not be applied: a.py: the SEARCH lines are not in the file" in outcome.error
    assert "not carried out: a.py" in outcome.log


async def test_malformed_reply__changes_nothing_until_it_is_sent_again() -> None:
    script = Script(NEW + "a.py\n<<<<<<< SEARCH\na\n", NEW + change("a", "c"))
    outcome = await edit(script)
    assert (outcome.error, outcome.files) == ("", {"n.py": b"n\n", "a.py": b"c\n"})
    assert "Nothing was carried out. Send all blocks again." in script.asked[1][-1].text


async def test_correction__that_is_cut_off_or_refused_leaves_nothing() -> None:
    cut = await edit(Script(NEW + change("b", "c"), ModelReply(text=change("a", "c"), is_cut=True)))
    assert (cut.files, cut.cause) == ({}, "edits")
    assert "cut off" in cut.error
    refused = await edit(Script(NEW + change("b", "c"), NoReplyError("The wallet is empty.", 402)))
    assert (refused.files, refused.cause, refused.gateway_status) == ({}, "gateway", 402)
    assert refused.error == "The wallet is empty."


async def test_log__says_what_was_done_and_what_was_left_out() -> None:
    outcome = await edit(Script("Why.\n" + NEW + change("a", "c") + NEW.replace("n.py", "other.py")))
    assert "Why." in outcome.log
    assert "wrote n.py\nchanged a.py\ndiscarded, because not among the task's files: other.py" in outcome.log
    assert set(outcome.files) == {"n.py", "a.py"}
