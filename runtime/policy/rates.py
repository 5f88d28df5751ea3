"""How often somebody may ask. Source: spec/assistant.md §4.3(c), spec/builder.md §14, DESIGN §11."""

from collections import defaultdict, deque
from collections.abc import Callable

from runtime.accounts.roles import Role
from runtime.config import Settings
from runtime.errors import TooManyRequestsError
from runtime.session.messages import AdmitKind

WINDOW_S = 60.0


class Rates:
    """One person's last minute, whatever door they came through; for as long as the process lives."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._arrivals: dict[AdmitKind, deque[float]] = defaultdict(deque)

    def admit(self, kind: AdmitKind, role: Role) -> None:
        """Raises TooManyRequestsError where the minute before now is full; this one is not counted then."""
        limit, now_s, arrivals = self._limit(kind, role), self._clock(), self._arrivals[kind]
        while arrivals and arrivals[0] <= now_s - WINDOW_S:
            arrivals.popleft()
        if len(arrivals) >= limit:
            wait_s = arrivals[len(arrivals) - limit] + WINDOW_S - now_s
            raise TooManyRequestsError(
                f"You may send {limit} {kind}s a minute.", f"Try again in {max(1, round(wait_s))} s.",
                retry_after_s=wait_s,
            )  # fmt: skip
        arrivals.append(now_s)

    def _limit(self, kind: AdmitKind, role: Role) -> int:
        if kind == "message":
            return self._settings.messages_per_minute
        if role == "DEMO":
            return self._settings.rate_limit_per_minute
        return self._settings.rate_limit_full_per_minute
