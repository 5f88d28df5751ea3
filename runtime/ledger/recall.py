"""Asking processes to give back what they hold in advance, for somebody who cannot pay because of it."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from runtime.ids import UserId
from runtime.ledger.port import EscrowId

WAIT_S = 2.0


class Recall:
    """Who waits, and which escrows are asked back of which process until then. Lives in the ledger's loop."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self.wait_s = wait_s
        self.returns = 0
        """Messages so far that gave something back."""
        self._asked: dict[str, dict[EscrowId, UserId]] = defaultdict(dict)
        self._unwaited: set[EscrowId] = set()
        self._waiting: Counter[UserId] = Counter()
        self._returned = asyncio.Event()

    def is_waited_for(self, user: UserId) -> bool:
        """True while somebody waits for the user's credit: nobody should take more than needed now."""
        return self._waiting[user] > 0

    def asked_of(self, process: str) -> tuple[EscrowId, ...]:
        return tuple(self._asked.get(process, ()))

    def ask(self, user: UserId, escrows: Mapping[EscrowId, str]) -> None:
        """Asks for these (each with its process), though nobody waits, until they are given back."""
        self._unwaited.update(escrows)
        self._ask(user, escrows)

    def _ask(self, user: UserId, escrows: Mapping[EscrowId, str]) -> None:
        for escrow, process in escrows.items():
            self._asked[process][escrow] = user

    def given(self, process: str, escrows: Iterable[EscrowId]) -> None:
        """A process gave back what it could of these."""
        asked = self._asked.get(process, {})
        for escrow in escrows:
            asked.pop(escrow, None)
            self._unwaited.discard(escrow)
        self._wake()

    def ended(self, process: str) -> None:
        self._asked.pop(process, None)
        self._wake()

    async def for_return(self, user: UserId, escrows: Mapping[EscrowId, str], seen: int, deadline_s: float) -> bool:
        """Asks for the escrows (each with its process) and waits until something was given back since `seen` returns.

        False when `deadline_s` on the monotonic clock was first.
        """
        self._ask(user, escrows)
        self._waiting[user] += 1
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                while self.returns == seen:
                    await self._returned.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting[user] -= 1
            if not self._waiting[user]:
                self._forget(user)

    def _forget(self, user: UserId) -> None:
        del self._waiting[user]
        for process in list(self._asked):
            asked = self._asked[process].items()
            kept = {escrow: whose for escrow, whose in asked if whose != user or escrow in self._unwaited}
            if kept:
                self._asked[process] = kept
            else:
                del self._asked[process]

    def _wake(self) -> None:
        self.returns += 1
        self._returned.set()
        self._returned = asyncio.Event()
