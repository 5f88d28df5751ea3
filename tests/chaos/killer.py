"""kill -9, at random moments, of randomly chosen processes of one instance."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from cluster.instance import Instance
from cluster.processes import owned

ACTORS = {
    "host": "ray::EntityHost",
    "ledger": "ray::Ledger",
    "router": "ray::Router",
    "implementer-pool": "ray::ImplementerPool",
    "implementer": "ray::Implementer",
    "key-pool": "ray::KeyPool",
    "api": "ray::ServeReplica:api",
    "gateway": "ray::ServeReplica:gateway",
    "telegram-door": "ray::ServeReplica:telegram",
    "telegram-actor": "ray::Telegram",
}
"""Kind -> how Ray titles its process. The first that fits counts."""
HEAVY = {"gcs": "gcs_server", "raylet": "raylet", "supervisor": "cluster.supervisor"}
"""Ray's own head processes, and the one that starts them again."""

GAP_S = (0.5, 2.0)
TWO_AT_ONCE = 0.15
HEAVY_SHARE = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    kind: str
    pid: int
    at: float
    """Unix time."""


class Killer:
    """The dice are the seed's; who is there to be hit is the moment's."""

    def __init__(
        self, instance: Instance, seed: int, kinds: Sequence[str] = tuple(ACTORS), heavy: bool = False
    ) -> None:
        self._instance = instance
        self._dice = random.Random(f"kill {seed}")
        self._kinds = kinds
        self._heavy = heavy

    def pause_s(self) -> float:
        return self._dice.uniform(*GAP_S)

    def strike(self) -> list[Kill]:
        """Kills one process, sometimes two. None when there is none of the kinds at the moment."""
        there = self._there()
        kills = []
        for _ in range(2 if self._dice.random() < TWO_AT_ONCE else 1):
            wanted = HEAVY if self._heavy and self._dice.random() < HEAVY_SHARE else self._kinds
            kinds = sorted(kind for kind in there if kind in wanted and there[kind])
            if not kinds:
                continue
            kind = self._dice.choice(kinds)
            process = there[kind].pop(self._dice.randrange(len(there[kind])))
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            kills.append(Kill(kind=kind, pid=process.pid, at=time.time()))
        return kills

    def _there(self) -> dict[str, list[psutil.Process]]:
        there: dict[str, list[psutil.Process]] = {}
        for process in owned(self._instance):
            try:
                kind = _kind(process.name(), process.cmdline())
            except psutil.Error:
                continue
            if kind is not None:
                there.setdefault(kind, []).append(process)
        return there


def _kind(name: str, command: Sequence[str]) -> str | None:
    title = command[0] if command else ""
    for kind, start in ACTORS.items():
        if title.startswith(start):
            return kind
    if name in (HEAVY["gcs"], HEAVY["raylet"]):
        return "gcs" if name == HEAVY["gcs"] else "raylet"
    return "supervisor" if HEAVY["supervisor"] in command else None


def silences_s(kills: Sequence[Kill], answers: Sequence[float], until: float) -> Mapping[str, list[float]]:
    """Kind -> for each of its kills, the longest time without any answer between it and the next kill."""
    found: dict[str, list[float]] = {}
    nexts = [kill.at for kill in kills[1:]] + [until]
    position = 0
    for kill, end in zip(kills, nexts, strict=True):
        while position < len(answers) and answers[position] < kill.at:
            position += 1
        # The first answer after the next kill ends a silence that began before it.
        last, longest, index = kill.at, 0.0, position
        while True:
            at = answers[index] if index < len(answers) else until
            longest = max(longest, at - last)
            last = at
            index += 1
            if last >= end:
                break
        found.setdefault(kill.kind, []).append(longest)
    return found
