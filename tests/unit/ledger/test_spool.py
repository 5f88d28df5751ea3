"""Lines that survive their process, and what whoever finds them does."""

import fcntl
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.errors import StoreUnavailableError
from runtime.ids import CallId, ProjectId, UserId
from runtime.ledger import spool as spools
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Draw, EscrowCall, EscrowId, Hold, Meter, Payer
from runtime.ledger.settling import settle_orphans
from runtime.ledger.spool import FOLDER, Spool, find_orphans
from runtime.testing.memory_ledger import MemoryLedger

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
ESCROW = EscrowId("e1")
USER = UserId("u")
HOLD = Hold(
    call=CallId("gw-1"),
    user=USER,
    run=None,
    task_type="chat",
    provider="openai",
    model="mini-ü",
    input_tokens_max=1_000,
    output_tokens_max=500,
    price=Price(
        pricing_id="mini-1", input_udollars_per_mtok=10**6, output_udollars_per_mtok=2 * 10**6, image_udollars=9
    ),
    project=ProjectId("p"),
    token_sha256="a" * 64,
    images=2,
)
METER = Meter(
    call=CallId("gw-1"),
    input_tokens=7,
    output_tokens=3,
    response_time_ms=51,
    key_id="openai-abc",
    provider_failed=True,
    estimated=True,
    unserved=True,
)


def a_hold(number: int) -> Hold:
    return replace(HOLD, call=CallId(f"gw-{number}"), project=None, token_sha256="")


def a_meter(number: int) -> Meter:
    return replace(METER, call=CallId(f"gw-{number}"), provider_failed=False, estimated=False, unserved=False)


def found(folder: Path) -> list[EscrowCall]:
    calls = []
    for orphan in find_orphans(folder):
        calls += [call for _, part in orphan.calls() for call in part]
        orphan.let_go()
    return calls


def abandon(spool: Spool) -> None:
    """As a death does: the locks fall, the files stay."""
    for segment in spool._segments:
        segment.close()


def test_call__comes_back_whole_with_its_usage_or_without(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "p1")
    segment = spool.begin(ESCROW, HOLD, NOON)
    spool.begin(ESCROW, a_hold(2), NOON)
    spool.end(segment, METER)
    abandon(spool)
    assert found(tmp_path) == [
        EscrowCall(escrow=ESCROW, hold=HOLD, meter=METER, held_at=NOON),
        EscrowCall(escrow=ESCROW, hold=a_hold(2), meter=None, held_at=NOON),
    ]


def test_lines__hold_every_field_there_is() -> None:
    """A new field of a hold or a meter must be spooled, or a call that is found again is another call."""
    known = {"call", "user", "run", "task_type", "provider", "model", "input_tokens_max", "output_tokens_max", "price"}
    assert {field.name for field in fields(Hold)} == known | {"project", "token_sha256", "images"}
    assert {field.name for field in fields(Price)} == {
        "pricing_id",
        "input_udollars_per_mtok",
        "output_udollars_per_mtok",
        "image_udollars",
    }
    assert {field.name for field in fields(Meter)} == {
        "call",
        "input_tokens",
        "output_tokens",
        "response_time_ms",
        "key_id",
        "provider_failed",
        "estimated",
        "unserved",
    }


def test_spool_of_a_living_process__is_no_orphan_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "p1")
    spool.begin(ESCROW, HOLD, NOON)
    assert find_orphans(tmp_path) == []
    (path,) = (tmp_path / FOLDER).iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    spool.close()
    assert len(found(tmp_path)) == 1


def test_orphan__is_found_by_one_finder_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "p1")
    spool.begin(ESCROW, HOLD, NOON)
    abandon(spool)
    (orphan,) = find_orphans(tmp_path)
    assert find_orphans(tmp_path) == []
    orphan.delete()
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_line_that_was_cut_off__is_ignored_and_the_others_count(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, "p1")
    segment = spool.begin(ESCROW, a_hold(1), NOON)
    spool.begin(ESCROW, a_hold(2), NOON)
    spool.end(segment, a_meter(1))
    abandon(spool)
    path = segment.path
    path.write_bytes(path.read_bytes()[:-cut])
    first, second = found(tmp_path)
    assert (first.meter is not None, second.meter) == (cut == 1, None)


