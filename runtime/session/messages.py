"""What may be said to a person's session, and what it says about itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from runtime.accounts.roles import Role
from runtime.ids import ProjectId, UserId
from runtime.project.messages import Status

MODES = ("auto", "eco", "smart", "deep")
"""Source: spec/assistant.md §3.1, §19.1."""
AdmitKind = Literal["request", "message"]


class Conversation(StrEnum):
    """Source: spec/builder.md §3.1."""

    INITIALIZING = "INITIALIZING"
    GATHERING_REQUIREMENTS = "GATHERING_REQUIREMENTS"
    CLARIFYING_DETAILS = "CLARIFYING_DETAILS"
    CONFIRMING_SCOPE = "CONFIRMING_SCOPE"
    PLANNING = "PLANNING"
    IMPLEMENTING_VERIFYING = "IMPLEMENTING_VERIFYING"
    FINALIZING = "FINALIZING"
    DELIVERY = "DELIVERY"


_CONVERSATIONS = {
    Status.GATHERING_REQUIREMENTS: Conversation.GATHERING_REQUIREMENTS,
    Status.CLARIFYING: Conversation.CLARIFYING_DETAILS,
    Status.CONFIRMING_SCOPE: Conversation.CONFIRMING_SCOPE,
    Status.PLANNING: Conversation.PLANNING,
    Status.README_GENERATION: Conversation.FINALIZING,
    Status.PACKAGING: Conversation.FINALIZING,
    Status.DELIVERING: Conversation.DELIVERY,
}


def conversation_of(status: Status | None) -> Conversation:
    """With an open project of that status; None: without one. What is paused or waits for a yes is at work.

    Source: spec/builder.md §3.2.
    """
    if status is None:
        return Conversation.GATHERING_REQUIREMENTS
    return _CONVERSATIONS.get(status, Conversation.IMPLEMENTING_VERIFYING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Counts a request at an HTTP door, or a message in a chat, of somebody who has this role now.

    Answers None, or raises TooManyRequestsError: then it is not counted.
    """

    kind: AdmitKind
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
    """What is None stays as it is; an empty language or provider is chosen for the user. Answers a SessionView.

    Raises InvalidValueError.
    """

    key: str
    language: str | None = None
    """`en`, `pl`, `ru`, or empty."""
    default_mode: str | None = None
    """`auto`, `eco`, `smart` or `deep`."""
    provider: str | None = None
    """A provider's name or alias, or empty, `auto`, `reset`, `default` for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeSession:
    """Answers a SessionView. Read-only; answered at once beside running work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    user: UserId
    language: str
    """Empty: nothing was chosen."""
    default_mode: str
    provider: str
    """Canonical; empty: nothing was chosen."""
    conversation: Conversation
    project: ProjectId | None
    """The newest that is open, which the conversation is about."""
    purge_days: int | None
