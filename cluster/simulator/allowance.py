"""What is left of a limit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """As a provider's headers tell it: `reset_s` is when it is whole again, in seconds from now."""

    most: int
    left: int
    reset_s: float
