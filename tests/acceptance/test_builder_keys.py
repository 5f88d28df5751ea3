"""Lines 58-64 of spec/builder.md §18: provider keys, from the sealed row to the provider's answer.

The keys lie in a real store, real pools hand them out, and the simulator is called with them over HTTP. All parts of
the product that belong to Ray's processes run in this one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import httpx
import pytest

from actors import key_pool, ledger
from actors.key_pool import KeyPoolActor, KeyPools
from actors.ledger import LedgerHandle
from cluster.simulator.server import Simulator
from cluster.simulator.usage import fingerprint
from runtime.catalogue.endpoints import Endpoint
from runtime.errors import BadInputError, ProviderError, UnavailableError
from runtime.ids import LOCAL_ADMIN, ProjectId, new_call_id, project_entity
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.implementer import Implementer
from runtime.keys.keys import KeyLeases, key_id_of, open_key
from runtime.keys.masters import MasterKeys
from runtime.keys.pool import TTL_UNLIMITED_S
from runtime.project import steps
from runtime.project.messages import Describe, ProjectView, Resume, Status
from runtime.providers.chat import ChatRequest, Message, Text
from runtime.providers.order import CallOrder
from runtime.reports.alerts import key_readings
from tests.e2e import small
from tests.e2e.needles import Haystack
from tests.e2e.world import MeteredDoor, World

KEYS = ("sim-alpha-6f1d93c07be2", "sim-beta-0c58a7e4d916", "sim-gamma-b27e40f3851a")
ALPHA, BETA, GAMMA = KEYS
MODEL = "openai/gpt-4o-mini"
LABEL = "kept-by-the-night-shift"


class Actors:
    """What Ray does for actors, as far as pools and their callers ask it: one of a name, found by it, sent messages."""

    def __init__(self) -> None:
        self.running: dict[str, KeyPoolActor] = {}

    def ensure(self, name: str, actor_class: type[KeyPoolActor], *args: Any, **_: Any) -> Any:
        if name not in self.running:
            self.running[name] = actor_class(*args)
        return _Handle(self, name)

    def find(self, name: str) -> Any:
        if name not in self.running:
            raise UnavailableError(f"The actor {name} does not run.")
        return _Handle(self, name)

    def names(self) -> Sequence[str]:
        return list(self.running)

    def restart(self) -> None:
        """As after a kill: nothing is given back, and what a new one knows is on disk."""
        for name, actor in list(self.running.items()):
            if actor._desk is not None:
                actor._desk.close()
                actor._desk._log.close()
            self.running[name] = KeyPoolActor(actor._settings, actor._provider)


class _Handle:
    def __init__(self, actors: Actors, name: str) -> None:
        self._actors = actors
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *args: getattr(self._actors.running[self._name], method)(*args))


class Keyed(World):
    """A world whose calls lease their keys from pools."""

    pools: KeyPools
    actors: Actors

    async def leases(self) -> KeyLeases:
        self.pools = KeyPools(self.settings)
        for key in KEYS:
            await self.add(key)
        return self.pools

    async def close(self) -> None:
        await self.pools.close()
        await super().close()

    async def add(self, key: str, expires_at: datetime | None = None, provider: str = "openai") -> str:
        base_url = self.simulator.base_url if provider != "gemini" else self.simulator.root_url
        return await self.pools.add(Endpoint(provider=provider, base_url=base_url, key=key), LABEL, "", expires_at)

    async def fault(self, **fault: Any) -> None:
        """Orders one at the simulator."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.simulator.root_url}/simulator/faults", json=fault)
        assert answer.status_code == 200, answer.text

    async def turned_away(self, key: str) -> int:
        """Calls that the simulator refused for their key."""
        async with httpx.AsyncClient() as client:
            told = (await client.get(f"{self.simulator.root_url}/simulator/faults")).json()["waiting"]
        return sum(each["taken"] for each in told if each["kind"] == "revoke_key" and each["key"] == key)

    async def asks(self, model: str = MODEL) -> str:
        """Makes one call; the key that served it, as the simulator saw it."""
        call = new_call_id()
        order = CallOrder(call=call, user=LOCAL_ADMIN, task_type="chat", model=model)
        said = Message(role="user", parts=(Text(text="synthetic tokens=1"),))
        await self.calls.complete(order, ChatRequest(system=(), messages=(said,), output_tokens_max=16))
        (served,) = [line for id, line in self.served().items() if id.startswith(call)]
        return next((key for key in KEYS if fingerprint(key) == served["key"]), f"another one, on {served['wire']}")

    async def asks_until(self, is_so: Callable[[], Awaitable[bool]]) -> Sequence[str]:
        """The keys of all calls that it took."""
        keys = []
        while not await is_so():
            keys.append(await self.asks())
        return keys

    async def condition(self, key: str) -> str:
        listed = {each.key_id: each.state for each in await self.pools.listed()}
        return listed[key_id_of("openai", key)]

    async def alerts(self) -> list[str]:
        """The conditions of all that are open, after the ledger has looked once more."""
        await self.store.reports.watch(key_readings(await ledger._key_pools({})))
        return [alert.condition for alert in await self.store.reports.alerts(open_only=True)]


