"""A person's repositories: which there are, and how far each is."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord
from runtime.entity.port import Entities
from runtime.errors import (
    BadInputError,
    ConflictError,
    MasterbuilderError,
    NotFoundError,
    UnavailableError,
)
from runtime.ids import EntityId, RepositoryId, UserId, name_of, repository_entity
from runtime.index.messages import Found, SearchIndex
from runtime.repositories.address import Address
from runtime.repositories.entity import CLONE_S_MAX
from runtime.repositories.github import ForgeApi
from runtime.repositories.messages import (
    Activity,
    Cloned,
    CloneRepository,
    CopyIndexed,
    DeleteRepository,
    FetchCopy,
    Fetched,
    ForgetCopy,
    IndexCopy,
    Indexed,
    IndexRepository,
    ListRepositories,
    Repository,
    RepositoryFound,
    SearchRepository,
)
from runtime.repositories.state import RepositoriesState

REPOSITORY_BYTES_MAX = 500_000_000
"""Of one repository. Source: spec/assistant.md §12."""
BYTES_MAX = 1_000_000_000
"""Of all copies that one person has. Source: spec/assistant.md §13."""
REPOSITORIES_MAX = 50
FETCH_S_MAX = CLONE_S_MAX + 30.0
"""With what it takes to seal the copy."""
ASK_S = 600.0
INDEX_S_MAX = 7_200.0
"""A thousand files of many thousand lines, on one slow core."""
RETRY_S = 5.0
DELETE_SOME = "Delete some that you no longer need."

log = logging.getLogger(__name__)


class Repositories(Entity[RepositoriesState]):
    """Has one writer for what a person clones and deletes: no quota is passed, and no repository is there twice.

    Clones and indexes are turns: one at a time for a person, while searches and lists are answered beside them.
    """

    kind = "repositories"
    read_only = (ListRepositories, SearchRepository)
    keeps_history = False

    def __init__(self, entity: EntityId, entities: Entities, api: ForgeApi) -> None:
        self._user = UserId(name_of(entity))
        self._entities = entities
        self._api = api
        self._tidying = asyncio.Lock()

    def initial(self) -> RepositoriesState:
        return RepositoriesState()

    def fold(self, state: RepositoriesState, event: EventRecord) -> RepositoriesState:
        return state.after(event)

    def head(self, state: RepositoriesState) -> Mapping[str, Any]:
        return {"searched": [item.id for item in state.items.values() if item.indexed_commit]}

    def freeze(self, state: RepositoriesState) -> Mapping[str, Any]:
        return state.frozen()

    def thaw(self, data: Mapping[str, Any]) -> RepositoriesState:
        return RepositoriesState.thawed(data)

    def is_open(self, state: RepositoriesState) -> bool:
        """So nobody is erased while something of theirs is still being written."""
        return bool(state.leaving) or any(item.activity or not item.commit for item in state.items.values())

    async def wake(self) -> None:
        for item in list(self.state.items.values()):
            # What was cut off: whoever wanted it is not waiting any more, or asks again.
            if not item.commit:
                await self._drop(item)
            elif item.activity:
                await self._end(item)
        if self.state.leaving:
            self.activation.spawn(self._tidy_up(), "repositories")

    async def receive(self, message: Any) -> Any:
        match message:
            case CloneRepository():
                return await self._clone(message)
            case IndexRepository(name=name):
                return await self._index(self._named(name))
            case SearchRepository():
                return await self._search(message)
            case ListRepositories():
                return list(self.state.items.values())[::-1]
            case DeleteRepository(name=name):
                await self._drop(self._named(name))
                self.activation.spawn(self._tidy_up(), "repositories")
                return True
            case _:
                raise BadInputError(f"Repositories do not understand {type(message).__name__}.")

    async def _clone(self, message: CloneRepository) -> Cloned:
        described = await self._api.describe(message.address)
        name = described.address.repo_name
        if described.size_bytes > REPOSITORY_BYTES_MAX:
            raise BadInputError(
                f"{described.address.shown} has {described.size_bytes / 1e6:.0f} MB; "
                f"{REPOSITORY_BYTES_MAX // 1_000_000} MB are the most.",
                "Clone a smaller one. Nothing of it was downloaded.",
            )
        present = self.state.named(name)
        item = present or await self._add(described.address, message.branch)
        try:
            async with self._at_work(item, "cloning"):
                await self._fetched(item, described.address.clone_url, message.branch, described.default_branch)
        except MasterbuilderError:
            if present is None:
                await self._drop(item)
                self.activation.spawn(self._tidy_up(), "repositories")
            raise
        return Cloned(repository=self.state.items[item.id], status="updated" if present else "cloned")

    async def _add(self, address: Address, branch: str) -> Repository:
        """Named before anything of it is stored, so that whatever is on disk can be found again, and removed."""
        if len(self.state.items) >= REPOSITORIES_MAX:
            raise ConflictError(
                f"You have {len(self.state.items)} repositories; {REPOSITORIES_MAX} are allowed.", DELETE_SOME
            )
        repository = RepositoryId(str(uuid.uuid4()))
        item = {
            "id": repository,
            "name": address.repo_name,
            "url": address.shown,
            "clone_url": address.clone_url,
            "branch": branch,
        }
        await self.activation.emit("repository.added", f"added/{repository}", {"item": item})
        return self.state.items[repository]

    async def _fetched(self, item: Repository, clone_url: str, branch: str, default_branch: str = "") -> Repository:
        """With its copy at the newest commit. Where this raises, the copy is what it was."""
        used = sum(other.size_bytes for other in self.state.items.values() if other.id != item.id)
        room = min(REPOSITORY_BYTES_MAX, BYTES_MAX - used)
        if room <= 0:
            raise ConflictError(
                f"Your repositories have {used / 1e6:.0f} MB; {BYTES_MAX // 1_000_000} MB are allowed.", DELETE_SOME
            )
        fetch = FetchCopy(owner=self._user, clone_url=clone_url, branch=branch, bytes_max=room)
        fetched: Fetched | None = await self._ask(item, fetch, FETCH_S_MAX)
        if fetched is None:
            hint = f"Its default branch is {default_branch}." if default_branch else "Name one that it has."
            raise BadInputError(f"{item.url} has no branch {branch}.", hint)
        now = {
            "clone_url": clone_url,
            "branch": branch,
            "commit": fetched.commit,
            "size_bytes": fetched.size_bytes,
        }
        await self._emit_changed("repository.cloned", item, now)
        return self.state.items[item.id]

    async def _index(self, item: Repository) -> Indexed:
        async with self._at_work(item, "indexing"):
            try:
                made = await self._index_copy(item)
            except NotFoundError as error:
                log.info("%s is downloaded again: %s", item.id, error)
                item = await self._fetched(item, item.clone_url, item.branch)
                made = await self._index_copy(item)
            await self._note_indexed(item, made)
        return Indexed(repository=self.state.items[item.id], left_out=made.left_out)

    async def _index_copy(self, item: Repository) -> CopyIndexed:
        """However long it takes, within reason: asked again, it answers when it is done, and nothing is done twice."""
        until_s = time.monotonic() + INDEX_S_MAX
        while True:
            began_s = time.monotonic()
            try:
                made: CopyIndexed = await self._ask(item, IndexCopy(owner=self._user, commit=item.commit), ASK_S)
            except UnavailableError:
                now_s = time.monotonic()
                if now_s > until_s or now_s - began_s < ASK_S:
                    raise
            else:
                return made

    async def _note_indexed(self, item: Repository, made: CopyIndexed) -> None:
        is_unreadable = not made.chunk_count and made.left_out_count > 0
        now = {
            "indexed_commit": item.commit,
            "file_count": made.file_count,
            "chunk_count": made.chunk_count,
            "left_out_count": made.left_out_count,
            "reason": "None of its files can be read." if is_unreadable else "",
        }
        await self._emit_changed("repository.indexed", item, now)

    async def _search(self, message: SearchRepository) -> RepositoryFound:
        item = self._named(message.name)
        if not item.indexed_commit:
            raise ConflictError(f"{item.name} is not indexed yet.", "POST /api/v1/github/index does that.")
        search = SearchIndex(owner=self._user, query=message.query, limit=message.limit)
        found: Found = await self._ask(item, search)
        if found.commit != item.indexed_commit:
            # It was lost with its process. To index is a turn of its own, after those that wait already.
            again = IndexRepository(owner=self._user, name=item.name)
            await self._entities.ask(self.activation.entity, again, timeout_s=ASK_S)
            found = await self._ask(item, search)
        item = self._named(message.name)
        return RepositoryFound(repository=item, commit=found.commit, hits=found.hits, waits=found.waits)

    def _named(self, name: str) -> Repository:
        item = self.state.named(name)
        if item is None:
            raise NotFoundError("You have no repository of this name.", "GET /api/v1/github/repositories lists yours.")
        return item

    async def _emit_changed(self, type: str, item: Repository, now: Mapping[str, Any]) -> None:
        """Nothing, where it is so already."""
        if any(getattr(item, name) != value for name, value in now.items()):
            await self.activation.emit(type, f"{item.id}/{uuid.uuid4()}", {"repository": item.id, "now": dict(now)})

    @asynccontextmanager
    async def _at_work(self, item: Repository, activity: Activity) -> AsyncIterator[None]:
        data = {"repository": item.id, "activity": activity}
        await self.activation.emit("repository.began", f"{item.id}/{uuid.uuid4()}", data)
        try:
            yield
        except MasterbuilderError:
            await self._end(item)
            raise
        await self._end(item)

    async def _end(self, item: Repository) -> None:
        await self.activation.emit("repository.ended", f"{item.id}/{uuid.uuid4()}", {"repository": item.id})

    async def _drop(self, item: Repository) -> None:
        await self.activation.emit("repository.deleted", f"deleted/{item.id}", {"repository": item.id})

    async def _tidy_up(self) -> None:
        """Until nothing of a deleted repository is left. One at a time, whoever began it."""
        async with self._tidying:
            while self.state.leaving:
                try:
                    for repository in sorted(self.state.leaving):
                        forget = ForgetCopy(owner=self._user)
                        await self._entities.ask(repository_entity(self._user, repository), forget)
                        data = {"repository": repository}
                        await self.activation.emit("repository.removed", f"removed/{repository}", data)
                except UnavailableError as error:
                    log.warning("what is left of deleted repositories stays for now: %s", error)
                    await asyncio.sleep(RETRY_S)
            await self.activation.save()  # Then what tells of deleted repositories can be let go.

    async def _ask(self, item: Repository, message: Any, timeout_s: float = 30.0) -> Any:
        return await self._entities.ask(repository_entity(self._user, item.id), message, timeout_s=timeout_s)
