"""An installation whose projects were built long ago: their journals and bundles, written as the store writes them."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent
from runtime.ids import LOCAL_ADMIN, PARTITION_COUNT, ProjectId, new_project_id, partition_of, project_entity
from runtime.project.repository import Author, ProjectRepository
from runtime.store.store import Store

AUTHOR = Author(name="Ann", email="ann@example.com")
OPENED: Mapping[str, Any] = {
    "owner": LOCAL_ADMIN,
    "brief": "A shop.",
    "answers": {},
    "max_ucredits": None,
    "confirmed": True,
}


def seed(settings: Settings, trees: Sequence[Mapping[str, str]]) -> Mapping[ProjectId, str]:
    """A finished project for each tree, with its commit. Nothing else may have the data folder open."""
    return asyncio.run(_seed(settings, trees))


async def _seed(settings: Settings, trees: Sequence[Mapping[str, str]]) -> Mapping[ProjectId, str]:
    store = Store(settings, Secrets.load(settings.data_dir, {}))
    await store.open()
    await store.books.open_wallet(LOCAL_ADMIN, True)
    everything = Claim(host="seed", incarnation="seed", partitions=dict.fromkeys(range(PARTITION_COUNT), 0))
    epochs = await store.journal.claim(everything)
    made: dict[ProjectId, str] = {}
    for tree in trees:
        project = new_project_id()
        with tempfile.TemporaryDirectory() as folder:
            repository = ProjectRepository.init(Path(folder) / "repository", AUTHOR)
            made[project] = repository.write_and_commit(dict(tree), "all", AUTHOR)
            bundle = await store.books.put_blob(repository.bundle())
        entity = project_entity(project)
        events = [
            NewEvent(type="project.opened", key="opened", data=OPENED),
            NewEvent(type="repository.committed", key="built", data={"commit": made[project], "bundle": bundle}),
            NewEvent(type="project.status", key="over", data={"status": "failed", "reason": "for a test"}),
        ]
        append = Append(
            entity=entity,
            owner=LOCAL_ADMIN,
            epoch=epochs[partition_of(entity)],
            expected_seq=0,
            events=events,
            open=False,
            head={"title": "A shop.", "status": "failed"},
        )
        await store.journal.append(append)
    await store.close()
    return made
