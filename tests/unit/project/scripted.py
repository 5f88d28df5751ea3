"""A whole build in memory: scripted models, real rules, real git; no sandbox, no network, no Ray."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.catalogue.catalogue import CATALOGUE
from runtime.config import Settings
from runtime.entity.host import Host
from runtime.entity.journal import EventRecord
from runtime.errors import UnavailableError
from runtime.ids import LOCAL_ADMIN, CallId, EntityId, ProjectId, RunId, project_entity
from runtime.implementer.work import CheckReport, CheckWork, CommandResult, EditResult, EditWork
from runtime.ledger.money import UCREDITS_PER_CREDIT, Tariff
from runtime.ledger.port import Hold, Meter, TaskType
from runtime.project.messages import Describe, OpenProject, ProjectView, Status
from runtime.project.project import Begin, Project
from runtime.project.repository import Author, ProjectRepository
from runtime.project.schemas import TOPICS
from runtime.project.workshop import Workshop
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from tests.patches import patch_of

ANSWERS = {topic: f"said of {topic}" for topic in TOPICS}
SUMMARY = "Goal: a thing.\n1. It works."
PROJECT = ProjectId("11111111-2222-4333-8444-555555555555")
AUTHOR = Author(name="A", email="a@b.invalid")
TOKENS = (1_000, 500)

Reply = Mapping[str, Any] | Exception | Callable[[Any], Mapping[str, Any]]


def done(**changes: Any) -> dict[str, Any]:
    """An interview that is over."""
    whole = {"complete": True, "question": None, "answered": [], "assumptions": [], "summary": SUMMARY}
    return {**whole, **changes}


def asks(topic: str, text: str = "?") -> dict[str, Any]:
    return done(complete=False, question={"topic": topic, "text": text}, summary="")


def requirement(id: str, priority: str = "must") -> dict[str, Any]:
    return {"id": id, "text": f"text of {id}", "priority": priority, "acceptance": ["it does"]}


def item(id: str, *depends: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": id,
        "title": f"title of {id}",
        "detail": "detail",
        "depends": list(depends),
        "files": [f"src/{id}.py", f"tests/test_{id}.py"],
        "requirements": ["R-01"],
        "tests": [f"tests/test_{id}.py"],
    }
    return {**fields, **changes}


def plan(*phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"phases": [{"title": f"phase {n}", "items": list(items)} for n, items in enumerate(phases, 1)]}


def passes(*ids: str, **changes: Any) -> dict[str, Any]:
    """A verdict that cites each item's own test."""
    items = [
        {"id": id, "verdict": "pass", "reason": "it works", "evidence": [{"test": f"tests/test_{id}.py"}]} for id in ids
    ]
    return {"verdict": "pass", "items": items, "findings": [], "todo_edits": [], **changes}


def edit(op: str, id: str, *depends: str, **changes: Any) -> dict[str, Any]:
    return {"op": op, "id": id, "title": "mended", "detail": "how", "depends": list(depends),
            "files": [f"src/{id}.py", f"tests/test_{id}.py"], "requirements": ["R-01"],
            "tests": [f"tests/test_{id}.py"], **changes}  # fmt: skip


class Scripted:
    """Replies by task, or by `task id`; each list is played from its start, and its last reply from then on."""

    def __init__(
        self, folder: Path, replies: Mapping[str, Sequence[Reply]], entities: Any = None, **settings: Any
    ) -> None:
        self.settings = Settings(data_dir=folder, http_port=1, **settings)
        self.ledger = MemoryLedger(Tariff(), 100 * UCREDITS_PER_CREDIT)
        self.journal = MemoryJournal(self.ledger)
        self.calls = Calls(self, {**DEFAULTS, **replies})
        self.implementers = Implementers(self)
        self.entities = entities or Nobody()
        self.folder = folder
        self.lives = 0
        self.host: Host

    async def start(self, **order: Any) -> None:
        await self.ledger.open_wallet(LOCAL_ADMIN, True)
        await self.live()
        opened = {
            "key": "one", "brief": "A brief.", "answers": ANSWERS, "max_ucredits": None, "confirmed": True, **order
        }  # fmt: skip
        await self.host.ask(project_entity(PROJECT), Begin(owner=LOCAL_ADMIN, order=OpenProject(**opened)))

    async def live(self) -> None:
        """A new host, as after a restart."""
        self.lives += 1
        workshop = Workshop(
            settings=self.settings,
            ledger=self.ledger,
            calls=self.calls,  # type: ignore[arg-type]
            implementers=self.implementers,
            entities=self.entities,
            scratch_dir=self.folder / f"host-{self.lives}",
        )
        self.host = Host(
            name="host",
            incarnation=str(self.lives),
            journal=self.journal,
            factories={"project": lambda entity: Project(entity, workshop)},
        )
        await self.host.acquire_all()

    async def tell(self, message: Any) -> ProjectView:
        view: ProjectView = await self.host.ask(project_entity(PROJECT), message)
        return view

    async def events(self) -> list[EventRecord]:
        return list(await self.journal.read(project_entity(PROJECT), 0))

    async def until(self, type: str, count: int = 1) -> list[EventRecord]:
        """All events, once there are so many of this type or the project is over."""
        async with asyncio.timeout(60):
            while True:
                events = await self.host.events(project_entity(PROJECT), 0, 0.0)
                if sum(each.type == type for each in events) >= count or events[-1].type == "project.finished":
                    return list(events)
                await asyncio.sleep(0.005)

    async def until_status(self, status: Status) -> ProjectView:
        async with asyncio.timeout(60):
            while (view := await self.tell(Describe())).status is not status:
                await self.host.events(project_entity(PROJECT), view.last_seq, 0.5)
        return view

    async def repository(self, folder: Path) -> ProjectRepository:
        bundle = next(each.data["bundle"] for each in reversed(await self.events()) if "bundle" in each.data)
        return ProjectRepository.from_bundle(folder, await self.ledger.get_blob(bundle))


