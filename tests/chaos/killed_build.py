"""`make chaos-build SEED=1`: one build, in which a random process of ours is killed (-9) every ten seconds.

It must finish with every task on main once, nothing charged twice, and a history that is linear and green at each
commit. One JSON line a figure; what does not hold is told on stderr.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.simulator.synthetic_build import BuildOrder
from cluster.wire import Event
from runtime.config import Secrets, Settings
from runtime.errors import MasterbuilderError, UnavailableError
from runtime.ids import BlobId
from runtime.project.repository import ProjectRepository
from runtime.store.store import Store
from tests.bench.builder import default_engine
from tests.bench.figures import figure
from tests.chaos import verdict
from tests.chaos.builds import Build, Builds
from tests.chaos.killer import ACTORS, Kill, Killer
from tests.e2e.live import Live

BUILD_S_MAX = 900.0


class KilledBuild:
    def __init__(
        self, folder: Path, order: BuildOrder, *, seed: int, every_s: float, engine: str, say: Callable[[str], None]
    ) -> None:
        live = Live.in_folder(folder)
        own = {"EDIT_ENGINE": engine, "IMPLEMENTERS": "4", "INITIAL_FREE_CREDITS": "1000000"}
        self._live = replace(live, environment={**live.environment, **own})
        self._order = order
        self._seed = seed
        self._every_s = every_s
        self._say = say

    def run(self) -> tuple[Sequence[dict[str, object]], Sequence[str]]:
        """Figures and differences. Everything it starts is stopped when it returns."""
        try:
            build, kills, events, differences = self._run()
        finally:
            self._live.close()
        differences = [*differences, *history(self._live.instance.data_dir, self._order, events)]
        merged = [event.data["task"] for event in events if event.type == "task.merged"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(kill.kind for kill in kills).items())
        return [
            self._figure("kills", len(kills), "processes", kinds, 3, len(kills) >= 3),
            self._figure("tasks merged", len(set(merged)), "tasks",
                         f"{build.seconds:.0f} s, {len(build.pauses)} pauses",
                         self._order.tasks, len(set(merged)) == self._order.tasks),
            self._figure("differences", len(differences), "differences", "", 0, not differences),
        ], differences  # fmt: skip

    def _run(self) -> tuple[Build, Sequence[Kill], Sequence[Event], list[str]]:
        started = self._live.run("up", **self._live.start_simulator())
        if started.returncode != 0:
            raise UnavailableError(f"The service did not start: {started.stderr}")
        before = self._live.client.me().balance_ucredits
        builds = Builds(lambda: self._live.client, self._order.line, {})
        builds.start()
        killer = Killer(self._live.instance, self._seed, tuple(ACTORS))
        kills: list[Kill] = []
        until = time.monotonic() + BUILD_S_MAX
        # The thread orders one build after the other until it is told that this one is the last.
        while not (builds.ordered and builds.ordered[0].project) and time.monotonic() < until:
            time.sleep(0.5)
        builds.order_no_more()
        while not builds.is_over and time.monotonic() < until:
            time.sleep(self._every_s)
            if not builds.is_over:
                struck = killer.strike()
                kills += struck
                self._say(f"killed {', '.join(kill.kind for kill in struck)}")
        ordered = builds.finish(max(10.0, until - time.monotonic()))
        for pause in ordered[0].pauses:
            self._say(f"the build waited for us to resume it: {pause}")
        differences = [
            *builds.wrong,
            *verdict.builds(ordered, self._live.client, before, self._live.usage_file),
        ]
        project = ordered[0].project
        events = list(self._live.client.events(project.id, 0)) if project is not None and project.finished else []
        return ordered[0], kills, events, differences

    def _figure(
        self, name: str, value: float, unit: str, against: str, target: float, holds: bool
    ) -> dict[str, object]:
        made = figure("chaos-build", name, value, unit, against=against, target=target, holds=holds)
        return {**made, "seed": self._seed}


def history(data_dir: Path, order: BuildOrder, events: Sequence[Event]) -> Iterator[str]:
    """What is wrong with the git history that the build left, of a service that has stopped."""
    merged = [event.data for event in events if event.type == "task.merged"]
    tasks = Counter(data["task"] for data in merged)
    if lost := {task.id for task in order.graph()} - tasks.keys():
        yield f"never merged: {sorted(lost)}"
    if twice := [task for task, count in tasks.items() if count > 1]:
        yield f"merged twice: {twice}"
    bundles = [event.data["bundle"] for event in events if "bundle" in event.data]
    if not bundles:
        yield "the build left no bundle"
        return
    bundle = asyncio.run(_blob(data_dir, BlobId(bundles[-1])))
    with tempfile.TemporaryDirectory() as folder:
        clone = ProjectRepository.from_bundle(Path(folder) / "clone", bundle)
        yield from _commits(clone, order, merged)


def _commits(clone: ProjectRepository, order: BuildOrder, merged: Sequence[dict[str, Any]]) -> Iterator[str]:
    commits = list(reversed(clone.commits()))
    trailers = [commit.trailers["Task"] for commit in commits if "Task" in commit.trailers]
    if trailers != [f"{data['task']}/{data['attempt']}" for data in merged]:
        yield f"main has the commits of {trailers}"
    tests = {task.id: task.test for task in order.graph()}
    parent, done = "", list[str]()
    for commit in commits:
        if clone.parents(commit.commit) != ([parent] if parent else []):
            yield f"{commit.commit} does not follow {parent}: the history is not linear"
        parent = commit.commit
        if "Task" not in commit.trailers:
            continue
        done.append(tests[commit.trailers["Task"].split("/")[0]])
        clone.reset_hard(commit.commit)
        checked = subprocess.run(f"cat {' '.join(done)} | sh -e", shell=True, cwd=clone.folder, capture_output=True)
        if checked.returncode != 0:
            yield f"{commit.commit} is red: {checked.stderr.decode()[-300:]}"


async def _blob(data_dir: Path, blob: BlobId) -> bytes:
    store = Store(Settings(data_dir=data_dir), Secrets.load(data_dir, {}))
    await store.open()
    try:
        return await store.books.get_blob(blob)
    finally:
        await store.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.killed_build", description=__doc__)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between kills (default: 10)")
    parser.add_argument("--engine", default=default_engine())
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, which then stay")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    order = BuildOrder(tasks=given.tasks, seed=given.seed, delay_ms=(3_000, 12_000))
    with tempfile.TemporaryDirectory(prefix="mb-chaos-", ignore_cleanup_errors=True) as temporary:
        killed = KilledBuild(
            (given.keep or Path(temporary)).absolute(),
            order,
            seed=given.seed,
            every_s=given.every,
            engine=given.engine,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        try:
            figures, differences = killed.run()
        except MasterbuilderError as error:
            print(f"seed {given.seed}: {error}", file=sys.stderr)
            return 1
    for each in figures:
        print(json.dumps(each))
    for difference in differences:
        print(f"seed {given.seed}: {difference}", file=sys.stderr)
    return 0 if all(each["holds"] for each in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
