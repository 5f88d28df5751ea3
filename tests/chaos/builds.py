"""Real builds, one after the other, ordered and followed like any client does."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import yaml

from cluster.client import Client
from cluster.simulator.scenario import SCENARIOS
from cluster.wire import Project
from runtime.errors import MasterbuilderError, UnavailableError

T = TypeVar("T")

_SCENARIO = SCENARIOS / "expense_tracker"
_LOOK_EVERY_S = 1.0


@dataclass(slots=True, kw_only=True)
class Build:
    key: str
    project: Project | None = None
    """As it was last seen."""
    pauses: list[str] = field(default_factory=list)
    """Why it waited for somebody, each time; it was then told to go on."""
    seconds: float = 0.0


class Builds:
    """A thread of its own. Outages are waited out; a build that pauses because of one is resumed."""

    def __init__(self, client: Callable[[], Client], brief: str = "", answers: Mapping[str, str] | None = None) -> None:
        """Without a brief: the simulator's scenario of an expense tracker."""
        self._client = client
        self._brief = brief or (_SCENARIO / "brief.md").read_text()
        self._answers = answers if brief else yaml.safe_load((_SCENARIO / "answers.yaml").read_text())
        self._no_more = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="builds", daemon=True)
        self.ordered: list[Build] = []
        self.wrong: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def order_no_more(self) -> None:
        self._no_more.set()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def finish(self, patience_s: float) -> Sequence[Build]:
        """Orders no more and waits for the last one. One that takes longer stays as it was last seen."""
        self.order_no_more()
        self._thread.join(patience_s)
        self._given_up.set()
        return self.ordered

    def _run(self) -> None:
        while not self._no_more.is_set():
            build = Build(key=uuid.uuid4().hex)
            self.ordered.append(build)
            begun = time.monotonic()
            try:
                self._follow(build)
            except MasterbuilderError as error:
                self.wrong.append(f"build {build.project.id if build.project else build.key}: {error.code}: {error}")
            build.seconds = time.monotonic() - begun

    def _follow(self, build: Build) -> None:
        key = build.key
        project = self._patiently(lambda client: client.create(self._brief, self._answers, None, True, key))
        build.project, project_id = project, project.id
        while not project.finished and not self._given_up.is_set():
            time.sleep(_LOOK_EVERY_S)
            project = self._patiently(lambda client: client.project(project_id))
            build.project = project
            if project.paused:
                build.pauses.append(f"{project.status}: {project.question or project.failure_reason}")
                self._patiently(lambda client: client.resume(project_id))

    def _patiently(self, ask: Callable[[Client], T]) -> T:
        """Repeats what did not come through: projects are created by key, and `resume` twice is `resume` once."""
        while True:
            client = self._client()
            try:
                return ask(client)
            except UnavailableError:
                if self._given_up.is_set():
                    raise
                time.sleep(0.5)
            finally:
                client.close()
