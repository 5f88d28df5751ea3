"""`kill -9` of a store at work, again and again: what was acknowledged is there once, and the books agree."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from statistics import median
from typing import Literal

from runtime.store.schema import DATABASE
from tests.bench.figures import figure
from tests.chaos.ledger.child import Found, Orders, diary_of
from tests.chaos.ledger.diary import read

ROOT = Path(__file__).parents[3]
KILLS_PER_FOLDER = 10
"""Then it begins with an empty one: a kill may also meet the first start of all."""
LOAD_S = (0.05, 1.5)
OPEN_S_MAX = 0.6
"""A kill at a start comes so long after it began to open: in the opening, the repeats, or the judging."""
CHECKPOINT_S_MAX = 0.03
TORN = 1 / 6
"""So many kills are also judged as if the power had failed."""
CHILD_S_MAX = 240.0
ENDED = "ended"

Moment = Literal["load", "open", "checkpoint"]
MOMENTS: tuple[tuple[Moment, float], ...] = (("load", 0.65), ("open", 0.15), ("checkpoint", 0.2))
Tear = Literal["cut", "zeros", "noise"]
TEARS: tuple[Tear, ...] = ("cut", "zeros", "noise")


@dataclass(slots=True)
class Tally:
    """What the kills showed so far."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    doubtful: int = 0
    survived: int = 0
    again: int = 0
    orphans: int = 0
    open_s: list[float] = field(default_factory=list)
    torn: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


