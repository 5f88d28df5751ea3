"""The process that is killed: it opens the store, judges what the one before it left, and puts load on it.

`python -m tests.chaos.ledger.child` reads `Orders` as JSON from stdin and prints a line when it begins to `open`, to
`load`, and each time to `checkpoint`. A verdict on what it found is written before the load begins.
"""

import asyncio
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.config import Secrets, Settings
from runtime.errors import MasterbuilderError, StoreUnavailableError
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import Meter
from runtime.ledger.purse import Purse
from runtime.ledger.settling import settle_orphans
from runtime.ledger.spool import FOLDER, SUFFIX, Spool
from runtime.store import database as database_module
from runtime.store.database import Database
from runtime.store.store import Store
from tests.chaos.ledger.books import read_books
from tests.chaos.ledger.diary import Diary, read
from tests.chaos.ledger.load import Load
from tests.chaos.ledger.operations import Operation, Sender, claimed
from tests.chaos.ledger.verdict import Told, differences, is_there, survivors, told_by

FREE_CREDITS = 2
AGAIN_MAX = 25
"""Operations that are sent once more after a start: so many acknowledged ones, and as many of the others."""
PURSES = 2
TOLD_MAX = 10
SMALL_LOG_BYTES = 100_000
WARM = 150
CALL_S_MAX = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    folder: str
    name: str
    """Used once in a folder."""
    verdict: str
    """The file for it."""
    small_log: bool = False
    """Folds the log into the file all the time."""
    loads: bool = True
    """Else it ends when it has judged."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a start found and judged. `acknowledged`: operations so far; `doubtful`: those that never were."""

    open_s: float
    acknowledged: int
    doubtful: int
    survived: int
    """Of the doubtful, before any was sent again."""
    again: int
    orphans: int
    answers: dict[str, int]
    differences: list[str]


def diary_of(folder: Path) -> Path:
    """Beside the data folder."""
    return folder.with_name(f"{folder.name}.diary")


async def opened(folder: Path) -> tuple[Store, float]:
    settings = Settings(data_dir=folder, initial_free_credits=FREE_CREDITS)
    store = Store(settings, Secrets.load(folder, {}))
    begun_s = time.perf_counter()
    await store.open()
    return store, time.perf_counter() - begun_s


async def judge(store: Store, told: Told, *, spools: bool = True) -> list[str]:
    """Everything that does not hold: the store's own check, and the diary against the ledger's rows."""
    found = [f"check: {each.subject}: {each.text}" for each in await store.check()]
    books = await read_books(store)
    return found + list(differences(told, books, FREE_CREDITS * UCREDITS_PER_CREDIT, spools=spools))


class Child:
    def __init__(self, orders: Orders) -> None:
        self._folder = Path(orders.folder)
        self._orders = orders
        self._dice = random.Random(orders.name)
        random.seed(orders.name)

    async def run(self) -> None:
        lines = read(diary_of(self._folder))
        diary = Diary(diary_of(self._folder))
        self._watch(diary)
        tell("open")
        store, open_s = await opened(self._folder)
        epochs = await claimed(store, self._orders.name)
        sender = Sender(store, diary, epochs, self._purses(store))
        found = await self._judged(sender, told_by(lines), open_s)
        verdict = Path(self._orders.verdict)
        verdict.with_suffix(".new").write_text(json.dumps(asdict(found)))
        verdict.with_suffix(".new").rename(verdict)
        if self._orders.loads:
            await self._load(sender)
        await store.close()

    async def _load(self, sender: Sender) -> None:
        """Tells when everybody was answered for the first time: from then on the load is as it always is."""
        load = Load(sender, self._orders.name)
        await load.endow()
        warm = sender.acknowledged + WARM
        working = asyncio.create_task(load.run())
        while sender.acknowledged < warm and not working.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        tell("load")
        await working

    async def _judged(self, sender: Sender, told: Told, open_s: float) -> Found:
        before = await read_books(sender.store)
        answers = await self._send_again(sender, told)
        orphans = await self._settle_orphans(sender.store)
        if self._dice.random() < 0.5:
            await sender.store.books.expire_escrows(silent_s=0.0)
        self._dice.shuffle(spooled := [each for each in told.operations.values() if each.way == "purse"])
        for operation in spooled[:AGAIN_MAX]:
            if isinstance(operation.message, Meter) and is_there(operation, before):
                await sender.store.books.meter(operation.message)
        told = told_by(read(diary_of(self._folder)))
        wrong = await judge(sender.store, told)
        return Found(
            open_s=open_s,
            acknowledged=len(told.acknowledged),
            doubtful=sum(each not in told.acknowledged for each in told.operations) - len(told.refused),
            survived=survivors(told, before),
            again=sum(answers.values()),
            orphans=orphans,
            answers=dict(answers),
            differences=wrong,
        )

    async def _send_again(self, sender: Sender, told: Told) -> Counter[str]:
        """Some that were acknowledged and some that were not, in any order and side by side."""
        known = [each for each in told.operations.values() if each.way == "ledger"]
        acknowledged = [each for each in known if each.id in told.acknowledged]
        doubtful = [each for each in known if each.id not in told.acknowledged and each.id not in told.refused]
        chosen = self._some(acknowledged) + self._some(doubtful[-AGAIN_MAX:])
        self._dice.shuffle(chosen)

        async def again(operation: Operation) -> str:
            try:
                await sender.send(operation)
            except StoreUnavailableError as error:
                raise AssertionError("nobody is in the way") from error
            except MasterbuilderError as error:
                return type(error).__name__
            return "acknowledged"

        return Counter(await asyncio.gather(*map(again, chosen)))

    def _some(self, operations: Sequence[Operation]) -> list[Operation]:
        return self._dice.sample(operations, min(AGAIN_MAX, self._dice.randint(0, len(operations))))

    async def _settle_orphans(self, store: Store) -> int:
        """Now and then what a dead process left is found twice, the second time under another name."""
        spool = self._folder / FOLDER
        if self._dice.random() < 0.3:
            for path in list(spool.glob(f"*{SUFFIX}")):
                shutil.copyfile(path, path.with_name(f"{path.stem}-again{SUFFIX}"))
        return await settle_orphans(self._folder, store.books)

    def _purses(self, store: Store) -> list[Purse]:
        tariff = Settings().tariff
        names = [f"{self._orders.name}-{number}" for number in range(PURSES)]
        return [Purse(store.books, Spool(self._folder, name), tariff, call_s_max=CALL_S_MAX) for name in names]

    def _watch(self, diary: Diary) -> None:
        """Writes down how long the log was at each commit, and tells when it is going to be folded into the file."""
        commit, checkpoint = Database._end_group, Database.checkpoint

        def end_group(database: Database) -> None:
            commit(database)
            diary.mark("durable", database.log_bytes)

        def fold(database: Database) -> None:
            tell("checkpoint")
            checkpoint(database)

        Database._end_group = end_group  # type: ignore[method-assign, assignment]
        Database.checkpoint = fold  # type: ignore[method-assign, assignment]
        if self._orders.small_log:
            database_module.LOG_BYTES_MAX = SMALL_LOG_BYTES
            database_module.LOG_LOOK_EVERY_S = 0.02


def tell(what: str) -> None:
    os.write(1, f"{what}\n".encode())


def main() -> None:
    asyncio.run(Child(Orders(**json.loads(sys.stdin.read()))).run())


if __name__ == "__main__":
    main()
