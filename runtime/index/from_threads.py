"""What embedders need of the event loop, for the threads that they run in."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from runtime.errors import UnavailableError
from runtime.index.vector_cache import AskVectors, FindVectors, KeepVectors
from runtime.providers.calls import ModelCalls
from runtime.providers.chat import Embeddings, EmbedRequest
from runtime.providers.order import CallOrder

T = TypeVar("T")

CACHE_S_MAX = 20.0


class LoopCalls:
    """Implements `EmbedCalls` over the `ModelCalls` of a loop, which are made when the first call comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], ModelCalls]) -> None:
        self._loop = loop
        self._make = make
        self._calls: ModelCalls | None = None

    def embed(self, order: CallOrder, request: EmbedRequest, timeout_s: float) -> Embeddings:
        return _waited(self._loop, self._embed(order, request), timeout_s, order.model)

    async def _embed(self, order: CallOrder, request: EmbedRequest) -> Embeddings:
        if self._calls is None:
            self._calls = self._make()
        return await self._calls.embed(order, request)


class LoopVectors:
    """Implements `VectorCache` over what answers in a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: AskVectors) -> None:
        self._loop = loop
        self._ask = ask

    def find(self, message: FindVectors) -> Mapping[bytes, bytes]:
        found: Mapping[bytes, bytes] = self._waited(message)
        return found

    def keep(self, message: KeepVectors) -> None:
        self._waited(message)

    def keep_soon(self, message: KeepVectors) -> None:
        asyncio.run_coroutine_threadsafe(self._asked(message), self._loop).add_done_callback(_heard)

    def _waited(self, message: FindVectors | KeepVectors) -> Any:
        return _waited(self._loop, self._asked(message), CACHE_S_MAX, "What keeps vectors")

    async def _asked(self, message: FindVectors | KeepVectors) -> Any:
        return await self._ask(message)


def _waited(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], timeout_s: float, what: str) -> T:
    """Its result. Raises what it raises, and UnavailableError when the time is over: it is cancelled then."""
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result(timeout_s)
    except concurrent.futures.TimeoutError as error:
        if not future.cancel():
            return future.result()  # It ended in the same moment.
        raise UnavailableError(f"{what} did not answer in {timeout_s:g} s.", "Try again later.") from error


def _heard(future: "concurrent.futures.Future[Any]") -> None:
    """What was not kept is embedded again, should it be needed."""
    if not future.cancelled():
        future.exception()
