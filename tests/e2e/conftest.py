from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.simulator.server import Simulator
from tests.e2e.live import Live
from tests.e2e.world import World


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """An installation that is not started yet: `live.run("up")` starts it, and is quick when it runs already."""
    live = Live.in_folder(tmp_path_factory.mktemp("live"))
    yield live
    live.close()
    assert live.left() == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A build in this process, with a simulator that takes its time, so that tests can come in between."""
    usage_file = tmp_path / "usage.jsonl"
    async with Simulator(usage_file=usage_file, latency_ms=10) as simulator:
        world = World(tmp_path, simulator, usage_file)
        await world.open()
        yield world
        await world.close()
