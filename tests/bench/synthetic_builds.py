"""What can be read from synthetic builds: how long one could have taken at best, and how long each waited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from statistics import mean, quantiles

from cluster.simulator.synthetic_build import BuildOrder
from cluster.wire import Event
from runtime.project.schedule import next_items
from runtime.project.todo import Item, Todo


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Seconds since the build's first task was begun."""

    id: str
    thought_s: float
    """How long the model thought about it, as ordered."""
    started_s: float
    checked_s: float
    merged_s: float
    bundle: str
    """Of the main branch as it was told to be then; changes that land together have one."""

    @property
    def waited_s(self) -> float:
        """For an implementer, and for what we do besides."""
        return self.checked_s - self.started_s - self.thought_s

    @property
    def merging_s(self) -> float:
        return self.merged_s - self.checked_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """No schedule can be quicker than any of these, in seconds."""

    critical_path_s: float
    work_s: float
    """All thinking, shared evenly by the workers."""
    cpu_s: float
    """All processor time, shared evenly by the cores."""
    merges_s: float
    """All rounds of the merge queue one after another, each as quick as the quicker ones were."""

    @property
    def largest(self) -> tuple[str, float]:
        named = {
            "critical path": self.critical_path_s,
            "work / workers": self.work_s,
            "CPU / cores": self.cpu_s,
            "serial merges": self.merges_s,
        }
        return max(named.items(), key=lambda each: each[1])


def tasks_of(order: BuildOrder, events: Sequence[Event]) -> Sequence[Task]:
    """Of a build in which every task landed at its first attempt."""
    at: dict[tuple[str, str], float] = {}
    bundles: dict[str, str] = {}
    for event in events:
        if event.type in ("task.started", "task.checked", "task.merged"):
            at[event.type, event.data["task"]] = datetime.fromisoformat(event.at).timestamp()
        if event.type == "task.merged":
            bundles[event.data["task"]] = event.data["bundle"]
    begun = min(at.values())
    return [
        Task(
            id=task.id,
            thought_s=task.delay_s,
            started_s=at["task.started", task.id] - begun,
            checked_s=at["task.checked", task.id] - begun,
            merged_s=at["task.merged", task.id] - begun,
            bundle=bundles[task.id],
        )
        for task in order.graph()
    ]


def makespan_s(tasks: Sequence[Task]) -> float:
    return max(task.merged_s for task in tasks)


def bounds(order: BuildOrder, tasks: Sequence[Task], *, workers: int, cpu_s: float, cores: int) -> Bounds:
    """`cpu_s`: the processor time of everything that took part."""
    ends: dict[str, float] = {}
    for task in order.graph():
        ends[task.id] = task.delay_s + max((ends[each] for each in task.depends), default=0.0)
    merge_s = quantiles([task.merging_s for task in tasks], n=4)[0]
    return Bounds(
        critical_path_s=max(ends.values()),
        work_s=sum(task.delay_s for task in order.graph()) / workers,
        cpu_s=cpu_s / cores,
        merges_s=merge_s * len({task.bundle for task in tasks}),
    )


def schedule_s(order: BuildOrder, workers: int) -> float:
    """How long it would take if we cost nothing: whoever is free begins what the product would begin, by what the plan
    takes each task for. Nobody knows better before it is done."""
    plan = Todo(
        phases=("",),
        items=tuple(
            Item(
                id=task.id,
                phase=1,
                title="",
                detail="",
                depends=task.depends,
                files=(),
                requirements=(),
                tests=(),
                effort=task.effort,
            )
            for task in order.graph()
        ),
    )
    delays_s = {task.id: task.delay_s for task in order.graph()}
    under_way: list[tuple[float, str]] = []
    now_s = 0.0
    while not plan.is_closed():
        ready = next_items(plan, 1, [task for _, task in under_way])
        for item in ready[: workers - len(under_way)]:
            heappush(under_way, (now_s + delays_s[item.id], item.id))
        now_s, ended = heappop(under_way)
        plan = plan.ticked(ended)
    return now_s


def longest_wait_share(builds: Mapping[str, Sequence[Task]]) -> tuple[str, float]:
    """The build whose tasks waited longest for an implementer on the whole, and that to the mean of all."""
    waits = {name: sum(task.waited_s for task in tasks) for name, tasks in builds.items()}
    longest = max(waits, key=waits.__getitem__)
    return longest, waits[longest] / mean(waits.values())
