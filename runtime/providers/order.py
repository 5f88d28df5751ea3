"""Who asks which model for what."""

from dataclasses import dataclass

from runtime.ids import CallId, ProjectId, RunId, UserId
from runtime.keys.keys import Priority
from runtime.ledger.port import Role, TaskType


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOrder:
    """`call` makes hold and meter safe to repeat; `run` is None outside a step.

    `model` is `provider/model` or a profile. The second entry of a route is tried as `<call>~2`, and so on.
    """

    call: CallId
    user: UserId
    task_type: TaskType
    model: str
    run: RunId | None = None
    project: ProjectId | None = None
    """Of a call without a run: under whose ceiling it is made."""
    token_sha256: str = ""
    """Of a call without a run: the token it is made with."""
    allowed: tuple[str, ...] = ()
    """The models the token may use; empty for all."""
    role: Role = "FULL_ACCESS"
    priority: Priority = "interactive"
