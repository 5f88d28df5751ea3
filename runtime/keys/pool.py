"""The rules of one provider's keys: who may call which model with which key, and when. Pure: time is an argument.

What is handed out are *permits*: each allows one call of a model with a key. They go out in blocks: of one to a call
that waits, of many in advance to a process, while nobody waits and there is plenty. A permit takes its place in the
key's window from the moment it is given until it is reported; a call that was made keeps it for a minute more, counted
from the latest moment at which it can have arrived; one that was not made gives it back at once. So no limit can be
exceeded, whatever the processes, the network or the clocks of other machines do.

Where several users share a key, half of its minute goes to whoever comes first, and the other half evenly over time:
else the first seconds of every minute would take it all, by demand, and turns would decide nothing.

Every change is also a *note*, and notes make the same pool again: a pool that was killed knows what it knew.
"""

import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any

from runtime.catalogue.endpoints import no_provider
from runtime.entity.vitals import KeyPoolVitals
from runtime.errors import MasterbuilderError, OverloadedError, ProviderError, UnavailableError
from runtime.ids import UserId
from runtime.keys.keys import KeyLimits, KeyOutcome, ProviderKey, Wish
from runtime.keys.line import Line, Waiter
from runtime.keys.quotas import Quota
from runtime.keys.window import Window, used_percent

COOLDOWN_S_MIN = 0.05
COOLDOWN_S_MAX = 24 * 3600.0
WAITING_MAX = 50_000
SHARE = 4
"""A block takes at most one part in so many of what is left of a key, so that several processes can work."""
BLOCK_KEYS = 4
"""Keys that one request in advance is spread over."""
START = 8
"""Permits given in advance for a model whose limits nobody has told yet; more with every call that was answered."""
TTL_S = 1.0
TTL_UNLIMITED_S = 2.0
"""So long may a process go on with a key that was taken away."""
PATIENCE_S = 5.0
"""A call too large for what is free waits so long before a key is kept for it until it fits."""
SCAN_MAX = 64
"""Users that are passed over because their call is too large, before one that fits is no longer looked for."""
SWEEP_EVERY_S = 5.0

log = logging.getLogger(__name__)

Note = tuple[Any, ...]
Held = tuple[int, str, str, int, int, int, int, int]
"""A block as its process knows it: (id, key, model, permits, tokens each, over, tokens used, dropped)"""


@dataclass(slots=True, eq=False)
class Block:
    """Permits given together. `over`, `dropped`: calls that ended, and permits that were not used."""

    id: int
    session: str
    key_id: str
    model: str
    permits: int
    tokens_each: int
    expires_at: float
    """What is not reported by then is taken for over."""
    wish: int = 0
    """The waiting call it was given to; 0 for permits in advance."""
    ttl_s: float = 0.0
    is_roomy: bool = False
    """Nothing limits the tokens of its calls."""
    is_pressing: bool = False
    """Its end may make room at once for another."""
    over: int = 0
    tokens_over: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """A key as the pool sees it. `cooling_s` is the longest rest of a model, 0 for none."""

    key_id: str
    refused: bool
    cooling_s: float
    in_flight: int
    calls_last_minute: int
    tokens_last_minute: int
    used: int
    """Calls that were reported since the pool began."""
    expired: bool = False


@dataclass(slots=True, eq=False)
class _Key:
    key: ProviderKey
    index: int
    used: int
    is_refused: bool = False
    is_expired: bool = False

    @property
    def is_out(self) -> bool:
        return self.is_refused or self.is_expired


