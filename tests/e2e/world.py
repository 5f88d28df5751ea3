"""A whole build in one process: real store, ledger, git, sandbox, SDK, edit engine (`blocks`) and simulator; no Ray.

A crash is a host that is dropped where it stands: nothing of it runs on, and a new incarnation takes over.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from cluster.simulator.scenario import SCENARIOS
from cluster.simulator.server import Simulator
from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.endpoints import Endpoint
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Secrets, Settings
from runtime.entity.host import Factory, Host
from runtime.entity.journal import Append, EventRecord, Journal
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.ids import LOCAL_ADMIN, CallId, EntityId, ProjectId, new_call_id, user_entity
from runtime.implementer.blocks_door import ModelReply, NoReplyError
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.blocks_prompt import Said
from runtime.implementer.engine import EditRequest
from runtime.implementer.implementer import Implementer
from runtime.implementer.packages.cache import PackageCache
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import CheckReport, CheckWork, CommandResult, EditResult, EditWork, Limits
from runtime.keys.keys import KeyLeases, provider_key, seal_key
from runtime.keys.ring import KeyRing
from runtime.ledger.port import Receipt
from runtime.project.facts import project_facts
from runtime.project.messages import OpenProject, ProjectView
from runtime.project.project import Project
from runtime.project.workshop import Workshop
from runtime.providers.calls import ModelCalls
from runtime.providers.chat import ChatRequest, Message, Text
from runtime.providers.order import CallOrder
from runtime.providers.waiting import waiting
from runtime.session.session import UserSession
from runtime.store.store import Store
from runtime.tokens import token_hash
from serve_apps.answers import status_of

SCENARIO = SCENARIOS / "expense_tracker"
BRIEF = (SCENARIO / "brief.md").read_text()
ANSWERS = yaml.safe_load((SCENARIO / "answers.yaml").read_text())


class Crash(BaseException):
    """The process is gone. Not an Exception, so that nothing handles it."""


class World:
    """Everything that outlives a crash, and the host that does not."""

    def __init__(self, folder: Path, simulator: Simulator, usage_file: Path, **settings: Any) -> None:
        self.settings = Settings(data_dir=folder / "data", http_port=1, **settings)
        self.simulator = simulator
        self.usage_file = usage_file
        self.secrets = Secrets.load(self.settings.data_dir, {})
        self.store_ahead = timedelta()
        """How far the store's clock is ahead."""
        self.store = Store(
            self.settings,
            self.secrets,
            clock=lambda: datetime.now(UTC) + self.store_ahead,
            facts_of=project_facts,
        )
        self.sandbox = Sandbox()
        engine = BlocksEngine(MeteredDoor(self))
        packages = PackageCache.of(self.settings)
        self.implementer = Implementer(
            sandbox=self.sandbox, engine=engine, scratch_dir=folder / "scratch", packages=packages
        )
        self.incarnations = 0
        self.appends = 0
        self.crash_at = 0
        self.crash_before: bool | None = None
        """Whether it dies before that append is on disk; None: before or after, by turns."""
        self.red_checks = 0
        """So many checks from now on come back red, whatever the tree holds."""
        self.limits_of: Callable[[EditWork], Limits] = lambda work: work.limits
        """What every command of a task's checks may use."""
        self.crashed = asyncio.Event()
        self.ahead = timedelta()
        """How far the hosts' clock is ahead."""
        self.entities = Here(self)
        self.more: Callable[[Journal], Mapping[str, Factory]] = lambda journal: {}
        """Further kinds of entities, over the journal of a host."""
        self.host: Host
        self.calls: ModelCalls

    async def open(self) -> None:
        await self.store.open()
        await self.store.books.open_wallet(LOCAL_ADMIN, True)
        market = Market(Routes(CATALOGUE), source=self.store.books)
        self.calls = ModelCalls(self.store.books, await self.leases(), market, self.settings)
        await self.start_host()

    async def leases(self) -> KeyLeases:
        """Of the one key there is."""
        endpoint = Endpoint(provider="openai", base_url=self.simulator.base_url, key="sim-test")
        await self.store.books.replace_keys([seal_key(endpoint, self.secrets.api_key_encryption_key)])
        return KeyRing([provider_key(endpoint)], cooldown_s=1.0)

    async def close(self) -> None:
        await self.host.stop()
        await self.calls.close()
        await self.store.close()

    async def start_host(self) -> None:
        self.incarnations += 1
        incarnation = self.incarnations
        journal = CrashingJournal(self, incarnation)
        entities = self.entities
        workshop = Workshop(
            settings=self.settings,
            ledger=self.store.books,
            calls=self.calls,
            implementers=InProcess(self),
            entities=entities,
            scratch_dir=self.settings.data_dir / f"host-{incarnation}",
        )

        def session(entity: EntityId) -> UserSession:
            return UserSession(entity, self.settings, self.store.books, journal, entities, workshop.implementers)

        self.host = Host(
            name="host-0",
            incarnation=str(incarnation),
            journal=journal,
            factories={"project": lambda entity: Project(entity, workshop), "user": session, **self.more(journal)},
            now=lambda: datetime.now(UTC) + self.ahead,
        )
        await self.host.acquire_all()

    async def crash_and_restart(self) -> None:
        """What `kill -9` and a restarted actor come to."""
        old, self.crash_at = self.host, 0
        self.crashed.clear()
        await self.start_host()
        await old.stop()

    async def order(self, **changes: Any) -> ProjectView:
        order: dict[str, Any] = {
            "key": "one",
            "brief": BRIEF,
            "answers": ANSWERS,
            "max_ucredits": None,
            "confirmed": True,
        }
        view: ProjectView = await self.host.ask(user_entity(LOCAL_ADMIN), OpenProject(**{**order, **changes}))
        return view

    async def until(self, project: ProjectId, type: str, count: int = 1) -> list[EventRecord]:
        """All events up to so many of this type."""
        while True:
            records = await self.store.journal.read(EntityId(f"project:{project}"), 0)
            found = [record.seq for record in records if record.type == type]
            if len(found) >= count:
                return list(records[: found[count - 1]])
            if self.crashed.is_set():
                raise Crash
            await asyncio.sleep(0.05)

    def served(self) -> dict[str, dict[str, Any]]:
        """The simulator's own count: call id -> tokens."""
        lines = self.usage_file.read_text().splitlines() if self.usage_file.exists() else []
        return {record["call_id"]: record for record in map(json.loads, lines)}


