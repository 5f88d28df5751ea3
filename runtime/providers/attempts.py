"""Carries one call through its route: credit, a key, the provider, and what to do about each way it can fail.

for each model of the route      hold its worst case, cut to what can be paid; under a provider's cap: the next model
  until something is served        lease a key, ask
    limited, or the key refused      the next key, as long as the call may wait
    an outage                        the next model; of the last one three more tries
    a broken reply, out of quota     the next model
    refused for what it asks         the end: no other model is asked
nothing served                   the holds are given back, every attempt's own error is told
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal, Self, TypeVar

from runtime.catalogue.model import Model
from runtime.config import Settings
from runtime.errors import (
    AllProvidersFailedError,
    DailyCapError,
    DoesNotFitError,
    MasterbuilderError,
    UnavailableError,
)
from runtime.ids import CallId
from runtime.keys.keys import KeyLeases, KeyLimits, KeyOutcome, Lease, Wish
from runtime.ledger.money import Tariff
from runtime.ledger.port import Credit, Hold, Meter
from runtime.providers.bounds import Bounds, Size, estimated_tokens
from runtime.providers.breaker import Breakers
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.order import CallOrder
from runtime.providers.usage import Usage
from runtime.providers.waiting import waiting

RETRIES_MAX = 3
REFUSALS_MAX = 20
"""Rate limits and refused keys one call puts up with at one model, however short the waits are."""
BACKOFF_S = 0.5
CUTS_MAX = 8
"""Tries at one hold: one for each thing that a call must fit under, and some for who comes in between."""
FAILOVER_WAIT_S = 2.0
"""How long an interactive call waits for a key of a model that is not the last of its route."""

Answer = TypeVar("Answer")
Ask = Callable[[Lease, "Served"], Awaitable[Answer]]
"""Sends one request: to the model, under the call id and with the answer's length that was held."""