def test_line_that_did_not_fit__spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "p1")
    segment = spool.begin(ESCROW, a_hold(1), NOON)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
    with pytest.raises(StoreUnavailableError):
        spool.begin(ESCROW, a_hold(2), NOON)
    with pytest.raises(StoreUnavailableError):
        spool.end(segment, a_meter(1))
    monkeypatch.undo()
    spool.begin(ESCROW, a_hold(3), NOON)
    spool.end(segment, a_meter(1))
    abandon(spool)
    assert [(call.hold.call, call.meter is not None) for call in found(tmp_path)] == [("gw-1", True), ("gw-3", False)]


def test_files__are_deleted_or_begun_anew_when_all_in_them_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "CLEARED_ABOVE_BYTES", 100)
    spool = Spool(tmp_path, "p1", segment_bytes_max=1_000)
    segments = [spool.begin(ESCROW, a_hold(number), NOON) for number in range(20)]
    assert len(list((tmp_path / FOLDER).iterdir())) == len(set(segments)) > 2
    for segment in segments:
        spool.settled(segment)
    (path,) = (tmp_path / FOLDER).iterdir()
    assert path.stat().st_size == 0
    spool.begin(ESCROW, a_hold(99), NOON)
    abandon(spool)
    assert [call.hold.call for call in found(tmp_path)] == ["gw-99"]


def test_file_that_was_never_locked__is_cleared_away_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name, age_s in (("a.1.new", 100), ("b.1.new", 0)):
        (folder / name).touch()
        os.utime(folder / name, (os.stat(folder / name).st_mtime - age_s,) * 2)
    assert find_orphans(tmp_path) == []
    assert [path.name for path in folder.iterdir()] == ["b.1.new"]


async def test_orphans__are_settled_once_and_their_escrows_end(tmp_path: Path) -> None:
    ledger = MemoryLedger(Tariff(), 10**9, lambda: NOON)
    await ledger.open_wallet(USER, is_admin=False)
    await ledger.draw(Draw(escrow=ESCROW, process="p1", payer=Payer(USER), wanted_ucredits=10**7, min_ucredits=1))
    spool = Spool(tmp_path, "p1", segment_bytes_max=1_000)
    for number in range(20):
        segment = spool.begin(ESCROW, a_hold(number), NOON)
        if number % 2:
            spool.end(segment, a_meter(number))
    abandon(spool)
    assert await settle_orphans(tmp_path, ledger) == 20
    balance = await ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (10**9 - 10 * (13 * 150 + 2 * 9 * 150), 0)
    assert await settle_orphans(tmp_path, ledger) == 0
    assert list((tmp_path / FOLDER).iterdir()) == []


async def test_orphans_the_ledger_cannot_take_now__stay(tmp_path: Path) -> None:
    class Deaf(MemoryLedger):
        async def settle(self, settlement: object) -> tuple[()]:
            raise StoreUnavailableError("not now")

    spool = Spool(tmp_path, "p1")
    spool.begin(ESCROW, a_hold(1), NOON)
    abandon(spool)
    with pytest.raises(StoreUnavailableError):
        await settle_orphans(tmp_path, Deaf(Tariff(), 0))
    assert [call.hold.call for call in found(tmp_path)] == ["gw-1"]


def test_kill_9__loses_no_line(tmp_path: Path) -> None:
    writer = f"""
import sys
from pathlib import Path
from tests.unit.ledger.test_spool import *
spool = Spool(Path({str(tmp_path)!r}), "p1")
for number in range(10**9):
    segment = spool.begin(ESCROW, a_hold(number), NOON)
    print(number, "begun", flush=True)
    spool.end(segment, a_meter(number))
    print(number, "metered", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(501)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().splitlines(keepends=True)
    process.wait()
    calls = {call.hold.call: call.meter for call in found(tmp_path)}
    for line in told:
        if not line.endswith("\n"):
            continue  # The last one, cut off with its writer.
        number, what = line.split()
        assert calls.get(CallId(f"gw-{number}"), "lost") != "lost"
        assert what == "begun" or calls[CallId(f"gw-{number}")] is not None


def test_lock__is_not_inherited_by_children(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "p1")
    segment = spool.begin(ESCROW, a_hold(1), NOON)
    assert fcntl.fcntl(segment._descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    spool.close()
