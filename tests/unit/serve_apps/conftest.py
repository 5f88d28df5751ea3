"""One system of fakes behind the real doors: two users, a task's token, and projects that do as they are told."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Settings
from runtime.entity.journal import EventRecord, Head
from runtime.entity.vitals import HostVitals, PoolVitals, Quarantined, SystemVitals
from runtime.errors import NotFoundError, QuarantinedError
from runtime.ids import EntityId, ProjectId, RunId, UserId, project_entity, user_entity
from runtime.keys.keys import ProviderKey
from runtime.keys.ring import KeyRing
from runtime.ledger.port import Balance, CallRow, Hold, Identity, Meter, Mismatch, Person, Receipt, Spent
from runtime.project.messages import Describe, OpenProject, PackageView, ProjectView, Status, TaskView
from runtime.providers.calls import ModelCalls
from runtime.session.messages import Admit
from runtime.store.keeping import BackupReport, CompactReport
from runtime.tokens import token_hash
from serve_apps import api_routes

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ANN, BOB = UserId("ann"), UserId("bob")
PROJECT = ProjectId("11111111-1111-4111-8111-111111111111")
BOBS = ProjectId("22222222-2222-4222-8222-222222222222")
RUN = RunId("project:p/task/T-001#1")
VITALS = SystemVitals(
    hosts=[
        HostVitals(
            name="entities-0",
            incarnation="i1",
            pid=7,
            node="n1",
            kinds=["project", "user"],
            partitions=1024,
            residents=2,
            working=1,
            queued=0,
            memory_bytes=1 << 20,
            turns=5,
            activations=2,
            passivations=0,
            failures=3,
            stale=0,
            quarantined=[
                Quarantined(entity=project_entity(BOBS), error="KeyError: 'x'", failures=3, since=NOW),
            ],
        )
    ],
    map_version=4,
    moving=0,
    store=None,
    implementers=PoolVitals(workers=1, busy=0, queued=0),
    key_pools=[],
    silent=["ledger"],
)
PACKAGE = b"PK\x05\x06" + b"\0" * 18


class FakeEntities:
    def __init__(self) -> None:
        self.views = {
            PROJECT: view(PROJECT, ANN, last_seq=3),
            BOBS: view(BOBS, BOB, status=Status.COMPLETED, last_seq=1),
        }
        self.log: dict[ProjectId, list[EventRecord]] = {PROJECT: [], BOBS: []}
        self.told: list[tuple[EntityId, Any]] = []
        self.raises: list[Exception] = []
        self.quarantined: set[EntityId] = set()
        self.admitted: list[tuple[EntityId, Admit]] = []
        self.refuses: Exception | None = None
        self.changed = asyncio.Event()
        self.wait_s_max = 0.05

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if isinstance(message, Admit):
            self.admitted.append((entity, message))
            if self.refuses:
                raise self.refuses
            return None
        if entity in self.quarantined:
            raise QuarantinedError(f"{entity} is set aside.", "An operator lifts it.")
        if not isinstance(message, Describe):
            self.told.append((entity, message))
            if self.raises:
                raise self.raises.pop(0)
        if isinstance(message, OpenProject):
            assert entity == user_entity(ANN)
            return self.views[PROJECT]
        return self.views[self._project(entity)]

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        if self.raises:
            raise self.raises.pop(0)
        log = self.log[self._project(entity)]
        if not any(record.seq > after_seq for record in log) and wait_s:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), min(wait_s, self.wait_s_max))
            except TimeoutError:
                return []
        return [record for record in log if record.seq > after_seq]

    def append(self, type: str, data: dict[str, Any] | None = None, project: ProjectId = PROJECT) -> None:
        log = self.log[project]
        log.append(
            EventRecord(
                entity=project_entity(project),
                seq=len(log) + 1,
                epoch=1,
                type=type,
                version=1,
                key=f"k{len(log)}",
                at=NOW,
                data=data or {},
            )
        )
        self.views[project] = replace(self.views[project], last_seq=len(log))
        self.changed.set()

    def _project(self, entity: EntityId) -> ProjectId:
        for project in self.views:
            if entity == project_entity(project):
                return project
        raise NotFoundError("There is no such project.")


class FakeLedger:
    def __init__(self) -> None:
        self.tokens = {
            hashlib.sha256(token.encode()).hexdigest(): identity
            for token, identity in {
                "ann-token": Identity(user=ANN, is_admin=False, kind="user"),
                "bob-token": Identity(user=BOB, is_admin=True, kind="user"),
                "task-token": Identity(user=ANN, is_admin=False, kind="task", run=RUN),
            }.items()
        }
        self.holds: list[Hold] = []
        self.meters: list[Meter] = []
        self.refuses: Exception | None = None

    async def authenticate(self, token_sha256: str) -> Identity | None:
        return self.tokens.get(token_sha256)

    async def balance(self, user: UserId) -> Balance:
        return Balance(balance_ucredits=100_000_000, held_ucredits=1_500_000)

    async def person(self, user: UserId) -> Person | None:
        return Person(user=user, is_admin=False, role="FULL_ACCESS", email=f"{user}@example.org", registered_at=NOW)

    async def keys(self, provider: str) -> Sequence[str]:
        return ["a key"] if provider in ("openai", "deepseek") else []

    async def hold(self, hold: Hold) -> None:
        if self.refuses:
            raise self.refuses
        self.holds.append(hold)

    async def meter(self, meter: Meter) -> None:
        self.meters.append(meter)

    async def get_blob(self, blob: str) -> bytes:
        assert blob == "b" * 64
        return PACKAGE

    async def spent(self, project: ProjectId) -> Spent:
        return await self.receipt(project)

    async def receipt(self, project: ProjectId) -> Receipt:
        row = CallRow(
            call="r/1",
            run=RUN,
            task="T-001",
            attempt=1,
            task_type="coding",
            provider="openai",
            model="gpt-4o-mini",
            state="settled",
            input_tokens=1000,
            output_tokens=500,
            cost_pusd=450_000_000,
            credits_ucredits=67_500,
            outcome="ok",
            at=NOW,
        )
        return Receipt(
            project=project,
            charged=[row],
            losses=[replace(row, call="r/2", state="lost", outcome="provider_failed")],
            pending=[],
            total_cost_pusd=450_000_000,
            total_ucredits=67_500,
            refunded_ucredits=0,
        )


class FakeJournal:
    async def head(self, entity: EntityId) -> Head | None:
        owners = {project_entity(PROJECT): ANN, project_entity(BOBS): BOB}
        if entity not in owners:
            return None
        return Head(entity=entity, owner=owners[entity], last_seq=3, open=True, updated_at=NOW, data={"title": "x"})

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        assert kind == "project"
        every = [
            Head(entity=project_entity(PROJECT), owner=ANN, last_seq=3, open=True, updated_at=NOW, data={"title": "x"}),
            Head(entity=project_entity(BOBS), owner=BOB, last_seq=1, open=False, updated_at=NOW, data={"title": "y"}),
        ]
        return [head for head in every if owner in (None, head.owner)]


class FakeKeeper:
    """`finds` is what the check answers; `raises`, what everything does."""

    def __init__(self) -> None:
        self.finds: list[Mismatch] = []
        self.raises: Exception | None = None
        self.backups: list[tuple[Path, bool]] = []

    async def check(self) -> Sequence[Mismatch]:
        self._maybe_raise()
        return self.finds

    async def backup(self, folder: Path, with_secrets: bool) -> BackupReport:
        self._maybe_raise()
        self.backups.append((folder, with_secrets))
        return BackupReport(folder=folder, cluster_id="c1", entities=2, events=9, blobs=1, bytes=4096, seconds=0.5)

    async def compact(self) -> CompactReport:
        self._maybe_raise()
        return CompactReport(events_dropped=7, bytes_before=9000, bytes_after=5000)

    def _maybe_raise(self) -> None:
        if self.raises:
            raise self.raises


@dataclass
class FakeSystem:
    entities: FakeEntities = field(default_factory=FakeEntities)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    journal: FakeJournal = field(default_factory=FakeJournal)
    keeper: FakeKeeper = field(default_factory=FakeKeeper)
    quarantine: set[EntityId] = field(default_factory=set)
    settings: Settings = field(default_factory=lambda: Settings(brief_bytes_max=2000))
    found: dict[str, str] = field(default_factory=lambda: {"ledger": "ok", "provider": "openai, deepseek"})

    def __post_init__(self) -> None:
        key = ProviderKey(provider="openai", key_id="k1", base_url="http://x/v1", key="sk")
        keys = KeyRing([key], cooldown_s=60)

        async def no_sleep(_: float) -> None: ...

        self.calls = ModelCalls(
            self.ledger,  # type: ignore[arg-type]
            keys,
            Market(Routes(CATALOGUE), configured=("openai",)),
            self.settings,
            sleep=no_sleep,
        )

    async def health(self) -> dict[str, str]:
        return self.found

    async def vitals(self) -> SystemVitals:
        return VITALS

    async def pardon(self, entity: EntityId) -> bool:
        was_there = entity in self.quarantine
        self.quarantine.discard(entity)
        return was_there


def view(project: ProjectId, owner: UserId, *, status: Status = Status.IMPLEMENTING, last_seq: int = 0) -> ProjectView:
    task = TaskView(id="T-001", title="a", phase="1", state="done", attempts=1)
    return ProjectView(
        id=project,
        owner=owner,
        title="Ünï `app`",
        status=status,
        question=None,
        scope=None,
        quote_ucredits=12_340_000,
        ceiling_ucredits=None,
        spent_ucredits=67_500,
        spent_pusd=450_000_000,
        tasks=[task, replace(task, id="T-002", state="open")],
        failure_reason=None,
        package=None,
        created_at=NOW,
        updated_at=NOW,
        last_seq=last_seq,
    )


@pytest.fixture
def names() -> SimpleNamespace:
    """What the fakes call things, and the makers of what they say."""
    return SimpleNamespace(project=PROJECT, bobs=BOBS, run=RUN, package=PACKAGE, package_view=_package_view())


def _package_view() -> PackageView:
    return PackageView(blob="b" * 64, sha256="c" * 64, size_bytes=len(PACKAGE), file_count=0)  # type: ignore[arg-type]


@pytest.fixture
async def system() -> FakeSystem:
    return FakeSystem()


@pytest.fixture
async def door(system: FakeSystem) -> AsyncIterator[httpx.AsyncClient]:
    """The API as Ann sees it."""
    app = api_routes.create_app(system, operator_sha256=token_hash("operator-token"))  # type: ignore[arg-type]
    async for client in _client(app, "http://api"):
        yield client


async def _client(app: Any, base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    headers = {"authorization": "Bearer ann-token"}
    async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers) as client:
        yield client
