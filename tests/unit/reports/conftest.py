"""A store in a folder of its own, to be reported on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from counted_world import World, a_price

from runtime.config import Secrets, Settings
from runtime.entity.journal import Claim
from runtime.ids import PARTITION_COUNT, UserId
from runtime.project.facts import project_facts
from runtime.store.store import Store


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Ann and Bob have 1000 credits each, worth 10 USD; the markup is 1.5; openai and claude have prices."""
    settings = Settings(data_dir=tmp_path, initial_free_credits=1_000)
    store = Store(settings, Secrets.load(tmp_path, {}), lambda: made.now, facts_of=project_facts)
    made = World(store)
    await store.open()
    await store.journal.claim(Claim(host="h", incarnation="i", partitions=dict.fromkeys(range(PARTITION_COUNT), 0)))
    await store.books.set_prices([a_price("openai", "*"), a_price("claude", "*")])
    for user in ("ann", "bob"):
        await store.books.open_wallet(UserId(user), is_admin=False)
    yield made
    assert await store.books.mismatches() == []
    await store.close()
