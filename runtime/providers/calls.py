"""The one place where a paid call is made: priced, held, leased a key, made, metered - in this order.

No reply is handed over before its usage is with the ledger. A call that served nothing gives its hold back. A call
that was cut off while the provider worked keeps its hold: nobody knows what it used, no guess is ever charged, and
the ledger's sweep books it as the platform's loss.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from runtime.config import Settings
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.ids import CallId, RunId, UserId
from runtime.ledger.port import Hold, Ledger, Meter, TaskType
from runtime.providers.catalogue import Catalogue, Model
from runtime.providers.endpoints import SERVICES
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.json_reply import JsonQuestion, RejectedReplyError
from runtime.providers.keys import KeyLeases, KeyOutcome, Lease
from runtime.providers.openai_compatible import Adapter, OpenAICompatible, Part
from runtime.providers.request import ChatRequest, chat_request
from runtime.providers.usage import Usage
from runtime.providers.wire import DONE, event

RETRIES_MAX = 3
REFUSALS_MAX = 20
"""Rate limits and refused keys one call puts up with, however short the waits are."""
BACKOFF_S = 0.5
STREAM_TIMEOUTS_MAX = 5
"""The longest stream, in call time-outs: a provider that drips for ever is cut off."""

Answer = TypeVar("Answer")
Parsed = TypeVar("Parsed", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOrder:
    """Who asks which model for what. `call` makes hold and meter safe to repeat; `run` is None outside a step."""

    call: CallId
    user: UserId
    run: RunId | None
    task_type: TaskType
    provider: str
    model: str


def longest_call_s(settings: Settings) -> float:
    """No call is under way longer than this after its hold, so a hold that is older may be swept."""
    last_attempt_s = settings.key_wait_seconds + 2 * settings.call_timeout_s
    return _first_answer_s(settings) + last_attempt_s + (STREAM_TIMEOUTS_MAX + 1) * settings.call_timeout_s


class ModelCalls:
    """Makes model calls and sees that they are paid for."""

    def __init__(
        self,
        ledger: Ledger,
        keys: KeyLeases,
        catalogue: Catalogue,
        settings: Settings,
        *,
        adapter: Adapter | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.catalogue = catalogue
        self._ledger = ledger
        self._keys = keys
        self._settings = settings
        self._adapter = adapter or OpenAICompatible(timeout_s=settings.call_timeout_s)
        self._clock = clock
        self._sleep = sleep
        self._metering: set[asyncio.Task[None]] = set()

    async def complete(self, order: CallOrder, body: Mapping[str, Any]) -> dict[str, Any]:
        """The provider's whole reply, metered.

        Raises before anything is sent: UnpricedModelError, BadInputError, NotEnoughCreditsError, CeilingReachedError,
        ConflictError (run closed), NoProviderError. After: ProviderError; UnavailableError where every key stays
        limited for longer than KEY_WAIT_SECONDS. Nothing is charged then.
        """
        request, call = await self._open(order, body)

        async def ask(lease: Lease) -> Any:
            return await self._adapter.complete(lease, order.call, request.body)

        async with call:
            completion = await self._answer(call, ask)
            await call.meter(completion.usage)
        reply: dict[str, Any] = completion.body
        return reply

    async def stream(self, order: CallOrder, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The reply as OpenAI's server-sent events, `[DONE]` last, which is sent after the call was metered.

        Raises like `complete` before the first event. After it, raises ProviderError where the provider breaks off;
        what is known to have been used is metered then. Close it early and the provider's stream is closed too.
        """
        request, call = await self._open(order, body)

        async def begin(lease: Lease) -> tuple[AsyncGenerator[Part, None], Part]:
            parts = self._adapter.stream(lease, order.call, request.body)
            first = await anext(parts, None)
            if first is None:
                raise OutageError(f"{order.provider} sent an empty stream.", "Try again in a moment.")
            return parts, first

        async with call:
            parts, first = await self._answer(call, begin)
            closing = b""
            async with aclosing(parts):
                end_s = self._clock() + STREAM_TIMEOUTS_MAX * self._settings.call_timeout_s
                part: Part | None = first
                while part is not None:
                    call.usage = part.usage or call.usage
                    if part.only_usage:
                        closing = event(part.chunk) if request.wants_usage else b""
                    else:
                        yield event(part.chunk if request.wants_usage else _without_usage(part.chunk))
                    if self._clock() > end_s:
                        raise OutageError("The reply did not come to an end in time.", "Ask for a shorter one.")
                    part = await anext(parts, None)
            if call.usage is None:
                raise OutageError(f"{order.provider} did not say how many tokens it used.", "Choose another model.")
            await call.meter(call.usage)
            yield closing + DONE

    async def ask_json(
        self, order: CallOrder, *, system: str, user: str, schema: type[Parsed], max_output_tokens: int
    ) -> Parsed:
        """One question, answered in the schema's shape.

        A reply that does not fit is shown to the model once with what is wrong (call id `<call>/2`).
        Raises like `complete`, and ReplyRejectedError where the second reply does not fit either.
        """
        question = JsonQuestion(
            system=system,
            user=user,
            schema=schema,
            max_output_tokens=max_output_tokens,
            json_mode=SERVICES[self.catalogue.model(order.provider, order.model).provider].json_mode,
        )
        first = await self.complete(order, question.body())
        try:
            return question.parse(first)
        except RejectedReplyError as rejected:
            again = question.body_again(rejected)
        second = await self.complete(replace(order, call=CallId(f"{order.call}/2")), again)
        try:
            return question.parse(second)
        except RejectedReplyError as rejected:
            raise rejected.final() from None

    async def close(self) -> None:
        """Waits for what is being metered."""
        await asyncio.gather(*self._metering, return_exceptions=True)
        await self._adapter.close()

    async def _open(self, order: CallOrder, body: Mapping[str, Any]) -> tuple[ChatRequest, "_Call"]:
        model = self.catalogue.model(order.provider, order.model)
        request = chat_request(dict(body), model)
        await self._ledger.hold(_hold(order, model, request))
        return request, _Call(self._ledger, order, self._clock, self._metering)

    async def _answer(self, call: "_Call", ask: Callable[[Lease], Awaitable[Answer]]) -> Answer:
        """Asks until something was served, under one call id."""
        wait_s = self._settings.key_wait_seconds
        give_up_s = self._clock() + _first_answer_s(self._settings)
        outages = refusals = 0
        while refusals < REFUSALS_MAX and self._clock() < give_up_s:
            began_s = self._clock()
            lease = await self._keys.lease(call.order.provider, wait_s)
            wait_s = max(0.0, wait_s - (self._clock() - began_s))
            call.sent(lease)
            try:
                answer = await ask(lease)
            except RateLimitedError as limited:
                call.failed()
                refusals += 1
                await self._report(lease, KeyOutcome(kind="rate_limited", retry_after_s=limited.retry_after_s))
            except KeyRefusedError:
                call.failed()
                refusals += 1
                await self._report(lease, KeyOutcome(kind="key_refused"))
            except OutageError as outage:
                call.failed()
                outages += 1
                await self._report(lease, KeyOutcome(kind="failed"))
                pause_s = max(BACKOFF_S * 2 ** (outages - 1), outage.retry_after_s or 0.0)
                if outages > RETRIES_MAX or pause_s > self._settings.key_wait_seconds:
                    raise
                await self._sleep(pause_s)
            except Exception as error:
                call.failed(error.usage if isinstance(error, BrokenReplyError) else None)
                await self._report(lease, KeyOutcome(kind="failed"))
                raise
            else:
                await self._report(lease, KeyOutcome(kind="ok"))
                return answer
        raise UnavailableError(
            f"{call.order.provider} went on turning the call away.", "Try again later, or add another key."
        )

    async def _report(self, lease: Lease, outcome: KeyOutcome) -> None:
        """A key pool that cannot be told must not cost us the reply."""
        with suppress(UnavailableError):
            await self._keys.report(lease, outcome)


