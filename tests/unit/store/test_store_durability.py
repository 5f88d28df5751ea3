"""A store killed with -9 at any moment: what was acknowledged is there, and nothing is there twice."""

import random
import subprocess
import sys
from pathlib import Path

from runtime.config import Secrets, Settings
from runtime.ids import BlobId, EntityId, ProjectId
from runtime.store.store import Store

ROUNDS = 6
ENTITIES = 4

CHILD = """
import asyncio, itertools, os, sys
from pathlib import Path
from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, BeginRun, Claim, NewEvent
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.money import Price
from runtime.ledger.port import Hold, Meter
from runtime.store.store import Store

USER = UserId("u")
PRICE = Price(pricing_id="p", input_udollars_per_mtok=1000, output_udollars_per_mtok=1000)

async def entity(store, name, epoch):
    head = await store.journal.head(name)
    seq = head.last_seq if head else 0
    while True:
        run = RunId(f"{name}/{seq + 1}")
        begin = BeginRun(run=run, user=USER, project=ProjectId("p1"), task="T-001", attempt=1)
        append = lambda **more: Append(entity=name, owner=USER, epoch=epoch, expected_seq=seq, open=True, head={},
            events=[NewEvent(type="t", version=1, key=f"k{seq + 1}", data={"n": seq + 1})], **more)
        seq = await store.journal.append(append(begin_runs=[begin]))
        say(f"event {name} {seq}")
        for n in range(2):
            call = CallId(f"{run}/{n}")
            await store.books.hold(Hold(call=call, user=USER, run=run, task_type="coding", provider="x", model="m",
                                        input_tokens_max=100, output_tokens_max=100, price=PRICE))
            await store.books.meter(Meter(call=call, input_tokens=50, output_tokens=50, response_time_ms=1, key_id="k"))
            say(f"call {call} metered")
        seq = await store.journal.append(append(settle_runs=[run]))
        say(f"event {name} {seq}")
        for n in range(2):
            say(f"call {run}/{n} settled")

def say(line):
    os.write(1, (line + chr(10)).encode())

async def main(folder, incarnation):
    store = Store(Settings(data_dir=folder, initial_free_credits=10**9), Secrets.load(folder, {}))
    await store.open()
    await store.books.open_wallet(USER, is_admin=False)
    names = [EntityId(f"project:{i}") for i in range(ENTITIES)]
    claim = Claim(host="h", incarnation=incarnation, partitions=[partition_of(name) for name in names])
    epochs = await store.journal.claim(claim)
    await asyncio.gather(*(entity(store, name, epochs[partition_of(name)]) for name in names))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_killed_store__keeps_all_it_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    moments = random.Random(20261121)
    said: list[str] = []
    for number in range(ROUNDS):
        said += run_and_kill(tmp_path, f"i{number}", after_lines=moments.randrange(1, 400))

        store = Store(Settings(data_dir=tmp_path), Secrets.load(tmp_path, {}))
        await store.open()
        assert await store.books.mismatches() == []
        for index in range(ENTITIES):
            entity = EntityId(f"project:{index}")
            events = await store.journal.read(entity, 0)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [event.data for event in events] == [{"n": n} for n in range(1, len(events) + 1)]
            head = await store.journal.head(entity)
            assert (head.last_seq if head else 0) == len(events)
            acknowledged = [int(line.split()[2]) for line in said if line.startswith(f"event {entity} ")]
            assert max(acknowledged, default=0) <= len(events)
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
