"""What one chat remembers, as a pure fold of its events."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from runtime.entity.journal import EventRecord
from runtime.ids import ProjectId, UserId
from runtime.telegram.calls import Call

DONE_KEPT = 200
"""Numbers of updates that were answered: Telegram repeats what it is not sure of, seldom after many others."""
MARKS_KEPT = 50
ANNOUNCED_KEPT = 100
GROUP_A_MINUTE = 14
"""Messages in a group; Telegram allows 20, and edits count too."""


AT_ONCE = -1.0
"""Until when an update waits for a lower one, that is answered before those that wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the next text of a person is: `description`, `change`, `reject`, `feedback`, `offer` (a text that was not
    asked for and may become a description or a change)."""

    what: str
    project: ProjectId = ProjectId("")
    about: str = ""
    """As `ProjectView.asks` names it; of an offer, the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A project whose progress is told here. `seq` is the last event that was told or needed no word."""

    owner: UserId
    seq: int = 0
    thread: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatState:
    inbox: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Update number -> the update, who sent it, and until when it waits for a lower one; until it is answered."""
    whole_to: int = 0
    """No update of this chat up to this number is missing, by what the door knew when the last one came."""
    done: tuple[int, ...] = ()
    outbox: Mapping[int, Call] = field(default_factory=dict)
    """By the order in which they are to be sent."""
    numbered: int = 0
    """The next call's number. The first is its moment in milliseconds: a chat that begins anew after its erasure
    numbers no call as one of before, which the bot would take it for."""
    expects: Mapping[UserId, Expected] = field(default_factory=dict)
    follows: Mapping[ProjectId, Followed] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    """What a message is known as -> its number at Telegram."""
    announced: tuple[str, ...] = ()
    """Keys of what was announced here, so that it is said once."""
    sent_at_s: tuple[float, ...] = ()
    """Unix seconds of the last calls that Telegram took, of a group: its limit outlives the process that keeps it."""
    blocked: bool = False
    """Nothing arrives: the person blocked the bot. What was to be sent waits, and projects are told on afterwards."""

    @property
    def open(self) -> bool:
        return bool(self.inbox) or (not self.blocked and bool(self.outbox or self.follows))

    @property
    def next_received(self) -> tuple[int, Mapping[str, Any]]:
        """In the order of the numbers, but first what cannot wait. Only where there is one."""
        number = min(self.inbox, key=lambda each: (self.inbox[each]["due_s"] != AT_ONCE, each))
        return number, self.inbox[number]

    def early_s(self, number: int, now_s: float) -> float:
        """How long it waits yet for a lower number."""
        return max(0.0, float(self.inbox[number]["due_s"]) - now_s) if number > self.whole_to else 0.0

    def waits_s(self, now_s: float) -> float:
        """How long a group must wait for its next message."""
        is_full = len(self.sent_at_s) >= GROUP_A_MINUTE
        return max(0.0, self.sent_at_s[0] + 60.0 - now_s) if is_full else 0.0

    def has(self, update_id: int) -> bool:
        return update_id in self.inbox or update_id in self.done

    def after(self, event: EventRecord) -> "ChatState":
        data = event.data
        match event.type:
            case "chat.received":
                received = {"update": data["update"], "user": data["user"], "due_s": data.get("due_s", 0.0)}
                inbox = {**self.inbox, data["update_id"]: received}
                return replace(self, inbox=inbox, whole_to=data.get("whole_to", 0))
            case "chat.handled":
                number = data["update_id"]
                if number not in self.inbox:
                    return self
                seen = replace(
                    self,
                    inbox={each: received for each, received in self.inbox.items() if each != number},
                    done=(*self.done, number)[-DONE_KEPT:],
                )
                return seen._with_calls(data)._expecting(data)._following(data)
            case "chat.told":
                if self.blocked and not set(data["follows"]) <= set(self.follows):
                    return self
                return self._with_calls(data, keeps=True)._following(data)
            case "chat.announced":
                said = (*self.announced, data["key"])[-ANNOUNCED_KEPT:]
                return replace(self, announced=said)._with_calls(data)
            case "chat.sent":
                marks = self.marks
                if data.get("mark"):
                    marks = dict([*self.marks.items(), (data["mark"], data["message"])][-MARKS_KEPT:])
                sent = (*self.sent_at_s, event.at.timestamp())[-GROUP_A_MINUTE:] if data.get("in_group") else ()
                return replace(self, outbox=_without(self.outbox, data["n"]), marks=marks, sent_at_s=sent)
            case "chat.dropped":
                return replace(self, outbox=_without(self.outbox, data["n"]))
            case "chat.blocked":
                return replace(self, blocked=True)
            case "chat.left":
                done = (*self.done, *self.inbox)[-DONE_KEPT:]
                return ChatState(done=done, numbered=self.numbered, blocked=True)
            case "chat.unblocked":
                return replace(self, blocked=False)
            case _:
                return self

    def frozen(self) -> dict[str, Any]:
        return {
            "inbox": [[number, received] for number, received in self.inbox.items()],
            "whole_to": self.whole_to,
            "done": list(self.done),
            "outbox": [[n, call.frozen()] for n, call in self.outbox.items()],
            "numbered": self.numbered,
            "expects": {user: asdict(expected) for user, expected in self.expects.items()},
            "follows": {project: asdict(followed) for project, followed in self.follows.items()},
            "marks": dict(self.marks),
            "announced": list(self.announced),
            "sent_at_s": list(self.sent_at_s),
            "blocked": self.blocked,
        }

    @classmethod
    def thawed(cls, data: Mapping[str, Any]) -> "ChatState":
        return cls(
            inbox=dict(data["inbox"]),
            whole_to=data.get("whole_to", 0),
            done=tuple(data["done"]),
            outbox={n: Call.thawed(call) for n, call in data["outbox"]},
            numbered=data["numbered"],
            expects={UserId(user): Expected(**expected) for user, expected in data["expects"].items()},
            follows={ProjectId(project): Followed(**followed) for project, followed in data["follows"].items()},
            marks=data["marks"],
            announced=tuple(data["announced"]),
            sent_at_s=tuple(data["sent_at_s"]),
            blocked=data["blocked"],
        )

    def _with_calls(self, data: Mapping[str, Any], *, keeps: bool = False) -> "ChatState":
        """`keeps`: also for who blocked the bot."""
        if self.blocked and not keeps:
            return self
        calls, first = data["calls"], self.numbered or data.get("first", 0)
        added = {first + n: Call.thawed(call) for n, call in enumerate(calls)}
        return replace(self, outbox={**self.outbox, **added}, numbered=first + len(calls))

    def _expecting(self, data: Mapping[str, Any]) -> "ChatState":
        expects = dict(self.expects)
        for user, expected in data.get("expects", {}).items():
            expects.pop(user, None)
            if expected is not None:
                expects[UserId(user)] = Expected(**expected)
        return replace(self, expects=expects)

    def _following(self, data: Mapping[str, Any]) -> "ChatState":
        follows = dict(self.follows)
        for project, followed in data.get("follows", {}).items():
            if followed is None:
                follows.pop(project, None)
            else:
                follows[ProjectId(project)] = Followed(**followed)
        return replace(self, follows=follows)


def _without(outbox: Mapping[int, Call], n: int) -> Mapping[int, Call]:
    return {each: call for each, call in outbox.items() if each != n}
