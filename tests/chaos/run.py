"""One chaos run, from an empty folder to the verdict."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from cluster.environment import ray_client_environment
from cluster.instance import SupervisorLock, read_record
from runtime.config import Secrets
from runtime.errors import UnavailableError
from tests.bench.figures import figure as make_figure
from tests.chaos import verdict
from tests.chaos.builds import Build, Builds
from tests.chaos.diary import Told, read
from tests.chaos.killer import Kill, Killer, silences_s
from tests.e2e.live import Live

ROOT = Path(__file__).parent.parent.parent

CALLERS = 100
DRAIN_S_MAX = 180.0
READ_S_MAX = 180.0
BUILD_S_MAX = 600.0
SILENCE_S_MAX = 60.0
"""Nobody at all may be answered for so long, whatever was killed: what the supervisor promises for Ray itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    figures: Sequence[dict[str, object]]
    differences: Sequence[str]
    """Empty when everything holds."""


class Chaos:
    def __init__(self, *, folder: Path, seed: int, with_builds: bool, heavy: bool, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        live = Live.in_folder(folder)
        own = {"PROBE_ENTITIES": "true", "ENTITY_HOSTS_PER_NODE": "2", "INITIAL_FREE_CREDITS": "1000000"}
        self._live = replace(live, environment={**live.environment, **own})
        self._seed = seed
        self._with_builds = with_builds
        self._heavy = heavy
        self._say = say

    def run(self, seconds: float) -> Outcome:
        """Everything it starts is stopped when it returns."""
        try:
            return self._run(seconds)
        finally:
            self._live.close()
            assert self._live.left() == []

    def _run(self, seconds: float) -> Outcome:
        provider = self._live.start_simulator(latency_ms=40)
        started = self._live.run("up", **provider)
        if started.returncode != 0:
            raise UnavailableError(f"The service did not start: {started.stderr}")
        before = self._live.client.me().balance_ucredits
        diary = self._live.folder / "diary"
        load = LoadProcess(self._live, diary, self._seed)
        builds = Builds(lambda: self._live.client)
        try:
            load.keep_running()
            if self._with_builds:
                builds.start()
            self._say(f"seed {self._seed}: killing for {seconds:g} s")
            killer = Killer(self._live.instance, self._seed, heavy=self._heavy)
            kills = self._strike_for(seconds, killer, load)
            stopped_at = time.time()
            self._say(f"{len(kills)} kills; waiting for what is unanswered")
            load.drain(DRAIN_S_MAX, lambda: self._look_after(load))
            drained_s = time.time() - stopped_at
            readings = load.readings()
            ordered: Sequence[Build] = []
            if self._with_builds:
                self._say("waiting for the builds")
                ordered = builds.finish(BUILD_S_MAX)
                for pause in [pause for build in ordered for pause in build.pauses]:
                    self._say(f"a build waited for us to resume it: {pause}")
        finally:
            load.stop()
        told = read(diary)
        differences = [*builds.wrong, *verdict.messages({self._seed: told}, readings)]
        if self._with_builds:
            differences += verdict.builds(ordered, self._live.client, before, self._live.usage_file)
        differences += self._doctor()
        return Outcome(
            figures=self._figures(kills, told, ordered, stopped_at, drained_s, differences), differences=differences
        )

    def _strike_for(self, seconds: float, killer: Killer, load: "LoadProcess") -> Sequence[Kill]:
        kills: list[Kill] = []
        until = time.monotonic() + seconds
        with (self._live.folder / "kills").open("a", buffering=1) as noted:
            while time.monotonic() < until:
                time.sleep(killer.pause_s())
                for kill in killer.strike():
                    noted.write(f"{kill.at:.3f} {kill.kind} {kill.pid}\n")
                    kills.append(kill)
                self._look_after(load)
        return kills

    def _look_after(self, load: "LoadProcess") -> None:
        """What an operator does: `up` again when the supervisor is gone. The load comes back with its Ray."""
        if self._heavy and SupervisorLock(self._live.instance).holder() is None:
            self._live.run("up")
        load.keep_running()

    def _doctor(self) -> list[str]:
        """What `doctor` and `status` find: the books, the parts, and entities that were set aside."""
        checks = self._live.run("doctor", "--json")
        status = self._live.run("status", "--json")
        try:
            found = [check for check in json.loads(checks.stdout) if check["name"] in ("service", "books", "parts")]
            hosts = json.loads(status.stdout)["hosts"]
        except (ValueError, KeyError, TypeError) as error:
            return [f"doctor or status cannot be read ({error!r}): {checks.stderr} {status.stderr}"]
        bad = [f"doctor: {check}" for check in found if check["verdict"] != "ok"]
        aside = [f"quarantined: {entity}" for host in hosts for entity in host["quarantined"]]
        return [*bad, *aside, *([] if hosts else ["status shows no host"])]

    def _figures(
        self,
        kills: Sequence[Kill],
        told: Told,
        ordered: Sequence[Build],
        stopped_at: float,
        drained_s: float,
        differences: Sequence[str],
    ) -> list[dict[str, object]]:
        by_kind: dict[str, int] = {}
        for kill in kills:
            by_kind[kill.kind] = by_kind.get(kill.kind, 0) + 1
        silences = silences_s(kills, told.acknowledged_at, stopped_at)
        every = [each for of_kind in silences.values() for each in of_kind] or [0.0]
        longest = {kind: round(max(of_kind), 1) for kind, of_kind in silences.items()}
        completed = sum(build.project is not None and build.project.status == "completed" for build in ordered)
        rate = len(told.acknowledged_at) / max(stopped_at - told.acknowledged_at[0], 1.0) if told.acknowledged_at else 0
        return [
            self._figure("kills", len(kills), "processes", ", ".join(f"{kind} {n}" for kind, n in by_kind.items())),
            self._figure("messages acknowledged", len(told.acknowledged_at), "messages", f"{rate:.0f}/s while killing"),
            self._figure("time without any answer after a kill, median", round(median(every), 2), "s"),
            self._figure(
                "time without any answer after a kill, longest", round(max(every), 1), "s", str(longest), SILENCE_S_MAX,
                holds=max(every) <= SILENCE_S_MAX,
            ),
            self._figure("time of the slowest message", round(told.slowest_s, 1), "s"),
            self._figure("time to answer all after the last kill", round(drained_s, 1), "s"),
            self._figure(
                "builds completed", completed, "builds",
                "; ".join(f"{build.seconds:.0f} s, {len(build.pauses)} pauses" for build in ordered), len(ordered),
                holds=completed == len(ordered),
            ),
            self._figure("differences from the model", len(differences), "differences", "", 0, holds=not differences),
        ]  # fmt: skip

    def _figure(
        self,
        figure: str,
        value: float,
        unit: str,
        against: str = "",
        target: float | None = None,
        *,
        holds: bool = True,
    ) -> dict[str, object]:
        made = make_figure("chaos", figure, value, unit, against=against, target=target, holds=holds)
        return {**made, "seed": self._seed}


class LoadProcess:
    """The child that sends messages. It falls with its Ray, and is started again."""

    def __init__(self, live: Live, diary: Path, seed: int) -> None:
        self._live = live
        self._diary = diary
        self._seed = seed
        self._child: subprocess.Popen[str] | None = None
        self._ray_address = ""
        self._log = live.folder / "load.log"

    def keep_running(self) -> None:
        """Starts it when it does not run, and anew when there is a new Ray: the old one it would miss for a minute."""
        record = read_record(self._live.instance)
        if record is None or record.state != "ready":
            return
        if self._child is not None and record.ray_address != self._ray_address:
            self.stop()
        if self._child is None or self._child.poll() is not None:
            self._ray_address = record.ray_address
            self._child = self._start("tests.chaos.load", str(self._diary), str(self._seed), str(CALLERS))

    def drain(self, patience_s: float, look_after: Callable[[], None]) -> None:
        """Returns once everything sent has its answer. Raises UnavailableError when that takes too long."""
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            look_after()
            child = self._child
            if child is not None and child.poll() is None and _says(child, "drain\n", left_s).endswith("drained\n"):
                return
            time.sleep(0.5)
        unanswered = read(self._diary).open
        raise UnavailableError(
            f"Seed {self._seed}: {len(unanswered)} messages are unanswered after {patience_s:g} s: {unanswered[:10]}."
        )

    def readings(self) -> dict[str, Any]:
        """What stands in every entity. Raises UnavailableError when nobody tells."""
        child = self._start("tests.chaos.readings", f"{self._seed}={self._diary}")
        told = _says(child, "", READ_S_MAX)
        if not told:
            raise UnavailableError(f"Seed {self._seed}: the entities cannot be read.", f"See {self._log}.")
        readings: dict[str, Any] = json.loads(told)
        return readings

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def _start(self, module: str, *arguments: str) -> "subprocess.Popen[str]":
        secrets = Secrets.load(self._live.instance.data_dir, {})
        with self._log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments], cwd=ROOT,
                env={**self._live.environment, **ray_client_environment(secrets, self._ray_address)},
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip


def _says(child: "subprocess.Popen[str]", text: str, patience_s: float) -> str:
    """All that a child prints from now on until it ends; one that takes too long is killed."""
    try:
        return child.communicate(text, patience_s)[0]
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()[0]
