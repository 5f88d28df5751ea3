"""Telling whoever listens that a call waits, and for what: a build says it to its owner, most callers say nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Tell = Callable[[str, float | None], AbstractContextManager[None]]
"""For as long as the context lasts this is waited for, and tried again after so many seconds, where that is known."""

_listener: ContextVar[Tell | None] = ContextVar("waiting", default=None)


def waiting(what: str, retry_in_s: float | None = None) -> AbstractContextManager[None]:
    """To be held while waiting."""
    tell = _listener.get()
    return nullcontext() if tell is None else tell(what, retry_in_s)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """What the block's calls wait for is told; the calls must be of the same task, or of tasks begun in the block."""
    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)
