"""What an update leads to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runtime.ids import ProjectId, UserId
from runtime.telegram.calls import Call
from runtime.telegram.state import Expected, Followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    calls: Sequence[Call] = ()
    """To be sent in this order, and never lost."""
    urgent: Sequence[Call] = ()
    """What Telegram waits for now: the answer to a pressed button or to a checkout."""
    expects: Mapping[UserId, Expected | None] = field(default_factory=dict)
    """What a person's next text will be; None: nothing any more. Who is not named stays as they are."""
    follows: Mapping[ProjectId, Followed | None] = field(default_factory=dict)
    """Projects to be followed from now on, or (None) no more."""
