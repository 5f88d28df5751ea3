"""What a request asks for: its task line, and what it says is already known."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.simulator.chat import Message

_TASK_LINE = re.compile(
    r"^masterbuilder task=(?P<task>[a-z_.]+) id=(?P<id>\S+) attempt=(?P<attempt>\d{1,6})"
    r" brief=(?P<brief>[0-9a-f]{12})[ \t\r]*$",
    re.MULTILINE,
)
_ANSWERED = re.compile(r"^answered (?P<topic>[a-z]+): *(?P<text>\S.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One task line, read. Source: runtime.project.schemas.task_line."""

    task: str
    id: str
    attempt: int
    brief: str
    """First 12 hex digits of the brief's SHA-256."""
    answered: Mapping[str, str]
    """Topics of the interview and their answers, from lines `answered <topic>: <text>` of the user's messages."""


def read_asked(messages: Sequence[Message]) -> Asked | None:
    """The first line of a system message; for `code.edit` also a line of the last user message that carries one,
    because an edit engine wraps our instruction in prompts of its own. None when there is no task line.
    """
    found = _in_system(messages) or _in_edit_instruction(messages)
    if found is None:
        return None
    said = "\n".join(message.text for message in messages if message.role == "user")
    return Asked(
        task=found["task"],
        id=found["id"],
        attempt=int(found["attempt"]),
        brief=found["brief"],
        answered={match["topic"]: match["text"].strip() for match in _ANSWERED.finditer(said)},
    )


def _in_system(messages: Sequence[Message]) -> re.Match[str] | None:
    first_lines = (message.text.split("\n", 1)[0] for message in messages if message.role == "system")
    return next((match for line in first_lines if (match := _TASK_LINE.match(line))), None)


def _in_edit_instruction(messages: Sequence[Message]) -> re.Match[str] | None:
    texts = (message.text for message in reversed(messages) if message.role == "user")
    found = next((match for text in texts if (match := _TASK_LINE.search(text))), None)
    return found if found and found["task"] == "code.edit" else None
