"""Any sequence of batches, claims, restarts and compactions leaves the real journal and the fake in the same state."""

import asyncio
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent, Reminder, Snapshot
from runtime.ids import EntityId, UserId, partition_of
from runtime.ledger.money import Tariff
from runtime.store import tail
from runtime.store.store import Store
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

ENTITIES = [EntityId(f"counter:{n}") for n in range(4)]
PARTITIONS = sorted({partition_of(entity) for entity in ENTITIES})
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXAMPLES = 1_000 if os.environ.get("NIGHTLY") else 8

_WISHES = st.fixed_dictionaries(
    {
        "entity": st.sampled_from(ENTITIES),
        "events": st.integers(0, 3),
        "seq_error": st.sampled_from([0] * 9 + [-1, 1]),
        "epoch_error": st.sampled_from([0] * 9 + [-1, 1]),
        "snapshot": st.booleans(),
        "drop_history": st.booleans(),
        "open": st.booleans(),
        "owner": st.sampled_from(["u", "v"]),
        "remind": st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5)), max_size=2),
        "forget": st.lists(st.sampled_from("abc"), max_size=2),
    }
)


class Journals(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.few_listed = patch.object(tail, "LISTED_MAX", 4)
        self.few_listed.start()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="masterbuilder-test-"))
        self.now = NOON
        self.number = 0
        self.epochs = dict.fromkeys(PARTITIONS, 0)
        self.seqs = dict.fromkeys(ENTITIES, 0)
        self.store = Store(Settings(data_dir=self.folder), Secrets.load(self.folder, {}), lambda: self.now)
        self.fake = MemoryJournal(MemoryLedger(Tariff(), 0), lambda: self.now)
        self.runner.run(self.store.open())
        self.claim(PARTITIONS, 0)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert self.runner.run(self.store.check()) == []
            self.runner.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)
            self.few_listed.stop()

    @rule(partitions=st.lists(st.sampled_from(PARTITIONS), unique=True), error=st.sampled_from([0, 0, 0, -1, 1]))
    def claim(self, partitions: list[int], error: int) -> None:
        self.number += 1
        seen = {partition: self.epochs[partition] + error for partition in partitions}
        claim = Claim(host="h", incarnation=f"i{self.number}", partitions=seen)
        granted = self.runner.run(self.store.journal.claim(claim))
        assert granted == self.runner.run(self.fake.claim(claim)) == self.runner.run(self.store.journal.claim(claim))
        self.epochs.update(granted)

    @rule(wishes=st.lists(_WISHES, min_size=1, max_size=8), split=st.booleans())
    def append(self, wishes: list[dict], split: bool) -> None:
        """`split`: the last of the batch makes the database refuse the group, which must not show."""
        self.now += timedelta(seconds=1)
        appends = [self.made(wish) for wish in wishes]
        expected = self.runner.run(self.fake.append_all(appends))
        outcomes = self.runner.run(self.written(appends, split))
        assert [str(type(one)) if isinstance(one, Exception) else one for one in outcomes] == [
            str(type(one)) if isinstance(one, Exception) else one for one in expected
        ]

    @rule()
    def restart(self) -> None:
        self.runner.run(self.store.close())
        self.runner.run(self.store.open())

    @rule()
    def compact(self) -> None:
        assert self.runner.run(self.store.compact()).events_dropped == self.fake.compact()

    @rule(entity=st.sampled_from(ENTITIES), after=st.integers(-1, 12), limit=st.integers(0, 5))
    def read(self, entity: EntityId, after: int, limit: int) -> None:
        both = [self.runner.run(journal.read(entity, after, limit)) for journal in (self.store.journal, self.fake)]
        assert list(both[0]) == list(both[1])

    @rule(offset=st.integers(-6, 6), limit=st.integers(0, 5))
    def due(self, offset: int, limit: int) -> None:
        at = NOON + timedelta(seconds=offset)
        both = [self.runner.run(journal.due(PARTITIONS[:-1], at, limit)) for journal in (self.store.journal, self.fake)]
        assert list(both[0]) == list(both[1])

    @invariant()
    def loads_are_the_same(self) -> None:
        if hasattr(self, "store"):
            loaded = self.runner.run(self.store.journal.load_all(ENTITIES))
            assert loaded == self.runner.run(self.fake.load_all(ENTITIES))

    def made(self, wish: dict) -> Append:
        entity: EntityId = wish["entity"]
        expected = max(0, self.seqs[entity] + wish["seq_error"])
        is_stale = expected != self.seqs[entity] or wish["epoch_error"]
        last = expected + wish["events"]
        if not is_stale:
            self.seqs[entity] = last
        self.number += 1
        return Append(
            entity=entity,
            owner=UserId(wish["owner"]),
            epoch=self.epochs[partition_of(entity)] + wish["epoch_error"],
            expected_seq=expected,
            events=[
                NewEvent(type="t", version=1, key=f"k{self.number}-{n}", data={"n": n}) for n in range(wish["events"])
            ],
            open=wish["open"],
            head={"n": self.number},
            snapshot=Snapshot(seq=last, version=1, data={"n": self.number}) if wish["snapshot"] else None,
            drop_history=wish["drop_history"],
            remind=[Reminder(name=name, due_at=NOON + timedelta(seconds=at)) for name, at in wish["remind"]],
            forget=wish["forget"],
        )

    async def written(self, appends: list[Append], split: bool) -> list[int | Exception]:
        writing = asyncio.ensure_future(self.store.journal.append_all(appends))
        if split:
            await asyncio.gather(
                self.store._database.write(lambda tx: tx.execute("add_migration", name=None)), return_exceptions=True
            )
        return await writing


TestJournals = Journals.TestCase
TestJournals.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
