"""`make bench NAME=builder`: synthetic builds through the whole product, against what no schedule can beat.

Builds of 60 tasks, one after another, with 4 and with 8 workers, then 20 builds at once on 6 workers. Each seed draws
another graph, and some graphs are kinder than others: the median counts. One JSON line a figure. Takes some minutes,
and wants a machine that has nothing else to do.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median

import psutil
from pydantic import ValidationError

from cluster.processes import owned
from cluster.simulator.synthetic_build import BuildOrder, parse_build
from cluster.wire import Event
from runtime.config import Settings
from runtime.errors import MasterbuilderError, UnavailableError
from tests.bench.figures import figure
from tests.bench.synthetic_builds import Bounds, Task, bounds, longest_wait_share, makespan_s, schedule_s, tasks_of
from tests.e2e.live import Live

MAKESPAN_RATIO_MAX = 1.15
CPU_PER_TASK_S_MAX = 0.3
WAIT_SHARE_MAX = 2.0
MEMORY_BYTES_MAX = 6 << 30
BUILD_S_MAX = 900.0
SAMPLE_EVERY_S = 2.0
REST_S = 20.0
"""How long the installation is watched while it has nothing to do."""
RAYLET = "raylet"
"""It waits for the workers it started; what those used is theirs."""
_RAYS_OWN = (
    "gcs_server", RAYLET, "dashboard", "Dashboard", "agent", "monitor.py", "haproxy", "HAProxy", "ray::IDLE",
    "ray.util", "ServeController", "ProxyActor",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    order: BuildOrder
    project: str
    status: str
    events: Sequence[Event]
    seconds: float

    @property
    def tasks(self) -> Sequence[Task]:
        return tasks_of(self.order, self.events)


class Watch:
    """Processor time of an installation, and its memory where that is asked for, in a thread of its own, until it is
    told to stop.

    A process's ended children count for it, once it has waited for them; the living ones are looked at themselves.
    Looking at the memory costs ten times as much, and holds the processes up: no makespan is timed beside it.
    """

    def __init__(self, live: Live, *, at_memory: bool = False) -> None:
        self._live = live
        self._at_memory = at_memory
        self._looks: list[tuple[float, dict[str, float]]] = []
        """Unix seconds, and CPU seconds so far by the name of the process."""
        self._ended: dict[str, float] = {}
        self._living: dict[int, _Used] = {}
        self.memory_bytes_max = 0
        self._stop = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def spent(self, since_s: float, until_s: float) -> dict[str, float]:
        """CPU seconds by name between two Unix times, from the looks nearest to them."""
        first, last = (min(self._looks, key=lambda look: abs(look[0] - at_s))[1] for at_s in (since_s, until_s))
        return {name: seconds - first.get(name, 0.0) for name, seconds in last.items()}

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            self._look()

    def _look(self) -> None:
        memory, living = 0, {}
        for process in owned(self._live.instance):
            try:
                with process.oneshot():
                    times, name, parent = process.cpu_times(), _name_of(process), process.ppid()
                    memory += process.memory_full_info().pss if self._at_memory else 0
            except psutil.Error:
                continue
            used_s = times.user + times.system + times.children_user + times.children_system
            living[process.pid] = _Used(name, parent, used_s)
        for pid, used in self._living.items():
            if pid not in living and (used.parent not in living or living[used.parent].name == RAYLET):
                self._ended[used.name] = self._ended.get(used.name, 0.0) + used.seconds
        self._living = living
        look = dict(self._ended)
        for used in living.values():
            look[used.name] = look.get(used.name, 0.0) + used.seconds
        self._looks.append((time.time(), look))
        self.memory_bytes_max = max(self.memory_bytes_max, memory)


@dataclass(frozen=True, slots=True)
class _Used:
    name: str
    parent: int
    seconds: float


def _name_of(process: psutil.Process) -> str:
    """`ray::LedgerActor`, `raylet`, or the module or script that Python runs."""
    command = process.cmdline() or [process.name()]
    if command[0].startswith("ray::"):
        return command[0].split(".")[0].split(":ray")[0]
    scripts = [word for word in command[1:] if not word.startswith("-")]
    return Path(scripts[0]).name if "python" in Path(command[0]).name and scripts else Path(command[0]).name


class Bench:
    def __init__(
        self, folder: Path, engine: str, *, workers: int, per_build_max: int, scratch_dir: Path | None = None
    ) -> None:
        live = Live.in_folder(folder)
        own = {
            "EDIT_ENGINE": engine,
            "IMPLEMENTERS": str(workers),
            "MAX_PARALLEL_IMPLEMENTERS": str(per_build_max),
            "VERIFY_EVERY_N_ITEMS": "1000",
            "INITIAL_FREE_CREDITS": "1000000",
            **({"SCRATCH_DIR": str(scratch_dir)} if scratch_dir else {}),
        }
        self.live = replace(live, environment={**live.environment, **own})

    def __enter__(self) -> "Bench":
        provider = self.live.start_simulator()
        started = self.live.run("up", **provider)
        if started.returncode != 0:
            raise UnavailableError(f"The service did not start: {started.stderr}")
        return self

    def __exit__(self, *_: object) -> None:
        self.live.close()

    def build(self, order: BuildOrder) -> Built:
        """From the brief to the end."""
        client = self.live.client
        begun = time.monotonic()
        project = client.create(order.line, {}, None, True, uuid.uuid4().hex)
        events = []
        for event in client.events(project.id, 0):  # As somebody who watches it.
            events.append(event)
            if event.type == "project.status" and str(event.data["status"]).startswith("paused"):
                client.resume(project.id)
            if time.monotonic() - begun > BUILD_S_MAX:
                break
        client.close()
        ended = [event for event in events if event.type == "project.finished"]
        return Built(
            order=order,
            project=project.id,
            status=str(ended[-1].data["status"]) if ended else "unfinished",
            events=events,
            seconds=time.monotonic() - begun,
        )

    def warm_up(self) -> None:
        """A small build that every worker has a part in, so that all of them have loaded everything once."""
        workers = int(self.live.environment["IMPLEMENTERS"])
        self.build(BuildOrder(tasks=2 * workers, width=workers, delay_ms=(1_500, 1_500)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Makespan:
    ratio: float
    """To what no schedule can beat."""
    own_cpu_s: float
    """A task, beside Ray's own."""


