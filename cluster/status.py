"""How the whole service is at one moment, gathered from outside: its processes, its record, and its own answers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from cluster.client import Client
from cluster.instance import Instance
from cluster.launch import running
from cluster.processes import owned
from cluster.wire import AdminStatus, Health, Me, ProjectCounts
from runtime.entity.vitals import Quarantined
from runtime.errors import MasterbuilderError, RefusedError, UnavailableError

PARTS = ("hosts", "map_version", "moving", "store", "implementers", "key_pools", "silent")
"""The fields of AdminStatus that the JSON shows under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """What did not answer is None, and `silent` names it."""

    at_s: float
    """On a clock that only runs forward: rates are differences of two moments."""
    running: bool
    healthy: bool
    """It answers, and its ledger does."""
    state: str
    detail: str
    url: str
    dashboard_url: str
    restarts: int
    proxy: str
    data_dir: str
    provider: str
    processes: int
    memory_bytes: int
    me: Me | None
    projects: ProjectCounts | None
    parts: AdminStatus | None
    silent: tuple[str, ...]

    @property
    def quarantined(self) -> list[Quarantined]:
        hosts = self.parts.hosts if self.parts else ()
        return [each for host in hosts for each in host.quarantined]

    def facts(self) -> Mapping[str, Any]:
        """As `--json` prints them."""
        parts = self.parts.model_dump(mode="json") if self.parts else {}
        return {
            "running": self.running,
            "state": self.state,
            "detail": self.detail,
            "url": self.url,
            "dashboard_url": self.dashboard_url,
            "restarts": self.restarts,
            "proxy": self.proxy,
            "data_dir": self.data_dir,
            "provider": self.provider,
            "processes": self.processes,
            "memory_bytes": self.memory_bytes,
            "projects": self.projects.total if self.projects else 0,
            "active_projects": self.projects.unfinished if self.projects else 0,
            "balance_credits": self.me.balance_credits if self.me else "",
            "held_credits": self.me.held_credits if self.me else "",
            **{name: parts.get(name) for name in PARTS},
            "silent": list(self.silent),
        }


def take(instance: Instance, client: Client) -> ServiceStatus:
    """Raises nothing that the service can cause: what is wrong with it stands in `detail` and `silent`."""
    record = running(instance)
    processes = owned(instance)
    answers = _Answers()
    if record is None or record.state == "ready":
        answers.gather(client)
    state, detail = (record.state, record.detail) if record else ("down", "")
    if record is None and answers.anything:
        state = "unsupervised" if processes else "ready"  # Without processes here it runs elsewhere.
    if state == "unsupervised":
        detail = "its supervisor is gone, so nothing restarts it: run `masterbuilder up`"
    return ServiceStatus(
        at_s=time.monotonic(),
        running=record is not None or answers.anything,
        healthy=answers.me is not None,
        state=state,
        detail=" ".join(part for part in (detail, answers.trouble) if part),
        url=client.url,
        dashboard_url=record.dashboard_url if record else "",
        restarts=record.restarts if record else 0,
        proxy=record.proxy if record else "",
        data_dir=str(instance.data_dir),
        provider=answers.provider(),
        processes=len(processes),
        memory_bytes=sum(_memory(process) for process in processes),
        me=answers.me,
        projects=answers.projects,
        parts=answers.parts,
        silent=answers.silent(),
    )


class _Answers:
    """What the service says of itself, as far as it says something."""

    def __init__(self) -> None:
        self.health: Health | None = None
        self.me: Me | None = None
        self.parts: AdminStatus | None = None
        self.projects: ProjectCounts | None = None
        self.trouble = ""

    @property
    def anything(self) -> bool:
        return self.parts is not None or self.health is not None

    def gather(self, client: Client) -> None:
        try:
            self._ask_parts(client)
            if "ledger" in self.silent():
                self.trouble = "the ledger does not answer"  # All that follows would only wait for it.
                return
            self.health = client.health()
            if self.health.ledger == "ok":
                self.me = client.me()
            else:
                self.trouble = f"ledger: {self.health.ledger}"
        except MasterbuilderError as error:
            self.trouble = self.trouble or str(error)

    def provider(self) -> str:
        if self.health:
            return self.health.provider
        return ", ".join(pool.provider for pool in self.parts.key_pools) if self.parts else ""

    def silent(self) -> tuple[str, ...]:
        named = tuple(self.parts.silent) if self.parts else ()
        ledger_is_silent = self.health is not None and self.health.ledger != "ok"
        return ("ledger", *named) if ledger_is_silent and "ledger" not in named else named

    def _ask_parts(self, client: Client) -> None:
        try:
            self.parts = client.status()
            self.projects = self.parts.projects
        except RefusedError:
            self._ask_own_projects(client)
        except UnavailableError as error:
            self.trouble = str(error)

    def _ask_own_projects(self, client: Client) -> None:
        """For whoever is no administrator."""
        try:
            own = client.projects()
        except MasterbuilderError as error:
            self.trouble = str(error)
        else:
            self.projects = ProjectCounts(total=len(own), unfinished=sum(not project.finished for project in own))


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
