"""What comes back when a button is pressed. Anybody may send anything here, so it names and proves nothing."""

import re
import uuid
from dataclasses import dataclass

from runtime.ids import ProjectId

BYTES_MAX = 64
"""What the longest verb, a project and the longest `about` come to. Source: Telegram Bot API, `callback_data`."""
NO_PROJECT = ProjectId("")
_PRESS = re.compile(r"([a-z]{1,10})(?::([0-9a-f]{32})?)?(?::([A-Za-z0-9_./-]{0,20}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    verb: str
    project: ProjectId = ProjectId("")
    about: str = ""


def press(verb: str, project: ProjectId = NO_PROJECT, about: str = "") -> str:
    """`verb`, maybe of a project, maybe with what it is about."""
    named = uuid.UUID(project).hex if project else ""
    data = f"{verb}:{named}:{about}".rstrip(":")
    if _PRESS.fullmatch(data) is None:
        raise ValueError(f"{data!r} is no button's data")
    return data


def parse_press(data: str) -> Press | None:
    """None for what no button of ours says."""
    found = _PRESS.fullmatch(data)
    if found is None:
        return None
    verb, project, about = found.groups()
    return Press(verb=verb, project=ProjectId(str(uuid.UUID(project))) if project else ProjectId(""), about=about or "")
