"""A number that grows with all that happens, and a way to wait for the next."""

import asyncio


class Changes:
    def __init__(self) -> None:
        self.number = 0
        self._next = asyncio.Event()

    def tell(self) -> int:
        """The new number."""
        self.number += 1
        self._next.set()
        self._next = asyncio.Event()
        return self.number

    async def wait(self, after: int, timeout_s: float) -> int:
        """Until the number is more than `after`, or the time is up. The number then."""
        if self.number <= after:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._next.wait()
            except TimeoutError:
                pass
        return self.number