class _Call:
    """One held call until it is metered, given back, or left to the sweep.

    As a context it decides what a failure means: nothing in flight - the hold is given back; usage known - it is
    metered; cut off with nothing known - the hold stays.
    """

    def __init__(
        self, ledger: Ledger, order: CallOrder, clock: Callable[[], float], metering: set[asyncio.Task[None]]
    ) -> None:
        self.order = order
        self.usage: Usage | None = None
        self._ledger = ledger
        self._clock = clock
        self._metering = metering
        self._key_id = ""
        self._sent_at = clock()
        self._in_flight = False
        self._metered = False
        self._wasted: Usage | None = None

    async def __aenter__(self) -> "_Call":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None or self._metered:
            return
        if not self._in_flight:
            await self._finish(self._wasted, provider_failed=True)
        elif isinstance(error, BrokenReplyError) and error.usage is not None:
            await self._finish(error.usage, provider_failed=True)
        elif self.usage is not None:
            await self.meter(self.usage)
            if isinstance(error, MasterbuilderError):
                error.charged = "What was served until then counts as used."

    def sent(self, lease: Lease) -> None:
        self._key_id, self._sent_at, self._in_flight = lease.key_id, self._clock(), True

    def failed(self, wasted: Usage | None = None) -> None:
        self._in_flight, self._wasted = False, wasted

    async def meter(self, usage: Usage) -> None:
        await self._finish(usage, provider_failed=False)

    async def _finish(self, usage: Usage | None, *, provider_failed: bool) -> None:
        """Goes through even when the caller is cancelled meanwhile."""
        self._metered = True
        meter = Meter(
            call=self.order.call,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            response_time_ms=round((self._clock() - self._sent_at) * 1000),
            key_id=self._key_id,
            provider_failed=provider_failed,
        )
        task = asyncio.ensure_future(self._ledger.meter(meter))
        self._metering.add(task)
        task.add_done_callback(self._metering.discard)
        await asyncio.shield(task)


def _first_answer_s(settings: Settings) -> float:
    """After this no new attempt is begun."""
    return settings.key_wait_seconds + (RETRIES_MAX + 1) * settings.call_timeout_s


def _hold(order: CallOrder, model: Model, request: ChatRequest) -> Hold:
    return Hold(
        call=order.call,
        user=order.user,
        run=order.run,
        task_type=order.task_type,
        provider=model.provider,
        model=model.name,
        input_tokens_max=request.input_tokens_max,
        output_tokens_max=request.output_tokens_max,
        price=model.price,
    )


def _without_usage(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chunk.items() if name != "usage"}
