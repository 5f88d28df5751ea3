"""A store killed with -9 at any moment: what was acknowledged is there, and nothing is there twice."""

import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from runtime.config import Secrets, Settings
from runtime.ids import BlobId, EntityId, ProjectId, partition_of
from runtime.store.store import Store

ROUNDS = 3
"""`make chaos-ledger` has 200."""
ENTITIES = 4

CHILD = """
import asyncio, itertools, os, sys
from datetime import UTC, datetime
from pathlib import Path
from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, BeginRun, Claim, Moves, NewEvent, Reminder, Snapshot
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.money import Price
from runtime.ledger.port import Hold, Meter
from runtime.store import database
from runtime.store.store import Store

USER = UserId("u")
PRICE = Price(pricing_id="p", input_udollars_per_mtok=1000, output_udollars_per_mtok=1000)
database.LOG_BYTES_MAX = 20_000
database.LOG_LOOK_EVERY_S = 0.01

async def entity(store, name, epoch):
    loaded = await store.journal.load(name)
    seq = loaded.head.last_seq if loaded.head else 0
    while True:
        run = RunId(f"{name}/{seq + 1}")
        begin = BeginRun(run=run, user=USER, project=ProjectId("p1"), task="T-001", attempt=1)
        append = lambda **more: Append(entity=name, owner=USER, epoch=epoch, expected_seq=seq, open=True, head={},
            events=[NewEvent(type="t", version=1, key=f"k{seq + 1}", data={"n": seq + 1})],
            remind=[Reminder(name=f"r{seq + 1}", due_at=datetime(2026, 1, 1, tzinfo=UTC))], forget=[f"r{seq - 1}"],
            **more)
        seq = await store.journal.append(append(moves=Moves(begin=[begin])))
        say(f"event {name} {seq}")
        for n in range(2):
            call = CallId(f"{run}/{n}")
            await store.books.hold(Hold(call=call, user=USER, run=run, task_type="coding", provider="x", model="m",
                                        input_tokens_max=100, output_tokens_max=100, price=PRICE))
            await store.books.meter(Meter(call=call, input_tokens=50, output_tokens=50, response_time_ms=1, key_id="k"))
            say(f"call {call} metered")
        more = {}
        if seq % 3 == 0:
            more = {"snapshot": Snapshot(seq=seq + 1, version=1, data={"n": seq + 1}), "drop_history": seq % 9 == 3}
        seq = await store.journal.append(append(moves=Moves(settle=[run]), **more))
        say(f"event {name} {seq}")
        for n in range(2):
            say(f"call {run}/{n} settled")

async def compact(store):
    while True:
        await store.compact()
        await asyncio.sleep(0.05)

def say(line):
    os.write(1, (line + chr(10)).encode())

async def main(folder, incarnation):
    store = Store(Settings(data_dir=folder, initial_free_credits=10**9), Secrets.load(folder, {}))
    await store.open()
    await store.books.open_wallet(USER, is_admin=False)
    names = [EntityId(f"project:{i}") for i in range(ENTITIES)]
    seen = {each.partition: each.epoch for each in await store.journal.ownerships()}
    partitions = {partition_of(name): seen.get(partition_of(name), 0) for name in names}
    epochs = await store.journal.claim(Claim(host="h", incarnation=incarnation, partitions=partitions))
    await asyncio.gather(compact(store), *(entity(store, name, epochs[partition_of(name)]) for name in names))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_killed_store__keeps_all_it_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    moments = random.Random(20261121)
    said: list[str] = []
    for number in range(ROUNDS):
        said += run_and_kill(tmp_path, f"i{number}", after_lines=moments.randrange(1, 400))

        store = Store(Settings(data_dir=tmp_path), Secrets.load(tmp_path, {}))
        await store.open()
        assert await store.check() == []
        for index in range(ENTITIES):
            entity = EntityId(f"project:{index}")
            loaded = await store.journal.load(entity)
            last_seq = loaded.head.last_seq if loaded.head else 0
            first_seq = loaded.snapshot.seq if loaded.snapshot else 0
            assert [event.data for event in loaded.events] == [{"n": n} for n in range(first_seq + 1, last_seq + 1)]
            assert loaded.snapshot is None or loaded.snapshot.data == {"n": first_seq}
            acknowledged = [int(line.split()[2]) for line in said if line.startswith(f"event {entity} ")]
            assert max(acknowledged, default=0) <= last_seq
            # Every event sets a reminder and forgets the one that was set two before.
            due = await store.journal.due([partition_of(entity)], datetime.now(UTC), 10)
            kept = {each.reminder.name for each in due if each.entity == entity}
            assert kept == {f"r{seq}" for seq in range(max(1, last_seq - 1), last_seq + 1)}
        receipt = await store.books.receipt(ProjectId("p1"))
        charged = {row.call for row in receipt.charged}
        metered = charged | {row.call for row in receipt.pending if row.state == "metered"}
        assert len(charged) == len(receipt.charged)
        assert {line.split()[1] for line in said if line.endswith(" settled")} <= charged
        assert {line.split()[1] for line in said if line.endswith(" metered")} <= metered
        await store.close()
    assert len(said) > ROUNDS


def run_and_kill(folder: Path, incarnation: str, after_lines: int) -> list[str]:
    """What the child acknowledged before it was killed; whole lines only."""
    script = CHILD.replace("ENTITIES", str(ENTITIES))
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), incarnation], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(after_lines)]
    child.kill()
    lines += child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    assert child.returncode == -9
    return [line.strip() for line in lines if line.endswith("\n")]


async def test_stopped_store__opens_again_with_everything(tmp_path: Path) -> None:
    secrets = Secrets.load(tmp_path, {})
    put: list[BlobId] = []
    for number in range(3):
        store = Store(Settings(data_dir=tmp_path), secrets)
        await store.open()
        assert [await store.books.get_blob(blob) for blob in put] == [f"bundle {n}".encode() for n in range(number)]
        put.append(await store.books.put_blob(f"bundle {number}".encode()))
        await store.close()
