"""A store in a folder of its own, and appends to fill it with."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent, Snapshot
from runtime.ids import PARTITION_COUNT, EntityId, UserId
from runtime.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Open, with every partition claimed at epoch 1."""
    made = Store(Settings(data_dir=tmp_path / "data"), Secrets.load(tmp_path / "data", {}))
    await made.open()
    everywhere = dict.fromkeys(range(PARTITION_COUNT), 0)
    await made.journal.claim(Claim(host="h", incarnation="i", partitions=everywhere))
    yield made
    await made.close()


@pytest.fixture
def an_append() -> Callable[..., Append]:
    """`an_append("counter:1", 2, 3)`: three events after the second; `snapshot=True` adds one of the last."""

    def make(entity: str, expected: int = 0, count: int = 1, *, snapshot: bool = False, **more: Any) -> Append:
        seqs = range(expected + 1, expected + count + 1)
        append = Append(
            entity=EntityId(entity),
            owner=UserId("u"),
            epoch=1,
            expected_seq=expected,
            events=[NewEvent(type="t", version=1, key=f"k{seq}", data={"n": seq}) for seq in seqs],
            open=False,
            head={"n": expected + count},
        )
        if snapshot:
            append = replace(append, snapshot=Snapshot(seq=expected + count, version=1, data={"n": expected + count}))
        return replace(append, **more)

    return make


@pytest.fixture
def execute(store: Store) -> Callable[..., Any]:
    """Runs any SQL behind the store's back."""

    async def run(statement: str, **values: Any) -> list[tuple[Any, ...]]:
        return await store._database.read_long(lambda connection: connection.execute(statement, values).fetchall())

    return run
