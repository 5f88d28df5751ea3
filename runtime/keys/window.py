"""How much of a key's limits for one model is used up: a sliding window that counts as the provider may count.

A provider counts a call when it arrives, which only the provider sees. So a call counts from the moment it was allowed
until 60 s after the latest moment at which it can have arrived: whatever really happened lies within.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil, inf

from runtime.keys.keys import KeyLimits
from runtime.keys.quotas import Quota

WINDOW_S = 60.05
"""A minute, and what two clocks may differ by within one."""
STEP_S = 0.05
"""What leaves the window within one step leaves together, at its end: so a window holds some 1,200 figures at most."""
REMEMBER_S = 5.0
"""How old a provider's count may be to be compared with ours."""
PACE_S = 3.0
"""Where users share a key, what is free and what becomes free within so many seconds is spread over them."""
FREE_SHARE = 0.5
"""So much of a key is given without a pace: a burst after silence waits for nothing."""

Slot = tuple[float, int, int]
"""(when it is free, requests, tokens)"""
_NOTHING = (0.0, 0.0)


class Window:
    """Of one key and model. Times are of one monotonic clock, in seconds; `now` never goes back."""

    __slots__ = (
        "_due_at",
        "_foreign",
        "_gone",
        "_past",
        "_steps",
        "_taught",
        "answered",
        "cool_until",
        "open",
        "open_tokens",
        "past",
        "past_tokens",
        "quota",
    )

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.cool_until = 0.0
        self.open = 0
        """Permits out: their calls may arrive yet."""
        self.open_tokens = 0
        self.past = 0
        """Calls that are over and still count."""
        self.past_tokens = 0
        self.answered = 0
        self._due_at = 0.0
        self._past: dict[int, list[int]] = {}
        self._steps: list[int] = []
        self._gone: deque[Slot] = deque()
        self._taught: tuple[int | None, int | None] = (None, None)
        self._foreign = (0, 0, 0.0)
        """(requests, tokens) that somebody else used of this key, until when."""

    @property
    def requests_max(self) -> int | None:
        return _least(self.quota.requests_per_minute, self._taught[0])

    @property
    def tokens_max(self) -> int | None:
        return _least(self.quota.tokens_per_minute, self._taught[1])

    @property
    def is_limited(self) -> bool:
        return not (self.requests_max is None and self.tokens_max is None and self.quota.concurrency is None)

    def take(self, requests: int, tokens: int) -> None:
        self.open += requests
        self.open_tokens += tokens

    def give_back(self, requests: int, tokens: int) -> None:
        """Of permits whose calls never left us, or were counted by `count`."""
        self.open -= requests
        self.open_tokens -= tokens

    def count(self, requests: int, tokens: int, arrived_by: float) -> None:
        """Calls that arrived by then, and what they used. Their permits are given back beside this."""
        self.answered += requests
        self.restore(arrived_by + WINDOW_S, requests, tokens)

    def restore(self, free_at: float, requests: int, tokens: int) -> None:
        step = ceil(free_at / STEP_S)
        slot = self._past.get(step)
        if slot is None:
            self._past[step] = [requests, tokens]
            heapq.heappush(self._steps, step)
        else:
            slot[0] += requests
            slot[1] += tokens
        self.past += requests
        self.past_tokens += tokens

    def slots(self) -> Sequence[Slot]:
        """What still counts, for `restore`."""
        return [(step * STEP_S, requests, tokens) for step, (requests, tokens) in self._past.items()]

    def room(self, now: float) -> tuple[float, float]:
        """(requests, tokens) that may be made and used at once; infinite without limits, (0, 0) for nothing at all."""
        if now < self.cool_until:
            return _NOTHING
        self._forget(now)
        foreign, foreign_tokens, until = self._foreign
        if now >= until:
            foreign = foreign_tokens = 0
        requests: float = inf
        if (requests_max := self.requests_max) is not None:
            requests = requests_max - self.open - self.past - foreign
        if self.quota.concurrency is not None:
            requests = min(requests, self.quota.concurrency - self.open)
        tokens: float = inf
        if (tokens_max := self.tokens_max) is not None:
            tokens = tokens_max - self.open_tokens - self.past_tokens - foreign_tokens
        return (requests, tokens) if requests > 0 and tokens > 0 else _NOTHING

    def is_due(self, now: float) -> bool:
        return now >= self._due_at or not self.is_scarce(now)

    def is_scarce(self, now: float) -> bool:
        """More than `FREE_SHARE` of a limit is used up."""
        self._forget(now)
        return _is_above(self.open + self.past, self.requests_max) or _is_above(
            self.open_tokens + self.past_tokens, self.tokens_max
        )

    def pace(self, now: float, requests: int, tokens: int) -> None:
        """So much was just taken. The next is due when an even use of the coming seconds has come that far: else the
        first seconds of a minute would take it all, and so those of every minute after it."""
        room, room_tokens = self.room(now)
        soon = soon_tokens = 0
        last = (now + PACE_S) / STEP_S
        for step, (of_requests, of_tokens) in self._past.items():
            if step <= last:
                soon += of_requests
                soon_tokens += of_tokens
        part = max(requests / max(room + soon, requests), tokens / max(room_tokens + soon_tokens, tokens, 1))
        self._due_at = now + PACE_S * part

    def soonest(self, now: float, tokens: int) -> float:
        """No call of so many tokens can be made before: even if every permit came back unused. Infinite for never."""
        requests_max, tokens_max = self.requests_max, self.tokens_max
        if tokens_max is not None and tokens > tokens_max:
            return inf
        self._forget(now)
        over = self.past + 1 - requests_max if requests_max is not None else 0
        over_tokens = self.past_tokens + tokens - tokens_max if tokens_max is not None else 0
        at = max(now, self.cool_until)
        if not self._steps or (over <= 0 and over_tokens <= 0):
            return at
        first = self._past[self._steps[0]]
        is_first_enough = over <= first[0] and over_tokens <= first[1]
        for step in self._steps[:1] if is_first_enough else sorted(self._steps):
            over -= self._past[step][0]
            over_tokens -= self._past[step][1]
            if over <= 0 and over_tokens <= 0:
                return max(at, step * STEP_S)
        return at

    def next_change(self, now: float, *, is_paced: bool) -> float:
        """When there may be more room though nobody reports anything."""
        if now < self.cool_until:
            return self.cool_until
        if is_paced and not self.is_due(now) and self.room(now) != _NOTHING:
            return self._due_at
        self._forget(now)
        change = self._steps[0] * STEP_S if self._steps else inf
        foreign, foreign_tokens, until = self._foreign
        return min(change, until) if (foreign or foreign_tokens) and now < until else change

    def learn(self, said: KeyLimits, now: float, age_s: float) -> None:
        """What the provider's headers said `age_s` ago. The stricter of its limits and the operator's holds.

        Where it counted more than we can have used, somebody else uses the key, and that much is left alone until the
        count starts again. Where it says that nothing is left for longer than a minute - a day's limit, for instance -
        the model rests until then.
        """
        requests_max, tokens_max = self._taught
        if said.requests_per_minute is not None and said.requests_per_minute > 0:
            requests_max = said.requests_per_minute
        if said.tokens_per_minute is not None and said.tokens_per_minute > 0:
            tokens_max = said.tokens_per_minute
        self._taught = requests_max, tokens_max
        if age_s > REMEMBER_S:
            return
        for left, reset_s in ((said.requests_left, said.requests_reset_s), (said.tokens_left, said.tokens_reset_s)):
            if left == 0 and reset_s is not None and reset_s > WINDOW_S:
                self.cool_until = max(self.cool_until, now - age_s + reset_s)
        self._forget(now)
        gone = [slot for slot in self._gone if slot[0] >= now - age_s]
        ours = self.open + self.past + sum(slot[1] for slot in gone)
        ours_tokens = self.open_tokens + self.past_tokens + sum(slot[2] for slot in gone)
        foreign = _above(said.requests_per_minute, said.requests_left, ours)
        foreign_tokens = _above(said.tokens_per_minute, said.tokens_left, ours_tokens)
        resets = [reset for reset in (said.requests_reset_s, said.tokens_reset_s) if reset is not None]
        self._foreign = (foreign, foreign_tokens, now - age_s + min(max(resets, default=WINDOW_S), WINDOW_S))

    @property
    def taught(self) -> tuple[int | None, int | None]:
        return self._taught

    @taught.setter
    def taught(self, taught: Iterable[int | None]) -> None:
        requests_max, tokens_max = taught
        self._taught = requests_max, tokens_max

    def _forget(self, now: float) -> None:
        steps = self._steps
        while steps and steps[0] * STEP_S <= now:
            step = heapq.heappop(steps)
            requests, tokens = self._past.pop(step)
            self.past -= requests
            self.past_tokens -= tokens
            self._gone.append((step * STEP_S, requests, tokens))
        while self._gone and self._gone[0][0] < now - REMEMBER_S:
            self._gone.popleft()


def _is_above(used: int, limit: int | None) -> bool:
    return limit is not None and used > FREE_SHARE * limit


def used_percent(windows: Sequence[Window]) -> int | None:
    """How much of what these may do together is used, of requests or tokens, whichever is more; None without a limit.
    Where one has no limit, nothing is used up. `room` was asked of each at this moment."""
    requests = sum(each.open + each.past for each in windows)
    tokens = sum(each.open_tokens + each.past_tokens for each in windows)
    shares = [
        _share_percent(requests, [each.requests_max for each in windows]),
        _share_percent(tokens, [each.tokens_max for each in windows]),
    ]
    return max((share for share in shares if share is not None), default=None)


def _share_percent(used: int, limits: Sequence[int | None]) -> int | None:
    most = sum(limit for limit in limits if limit is not None)
    return None if None in limits or not most else 100 * used // most


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _above(limit: int | None, left: int | None, ours: int) -> int:
    """How much more was counted there than here."""
    return 0 if limit is None or left is None else max(0, limit - left - ours)
