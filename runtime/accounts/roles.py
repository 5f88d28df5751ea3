"""What a user may do. Source: spec/assistant.md §1, §14."""

from typing import Literal

Role = Literal["DEMO", "FULL_ACCESS", "ADMIN"]
_RANKS: tuple[Role, ...] = ("DEMO", "FULL_ACCESS", "ADMIN")


def higher(one: Role, other: Role) -> Role:
    return max(one, other, key=_RANKS.index)
