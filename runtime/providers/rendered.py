"""A provider of another wire, answering in the client's: the same face as a forwarded answer."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import ModuleType

from runtime.ids import CallId
from runtime.keys.keys import KeyLimits, Lease
from runtime.providers.adapter import Adapter
from runtime.providers.chat import ChatEvent, ChatRequest, Finished, TextDelta, ToolCallBegin, ToolCallDelta, UsageSoFar
from runtime.providers.forward import Forwarded
from runtime.providers.splice import Spliced, Wire
from runtime.providers.usage import Usage
from runtime.providers.wires import anthropic, openai

WIRES: dict[Wire, ModuleType] = {"openai": openai, "anthropic": anthropic}


@dataclass(frozen=True, slots=True)
class Translated:
    """A client's request for providers of other wires."""

    asked: Spliced

    async def complete(self, adapter: Adapter, lease: Lease, call: CallId, answer_tokens_max: int) -> Forwarded:
        document = self.asked.document()
        if self.asked.path == "/embeddings":
            embeddings = await adapter.embed(lease, call, openai.embed_request_of(document))
            encoding = str(document.get("encoding_format") or "float")
            body = openai.embeddings_body(embeddings, encoding_format=encoding)
            return Forwarded(body=to_json(body), usage=embeddings.usage, limits=embeddings.limits)
        wire = WIRES[self.asked.wire]
        reply = await adapter.complete(lease, call, limited(wire.request_of(document), answer_tokens_max))
        body = wire.reply_body(reply, created=int(time.time()))
        return Forwarded(body=to_json(body), usage=reply.usage, limits=reply.limits)

    def stream(self, adapter: Adapter, lease: Lease, call: CallId, answer_tokens_max: int) -> "Rendering":
        wire = WIRES[self.asked.wire]
        request = limited(wire.request_of(self.asked.document()), answer_tokens_max)
        events = adapter.stream(lease, call, request)
        return Rendering(wire, events, id=str(call), model=self.asked.model, wants_usage=self.asked.wants_usage)


class Rendering:
    """What `runtime.providers.forward.Passage` is, of an answer that is translated on its way."""

    def __init__(
        self, wire: ModuleType, events: AsyncGenerator[ChatEvent, None], *, id: str, model: str, wants_usage: bool
    ) -> None:
        self.usage: Usage | None = None
        self.said_bytes = 0
        self.finished = False
        self.limits: KeyLimits | None = None
        self._events = events
        self._written = wire.ReplyStream(id=id, model=model, created=int(time.time()), wants_usage=wants_usage)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._events) as events:
            async for event in events:
                match event:
                    case Finished(usage=usage):
                        self.usage, self.limits, self.finished = usage, event.limits, True
                    case UsageSoFar(usage=usage):
                        self.usage = usage
                    case TextDelta(text=text) | ToolCallDelta(arguments=text) | ToolCallBegin(name=text):
                        self.said_bytes += len(text.encode(errors="replace"))
                if piece := b"".join(self._written.written(event)):
                    yield piece


def limited(request: ChatRequest, answer_tokens_max: int) -> ChatRequest:
    """With the output limit that was held: where the caller states none, a provider may have a lower default."""
    if request.output_tokens_max is not None and request.output_tokens_max <= answer_tokens_max:
        return request
    return replace(request, output_tokens_max=answer_tokens_max)


def to_json(body: dict[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