@pytest.fixture
async def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyed]:
    actors, usage_file = Actors(), tmp_path / "usage.jsonl"
    scenarios = small.write(tmp_path / "scenarios")
    async with Simulator(usage_file=usage_file, scenarios=scenarios) as simulator:
        world = Keyed(tmp_path, simulator, usage_file)
        world.actors = actors
        world.sandbox = small.ReadingSandbox()
        engine = BlocksEngine(MeteredDoor(world))
        world.implementer = Implementer(sandbox=world.sandbox, engine=engine, scratch_dir=tmp_path / "scratch")
        monkeypatch.setattr(key_pool, "prepare_process", lambda: None)
        monkeypatch.setattr(LedgerHandle, "ensure", lambda settings: world.store.books)
        for module in (key_pool, ledger):
            monkeypatch.setattr(module, "find", actors.find)
            monkeypatch.setattr(module, "names", actors.names)
        monkeypatch.setattr(key_pool, "ensure", actors.ensure)
        await world.open()
        yield world
        await world.close()


async def test_58__no_key_can_be_read_in_the_database_file(keyed: Keyed) -> None:
    """Nor in any other file of the data folder; and not by reading the rows, whatever the file does to them. The label,
    which is kept as it is, is found: so a key would be."""
    await keyed.asks()
    data_dir = keyed.settings.data_dir
    await keyed.store.close()
    haystack = Haystack({"a key": ALPHA, "another": BETA, "a third": GAMMA, "label": LABEL})
    with duckdb.connect(str(data_dir / "ledger.duckdb"), read_only=True) as database:
        columns = database.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal "
            "AND data_type IN ('VARCHAR', 'BLOB') AND table_name IN (SELECT table_name FROM duckdb_tables())"
        ).fetchall()
        told: dict[str, set[str]] = {}
        for table, column in columns:
            values = [value for (value,) in database.execute(f"SELECT {column} FROM {table}").fetchall()]
            read = b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
            told[table] = told.get(table, set()) | haystack.in_bytes(read)
    assert {name: found for name, found in told.items() if found} == {"api_keys": {"label"}}
    assert not any(found - {"label"} for found in haystack.in_files([data_dir]).values())
    await keyed.store.open()


async def test_59__three_keys_are_used_in_turn(keyed: Keyed) -> None:
    keys = [await keyed.asks() for _ in range(12)]
    assert [set(keys[first : first + 3]) for first in range(0, 12, 3)] == [set(KEYS)] * 4


async def test_60__a_limited_key_is_passed_over_until_its_cooldown_ends(keyed: Keyed) -> None:
    await keyed.fault(kind="status_429", key=ALPHA, retry_after_s=3.0)
    await keyed.asks_until(lambda: _is(keyed, ALPHA, "cooling"))
    during: list[str] = []
    while True:
        key = await keyed.asks()
        if not await _is(keyed, ALPHA, "cooling"):
            break
        during.append(key)
    assert {BETA, GAMMA} <= set(during)
    assert ALPHA not in during
    await keyed.asks_until(lambda: _served(keyed, ALPHA))


async def test_61__a_refused_key_is_out_of_use_and_an_alert_says_so(keyed: Keyed) -> None:
    assert await keyed.alerts() == []
    await keyed.fault(kind="revoke_key", key=ALPHA)
    await keyed.asks_until(lambda: _is(keyed, ALPHA, "refused"))
    assert ALPHA not in [await keyed.asks() for _ in range(6)]
    told = f"key-refused:{key_id_of('openai', ALPHA)}"
    assert (await keyed.alerts()).count(told) == 1
    assert (await keyed.alerts()).count(told) == 1

    keyed.actors.restart()
    assert ALPHA not in [await keyed.asks() for _ in range(6)]
    assert await keyed.condition(ALPHA) == "refused"
    assert await keyed.turned_away(ALPHA) == 1
    await keyed.add(ALPHA)
    assert told not in await keyed.alerts(), "whoever gives it again has mended it"


async def _served(keyed: Keyed, key: str) -> bool:
    """Whether the newest call was its."""
    return bool(list(keyed.served().values())[-1]["key"] == fingerprint(key))