class Calls:
    """In the place of ModelCalls: what is asked is kept, what is answered is held and metered like a real call."""

    catalogue = CATALOGUE

    def __init__(self, build: Scripted, replies: Mapping[str, Sequence[Reply]]) -> None:
        self._build = build
        self._replies = replies
        self._played: dict[str, int] = {}
        self.asked: list[tuple[str, str, str]] = []
        """Task line, system, user."""

    async def ask_json(self, order: Any, *, system: str, user: str, schema: Any, max_output_tokens: int) -> Any:
        line = system.split("\n", 1)[0]
        task, id = (part.split("=", 1)[1] for part in line.split()[1:3])
        name = f"{task} {id}" if f"{task} {id}" in self._replies else task
        self.asked.append((line, system, user))
        await paid(self._build.ledger, order.call, order.user, order.run, order.task_type, order.model)
        n = self._played.get(name, 0)
        self._played[name] = n + 1
        reply = self._replies[name][min(n, len(self._replies[name]) - 1)]
        if isinstance(reply, Exception):
            raise reply
        return schema.model_validate(reply(user) if callable(reply) else reply)

    def lines(self, task: str) -> list[str]:
        return [line for line, _, _ in self.asked if f"task={task} " in line]

    def users(self, task: str) -> list[str]:
        return [user for line, _, user in self.asked if f"task={task} " in line]


class Implementers:
    """Every edit writes the item's files; `bad` names the items whose checks are red, `red` the checks of main."""

    def __init__(self, build: Scripted) -> None:
        self._build = build
        self.bad: set[str] = set()
        self.red: Callable[[CheckWork], bool] = lambda work: False
        self.instructions: list[str] = []

    async def probe(self) -> None: ...

    async def prepare(self) -> None: ...

    async def edit(self, work: EditWork) -> EditResult:
        self.instructions.append(work.instruction)
        identity = await self._build.ledger.authenticate(token_hash(work.token))
        assert identity is not None
        assert identity.run is not None
        await paid(self._build.ledger, CallId(f"{identity.run}/c"), identity.user, identity.run, "coding", work.model)
        id = work.instruction.split(" id=", 1)[1].split()[0]
        files = {file: f"{id} {len(self.instructions)}\n" for file in work.files}
        patch = await asyncio.to_thread(patch_of, work.tree, files)
        return EditResult(
            patch=patch, changed=tuple(files), engine="script", engine_log="",
            checks=CheckReport(results=_results(work.checks, red=id in self.bad, number=len(self.instructions))),
        )  # fmt: skip

    async def check(self, work: CheckWork) -> CheckReport:
        results = _results(work.commands, red=self.red(work))
        orders = [json.loads(data) for path, data in work.tools.items() if path.endswith("/order.json")]
        if orders and results[-1].passed:
            results[-1] = replace(results[-1], output=probed(orders[0]))
        return CheckReport(results=results)


class Nobody:
    """There is no index here: builds go on without one."""

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        raise UnavailableError("There is no index here.")

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        return ()


async def paid(
    ledger: MemoryLedger, call: CallId, user: Any, run: RunId | None, task_type: TaskType, model: str
) -> None:
    provider, _, name = model.partition("/")
    await ledger.hold(
        Hold(
            call=call, user=user, run=run, task_type=task_type, provider=provider, model=name,
            input_tokens_max=TOKENS[0], output_tokens_max=TOKENS[1], price=CATALOGUE.price(provider, name),
        )
    )  # fmt: skip
    await ledger.meter(
        Meter(call=call, input_tokens=TOKENS[0], output_tokens=TOKENS[1], response_time_ms=1, key_id="k")
    )


def _results(commands: Sequence[str], *, red: bool, number: int = 0) -> list[CommandResult]:
    """`number` makes failures differ, so that none is taken for a loop."""
    failure = f"FAIL: it broke, {'again ' * number}"
    return [
        CommandResult(command=each, exit_status=int(red), duration_s=0.0, output=failure if red else "OK")
        for each in commands
    ]


def probed(order: Mapping[str, Any]) -> str:
    """What the probe says of a product that works."""
    if order["do"] == "start":
        return json.dumps({"kind": "command", "exit_status": 0})
    executed = {"exit_status": 0, "serves": False, "timed_out": False, "passed": True, "duration_s": 0.0, "output": ""}
    return json.dumps([{"command": command, **executed} for command in order["commands"]])


def _markdown(text: str) -> list[Reply]:
    return [{"markdown": text}]


README = (
    "# Thing\n\n"
    + "".join(
        f"## {title}\n\nText.\n\n"
        for title in (
            "Overview",
            "Prerequisites",
            "Installation",
            "Configuration",
            "Running",
            "Features",
            "Directory overview",
        )
    )
    + "```sh\npython3 app.py\n```\n"
)

DEFAULTS: Mapping[str, Sequence[Reply]] = {
    "interview.next": [done()],
    "plan.requirements": [{"title": "Thing", "summary": "s", "requirements": [requirement("R-01")]}],
    "plan.stack": [
        {
            "choices": [{"layer": "language", "choice": "Python", "reason": "it is there"}],
            "commands": {"install": "", "build": "", "test": "python3 -m unittest {tests}", "run": "python3 app.py"},
        }
    ],
    "plan.architecture": _markdown("# Architecture"),
    "plan.todo": [plan([item("T-001")])],
    "docs.api": _markdown("# API"),
    "docs.deployment": _markdown("# Deployment"),
    "docs.readme": _markdown(README),
    "verify.phase": [passes("T-001")],
    "qa.review": [passes("T-001")],
}
