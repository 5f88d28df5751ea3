"""Every model call of the product: planned, priced, held, leased a key, made, metered - in this order.

No reply is handed over before its usage can no longer be lost. A call that served nothing costs nothing; what cannot
be known of a call that was cut off is estimated, and flagged.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from runtime.catalogue.catalogue import Catalogue
from runtime.catalogue.market import Market
from runtime.catalogue.model import Model
from runtime.catalogue.routes import Need
from runtime.config import Settings
from runtime.ids import CallId
from runtime.keys.keys import KeyLeases, Lease
from runtime.ledger.port import Credit, Identity
from runtime.providers.adapters.adapters import Adapters
from runtime.providers.attempts import Attempts, Served, first_answer_s
from runtime.providers.bounds import Size, size_of, size_of_texts
from runtime.providers.breaker import Breakers
from runtime.providers.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    Finished,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
    last_user_text,
)
from runtime.providers.failures import BrokenReplyError, OutageError
from runtime.providers.forward import Forwarded, Forwarder, Passage
from runtime.providers.json_reply import JsonQuestion, RejectedReplyError
from runtime.providers.order import CallOrder
from runtime.providers.rendered import Rendering, Translated, limited
from runtime.providers.splice import Spliced

STREAM_TIMEOUTS_MAX = 5
"""The longest stream, in call time-outs: a provider that drips for ever is cut off."""

Parsed = TypeVar("Parsed", bound=BaseModel)
OnCut = Callable[[int], None]
"""Told, before an answer begins, how long it may be at most where that is less than was asked for; in tokens."""
_Begun = tuple[Passage | Rendering, AsyncGenerator[bytes, None], bytes]


def longest_call_s(settings: Settings) -> float:
    """No call is under way longer than this after its hold, so a hold that is older may be swept."""
    last_attempt_s = settings.key_wait_seconds + 2 * settings.call_timeout_s
    return first_answer_s(settings) + last_attempt_s + (STREAM_TIMEOUTS_MAX + 1) * settings.call_timeout_s


class ModelCalls:
    """Makes model calls and sees that they are paid for.

    All raise, before anything is sent: UnpricedModelError, BadInputError, ForbiddenError, NotEnoughCreditsError,
    CeilingReachedError, ConflictError (run closed), NoProviderError. After: ProviderError and its kin, UnavailableError
    where every key stays limited for longer than KEY_WAIT_SECONDS, AllProvidersFailedError where a route has several
    models. Nothing is charged then.
    """

    def __init__(
        self,
        credit: Credit,
        keys: KeyLeases,
        market: Market,
        settings: Settings,
        *,
        adapters: Adapters | None = None,
        forwarder: Forwarder | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._market = market
        self._settings = settings
        self._forwarder = forwarder or Forwarder(timeout_s=settings.call_timeout_s)
        self._adapters = adapters or Adapters(timeout_s=settings.call_timeout_s)
        self._attempts = Attempts(credit, keys, Breakers(clock=clock), settings, clock, sleep)
        self._clock = clock

    @property
    def catalogue(self) -> Catalogue:
        """As it was read last: prices for an estimate."""
        return self._market.catalogue

    async def complete(self, order: CallOrder, request: ChatRequest) -> ChatReply:
        """The whole reply, metered."""

        async def ask(lease: Lease, served: Served) -> ChatReply:
            adapter = self._adapters.of(served.model.provider)
            return await adapter.complete(lease, served.call, limited(request, served.answer_tokens_max))

        size = size_of(request)
        route = await self._route(order, request, size)
        served, reply = await self._attempts.serve(order, route, size, ask)
        async with served:
            served.limits = reply.limits
            await served.meter(reply.usage)
        return reply

    async def stream(self, order: CallOrder, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """`Finished` comes last, after the call was metered. Raises in the middle where the provider breaks off.

        Close it early and the provider's stream is closed too; an estimate of what came is charged then.
        """

        async def begin(lease: Lease, served: Served) -> tuple[AsyncGenerator[ChatEvent, None], ChatEvent]:
            provider = served.model.provider
            asked = limited(request, served.answer_tokens_max)
            events = self._adapters.of(provider).stream(lease, served.call, asked)
            first = await anext(events, None)
            if first is None:
                raise OutageError(f"{provider} sent an empty stream.", "Try again in a moment.")
            return events, first

        size = size_of(request)
        route = await self._route(order, request, size)
        served, (events, first) = await self._attempts.serve(order, route, size, begin)
        async with served, aclosing(events):
            end_s, client_s = self._longest_stream_ends_s(), 0.0
            event: ChatEvent | None = first
            while event is not None:
                match event:
                    case Finished(usage=usage):
                        served.limits = event.limits
                        await served.meter(usage)
                    case UsageSoFar(usage=usage):
                        served.usage = usage
                    case TextDelta(text=text) | ToolCallDelta(arguments=text):
                        served.said_bytes += len(text.encode(errors="replace"))
                given_s = self._clock()
                yield event
                client_s += self._clock() - given_s
                self._check_time(served, end_s, client_s)
                event = await anext(events, None)

    async def embed(self, order: CallOrder, request: EmbedRequest) -> Embeddings:
        """All vectors, metered."""

        async def ask(lease: Lease, served: Served) -> Embeddings:
            found = await self._adapters.of(served.model.provider).embed(lease, served.call, request)
            _check_lengths(found, request, served.model)
            return found

        size = size_of_texts(request)
        route = await self._market.route(order, Need(embeddings=True, context_tokens=size.context_tokens), str)
        served, embeddings = await self._attempts.serve(order, route, size, ask)
        async with served:
            served.limits = embeddings.limits
            await served.meter(embeddings.usage)
        return embeddings

    async def forward(self, order: CallOrder, asked: Spliced, on_cut: OnCut) -> Forwarded:
        """A client's request in its own wire, answered in it, metered.

        Where the provider speaks that wire too, both pass through as they are, but for an output limit that was cut.
        """
        translated = Translated(asked)

        async def ask(lease: Lease, served: Served) -> Forwarded:
            provider = served.model.provider
            if self._market.family(provider) == asked.wire:
                return await self._forwarder.complete(lease, served.call, _body(asked, served), asked.path)
            adapter = self._adapters.of(provider)
            return await translated.complete(adapter, lease, served.call, served.answer_tokens_max)

        route = await self._route_of(order, asked)
        served, forwarded = await self._attempts.serve(order, route, asked.size, ask)
        async with served:
            _tell_cut(served, on_cut)
            served.limits = forwarded.limits
            await served.meter(forwarded.usage)
        return forwarded

    async def forward_stream(self, order: CallOrder, asked: Spliced, on_cut: OnCut) -> AsyncGenerator[bytes, None]:
        """The same as server-sent events, the last after the call was metered. Raises in the middle like `stream`."""
        translated = Translated(asked)

        async def begin(lease: Lease, served: Served) -> _Begun:
            passage: Passage | Rendering
            provider, call = served.model.provider, served.call
            if self._market.family(provider) == asked.wire:
                body = _body(asked, served)
                passage = await self._forwarder.stream(lease, call, body, asked.path, wants_usage=asked.wants_usage)
            else:
                passage = translated.stream(self._adapters.of(provider), lease, call, served.answer_tokens_max)
            pieces = passage.pieces()
            first = await anext(pieces, None)
            if first is None:
                raise OutageError(f"{provider} sent an empty stream.", "Try again in a moment.")
            return passage, pieces, first

        route = await self._route_of(order, asked)
        served, (passage, pieces, first) = await self._attempts.serve(order, route, asked.size, begin)
        async with served, aclosing(pieces):
            _tell_cut(served, on_cut)
            end_s, client_s = self._longest_stream_ends_s(), 0.0
            piece: bytes | None = first
            while piece is not None:
                served.usage, served.said_bytes, served.limits = passage.usage, passage.said_bytes, passage.limits
                if passage.finished:
                    await served.end(passage.usage)
                given_s = self._clock()
                yield piece
                client_s += self._clock() - given_s
                self._check_time(served, end_s, client_s)
                piece = await anext(pieces, None)
            await served.end(passage.usage)

    async def ask_json(
        self, order: CallOrder, *, system: str, user: str, schema: type[Parsed], max_output_tokens: int
    ) -> Parsed:
        """One question, answered in the schema's shape.

        A reply that does not fit is shown to the model once with what is wrong (call id `<call>/2`).
        Raises like `complete`, and ReplyRejectedError where the second reply does not fit either.
        """
        question = JsonQuestion(system=system, user=user, schema=schema, max_output_tokens=max_output_tokens)
        first = await self.complete(order, question.request())
        try:
            return question.parse(first)
        except RejectedReplyError as rejected:
            again = question.request_again(rejected)
        second = await self.complete(replace(order, call=CallId(f"{order.call}/2")), again)
        try:
            return question.parse(second)
        except RejectedReplyError as rejected:
            raise rejected.final() from None

    async def models(self, identity: Identity) -> Sequence[Model]:
        """The named models that whoever this is may call."""
        return await self._market.models(identity.role, identity.terms.models)

    async def close(self) -> None:
        """Waits for what is being metered."""
        await self._attempts.close()
        await self._adapters.close()
        await self._forwarder.close()

    async def _route(self, order: CallOrder, request: ChatRequest, size: Size) -> Sequence[Model]:
        need = Need(
            tools=bool(request.tools),
            images=size.images > 0,
            context_tokens=size.context_tokens,
        )
        return await self._market.route(order, need, lambda: last_user_text(request))

    async def _route_of(self, order: CallOrder, asked: Spliced) -> Sequence[Model]:
        need = Need(
            tools=asked.tools,
            images=asked.images,
            json_schema=asked.json_schema,
            embeddings=asked.path == "/embeddings",
            context_tokens=asked.size.context_tokens,
        )
        return await self._market.route(order, need, asked.last_user_text)

    def _longest_stream_ends_s(self) -> float:
        return self._clock() + STREAM_TIMEOUTS_MAX * self._settings.call_timeout_s

    def _check_time(self, served: Served, end_s: float, client_s: float) -> None:
        now_s = self._clock()
        if now_s > end_s:
            if now_s - client_s <= end_s:
                served.is_left = True
                raise OutageError("The reply was not read in time.", "Read it faster.", "What was sent is charged.")
            raise OutageError("The reply did not come to an end in time.", "Ask for a shorter one.")


def _check_lengths(found: Embeddings, request: EmbedRequest, model: Model) -> None:
    """Raises BrokenReplyError."""
    lengths = {len(vector) for vector in found.vectors}
    if request.length is not None and lengths - {request.length}:
        raise BrokenReplyError(
            f"{model.id} answered vectors of {min(lengths - {request.length})} numbers, not of {request.length}.",
            "Name the embedder with as many as it gives, as PROVIDER/MODEL@1024.",
            usage=found.usage,
        )


def _body(asked: Spliced, served: Served) -> bytes:
    cut_to = served.answer_tokens_max if served.is_cut else None
    return asked.sent(served.model.provider, served.model.name, cut_to)


def _tell_cut(served: Served, on_cut: OnCut) -> None:
    if served.is_cut:
        on_cut(served.answer_tokens_max)
