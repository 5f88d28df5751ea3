"""One attempt at a provider, whichever SDK is behind it."""

from collections.abc import AsyncGenerator
from typing import Protocol

from runtime.ids import CallId
from runtime.keys.keys import Lease
from runtime.providers.chat import ChatEvent, ChatReply, ChatRequest, Embeddings, EmbedRequest


class Adapter(Protocol):
    """Raises `runtime.providers.failures` (and what they are made of in `runtime.errors`) and nothing else but bugs.

    The lease names the provider, the key, the base URL and the model. No error, log or trace holds the key.
    """

    async def complete(self, lease: Lease, call: CallId, request: ChatRequest) -> ChatReply:
        """BrokenReplyError where nothing usable came: an empty answer, or one without usage."""

    def stream(self, lease: Lease, call: CallId, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """Ends with `Finished`; raises OutageError where the answer breaks off, before or after its first event.

        Closing it closes the provider's stream.
        """

    async def embed(self, lease: Lease, call: CallId, request: EmbedRequest) -> Embeddings: ...

    async def close(self) -> None: ...
