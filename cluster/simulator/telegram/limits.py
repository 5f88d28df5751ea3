"""What Telegram limits: how often a bot sends or edits, counted over sliding windows.

Source: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.simulator.telegram.refusal import too_many_requests

COUNTED = frozenset({
    "sendMessage", "sendMessageDraft", "sendDocument", "sendPhoto", "sendInvoice", "editMessageText",
    "editMessageReplyMarkup",
})  # fmt: skip
Rule = Literal["overall", "chat", "group"]
_WINDOWS_S: dict[Rule, float] = {"overall": 1.0, "chat": 1.0, "group": 60.0}


class LimitSetup(BaseModel):
    """Calls in a window: a second overall and by chat, a minute by group. `enforced`: an excess is answered with 429,
    and is not carried out or counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overall: int = Field(default=30, ge=1)
    chat: int = Field(default=1, ge=1)
    group: int = Field(default=20, ge=1)
    enforced: bool = False


class Excess(BaseModel):
    """A call too many. `spare_s`: how much later it would have fitted; hundredths are the network's doing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Rule
    method: str
    chat_id: int
    at_s: float
    in_window: int
    """With this call."""
    spare_s: float


class Limits:
    """`clock` counts seconds from anywhere."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.setup = LimitSetup()
        self.excesses: list[Excess] = []
        self.counted = 0
        self._times: dict[tuple[Rule, int], deque[float]] = {}

    def note(self, method: str, chat_id: int | None) -> None:
        """Counts the call. Raises TelegramRefusal where it is too many and limits are enforced."""
        if chat_id is None or method not in COUNTED:
            return
        now_s = self._clock()
        windows = self._windows(chat_id)
        found = [self._excess(rule, key, method, chat_id, now_s) for rule, key in windows]
        excesses = [excess for excess in found if excess is not None]
        self.excesses += excesses
        if excesses and self.setup.enforced:
            raise too_many_requests(max(1, math.ceil(max(excess.spare_s for excess in excesses))))
        self.counted += 1
        for window in windows:
            self._times[window].append(now_s)

    def reset(self) -> None:
        """Forgets what was counted, not how."""
        self.excesses.clear()
        self._times.clear()
        self.counted = 0

    def _windows(self, chat_id: int) -> list[tuple[Rule, int]]:
        windows: list[tuple[Rule, int]] = [("overall", 0), ("chat", chat_id)]
        return [*windows, ("group", chat_id)] if chat_id < 0 else windows

    def _excess(self, rule: Rule, key: int, method: str, chat_id: int, now_s: float) -> Excess | None:
        times = self._times.setdefault((rule, key), deque())
        window_s, most = _WINDOWS_S[rule], getattr(self.setup, rule)
        while times and times[0] <= now_s - window_s:
            times.popleft()
        if len(times) < most:
            return None
        spare_s = times[len(times) - most] + window_s - now_s
        return Excess(
            rule=rule, method=method, chat_id=chat_id, at_s=now_s, in_window=len(times) + 1, spare_s=spare_s
        )  # fmt: skip
