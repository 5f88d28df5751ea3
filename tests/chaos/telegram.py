"""`make chaos-telegram SEED=1`: a thousand persons write at once, and what answers them is killed (-9) meanwhile.

Each sends commands that nobody knows, with a number in each, through the webhook, with duplicates and in disorder.
Every one must be answered, in its order; once, but for what was under way when a process died. Telegram's limits are
counted by the stand-in, which runs in a process of its own. One JSON line a figure.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.disorder import DisorderSetup
from cluster.simulator.telegram.limits import Excess
from cluster.simulator.telegram.server import TOKEN
from runtime.errors import UnavailableError
from tests.bench.figures import figure
from tests.chaos.killer import Kill, Killer
from tests.e2e.live import Live

DISORDER = DisorderSetup(duplicate=0.05, reorder=0.05, hold_s=0.2)
KILLED = ("telegram-door", "host", "telegram-actor")
"""In turn; the seed says when."""
KILL_EVERY_S = 12.0
WRITERS = 32
"""Persons who write at the same moment."""
ANSWERS_PER_S = 20
"""Less than Telegram's limits allow: how long to wait for the last answer."""
READY = "Telegram stand-in ready: "
_NUMBER = re.compile(r"/x(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    persons: int
    updates: int
    kills: int
    seed: int

    @property
    def total(self) -> int:
        return self.persons * self.updates


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """By person the numbers of the answers, in the order in which they came."""

    answers: Mapping[int, Sequence[int]]
    kills: Sequence[Kill]
    excesses: Sequence[Excess]
    refused: Mapping[str, int]
    seconds: float

    def figures(self, load: Load) -> list[dict[str, object]]:
        wanted = list(range(load.updates))
        lost = sum(len(set(wanted) - set(each)) for each in self.answers.values())
        twice = sum(len(each) - len(set(each)) for each in self.answers.values())
        disordered = sum(_firsts(each) != sorted(set(each)) for each in self.answers.values())
        kinds = ", ".join(kill.kind for kill in self.kills)
        # What was under way in each process that died: a call in each chat at the most.
        twice_max = len(self.kills) * load.persons // 10
        return [
            _figure("updates", load.total, "updates", f"{self.seconds:.0f} s, {len(self.kills)} kills: {kinds}",
                    load.kills, len(self.kills) >= load.kills),
            _figure("lost", lost, "updates", "", 0, lost == 0),
            _figure("chats out of order", disordered, "chats", "", 0, disordered == 0),
            _figure("answered twice", twice, "answers", "what was under way at a kill", twice_max, twice <= twice_max),
            _figure("over Telegram's limits", len(self.excesses), "calls", self._excesses(), 0, not self.excesses),
            _figure("refused by Telegram", sum(self.refused.values()), "calls", json.dumps(self.refused), 0,
                    not self.refused),
        ]  # fmt: skip

    def _excesses(self) -> str:
        rules = Counter(each.rule for each in self.excesses)
        early_s = max((each.spare_s for each in self.excesses), default=0.0)
        return f"{dict(rules)}, {early_s:.2f} s too early at most" if rules else ""


async def run(folder: Path, load: Load) -> Outcome:
    """Everything it starts is stopped when it returns. Raises UnavailableError where the service does not start."""
    live = Live.in_folder(folder)
    own = {"INITIAL_FREE_CREDITS": "0", "ENTITY_HOSTS_PER_NODE": "2"}
    live = replace(live, environment={**live.environment, **own})
    async with _stand_in() as root_url, StandInClient(root_url) as control:
        given = {
            **live.start_simulator(),
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_API_URL": root_url,
            "TELEGRAM_MODE": "webhook",
            "WEBHOOK_URL": live.url,
        }
        try:
            started = await asyncio.to_thread(lambda: live.run("up", **given))
            if started.returncode != 0:
                raise UnavailableError(f"The service did not start: {started.stderr}")
            return await _under_load(live, control, load)
        finally:
            await asyncio.to_thread(live.close)


async def _under_load(live: Live, control: StandInClient, load: Load) -> Outcome:
    persons = [await control.add_person(f"P{n}") for n in range(load.persons)]
    await control.set_disorder(DISORDER.model_copy(update={"seed": load.seed}))
    began_s = time.monotonic()
    killing = asyncio.create_task(_kill(live, load))
    gate = asyncio.Semaphore(WRITERS)

    async def write(person: int) -> None:
        for n in range(load.updates):
            async with gate:
                await control.say(person, person, f"/x{n}")

    await asyncio.gather(*(write(person) for person in persons))
    kills = await killing
    answers = await _all_answered(control, persons, load, time.monotonic() + 120 + load.total / ANSWERS_PER_S)
    counts = await control.counts()
    refused = {str(code): count for code, count in counts["by_error"].items() if count}
    excesses = await control.excesses()
    return Outcome(
        answers=answers, kills=kills, excesses=excesses, refused=refused, seconds=time.monotonic() - began_s
    )  # fmt: skip


async def _all_answered(
    control: StandInClient, persons: Sequence[int], load: Load, until_s: float
) -> Mapping[int, Sequence[int]]:
    """As soon as nothing is missing and nothing more comes, or when the time is over."""
    before = -1
    while True:
        answers = {person: await _heard(control, person) for person in persons}
        missing = sum(load.updates - len(set(each)) for each in answers.values())
        total = sum(map(len, answers.values()))
        if (not missing and total == before) or time.monotonic() > until_s:
            return answers
        before = total
        await asyncio.sleep(5.0)


async def _heard(control: StandInClient, person: int) -> list[int]:
    seen = (await control.messages(person)).messages
    found = (_NUMBER.search(message.text) for message in seen if message.from_bot)
    return [int(match[1]) for match in found if match]


async def _kill(live: Live, load: Load) -> Sequence[Kill]:
    kills: list[Kill] = []
    for n in range(load.kills):
        killer = Killer(live.instance, load.seed + n, (KILLED[n % len(KILLED)],))
        await asyncio.sleep(KILL_EVERY_S + killer.pause_s())
        kills += await asyncio.to_thread(killer.strike)
    return kills


@asynccontextmanager
async def _stand_in() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cluster.simulator.telegram", "--port", "0",
        stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        if not line.startswith(READY):
            raise UnavailableError("The stand-in for Telegram did not start.")
        yield line.removeprefix(READY).strip()
    finally:
        process.terminate()
        await process.wait()


def _firsts(numbers: Sequence[int]) -> list[int]:
    """Without what came a second time."""
    return list(dict.fromkeys(numbers))


def _figure(name: str, value: float, unit: str, against: str, target: float, holds: bool) -> dict[str, object]:
    return figure("chaos-telegram", name, value, unit, against=against, target=target, holds=holds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    load = Load(persons=given.persons, updates=given.updates, kills=given.kills, seed=given.seed)
    with tempfile.TemporaryDirectory(prefix="mb-telegram-") as folder:
        figures = asyncio.run(run(Path(folder), load)).figures(load)
    for each in figures:
        print(json.dumps({**each, "seed": load.seed}), flush=True)
    return 0 if all(each["holds"] for each in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