class CrashingJournal:
    """The store's journal, as one incarnation sees it: at the n-th append the process dies, before or after it."""

    def __init__(self, world: World, incarnation: int) -> None:
        self._world = world
        self._incarnation = incarnation
        self._inner = world.store.journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(self, append: Append) -> int:
        world = self._world
        self._refuse_the_dead()
        world.appends += 1
        dies = world.crash_at and world.appends >= world.crash_at
        if dies and (world.appends % 2 if world.crash_before is None else world.crash_before):
            world.crashed.set()
        self._refuse_the_dead()
        seq = await self._inner.append(append)
        if dies:
            world.crashed.set()
            self._refuse_the_dead()
        return seq

    def _refuse_the_dead(self) -> None:
        if self._world.crashed.is_set() or self._incarnation != self._world.incarnations:
            raise UnavailableError("this process is dead")


class Here:
    """Entities of the newest incarnation. There is no index in this world: builds go on without one."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if entity.startswith("index:"):
            raise UnavailableError("There is no index here.")
        return await self._world.host.ask(entity, message, timeout_s=timeout_s)

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        return await self._world.host.events(entity, after_seq, wait_s)


class InProcess:
    """Implementers without a pool: the real work on real clones, with an engine that needs no process of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turns = asyncio.Semaphore(4)

    async def probe(self) -> None:
        await self._world.sandbox.probe()

    async def prepare(self) -> None:
        return None

    async def edit(self, work: EditWork) -> EditResult:
        with waiting("a free implementer"):
            await self._turns.acquire()
        try:
            await self._world.implementer.start()
            return await self._world.implementer.edit(replace(work, limits=self._world.limits_of(work)))
        finally:
            self._turns.release()

    async def check(self, work: CheckWork) -> CheckReport:
        async with self._turns:
            if self._world.red_checks:
                self._world.red_checks -= 1
                red = CommandResult(command="test", exit_status=1, duration_s=0.1, output="FAIL: it broke")
                return CheckReport(results=[red])
            await self._world.implementer.start()
            return await self._world.implementer.check(work)


class MeteredDoor:
    """How `blocks` reaches a model here: the metered call that the gateway makes, for whoever the token belongs to."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, request: EditRequest, said: Sequence[Said]) -> ModelReply:
        identity = await self._world.store.books.authenticate(token_hash(request.token))
        assert identity is not None
        assert identity.run is not None
        order = CallOrder(
            call=CallId(f"{identity.run}/{new_call_id()}"),
            user=identity.user,
            run=identity.run,
            task_type="coding",
            model=request.model,
        )
        asked = ChatRequest(
            system=[each.text for each in said if each.role == "system"],
            messages=[Message(role=each.role, parts=(Text(text=each.text),)) for each in said if each.role != "system"],
            output_tokens_max=request.output_tokens_max,
        )
        try:
            reply = await self._world.calls.complete(order, asked)
        except MasterbuilderError as error:
            raise NoReplyError(str(error), status_of(error)) from None
        return ModelReply(text=reply.text, is_cut=reply.finish == "length")


def paid_by_call(receipt: Receipt) -> dict[str, tuple[int, int]]:
    """Call id -> (input tokens, output tokens) of what the user was charged."""
    return {row.call: (row.input_tokens, row.output_tokens) for row in receipt.charged}
