"""What embedders reach from a process of the cluster: paid model calls, and the kept vectors of whom they embed for."""

import asyncio

from actors.key_pool import KeyPools
from actors.ledger import LedgerHandle
from actors.model_calls import model_calls
from runtime.config import Settings
from runtime.index.embedder import Reach
from runtime.index.from_threads import LoopCalls, LoopVectors
from runtime.index.vector_cache import AskVectors


def reach(settings: Settings, ledger: LedgerHandle, vectors: AskVectors, loop: asyncio.AbstractEventLoop) -> Reach:
    """All of it runs on `loop`, for threads that wait for it."""
    return Reach(
        calls=LoopCalls(loop, lambda: model_calls(settings, ledger, KeyPools(settings), ledger)),
        vectors=LoopVectors(loop, vectors),
    )
