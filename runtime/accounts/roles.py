"""What a user may do. Source: spec/assistant.md §1, §14."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Role = Literal["DEMO", "FULL_ACCESS", "ADMIN"]
_RANKS: tuple[Role, ...] = ("DEMO", "FULL_ACCESS", "ADMIN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is stored of a user's rights."""

    role: Role
    is_admin: bool


def effective_role(standing: Standing, now: datetime) -> Role:
    """What the user may do now: every door, and every cap of a day, goes by this and by nothing else.

    Whatever gives or takes a role for a time only is decided here.
    """
    return "ADMIN" if standing.is_admin else standing.role


def higher(one: Role, other: Role) -> Role:
    return max(one, other, key=_RANKS.index)