def measure_makespans(
    folder: Path, engine: str, orders: Sequence[BuildOrder], workers: int, scratch_dir: Path | None
) -> Iterator[dict[str, object]]:
    found: list[Makespan] = []
    with Bench(folder, engine, workers=workers, per_build_max=workers, scratch_dir=scratch_dir) as bench:
        bench.warm_up()
        watch = Watch(bench.live)
        began_s = time.time()
        time.sleep(REST_S)
        rested = watch.spent(began_s, began_s + REST_S)
        idle_cores = (sum(rested.values()) - _rays_own_s(rested)) / REST_S
        yield figure("builder", f"own CPU of the idle installation, {workers} workers", round(idle_cores, 3), "cores")
        for order in orders:
            busy_before_s = _busy_s()
            built = bench.build(order)
            if built.status != "completed":
                raise UnavailableError(f"The build ended as {built.status}.")
            makespan, told = measured(built, watch, workers, _busy_s() - busy_before_s)
            found.append(makespan)
            yield figure(
                "builder", f"makespan of seed {order.seed}, {workers} workers", round(makespan_s(built.tasks), 2), "s",
                against=f"{told}; clones in {scratch_dir or 'the temporary folder'}", ratio=round(makespan.ratio, 3),
            )  # fmt: skip
        watch.stop()
    ratio = median(each.ratio for each in found)
    yield figure(
        "builder", f"makespan to the bound, {workers} workers, {engine}", round(ratio, 3), "",
        against=f"median of {len(orders)} graphs of {orders[0].tasks} tasks, "
        f"from {min(each.ratio for each in found):.3f} to {max(each.ratio for each in found):.3f}",
        target=MAKESPAN_RATIO_MAX, holds=ratio <= MAKESPAN_RATIO_MAX,
    )  # fmt: skip
    per_task_s = median(each.own_cpu_s for each in found)
    yield figure(
        "builder", f"own CPU per task, {workers} workers, {engine}", round(per_task_s, 3), "s",
        against="median, from the first task's start to the last merge, what the idle installation uses included",
        target=CPU_PER_TASK_S_MAX, holds=per_task_s <= CPU_PER_TASK_S_MAX,
    )  # fmt: skip


def measured(built: Built, watch: Watch, workers: int, busy_s: float) -> tuple[Makespan, str]:
    """And what it was measured against, in words. `busy_s`: what all processes of the machine used meanwhile."""
    order, tasks, took_s = built.order, built.tasks, makespan_s(built.tasks)
    cores = os.cpu_count() or 1
    began_s = min(_unix_s(event) for event in built.events if event.type == "task.started")
    spent = watch.spent(began_s, began_s + took_s)
    total_s, rays_s = sum(spent.values()), _rays_own_s(spent)
    bound = bounds(order, tasks, workers=workers, cpu_s=total_s, cores=cores)
    which, least_s = bound.largest
    own_s = (total_s - rays_s) / order.tasks
    elsewhere = max(0.0, 1 - total_s / busy_s) * busy_s / (built.seconds * cores)
    most = ", ".join(
        f"{name} {seconds / order.tasks:.3f}" for name, seconds in sorted(spent.items(), key=lambda each: -each[1])[:6]
    )
    told = (
        f"{_told(bound)}; largest is {which}; with no cost of ours it would be {schedule_s(order, workers):.1f} s; "
        f"a task waits {median(task.waited_s for task in tasks):.2f} s beside the model, merging takes "
        f"{median(task.merging_s for task in tasks):.2f} s; CPU a task {own_s:.3f} s, Ray's own "
        f"{rays_s / order.tasks:.3f} s, of all {most}; other work took {elsewhere:.0%} of the machine"
    )
    return Makespan(ratio=took_s / least_s, own_cpu_s=own_s), told


