"""On whose behalf texts are embedded: whose they are, and under which ceiling their vectors are paid."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from runtime.ids import ProjectId, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class Behalf:
    owner: UserId
    """Whose texts these are. Their vectors are kept for nobody else."""
    shard: str
    """The name of the index they are for."""
    project: ProjectId | None = None
    """Under whose ceiling they are paid: of a running build. None for what its owner asks for himself."""


_behalf: ContextVar[Behalf | None] = ContextVar("embedding_behalf", default=None)


def behalf() -> Behalf | None:
    """None where nobody was named: then nothing is kept, and nothing is paid."""
    return _behalf.get()


@contextmanager
def on_behalf(given: Behalf | None) -> Iterator[None]:
    """For what the block embeds, also in threads that get its context (`asyncio.to_thread` gives it)."""
    token = _behalf.set(given)
    try:
        yield
    finally:
        _behalf.reset(token)