class Attempts:
    def __init__(
        self,
        credit: Credit,
        keys: KeyLeases,
        breakers: Breakers,
        settings: Settings,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._credit = credit
        self._keys = keys
        self._breakers = breakers
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._metering: set[asyncio.Task[None]] = set()

    async def serve(
        self, order: CallOrder, route: Sequence[Model], size: Size, ask: Ask[Answer]
    ) -> tuple["Served", Answer]:
        """The first answer that a model of the route gives, and the call it is paid under, which must be entered.

        Raises what holding raises, before anything is sent; the one model's own error where the route has one, else
        AllProvidersFailedError.
        """
        failures: list[tuple[str, MasterbuilderError]] = []
        for number, model in enumerate(route):
            is_last = number == len(route) - 1
            if not is_last and not self._breakers.allows(model.provider):
                failures.append((model.id, UnavailableError(f"{model.provider} was failing a moment ago.")))
                continue
            call = order.call if number == 0 else CallId(f"{order.call}~{number + 1}")
            bounds = size.bounds(model)
            served = Served(self._credit, self._keys, self._metering, self._clock, order, call, model, bounds)
            try:
                await self._hold(served, is_last=is_last)
            except DailyCapError as capped:
                if capped.scope != "provider":
                    raise
                failures.append((model.id, capped))
                continue
            try:
                answer = await self._ask(served, ask, is_last=is_last)
            except UnavailableError as error:
                await served.close(error)
                failures.append((model.id, error))
            except BaseException as error:
                await served.close(error)
                raise
            else:
                served.heard()
                self._breakers.report(model.provider, True)
                return served, answer
        if len(failures) == 1 or all(isinstance(error, DailyCapError) for _, error in failures):
            raise failures.pop()[1]  # What is raised knows this frame, which must not know it.
        raise AllProvidersFailedError.of([(name, str(error)) for name, error in failures])

    async def close(self) -> None:
        """Waits for what is being metered."""
        await asyncio.gather(*self._metering, return_exceptions=True)

    async def _hold(self, served: "Served", *, is_last: bool) -> None:
        """Takes credit for the worst case, or, where that is not there, for as long an answer as it pays for.

        Nothing is held while the answer is cut, so who comes in between only makes it shorter. Raises what holding
        raises: also where another model of the route may answer in full.
        """
        for _ in range(CUTS_MAX):
            try:
                await self._credit.hold(served.hold())
            except (DoesNotFitError, DailyCapError) as refusal:
                is_of_provider = isinstance(refusal, DailyCapError) and refusal.scope == "provider"
                if (is_of_provider and not is_last) or not served.cut(refusal.left_ucredits, self._settings.tariff):
                    raise
            else:
                return
        await self._credit.hold(served.hold())

    async def _ask(self, served: "Served", ask: Ask[Answer], *, is_last: bool) -> Answer:
        """Asks one model until something was served, under one call id."""
        wait_s = self._settings.key_wait_seconds
        if not is_last and served.order.priority == "interactive":
            wait_s = min(wait_s, FAILOVER_WAIT_S)
        give_up_s = self._clock() + first_answer_s(self._settings)
        outages_max = RETRIES_MAX if is_last else 0
        outages = refusals = 0
        retry_in_s: float | None = None
        while refusals < REFUSALS_MAX and self._clock() < give_up_s:
            began_s = self._clock()
            with waiting(f"a free key of {served.model.provider}", retry_in_s):
                lease = await self._keys.lease(served.wish(), wait_s)
            wait_s = max(0.0, wait_s - (self._clock() - began_s))
            served.sent(lease)
            try:
                return await ask(lease, served)
            except RateLimitedError as limited:
                told = KeyOutcome(kind="rate_limited", retry_after_s=limited.retry_after_s, limits=limited.limits)
                served.failed(told)
                refusals, retry_in_s = refusals + 1, limited.retry_after_s
            except KeyRefusedError:
                served.failed(KeyOutcome(kind="key_refused"))
                refusals += 1
            except OutageError as outage:
                served.failed(KeyOutcome(kind="failed"))
                self._breakers.report(served.model.provider, False)
                outages += 1
                pause_s = max(BACKOFF_S * 2 ** (outages - 1), outage.retry_after_s or 0.0)
                if outages > outages_max or pause_s > self._settings.key_wait_seconds:
                    raise
                with waiting(f"{served.model.provider}, which does not answer", pause_s):
                    await self._sleep(pause_s)
            except MasterbuilderError as error:
                served.failed(KeyOutcome(kind="failed"), error.usage if isinstance(error, BrokenReplyError) else None)
                raise
        raise UnavailableError(
            f"{served.model.provider} went on turning the call away.", "Try again later, or add another key."
        )


class Served:
    """One held call until it is metered.

    As a context it decides what an end before that means:
        nothing in flight, or the provider failed    nothing is owed
        the client left after the first piece        an estimate of what was sent is charged, and flagged;
                                                     so is a whole answer whose provider tells no usage
        the client left before it                    an estimate is the platform's loss
    """

    def __init__(
        self,
        credit: Credit,
        keys: KeyLeases,
        metering: set[asyncio.Task[None]],
        clock: Callable[[], float],
        order: CallOrder,
        call: CallId,
        model: Model,
        bounds: Bounds,
    ) -> None:
        self.order = order
        self.call = call
        self.model = model
        self.usage: Usage | None = None
        """What the provider has said so far."""
        self.said_bytes = 0
        """Of text and tool calls, passed on to the client so far."""
        self.limits: KeyLimits | None = None
        self.is_cut = False
        """The answer may be shorter than was asked for, because no more could be paid."""
        self.is_left = False
        """The client took too long to read, which is as if it had left."""
        self._credit = credit
        self._keys = keys
        self._metering = metering
        self._clock = clock
        self._bounds = bounds
        self._lease: Lease | None = None
        self._key_id = ""
        self._sent_at = clock()
        self._heard_at: float | None = None
        self._wasted: Usage | None = None
        self._metered = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            await self.close(error)

    @property
    def answer_tokens_max(self) -> int:
        """What is held for each answer, and so the limit that the provider must be given."""
        return self._bounds.answer_tokens_max

    def cut(self, left_ucredits: int, tariff: Tariff) -> bool:
        """Shortens the answer to what so much pays for. False where that is too little; and of a step's call, which
        waits for credits instead: half of its answer is worth nothing."""
        cut = self._bounds.cut_to(left_ucredits, self.model.price, tariff) if self.order.run is None else None
        if cut is not None:
            self._bounds, self.is_cut = cut, True
        return cut is not None

    def hold(self) -> Hold:
        order = self.order
        return Hold(
            call=self.call,
            user=order.user,
            run=order.run,
            task_type=order.task_type,
            provider=self.model.provider,
            model=self.model.name,
            input_tokens_max=self._bounds.input_tokens_max,
            output_tokens_max=self._bounds.output_tokens_max,
            price=self.model.price,
            project=order.project,
            token_sha256=order.token_sha256,
            images=self._bounds.images,
        )

    def wish(self) -> Wish:
        return Wish(
            provider=self.model.provider,
            model=self.model.name,
            user=self.order.user,
            priority=self.order.priority,
            tokens_max=self._bounds.input_tokens_max + self._bounds.output_tokens_max,
        )

    def sent(self, lease: Lease) -> None:
        self._lease, self._key_id, self._sent_at = lease, lease.key_id, self._clock()

    def heard(self) -> None:
        """The provider has begun to answer, so it has the request."""
        self._heard_at = self._clock()

    def failed(self, outcome: KeyOutcome, wasted: Usage | None = None) -> None:
        """Nothing is in flight any more."""
        self._report(outcome)
        self._wasted = wasted

    async def meter(self, usage: Usage) -> None:
        """Once: what a provider says after its end changes nothing."""
        if self._metered:
            return
        tokens = usage.input_tokens + usage.output_tokens
        self._report(KeyOutcome(kind="ok", tokens=tokens, limits=self.limits, heard_s_ago=self._heard_s_ago()))
        await self._finish(usage)

    async def end(self, usage: Usage | None) -> None:
        """Of an answer that came whole: without a word of the provider an estimate of it is charged, and flagged."""
        await self.meter(usage if usage is not None else replace(self._estimate(), estimated=True))

    async def close(self, error: BaseException) -> None:
        """Ends a call that was not metered, for this reason."""
        if self._metered:
            return
        if self._lease is None:
            await self._finish(self._wasted, provider_failed=True)
            return
        ours = isinstance(error, MasterbuilderError) and not self.is_left
        kind: Literal["failed", "ok"] = "failed" if ours else "ok"
        self._report(KeyOutcome(kind=kind, limits=self.limits, heard_s_ago=self._heard_s_ago()))
        if isinstance(error, BrokenReplyError) and error.usage is not None:
            await self._finish(error.usage, provider_failed=True)
        else:
            # What a provider says before its end is where it stood then, so it only helps to estimate.
            left_early = not ours and not self.said_bytes
            await self._finish(self._estimate(), provider_failed=ours, unserved=left_early, estimated=True)

    def _estimate(self) -> Usage:
        said = Usage(input_tokens=self._bounds.input_tokens, output_tokens=estimated_tokens(self.said_bytes))
        if self.usage is None:
            return said
        return Usage(
            input_tokens=self.usage.input_tokens, output_tokens=max(self.usage.output_tokens, said.output_tokens)
        )

    def _heard_s_ago(self) -> float | None:
        return None if self._heard_at is None else self._clock() - self._heard_at

    def _report(self, outcome: KeyOutcome) -> None:
        if self._lease is not None:
            self._keys.report(self._lease, outcome)
            self._lease = None

    async def _finish(
        self, usage: Usage | None, *, provider_failed: bool = False, unserved: bool = False, estimated: bool = False
    ) -> None:
        """Goes through even when the caller is cancelled meanwhile."""
        self._metered = True
        meter = Meter(
            call=self.call,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            response_time_ms=round((self._clock() - self._sent_at) * 1000),
            key_id=self._key_id,
            provider_failed=provider_failed,
            estimated=estimated or (usage is not None and usage.estimated),
            unserved=unserved,
        )
        task = asyncio.ensure_future(self._credit.meter(meter))
        self._metering.add(task)
        task.add_done_callback(self._metering.discard)
        await asyncio.shield(task)


def first_answer_s(settings: Settings) -> float:
    """After this no new attempt is begun at one model."""
    return settings.key_wait_seconds + (RETRIES_MAX + 1) * settings.call_timeout_s