async def _is(keyed: Keyed, key: str, condition: str) -> bool:
    return await keyed.condition(key) == condition


async def test_62__a_project_waits_for_usable_keys_and_is_not_lost(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its keys are limited, which it sits out; then all of them are refused, until somebody brings one."""
    monkeypatch.setattr(steps, "BACK_OFF_S", (0.05, 0.05))
    for key in KEYS:
        await keyed.fault(kind="status_429", key=key, retry_after_s=1.0)
    project = (await keyed.order(brief=small.BRIEF, answers=small.ANSWERS)).id
    await _until(keyed, project, lambda view: any(task.state == "done" for task in view.tasks))
    for key in KEYS:
        await keyed.fault(kind="revoke_key", key=key)
    paused = await _until(keyed, project, lambda view: view.status is Status.PAUSED)
    assert "openai refuses every key" in (paused.question or "")
    done = {task.id for task in paused.tasks if task.state == "done"}
    served = len(keyed.served())

    await keyed.add("sim-delta-bought-today")
    await keyed.host.ask(project_entity(project), Resume(key="go on"))
    await _until(keyed, project, lambda view: view.status is Status.COMPLETED)
    records = await keyed.store.journal.read(project_entity(project), 0)
    merged = [record.data["task"] for record in records if record.type == "task.merged"]
    assert sorted(merged) == ["T-001", "T-002", "T-003", "T-004"]
    assert done <= set(merged)
    assert len(keyed.served()) > served > 0


async def _until(keyed: Keyed, project: ProjectId, is_so: Callable[[ProjectView], bool]) -> ProjectView:
    while True:
        view: ProjectView = await keyed.host.ask(project_entity(project), Describe())
        if is_so(view):
            return view
        assert view.status is not Status.COMPLETED
        assert view.ended_at is None, view
        await asyncio.sleep(0.02)


async def test_62__a_call_that_may_be_served_by_others_fails_over(keyed: Keyed) -> None:
    """Whoever names one model waits for its provider; a profile names several."""
    await keyed.add("sim-of-one-house", provider="deepseek")
    await keyed.add("sim-of-another-house", provider="gemini")
    assert await keyed.asks("smart") == "another one, on openai"
    await keyed.fault(kind="revoke_key", key="sim-of-one-house")
    assert await keyed.asks("smart") == "another one, on gemini"
    with pytest.raises(ProviderError, match="deepseek refuses every key"):
        await keyed.asks("deepseek/deepseek-reasoner")


async def test_63__no_call_gets_a_key_that_expired(keyed: Keyed) -> None:
    """Also not one that was given to its process before."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    await keyed.add(ALPHA, past)
    assert await keyed.condition(ALPHA) == "expired"
    assert BETA in [await keyed.asks() for _ in range(9)][6:]
    end = datetime.now(UTC) + timedelta(seconds=TTL_UNLIMITED_S + 0.5)
    await keyed.add(BETA, end)
    late: list[str] = []
    while len(late) < 6:
        is_late = datetime.now(UTC) >= end
        key = await keyed.asks()
        late += [key] if is_late else []
    assert set(late) == {GAMMA}
    keyed.actors.restart()
    assert {await keyed.asks() for _ in range(4)} == {GAMMA}
    await keyed.pools.set_disabled(key_id_of("openai", GAMMA), True)
    await asyncio.sleep(TTL_UNLIMITED_S + 0.1)
    with pytest.raises(ProviderError, match="No key of openai can be used any more"):
        await keyed.asks()


async def test_64__the_master_key_is_exchanged_while_calls_go_on(keyed: Keyed) -> None:
    data_dir = keyed.settings.data_dir
    old = MasterKeys.load(data_dir, {}).newest
    is_over = asyncio.Event()

    async def call() -> set[str]:
        keys = set()
        while not is_over.is_set():
            keys.add(await keyed.asks())
        return keys

    calling = asyncio.create_task(call())
    rotated = [await keyed.pools.rotate(None) for _ in range(2)]
    is_over.set()
    assert await calling
    assert [(each.keys, list(each.unreadable)) for each in rotated] == [(3, [])] * 2

    sealed = await keyed.store.books.all_keys()
    for key in sealed:
        with pytest.raises(BadInputError):
            open_key(key, old)
    await keyed.store.close()
    await keyed.store.open()
    keyed.actors.restart()
    assert {await keyed.asks() for _ in range(9)} == set(KEYS)
    assert len(await keyed.pools.rotations()) >= 2
    assert json.loads((data_dir / "secrets.json").read_text())["api_key_encryption_key"]