class Kills:
    def __init__(self, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._seed = seed
        self._say = say
        self._dice = random.Random(f"kills {seed}")
        self._tally = Tally()
        self._number = 0

    def run(self, kills: int) -> Tally:
        """Every process that it starts has ended when it returns."""
        left = kills
        while left > 0:
            part = min(left, KILLS_PER_FOLDER)
            data = self._folder / f"data-{left}"
            data.mkdir(parents=True)
            self._kill_often(data, part)
            left -= part
            shutil.rmtree(data)
            diary_of(data).unlink()
            log_of(data).unlink()
        return self._tally

    def _kill_often(self, data: Path, kills: int) -> None:
        for _ in range(kills):
            self._number += 1
            moment = self._dice.choices([name for name, _ in MOMENTS], [share for _, share in MOMENTS])[0]
            small_log = moment == "checkpoint" or self._dice.random() < 0.3
            orders = self._orders(data, small_log=small_log, loads=True)
            self._kill(orders, moment)
            self._take(orders, counts=True)
            if self._dice.random() < TORN:
                self._judge_torn(data)
        orders = self._orders(data, small_log=False, loads=False)
        self._finish(orders)
        found = self._take(orders, counts=True)
        assert found is not None, _end_of_log(orders)
        self._tally.acknowledged += found.acknowledged
        self._tally.doubtful += found.doubtful
        self._tally.survived += found.survived
        self._say(f"{self._number} kills, {self._tally.acknowledged} acknowledged: {self._tally.differences[:1]}")

    def _orders(self, data: Path, *, small_log: bool, loads: bool) -> Orders:
        name = f"r{self._number}" if loads else f"r{self._number}end"
        return Orders(folder=str(data), name=name, verdict=f"{data}.verdict", small_log=small_log, loads=loads)

    def _kill(self, orders: Orders, moment: Moment) -> None:
        child = start(orders)
        try:
            self._wait_for(moment, child, orders)
        finally:
            child.kill()
            child.wait()
        if child.returncode != -signal.SIGKILL:
            self._tally.differences.append(f"kill {self._number}: the child fell by itself: {_end_of_log(orders)}")
        self._tally.kills[moment] += 1

    def _wait_for(self, moment: Moment, child: "subprocess.Popen[str]", orders: Orders) -> None:
        told: Queue[str] = Queue()
        threading.Thread(target=_listen, args=[child, told], daemon=True).start()
        _expect("open" if moment == "open" else "load", told, orders)
        if moment == "open":
            time.sleep(self._dice.uniform(0.0, OPEN_S_MAX))
            return
        time.sleep(self._dice.uniform(*LOAD_S))
        if moment == "checkpoint":
            while not told.empty():
                told.get()
            _expect("checkpoint", told, orders)
            time.sleep(self._dice.uniform(0.0, CHECKPOINT_S_MAX))

    def _finish(self, orders: Orders) -> str:
        """Runs a child that only judges; what it said when it fell."""
        child = start(orders)
        try:
            child.communicate(timeout=CHILD_S_MAX)
        finally:
            child.kill()
            child.wait()
        return _end_of_log(orders) if child.returncode else ""

    def _take(self, orders: Orders, *, counts: bool) -> Found | None:
        """The verdict of the newest start, if it came so far."""
        path = Path(orders.verdict)
        if not path.exists():
            return None
        found = Found(**json.loads(path.read_text()))
        path.unlink()
        if counts:
            self._tally.open_s.append(found.open_s)
            self._tally.again += found.again
            self._tally.orphans += found.orphans
        self._tally.differences += [f"after kill {self._number}: {each}" for each in found.differences]
        return found

    def _judge_torn(self, data: Path) -> None:
        """A copy whose log ends somewhere behind the last commit that was waited for, as the disk may have it.

        Where DuckDB refuses such a log, it must open without that end.
        """
        copy = data.with_name("torn")
        shutil.copytree(data, copy)
        shutil.copyfile(diary_of(data), diary_of(copy))
        log, durable = copy / f"{DATABASE}.wal", self._durable_bytes(data)
        tear = self._dice.choice(TEARS)
        done = self._tear(log, tear, durable)
        orders = self._orders(copy, small_log=False, loads=False)
        errors = self._finish(orders)
        if "StoreUnavailableError" in errors and "WAL" in errors:
            self._tally.torn[f"{tear} and refused"] += 1
            os.truncate(log, durable)
            errors = self._finish(orders)
        else:
            self._tally.torn[tear] += 1
        if self._take(orders, counts=False) is None:
            self._tally.differences.append(f"after kill {self._number}, {done}: it did not open: {errors}")
        shutil.rmtree(copy)
        diary_of(copy).unlink()
        log_of(copy).unlink()

    def _durable_bytes(self, data: Path) -> int:
        """Of the log, when the last commit was on disk; a log that was begun anew since has fewer."""
        log = data / f"{DATABASE}.wal"
        marks = [line.value[1] for line in read(diary_of(data)) if line.kind == "mark" and line.value[0] == "durable"]
        return min(log.stat().st_size if log.exists() else 0, marks[-1] if marks else 0)

    def _tear(self, log: Path, tear: Tear, durable: int) -> str:
        size = log.stat().st_size if log.exists() else 0
        at = self._dice.randint(durable, size)
        if size:
            with log.open("r+b") as file:
                file.truncate(at)
                if tear != "cut":
                    file.seek(at)
                    length = max(size - at, self._dice.randrange(1, 5_000))
                    file.write(bytes(length) if tear == "zeros" else self._dice.randbytes(length))
        return f"{tear} at {at} of {size}, durable {durable}"


def figures(tally: Tally) -> list[dict[str, object]]:
    kills = ", ".join(f"{count} at {moment}" for moment, count in sorted(tally.kills.items()))
    opens = tally.open_s or [0.0]
    torn = ", ".join(f"{tear} {count}" for tear, count in sorted(tally.torn.items()))
    differences = len(tally.differences)
    return [
        figure("chaos ledger", "kills", tally.kills.total(), "kills", against=kills),
        figure(
            "chaos ledger", "operations acknowledged", tally.acknowledged, "operations",
            against=f"{tally.again} sent again, {tally.orphans} calls of dead spools settled",
        ),
        figure(
            "chaos ledger", "unacknowledged operations that survived", tally.survived, "operations",
            against=f"of {tally.doubtful}",
        ),
        figure(
            "chaos ledger", "time to reopen after a kill, median", round(median(opens) * 1e3), "ms",
            against=f"longest {max(opens) * 1e3:.0f} ms",
        ),
        figure("chaos ledger", "torn logs", tally.torn.total(), "copies", against=torn),
        figure(
            "chaos ledger", "differences after kills", differences, "differences", target=0, holds=differences == 0
        ),
    ]  # fmt: skip


def start(orders: Orders) -> "subprocess.Popen[str]":
    """What it says when it falls goes to `log_of` its folder."""
    with log_of(Path(orders.folder)).open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.ledger.child"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(orders.as_json())
    child.stdin = None
    return child


def _expect(what: str, told: "Queue[str]", orders: Orders) -> None:
    while (line := told.get(timeout=CHILD_S_MAX)) != what:
        assert line != ENDED, f"the child fell: {_end_of_log(orders)}"


def _listen(child: "subprocess.Popen[str]", told: "Queue[str]") -> None:
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            told.put(line.strip())
    told.put(ENDED)


def _end_of_log(orders: Orders) -> str:
    return log_of(Path(orders.folder)).read_text()[-1_500:]


def log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")