def measure_fairness(
    folder: Path, engine: str, builds: int, workers: int, tasks: int, delay_ms: tuple[int, int]
) -> Iterator[dict[str, object]]:
    orders = [BuildOrder(tasks=tasks, seed=seed, delay_ms=delay_ms) for seed in range(1, builds + 1)]
    with Bench(folder, engine, workers=workers, per_build_max=4) as bench:
        bench.warm_up()
        watch = Watch(bench.live, at_memory=True)
        with ThreadPoolExecutor(builds) as threads:
            built = list(threads.map(bench.build, orders))
        watch.stop()
    completed = [each for each in built if each.status == "completed"]
    seconds = [each.seconds for each in built]
    yield figure(
        "builder", f"builds of {builds} at once that complete, {workers} workers", len(completed), "builds",
        against=f"from {min(seconds):.0f} to {max(seconds):.0f} s", target=builds, holds=len(completed) == builds,
    )  # fmt: skip
    if completed:
        longest, share = longest_wait_share({each.project: each.tasks for each in completed})
        yield figure(
            "builder", "longest wait of a build to the mean", round(share, 2), "",
            against=f"build {longest[:8]}", ratio=round(share, 2), target=WAIT_SHARE_MAX,
            holds=share <= WAIT_SHARE_MAX,
        )  # fmt: skip
    yield figure(
        "builder", f"memory of all processes, {builds} builds", round(watch.memory_bytes_max / (1 << 30), 2), "GiB",
        target=MEMORY_BYTES_MAX >> 30, holds=watch.memory_bytes_max < MEMORY_BYTES_MAX,
    )  # fmt: skip


def _rays_own_s(spent: Mapping[str, float]) -> float:
    return sum(seconds for name, seconds in spent.items() if any(each in name for each in _RAYS_OWN))


def _told(bound: Bounds) -> str:
    return (
        f"critical path {bound.critical_path_s:.1f} s, work {bound.work_s:.1f} s, CPU {bound.cpu_s:.1f} s, "
        f"merges {bound.merges_s:.1f} s"
    )


def _unix_s(event: Event) -> float:
    return datetime.fromisoformat(event.at).timestamp()


def _busy_s() -> float:
    """Of all cores, since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait)


def default_engine() -> str:
    """`blocks` where there is one: it costs nothing beside the call."""
    try:
        Settings(edit_engine="blocks")
    except ValidationError:
        return "aider"
    return "blocks"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.builder", description=__doc__)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--workers", type=int, nargs="*", default=[4, 8])
    parser.add_argument("--seeds", type=int, nargs="*", default=[7, 1, 2, 3, 4], help="one graph each")
    parser.add_argument("--delay-ms", default="500..5000", help="how long the model thinks about a task")
    parser.add_argument("--builds", type=int, default=20, help="at once; 0 to leave that out")
    parser.add_argument("--implementers", type=int, default=6, help="for the builds at once")
    parser.add_argument("--build-tasks", type=int, default=8, help="of each of the builds at once")
    parser.add_argument("--scratch-dir", type=Path, help="as the setting: where implementers clone and check")
    parser.add_argument("--engine", default=default_engine())
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    width = max(4, given.tasks // 4)
    orders = [
        parse_build(f"synthetic build tasks={given.tasks} seed={seed} delay_ms={given.delay_ms} width={width}")
        for seed in given.seeds
    ]
    holds = True
    with tempfile.TemporaryDirectory(prefix="mb-builder-", ignore_cleanup_errors=True) as temporary:
        measures = [
            *(
                measure_makespans(Path(temporary) / f"w{workers}", given.engine, orders, workers, given.scratch_dir)
                for workers in given.workers
            ),
            *(
                [
                    measure_fairness(
                        Path(temporary) / "fair", given.engine, given.builds, given.implementers, given.build_tasks,
                        orders[0].delay_ms,
                    )
                ]
                if given.builds
                else []
            ),
        ]  # fmt: skip
        try:
            for measure in measures:
                for line in measure:
                    print(json.dumps(line), flush=True)
                    holds = holds and bool(line["holds"])
        except MasterbuilderError as error:
            print(error, file=sys.stderr)
            return 1
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
