"""Steps at work side by side, or one alone: a call's worst case fits where the calls of others hold nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

NOTHING = nullcontext()


class SharedLock:
    """Held by many at once, or by one alone, who waits until the others have ended; nobody begins before it has."""

    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._begun = 0
        self._at_work = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def held(
        self, *, alone: bool, waiting: AbstractContextManager[None] = NOTHING
    ) -> AsyncIterator[Callable[[], bool]]:
        """Yields a function that says whether others have been at work beside this one so far. `waiting` is entered
        for as long as it takes to get it.
        """
        with waiting:
            await self._door.acquire()
            try:
                if alone:
                    await self._empty.wait()
            except BaseException:
                self._door.release()
                raise
        if alone:
            try:
                yield lambda: False
            finally:
                self._door.release()
            return
        self._door.release()
        self._begun += 1
        self._at_work += 1
        self._empty.clear()
        begun, accompanied = self._begun, self._at_work > 1
        try:
            yield lambda: accompanied or self._begun > begun
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._empty.set()
