"""Backups of a store under load, each restored elsewhere: one moment of it, and nothing that is not a whole backup."""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from runtime.config import Secrets, Settings
from runtime.errors import BadInputError
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.purse import Purse
from runtime.ledger.spool import Spool
from runtime.store import backup as backups
from runtime.store.schema import DATABASE
from runtime.store.store import Store
from tests.bench.figures import figure
from tests.chaos.ledger.books import read_books
from tests.chaos.ledger.child import CALL_S_MAX, FREE_CREDITS, PURSES, diary_of, opened
from tests.chaos.ledger.diary import Diary, Line, read
from tests.chaos.ledger.load import Load
from tests.chaos.ledger.operations import Sender, claimed
from tests.chaos.ledger.verdict import differences, is_there, later_than_missing, told_by

BACKUPS_PER_FOLDER = 5
BETWEEN_S = (0.2, 1.5)
MANIFEST_FLIPS = 40
"""It is checked by nothing but itself, so it is altered so much more often."""
DAMAGED_MAX = 12
"""Files of one backup that are damaged, in every way."""


@dataclass(slots=True)
class Tally:
    backups: int = 0
    seconds: list[float] = field(default_factory=list)
    before: int = 0
    """Operations that were acknowledged before a backup began: all are in it. `during`: those in it beside them."""
    during: int = 0
    damages: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


class Backups:
    def __init__(self, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._seed = seed
        self._say = say
        self._dice = random.Random(f"backups {seed}")
        self._tally = Tally()

    async def run(self, count: int) -> Tally:
        for start in range(0, count, BACKUPS_PER_FOLDER):
            data = self._folder / f"backed-up-{start}"
            os.makedirs(data)
            await self._back_up_often(data, range(start, min(start + BACKUPS_PER_FOLDER, count)))
            lines = read(diary_of(data))
            for number in range(start, min(start + BACKUPS_PER_FOLDER, count)):
                await self._judge(data, number, lines)
            shutil.rmtree(data)
            diary_of(data).unlink()
            self._say(f"{self._tally.backups} backups: {self._tally.differences[:1]}")
        return self._tally

    def _backup(self, number: int) -> Path:
        return self._folder / f"backup-{number}"

    async def _back_up_often(self, data: Path, numbers: range) -> None:
        diary = Diary(diary_of(data))
        store, _ = await opened(data)
        purses = [
            Purse(store.books, Spool(data, f"b{numbers[0]}-{number}"), Settings().tariff, call_s_max=CALL_S_MAX)
            for number in range(PURSES)
        ]
        load = Load(Sender(store, diary, await claimed(store, "backups"), purses), f"b{numbers[0]}")
        await load.endow()
        working = asyncio.create_task(load.run())
        for number in numbers:
            await asyncio.sleep(self._dice.uniform(*BETWEEN_S))
            diary.mark("begun", number)
            report = await store.backup(self._backup(number))
            diary.mark("ended", number)
            self._tally.seconds.append(report.seconds)
        await asyncio.sleep(BETWEEN_S[0])
        assert not working.done(), working.exception()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await asyncio.gather(*(purse.close() for purse in purses))
        await store.close()

    async def _judge(self, data: Path, number: int, lines: list[Line]) -> None:
        backup, restored = self._backup(number), self._folder / "restored"
        backups.restore(backup, restored)
        secrets = Secrets.load(data, {})
        store = Store(Settings(data_dir=restored, initial_free_credits=FREE_CREDITS), secrets)
        await store.open()
        begun, ended = (lines.index(Line("mark", (what, number))) for what in ("begun", "ended"))
        told = told_by(lines, begun, ended)
        wrong = [f"check: {each.subject}: {each.text}" for each in await store.check()]
        books = await read_books(store)
        wrong += differences(told, books, FREE_CREDITS * UCREDITS_PER_CREDIT, spools=False)
        wrong += later_than_missing(told_by(lines, ended, ended), books)
        await store.close()
        shutil.rmtree(restored)
        self._tally.before += len(told.acknowledged)
        self._tally.during += sum(
            is_there(each, books) for each in told.operations.values() if each.id not in told.acknowledged
        )
        wrong += self._damage(backup)
        self._tally.differences += [f"backup {number}: {each}" for each in wrong]
        self._tally.backups += 1
        shutil.rmtree(backup)

    def _damage(self, backup: Path) -> Iterator[str]:
        """Every way of not being whole is refused, and nothing is restored then."""
        target = self._folder / "from-damaged"
        files = sorted(path for path in backup.rglob("*") if path.is_file())
        rest = [path for path in files if path.parent != backup]
        chosen = [path for path in files if path.parent == backup]
        chosen += self._dice.sample(rest, min(len(rest), DAMAGED_MAX - len(chosen)))
        changes: Mapping[str, Callable[[Path], None]] = {"cut": _cut, "removed": Path.unlink, "flipped": self._flip}
        for path in chosen:
            flips = ["flipped"] * (MANIFEST_FLIPS if path.name == backups.MANIFEST else 1)
            for way in ["cut", "removed", *flips]:
                with _whole_again(path):
                    changes[way](path)
                    yield from self._restores_nothing(backup, target, f"{path.relative_to(backup)} {way}", way)
        for more in (backup / "more", backup / "blobs" / "manifest.json", backup / f"{DATABASE}.wal"):
            more.parent.mkdir(exist_ok=True)
            more.write_bytes(b"")
            yield from self._restores_nothing(backup, target, f"{more.relative_to(backup)} added", "added")
            more.unlink()

    def _restores_nothing(self, backup: Path, target: Path, what: str, way: str) -> Iterator[str]:
        self._tally.damages[way] += 1
        try:
            backups.restore(backup, target)
        except BadInputError:
            if target.exists() and any(target.iterdir()):
                yield f"{what}: it was refused, and {target} is not empty"
        else:
            yield f"{what}: it was restored"
        shutil.rmtree(target, ignore_errors=True)

    def _flip(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[self._dice.randrange(len(content))] ^= 1 << self._dice.randrange(8)
        path.write_bytes(content)


def figures(tally: Tally) -> list[dict[str, object]]:
    damages = ", ".join(f"{count} {way}" for way, count in sorted(tally.damages.items()))
    differences = len(tally.differences)
    return [
        figure(
            "chaos ledger", "backups under load, restored", tally.backups, "backups",
            against=f"{tally.before} operations acknowledged before, {tally.during} beside them; median "
            f"{median(tally.seconds or [0.0]):.2f} s",
        ),
        figure("chaos ledger", "damaged backups", tally.damages.total(), "backups", against=damages),
        figure(
            "chaos ledger", "differences in backups", differences, "differences", target=0, holds=not differences
        ),
    ]  # fmt: skip


@contextmanager
def _whole_again(path: Path) -> Iterator[None]:
    """Nothing of the change is left afterwards: a new file in its place, for a blob is a link to the store's own."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    yield
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