class Pool:
    """`call_s_max`: nobody is still calling so long after a permit's own time to live. `utc` is the clock of the dates
    at which keys expire."""

    def __init__(
        self,
        provider: str,
        *,
        cooldown_s: float,
        call_s_max: float,
        note: Callable[[Note], None] = lambda note: None,
        first_id: int = 1,
        utc: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.provider = provider
        self._cooldown_s = cooldown_s
        self._call_s_max = call_s_max
        self._note = note
        self._utc = utc
        self._ids = itertools.count(first_id)
        self._keys: dict[str, _Key] = {}
        self._order: Sequence[_Key] = ()
        self._expiring: list[_Key] = []
        """Those that will expire, the soonest last."""
        self._windows: dict[tuple[str, str], Window] = {}
        self._turns: dict[str, int] = {}
        self._blocks: dict[int, Block] = {}
        self._lines: dict[str, Line] = {}
        self._waiters: dict[tuple[str, int], Waiter] = {}
        self._waiting: Counter[str] = Counter()
        """Session -> calls of its that wait."""
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._kept: dict[str, tuple[Waiter, Window]] = {}
        self._still_until: dict[str, float] = {}
        """Model -> nothing can be given before, unless something is reported."""
        self._doubtful: set[str] = set()
        self._sweep_at = 0.0
        self._rest_until = 0.0

    # Keys

    def set_keys(self, keys: Iterable[ProviderKey]) -> None:
        """Makes these the keys. Those that were here keep their windows and rests; a refusal is forgotten, because
        somebody who changed keys may have mended it."""
        used = {key_id: key.used for key_id, key in self._keys.items()}
        self._order = [_Key(key, index, used.get(key.key_id, 0)) for index, key in enumerate(keys)]
        self._keys = {key.key.key_id: key for key in self._order}
        for (key_id, model), window in self._windows.items():
            if key_id in self._keys:
                window.quota = self._keys[key_id].key.quotas.of(model)
        self._expiring = sorted((key for key in self._order if key.key.expires_at), key=_expiry, reverse=True)
        self._doubtful.update(self._lines)
        self._still_until.clear()
        self._expire()

    def key(self, key_id: str) -> ProviderKey | None:
        known = self._keys.get(key_id)
        return known.key if known else None

    def rest(self, until: float) -> None:
        """Nothing is given on limited keys before: nobody knows what was used of them."""
        self._rest_until = until
        for (key_id, model), window in self._windows.items():
            self._rest(key_id, model, window)

    # Asking

    def ask(self, session: str, id: int, wish: Wish, wait_s: float, now: float) -> None:
        """Stands in line; `tick` says what came of it.

        Raises NoProviderError (no key), ProviderError (every key was refused), UnavailableError (none can be free in
        time, or the call is too large for every key), OverloadedError (too many wait).
        """
        if (session, id) in self._waiters:
            return
        self._expire()
        deadline = now + wait_s
        self._check_hope(wish.model, wish.tokens_max, deadline, now)
        if len(self._waiters) >= WAITING_MAX:
            raise OverloadedError(f"{WAITING_MAX} calls wait for a key of {self.provider} already.")
        waiter = Waiter(session, id, wish.model, wish.user, wish.priority, wish.tokens_max, now, deadline)
        self._waiters[session, id] = waiter
        self._waiting[session] += 1
        self._line(wish.model, now).add(waiter)
        heapq.heappush(self._deadlines, (deadline, next(self._ids), waiter))
        self._still_until.pop(wish.model, None)

    def used(self, model: str, user: UserId, calls: int, now: float) -> None:
        """Permits in advance went to this user's calls."""
        self._line(model, now).used(user, calls, now)
        self._note(("used", model, user, calls, now))

    def withdraw(self, session: str, id: int) -> None:
        waiter = self._waiters.get((session, id))
        if waiter is not None:
            self._drop(waiter)

    def take(self, session: str, model: str, permits: int, tokens_each: int, now: float) -> Sequence[Block]:
        """Up to so many permits in advance: none while anybody waits for the model, and never more than a share of
        what is left of a key."""
        self._expire()
        line = self._lines.get(model)
        if permits <= 0 or line:
            return ()
        is_shared = line is not None and line.is_shared
        usable: list[tuple[_Key, Window, int]] = []
        for key in self._by_turn(model):
            window = self._window(key, model)
            spare = 0 if is_shared and window.is_scarce(now) else self._spare(window, tokens_each, now)
            if spare:
                usable.append((key, window, spare))
                if len(usable) == min(BLOCK_KEYS, permits):
                    break
        if not usable:
            return ()
        each = ceil(permits / len(usable))
        return [
            self._give(session, key, window, model, min(each, spare), tokens_each, now) for key, window, spare in usable
        ]

    def tick(self, now: float) -> tuple[Sequence[Block], Sequence[tuple[Waiter, MasterbuilderError]]]:
        """(what is granted to those who wait, who is refused and why). To be called after anything was told, and at
        `next_change`."""
        if now >= self._sweep_at:
            self._sweep(now)
        self._expire()
        grants: list[Block] = []
        for model, line in self._lines.items():
            if line and self._still_until.get(model, 0.0) <= now:
                self._serve(model, line, now, grants)
        return grants, self._refuse(now)

    def next_change(self, now: float) -> float:
        """When `tick` may have something new though nobody told anything; infinite for never. What is not reported in
        time is looked for whenever `tick` is called."""
        change = self._deadlines[0][0] if self._deadlines else inf
        for model, line in self._lines.items():
            if line:
                change = min(change, self._still_until.get(model, now))
        if self._expiring and self._waiters:
            change = min(change, now + self._lasts_s(self._expiring[-1]))
        return change

    # Telling

    def returned(self, id: int, over: int, tokens: int, dropped: int, arrived_by: float) -> None:
        """Of a block, in all so far: calls that ended and the tokens they used, permits that were never used.

        `arrived_by` holds for those calls that are new. Repeating it, or an older one after it, changes nothing.
        """
        block = self._blocks.get(id)
        if block is None:
            return
        left = block.permits - block.over - block.dropped
        new_over = min(max(0, over - block.over), left)
        new_dropped = min(max(0, dropped - block.dropped), left - new_over)
        if not new_over and not new_dropped:
            return
        new_tokens = max(0, tokens - block.tokens_over)
        block.over += new_over
        block.tokens_over += new_tokens
        block.dropped += new_dropped
        self._note(("returned", id, over, tokens, dropped, arrived_by))
        window = self._windows.get((block.key_id, block.model))
        if window is not None:
            window.give_back(new_over + new_dropped, (new_over + new_dropped) * block.tokens_each)
            if new_over:
                window.count(new_over, new_tokens, arrived_by)
        if new_over and block.key_id in self._keys:
            self._keys[block.key_id].used += new_over
        if block.over + block.dropped >= block.permits:
            del self._blocks[id]
        self._still_until.pop(block.model, None)

    def told(self, key_id: str, model: str, outcome: KeyOutcome, now: float, age_s: float) -> None:
        """What the end of a call, `age_s` ago, says about its key."""
        key = self._keys.get(key_id)
        if key is None:
            return
        window = self._window(key, model)
        if outcome.limits is not None:
            self._learn(key_id, model, window, outcome.limits, now, age_s)
        if outcome.kind == "key_refused" and not key.is_refused:
            key.is_refused = True
            self._note(("refused", key_id))
            log.warning(
                "%s refuses the key %s: it is out of use until keys are imported or enabled", self.provider, key_id
            )
        elif outcome.kind == "rate_limited":
            asked = self._cooldown_s if outcome.retry_after_s is None else outcome.retry_after_s
            self._cool(key_id, model, window, now - age_s + min(max(asked, COOLDOWN_S_MIN), COOLDOWN_S_MAX))
        else:
            self._still_until.pop(model, None)
            return
        self._doubtful.update(self._lines if outcome.kind == "key_refused" else (model,))
        self._still_until.pop(model, None)

    def leave(self, session: str, now: float) -> None:
        """A process that is gone: its calls ended with it, at the latest now, and nobody waits for its others."""
        for block in [block for block in self._blocks.values() if block.session == session]:
            self._end(block, now)
        for waiter in [waiter for waiter in self._waiters.values() if waiter.session == session]:
            self._drop(waiter)

    def resume(self, was: str, session: str, held: Iterable[Held], now: float) -> None:
        """A process goes on under another name and says which blocks it still has. What it was given and does not have
        never reached it; what is not known here is taken in, with what it says was used of it."""
        held = list(held)
        ids = {each[0] for each in held}
        for block in [block for block in self._blocks.values() if block.session == was]:
            if block.id in ids:
                block.session = session
                self._note(("moved", block.id, session))
            else:
                self.returned(block.id, block.over, block.tokens_over, block.permits - block.over, now)
        for id, key_id, model, permits, tokens_each, over, tokens, dropped in held:
            key = self._keys.get(key_id)
            if id not in self._blocks and key is not None and permits > 0:
                expires_at = now + TTL_UNLIMITED_S + self._call_s_max
                block = Block(id, session, key_id, model, permits, tokens_each, expires_at)
                self._open(block, self._window(key, model))
                self.returned(id, over, tokens, dropped, now)
        for waiter in [waiter for waiter in self._waiters.values() if waiter.session == was]:
            self._drop(waiter)

    # Looking

    def vitals(self, now: float) -> KeyPoolVitals:
        self._expire()
        cooling = {key_id for (key_id, _), window in self._windows.items() if window.cool_until > now}
        out = [key_id for key_id, key in self._keys.items() if key.is_out]
        refused = tuple(key_id for key_id, key in self._keys.items() if key.is_refused)
        return KeyPoolVitals(
            provider=self.provider,
            keys=len(self._keys),
            cooling=len(cooling.intersection(self._keys).union(out)),
            waiting=len(self._waiters),
            refused=refused,
            used_percent=self._used_percent(now),
        )

    def _used_percent(self, now: float) -> int | None:
        """A model that some key was never asked for has room there."""
        usable = {key_id for key_id, key in self._keys.items() if not key.is_out}
        of_model: dict[str, list[Window]] = {}
        for (key_id, model), window in self._windows.items():
            if key_id in usable:
                window.room(now)
                of_model.setdefault(model, []).append(window)
        shares = [used_percent(windows) for windows in of_model.values() if len(windows) == len(usable)]
        return max((share for share in shares if share is not None), default=None)

    def states(self, now: float) -> Sequence[KeyState]:
        self._expire()
        states = []
        for key_id, key in self._keys.items():
            windows = [window for (of, _), window in self._windows.items() if of == key_id]
            for window in windows:
                window.room(now)
            states.append(
                KeyState(
                    key_id=key_id,
                    refused=key.is_refused,
                    cooling_s=max(
                        (window.cool_until - now for window in windows if window.cool_until > now), default=0.0
                    ),
                    in_flight=sum(window.open for window in windows),
                    calls_last_minute=sum(window.past for window in windows),
                    tokens_last_minute=sum(window.past_tokens for window in windows),
                    used=key.used,
                    expired=key.is_expired,
                )
            )
        return states

    def waits(self, session: str) -> bool:
        return self._waiting.get(session, 0) > 0

    @property
    def sessions(self) -> Collection[str]:
        """Those that hold permits or wait."""
        return {block.session for block in self._blocks.values()} | {session for session, _ in self._waiters}

    # Keeping

    def notes(self) -> Sequence[Note]:
        """What makes a pool like this one, but for those who wait."""
        notes: list[Note] = []
        for (key_id, model), window in self._windows.items():
            notes.append(("window", key_id, model, window.cool_until, *window.taught, window.slots()))
        for block in self._blocks.values():
            notes.append(_opened(block))
            if block.over or block.dropped:
                notes.append(("partly", block.id, block.over, block.tokens_over, block.dropped))
        notes.extend(("users", model, *line.usage()) for model, line in self._lines.items())
        notes.extend(("refused", key_id) for key_id, key in self._keys.items() if key.is_refused)
        return notes

    def replay(self, notes: Iterable[Note]) -> None:
        """After `set_keys`. Raises ValueError, TypeError or KeyError for notes that are none."""
        keep, self._note = self._note, lambda note: None
        try:
            for note in notes:
                self._again(note)
        finally:
            self._note = keep

    # Below: how it is done

    def _again(self, note: Note) -> None:
        match tuple(note):
            case ("opened", id, session, key_id, model, permits, tokens_each, expires_at):
                block = Block(id, session, key_id, model, permits, tokens_each, expires_at)
                self._blocks[id] = block
                self._window_of(key_id, model).take(permits, permits * tokens_each)
            case ("returned", id, over, tokens, dropped, arrived_by):
                self.returned(id, over, tokens, dropped, arrived_by)
            case ("partly", id, over, tokens, dropped):
                block = self._blocks[id]
                block.over, block.tokens_over, block.dropped = over, tokens, dropped
                back = over + dropped
                self._window_of(block.key_id, block.model).give_back(back, back * block.tokens_each)
            case ("moved", id, session):
                if id in self._blocks:
                    self._blocks[id].session = session
            case ("window", key_id, model, cool_until, requests_max, tokens_max, slots):
                window = self._window_of(key_id, model)
                window.cool_until, window.taught = cool_until, (requests_max, tokens_max)
                for free_at, requests, tokens in slots:
                    window.restore(free_at, requests, tokens)
            case ("cool", key_id, model, cool_until):
                self._window_of(key_id, model).cool_until = cool_until
            case ("taught", key_id, model, requests_max, tokens_max):
                self._window_of(key_id, model).taught = requests_max, tokens_max
            case ("used", model, user, calls, at):
                self.used(model, user, calls, at)
            case ("users", model, base, used):
                self._line(model, base).recall(base, used)
            case ("refused", key_id):
                if key_id in self._keys:
                    self._keys[key_id].is_refused = True
            case _:
                raise ValueError("a note of another kind")

    def _serve(self, model: str, line: Line, now: float, grants: list[Block]) -> None:
        while line:
            found = self._match(model, line, now)
            if found is None:
                is_paced = line.is_shared
                self._still_until[model] = min(
                    (each.next_change(now, is_paced=is_paced) for each in self._live(model)), default=inf
                )
                return
            waiter, key, window = found
            line.serve(waiter)
            self.used(model, waiter.user, 1, now)
            self._forget(waiter)
            block = self._give(waiter.session, key, window, model, 1, waiter.tokens, now)
            block.wish = waiter.id
            grants.append(block)

    def _match(self, model: str, line: Line, now: float) -> tuple[Waiter, _Key, Window] | None:
        """Whose turn it is, and with which key; None while there is none."""
        kept = self._kept_for(model, now)
        is_paced = line.is_shared
        free: list[tuple[_Key, Window, float]] = []
        for key in self._by_turn(model):
            window = self._window(key, model)
            requests, tokens = window.room(now)
            if requests < 1 or (is_paced and not window.is_due(now)):
                continue
            if kept is not None and window is kept[1]:
                if kept[0].tokens <= tokens:
                    del self._kept[model]
                    return kept[0], key, window
                continue
            if not free and kept is None and (first := next(line.by_turn())).tokens <= tokens:
                return first, key, window
            free.append((key, window, tokens))
        passed_over: Waiter | None = None
        for waiter in itertools.islice(line.by_turn() if free else (), SCAN_MAX):
            if kept is not None and waiter is kept[0]:
                continue
            if not any(waiter.tokens <= tokens for _, _, tokens in free):
                if passed_over is None and now - waiter.since >= PATIENCE_S:
                    passed_over = waiter
                continue
            if passed_over is not None and kept is None:
                kept = self._kept[model] = passed_over, self._soonest_window(model, passed_over.tokens, now)
                free = [each for each in free if each[1] is not kept[1]]
            for key, window, tokens in free:
                if waiter.tokens <= tokens:
                    return waiter, key, window
        return None

    def _soonest_window(self, model: str, tokens: int, now: float) -> Window:
        return min(self._live(model), key=lambda window: window.soonest(now, tokens))

    def _kept_for(self, model: str, now: float) -> tuple[Waiter, Window] | None:
        kept = self._kept.get(model)
        if kept is not None and (kept[0].is_gone or now < kept[1].cool_until or kept[1] not in self._live(model)):
            del self._kept[model]
            return None
        return kept

    def _live(self, model: str) -> Collection[Window]:
        return [self._window(key, model) for key in self._order if not key.is_out]

    def _by_turn(self, model: str) -> Iterable[_Key]:
        """Every usable key once, beginning after the one that was used last."""
        order = self._order
        first = self._turns.get(model, 0)
        for index in range(first, first + len(order)):
            key = order[index % len(order)]
            if not key.is_out:
                yield key

    def _spare(self, window: Window, tokens_each: int, now: float) -> int:
        requests, tokens = window.room(now)
        if tokens_each and tokens < inf:
            requests = min(requests, tokens // tokens_each)
        if requests == inf:
            return max(0, START + 2 * window.answered - window.open)
        return int(requests) // SHARE

    def _give(
        self, session: str, key: _Key, window: Window, model: str, permits: int, tokens_each: int, now: float
    ) -> Block:
        self._turns[model] = (key.index + 1) % len(self._order)
        ttl_s = min(TTL_S if window.is_limited else TTL_UNLIMITED_S, self._lasts_s(key))
        expires_at = now + ttl_s + self._call_s_max
        block = Block(next(self._ids), session, key.key.key_id, model, permits, tokens_each, expires_at)
        block.ttl_s, block.is_roomy = ttl_s, window.tokens_max is None
        block.is_pressing = window.quota.concurrency is not None
        self._open(block, window)
        window.pace(now, permits, permits * tokens_each)
        return block

    def _open(self, block: Block, window: Window) -> None:
        self._blocks[block.id] = block
        window.take(block.permits, block.permits * block.tokens_each)
        self._note(_opened(block))

    def _end(self, block: Block, now: float) -> None:
        """Whatever of it nobody reported is taken for over now, with all its tokens."""
        left = block.permits - block.over - block.dropped
        self.returned(block.id, block.over + left, block.tokens_over + left * block.tokens_each, block.dropped, now)

    def _refuse(self, now: float) -> Sequence[tuple[Waiter, MasterbuilderError]]:
        refusals: list[tuple[Waiter, MasterbuilderError]] = []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].is_gone):
            waiter = heapq.heappop(self._deadlines)[2]
            if not waiter.is_gone:
                self._drop(waiter)
                refusals.append((waiter, self._too_long(now, inf, now - waiter.since)))
        for model in self._doubtful.intersection(self._lines):
            windows = self._live(model)
            if min((window.cool_until for window in windows), default=inf) <= now:
                continue
            for waiter in self._lines[model].everyone():
                try:
                    self._check_hope(model, waiter.tokens, waiter.deadline, now)
                except MasterbuilderError as error:
                    self._drop(waiter)
                    refusals.append((waiter, error))
        self._doubtful.clear()
        return refusals

    def _check_hope(self, model: str, tokens: int, deadline: float, now: float) -> None:
        if not self._keys:
            raise no_provider(self.provider)
        soonest = inf
        for key in self._order:
            if not key.is_out:
                soonest = min(soonest, self._window(key, model).soonest(now, tokens))
                if soonest <= deadline:
                    return
        if all(key.is_out for key in self._order):
            raise self._no_usable_key()
        if soonest == inf:
            raise UnavailableError(
                f"The call may use {tokens:,} tokens, more than a key of {self.provider} may use in a minute.",
                "Ask for a shorter answer (max_tokens), send less, or raise the key's limit.",
            )
        raise self._too_long(now, soonest, deadline - now)

    def _no_usable_key(self) -> ProviderError:
        if expired := [key.key.key_id for key in self._order if key.is_expired]:
            return ProviderError(
                f"No key of {self.provider} can be used any more: {', '.join(expired)} expired.",
                f"Add a new one with `masterbuilder keys add {self.provider}`.",
            )
        return ProviderError(
            f"{self.provider} refuses every key it was given ({', '.join(self._keys)}).",
            f"Check the key in {self.provider}'s console, export the right one, and run `masterbuilder up`.",
        )

    def _expire(self) -> None:
        """Takes those keys out whose time is over."""
        while self._expiring and self._lasts_s(self._expiring[-1]) <= 0:
            key = self._expiring.pop()
            key.is_expired = True
            self._doubtful.update(self._lines)
            self._still_until.clear()
            log.warning("the key %s of %s has expired", key.key.key_id, self.provider)

    def _lasts_s(self, key: _Key) -> float:
        return (_expiry(key) - self._utc()).total_seconds() if key.key.expires_at else inf

    def _too_long(self, now: float, soonest: float, wait_s: float) -> UnavailableError:
        for_s = f" for another {soonest - now:.0f} s" if soonest < inf else ""
        return UnavailableError(
            f"Every key of {self.provider} is rate limited{for_s}, longer than the {wait_s:.0f} s a call may wait.",
            "Try again later, add another key, or choose another provider's model.",
        )

    def _cool(self, key_id: str, model: str, window: Window, until: float) -> None:
        if until > window.cool_until:
            window.cool_until = until
            self._note(("cool", key_id, model, until))

    def _learn(self, key_id: str, model: str, window: Window, said: KeyLimits, now: float, age_s: float) -> None:
        before, cool_until = window.taught, window.cool_until
        window.learn(said, now, age_s)
        if window.taught != before:
            self._note(("taught", key_id, model, *window.taught))
            self._doubtful.add(model)
        if window.cool_until != cool_until:
            self._note(("cool", key_id, model, window.cool_until))
            self._doubtful.add(model)

    def _forget(self, waiter: Waiter) -> None:
        del self._waiters[waiter.session, waiter.id]
        self._waiting[waiter.session] -= 1
        if not self._waiting[waiter.session]:
            del self._waiting[waiter.session]

    def _drop(self, waiter: Waiter) -> None:
        self._forget(waiter)
        self._lines[waiter.model].drop(waiter)
        if waiter.model in self._kept:
            self._still_until.pop(waiter.model, None)

    def _line(self, model: str, now: float) -> Line:
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = Line(now)
        return line

    def _window(self, key: _Key, model: str) -> Window:
        return self._windows.get((key.key.key_id, model)) or self._window_of(key.key.key_id, model)

    def _window_of(self, key_id: str, model: str) -> Window:
        window = self._windows.get((key_id, model))
        if window is None:
            key = self._keys.get(key_id)
            window = self._windows[key_id, model] = Window(key.key.quotas.of(model) if key else Quota())
            self._rest(key_id, model, window)
        return window

    def _rest(self, key_id: str, model: str, window: Window) -> None:
        if window.is_limited and window.cool_until < self._rest_until:
            window.cool_until = self._rest_until

    def _sweep(self, now: float) -> None:
        """Ends what was not reported in time, and forgets windows that nothing is known of."""
        self._sweep_at = now + SWEEP_EVERY_S
        for block in [block for block in self._blocks.values() if block.expires_at <= now]:
            self._end(block, now)
        for name, window in list(self._windows.items()):
            window.room(now)
            is_plain = window.cool_until <= now and window.taught == (None, None)
            if (is_plain or name[0] not in self._keys) and not (window.open or window.past):
                del self._windows[name]
        self._lines = {model: line for model, line in self._lines.items() if not line.forget(now)}
        models = {model for _, model in self._windows}
        self._turns = {model: turn for model, turn in self._turns.items() if model in models}
        if len(self._deadlines) > 2 * len(self._waiters) + 1_000:
            self._deadlines = [each for each in self._deadlines if not each[2].is_gone]
            heapq.heapify(self._deadlines)


def _opened(block: Block) -> Note:
    return (
        "opened", block.id, block.session, block.key_id, block.model, block.permits, block.tokens_each, block.expires_at
    )  # fmt: skip


def _expiry(key: _Key) -> datetime:
    assert key.key.expires_at is not None
    return key.key.expires_at
