"""Documents and repositories through the real doors, with store, host, sandbox and model, in one process; no Ray."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from runtime.config import Secrets, Settings
from runtime.documents.entity import DocumentsEntity
from runtime.documents.library import Library
from runtime.documents.reading import DocumentReader
from runtime.entity.host import Host
from runtime.ids import EntityId, UserId
from runtime.implementer.sandbox import Sandbox
from runtime.index.embedder import Embedder
from runtime.ledger.port import NewToken
from runtime.project.facts import project_facts
from runtime.repositories.entity import CLONES_MAX, RepositoryEntity
from runtime.repositories.github import ForgeApi
from runtime.repositories.repositories import Repositories
from runtime.session.messages import Admit
from runtime.store.seal import Seal
from runtime.store.store import Store
from runtime.tokens import token_hash
from serve_apps import api_routes

ANN, BOB, DEMO, ADMIN = (UserId(name) for name in ("ann", "bob", "demo", "admin"))
LOOK_EVERY_S = 0.02
LOOKS_MAX = 15_000


class Documents:
    """Four persons and what they have. `restart` is what a crash of the host comes to."""

    def __init__(self, folder: Path, embedder: Embedder, **settings: Any) -> None:
        self.settings = Settings(data_dir=folder, http_port=1, **settings)
        secrets = Secrets.load(folder, {})
        self.store = Store(self.settings, secrets, facts_of=project_facts)
        self.embedder = embedder
        self.reader = DocumentReader(Sandbox())
        self._seal = Seal(secrets.data_encryption_key)
        self.host: Host
        self._incarnations = 0
        system = SimpleNamespace(
            settings=self.settings, entities=self, ledger=self.store.books, journal=self.store.journal
        )
        app = api_routes.create_app(cast("Any", system))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api", timeout=300)

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if isinstance(message, Admit):
            return None
        return await self.host.ask(entity, message, timeout_s=timeout_s)

    async def open(self) -> None:
        await self.store.open()
        for user in (ANN, BOB, DEMO, ADMIN):
            await self.store.books.open_wallet(user, user == ADMIN)
            if user in (ANN, BOB):
                await self.store.books.set_role(user, "FULL_ACCESS")
            token = NewToken(token_sha256=token_hash(f"{user}-token"), user=user, kind="user", label="")
            await self.store.books.add_token(token)
        await self.start()

    async def start(self) -> None:
        self._incarnations += 1
        folder, scratch = self.settings.data_dir / "index", self.settings.data_dir / "scratch"
        books, clones = self.store.books, asyncio.Semaphore(CLONES_MAX)
        self.host = Host(
            name="host-0",
            incarnation=str(self._incarnations),
            journal=self.store.journal,
            factories={
                "library": lambda entity: Library(entity, books, self),  # type: ignore[arg-type]
                "documents": lambda entity: DocumentsEntity(
                    entity, books, self.embedder, folder, self._seal, self.reader
                ),
                "repositories": lambda entity: Repositories(entity, self, ForgeApi()),  # type: ignore[arg-type]
                "repository": lambda entity: RepositoryEntity(
                    entity, self.embedder, folder, self._seal, scratch, clones
                ),
            },
        )
        await self.host.acquire_all()

    async def restart(self) -> None:
        await self.host.stop()
        await self.start()

    async def close(self) -> None:
        await self.http.aclose()
        await self.host.stop()
        await self.store.close()

    async def post(self, user: UserId, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(f"/api/v1/{path}", json=body, headers=_of(user))

    async def get(self, user: UserId, path: str) -> httpx.Response:
        return await self.http.get(f"/api/v1/{path}", headers=_of(user))

    async def delete_at(self, user: UserId, path: str) -> httpx.Response:
        return await self.http.delete(f"/api/v1/{path}", headers=_of(user))

    async def upload(self, user: UserId, name: str, content: bytes, **fields: str) -> httpx.Response:
        files = {"file": (name, content)}
        return await self.http.post("/api/v1/rag/upload", files=files, data=fields, headers=_of(user))

    async def added(self, user: UserId, name: str, content: bytes, **fields: str) -> dict[str, Any]:
        """Uploaded, and read to its end."""
        answer = await self.upload(user, name, content, **fields)
        assert answer.status_code == 202, answer.text
        for _ in range(LOOKS_MAX):
            item = await self.item(user, answer.json()["item_id"])
            if item["status"] not in ("pending", "processing"):
                return item
            await asyncio.sleep(LOOK_EVERY_S)
        raise AssertionError(f"{name} is not read yet")

    async def items(self, user: UserId) -> list[dict[str, Any]]:
        answer = await self.http.get("/api/v1/rag/list", headers=_of(user))
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    async def item(self, user: UserId, document: str) -> dict[str, Any]:
        return next(item for item in await self.items(user) if item["id"] == document)

    async def search(self, user: UserId, query: str, **more: Any) -> list[dict[str, Any]]:
        answer = await self.http.post("/api/v1/rag/search", json={"query": query, **more}, headers=_of(user))
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    async def delete(self, user: UserId, document: str) -> httpx.Response:
        return await self.http.delete(f"/api/v1/rag/{document}", headers=_of(user))

    async def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(LOOKS_MAX):
            if holds():
                return
            await asyncio.sleep(LOOK_EVERY_S)
        raise AssertionError("it does not come true")

    def blobs(self) -> int:
        return sum(path.is_file() for path in (self.settings.data_dir / "blobs").rglob("*"))


@asynccontextmanager
async def documents(folder: Path, embedder: Embedder, **settings: Any) -> AsyncIterator[Documents]:
    made = Documents(folder, embedder, **settings)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def _of(user: UserId) -> dict[str, str]:
    return {"authorization": f"Bearer {user}-token"}
