"""A person is erased from every table and file, no sum changes, and nothing brings them back."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ConflictError, NotEnoughCreditsError, NotFoundError, StaleWriterError
from runtime.ids import CallId, ProjectId, UserId, project_entity, user_entity
from runtime.index.vector_file import vectors_file
from runtime.ledger.port import (
    CallRefund,
    EscrowCall,
    EscrowId,
    NewOrder,
    NewToken,
    OrderId,
    Payment,
    Repayment,
    Settlement,
    StarsPayment,
)
from runtime.ledger.settling import settle_orphans
from runtime.ledger.spool import Spool
from runtime.reports.listing import REPORTS
from runtime.store import erasing
from tests.unit.store.erased_world import (
    ANN,
    BOB,
    BOBS,
    CREDIT,
    DONE,
    EMAIL,
    INVITER,
    OPEN,
    WORDS,
    World,
    a_draw,
    a_hold,
    a_meter,
)

SUMS = """SELECT reason, unit, count(*), sum(amount)::VARCHAR FROM transfers GROUP BY ALL
          UNION ALL SELECT CASE WHEN account LIKE 'user:%' THEN 'user' ELSE account END, unit, count(*),
                           sum(balance)::VARCHAR FROM accounts GROUP BY ALL ORDER BY ALL"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World.over(tmp_path)
    await world.open()
    await world.lives()
    yield world
    assert await world.store.check() == []
    await world.store.close()


async def erased(world: World, user: UserId = ANN) -> UserId:
    """Asks, cancels what is open, and waits; the pseudonym."""
    await world.store.books.delete_person(user, 10**15)
    await world.cancelled(OPEN)
    world.now += timedelta(minutes=2)
    await world.store.erase_due()
    return UserId((await world.sql("SELECT pseudonym FROM erasures ORDER BY asked_at DESC"))[0][0])


async def test_world__has_ann_in_every_table_that_names_people(world: World) -> None:
    """So that what the other tests do not find is worth something."""
    named = {each.partition(".")[0] for each in await world.naming(ANN)}
    people = {
        "accounts", "adjustments", "alerts", "call_holds", "call_refunds", "entities", "entries", "escrow_grants",
        "notices",
        "payment_orders", "project_feedback", "project_statuses", "purchases", "runs", "star_payments", "star_refunds",
        "stops", "subscription_events", "subscription_periods", "tokens", "transfers", "users",
    }  # fmt: skip
    assert named == people


async def test_ratings__are_among_the_papers_with_their_words(world: World) -> None:
    ratings = (await world.store.books.papers(ANN)).ratings
    assert [(each.project, each.score, each.text) for each in ratings] == [(DONE, 4, WORDS)]
    assert (await world.store.books.papers(BOB)).ratings == []


async def test_erased_person__is_named_nowhere_and_others_are_as_they_were(world: World) -> None:
    async def of_others() -> list[Any]:
        books = world.store.books
        balances = [await books.balance(user) for user in (BOB, INVITER)]
        return [balances, await books.person(BOB), await books.calls_of(BOB, None, 99), await books.papers(BOB),
                await books.authenticate("b" * 64), await world.store.journal.load(project_entity(BOBS)),
                await world.store.journal.load(user_entity(BOB))]  # fmt: skip

    before = await of_others()
    pseudonym = await erased(world)
    assert await world.naming(ANN, "annabell", WORDS, EMAIL) == []
    assert await of_others() == before
    assert await world.store.books.person(ANN) is None
    assert (await world.store.journal.load(project_entity(DONE))).head is None
    assert (await world.store.journal.load(user_entity(ANN))).head is None
    assert await world.store.journal.heads("project", ANN) == []
    assert await world.sealed_of(pseudonym) == []
    assert await world.store.check() == []


async def test_backup_of_afterwards__holds_no_byte_of_the_name(world: World, tmp_path: Path) -> None:
    """The database's own file may, in parts of it that are not used any more."""
    await erased(world)
    folder = tmp_path.with_name(f"{tmp_path.name}-backup")
    await world.store.backup(folder)
    assert [path.name for path in folder.rglob("*") if path.is_file() and b"annabell" in path.read_bytes()] == []
    assert b"annabell" not in (tmp_path / "ledger.duckdb.wal").read_bytes()


async def test_sums_and_reports__are_the_same_before_and_after(world: World) -> None:
    await world.store.books.delete_person(ANN, 10**15)
    await world.cancelled(OPEN)
    await world.store.erase_due()  # Takes what the cancelled project gave back.
    world.now += timedelta(minutes=2)
    names = [report.name for report in REPORTS]
    before, sums = {name: await world.report(name) for name in names}, await world.sql(SUMS)
    assert any(ANN in row for rows in before.values() for row in rows)
    await world.store.erase_due()
    ((pseudonym,),) = await world.sql("SELECT pseudonym FROM erasures")
    for name in names:
        renamed = [tuple(pseudonym if cell == ANN else cell for cell in row) for row in before[name]]
        assert sorted(map(str, await world.report(name))) == sorted(map(str, renamed)), name
    assert await world.sql(SUMS) == sums
    assert await world.store.books.mismatches() == []


async def test_credits_that_are_left__are_forfeited_and_what_comes_back_too(world: World) -> None:
    had = await world.store.books.balance(ANN)
    assert had.held_ucredits > 0
    deletion = await world.store.books.delete_person(ANN, had.balance_ucredits)
    assert deletion.forfeited_ucredits == had.balance_ucredits
    await world.cancelled(OPEN)
    world.now += timedelta(minutes=2)
    await world.store.erase_due()
    ((pseudonym,),) = await world.sql("SELECT pseudonym FROM erasures")
    assert (await world.store.books.balance(pseudonym)).balance_ucredits == 0
    taken = await world.sql(
        "SELECT amount_ucredits::BIGINT FROM adjustments WHERE starts_with(adjustment, 'erasure/') ORDER BY made_at"
    )
    assert taken == [(-had.free_ucredits,), (-had.held_ucredits,)]


async def test_open_project__is_reminded_until_it_ended_and_only_then_all_is_erased(world: World) -> None:
    await world.store.books.delete_person(ANN, 10**15)
    for _ in range(3):
        world.now += timedelta(minutes=2)
        await world.store.erase_due()
        due = await world.store.journal.due(range(1024), world.now, 10)
        assert [(each.entity, each.reminder.name) for each in due] == [(project_entity(OPEN), "owner_left")]
    assert (await world.store.journal.load(project_entity(OPEN))).head is not None
    await world.cancelled(OPEN)
    await world.store.erase_due()
    assert await world.naming(ANN) == []


async def test_project_that_holds_nothing__is_waited_for_until_it_ended_and_its_reminder_is_answered(
    world: World,
) -> None:
    entity = project_entity(ProjectId("aaaaaaaa-2"))
    opened = {"owner": ANN, "brief": WORDS, "answers": {}, "max_ucredits": None, "confirmed": True}
    await world.happens(entity, ANN, "project.opened", opened)
    await world.store.books.delete_person(ANN, 10**15)
    await world.cancelled(OPEN)
    world.now += timedelta(minutes=2)
    await world.store.erase_due()
    assert (await world.store.journal.load(entity)).head is not None
    ended = {"status": "cancelled", "reason": ""}
    await world.happens(entity, ANN, "project.finished", ended, open=False)
    await world.store.erase_due()
    assert (await world.store.journal.load(entity)).head is not None
    await world.happens(entity, ANN, "project.noted", {}, open=False, forget=["owner_left"])
    await world.store.erase_due()
    assert (await world.store.journal.load(entity)).head is None


async def test_what_began_before_the_request__has_a_minute_to_end(world: World) -> None:
    await world.store.books.delete_person(ANN, 10**15)
    await world.cancelled(OPEN)
    world.now += timedelta(seconds=59)
    await world.store.erase_due()
    assert await world.naming(ANN) != []


async def test_project_that_never_ends_and_holds_that_nobody_gives_back__are_given_up_within_the_day(
    world: World,
) -> None:
    books = world.store.books
    await books.hold(a_hold("gw-held", ANN))
    await books.draw(a_draw("e-held", ANN))
    await books.delete_person(ANN, 10**15)
    world.now += timedelta(hours=11)
    await world.store.erase_due()
    assert await world.naming(ANN) != []
    world.now += timedelta(hours=2)
    await world.store.erase_due()
    assert await world.naming(ANN) == []
    ((pseudonym,),) = await world.sql("SELECT pseudonym FROM erasures")
    await books.meter(a_meter("gw-held"))
    await books.meter(a_meter(f"project:{OPEN}/plan#1/1"))
    assert (await books.balance(pseudonym)).balance_ucredits == 0
    assert await world.naming(ANN) == []
    stale = world.happens(project_entity(OPEN), ANN, "project.status", {"status": "paused", "text": "x"})
    with pytest.raises(StaleWriterError):
        await stale


async def test_files__go_but_for_those_that_another_journal_names(world: World, tmp_path: Path) -> None:
    blobs = world.blobs
    own = {name: blob for name, blob in blobs.items() if name.startswith("aaaaaaaa") and "the same" not in name}
    assert len(own) == 4
    await erased(world)
    there = {path.name for path in (tmp_path / "blobs").glob("*/*")}
    assert there.isdisjoint(own.values())
    assert there == {blob for name, blob in blobs.items() if name.startswith("bbbbbbbb")}
    kept = vectors_file(BOB)
    assert {path.name for path in (tmp_path / "index").iterdir()} == {f"{BOBS}.index", kept, f"{kept}-journal"}
    assert await world.sql("SELECT * FROM erasure_files") == []
    assert await world.sql("SELECT count(*) FROM erasures WHERE erased_at IS NOT NULL") == [(1,)]


async def test_file_that_somebody_stored_again_lately__waits_until_it_is_named_or_never(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await world.store.books.put_blob(f"patch of {DONE}: {WORDS}".encode())
    assert blob == world.blobs[f"{DONE} patch of {DONE}"]
    await erased(world)
    path = tmp_path / "blobs" / blob[:2] / blob
    assert path.exists()
    assert await world.sql("SELECT count(*) FROM erasures WHERE erased_at IS NULL") == [(1,)]
    monkeypatch.setattr("runtime.store.blobs.NAMED_WITHIN_S", 0.0)
    assert await world.store.erase_due() == 1
    assert not path.exists()


async def test_same_person_again__is_new_and_has_no_second_grant(world: World) -> None:
    books = world.store.books
    pseudonym = await erased(world)
    await books.add_token(NewToken(token_sha256="c" * 64, user=ANN, kind="user", label=""))
    assert await books.authenticate("a" * 64) is None
    identity = await books.authenticate("c" * 64)
    assert identity is not None
    assert (identity.user, identity.role) == (ANN, "DEMO")
    assert (await books.balance(ANN)).balance_ucredits == 0
    with pytest.raises(NotEnoughCreditsError):
        await books.hold(a_hold("gw-new", ANN))
    assert await books.statement(ANN, None, 10) == []
    again = await erased_again(world)
    assert again != pseudonym
    assert await world.naming(ANN) == []


async def erased_again(world: World) -> UserId:
    await world.store.books.delete_person(ANN, 0)
    world.now += timedelta(minutes=2)
    await world.store.erase_due()
    return UserId((await world.sql("SELECT pseudonym FROM erasures ORDER BY asked_at DESC"))[0][0])


async def test_pseudonym__takes_and_spends_nothing(world: World) -> None:
    books = world.store.books
    late = NewOrder(
        id=OrderId("ord-late"), user=ANN, provider="shop", product="credits_500", ucredits=500 * CREDIT,
        amount_minor=500, currency="USD", paid_pusd=5 * 10**12,
    )  # fmt: skip
    await books.open_order(late)
    pseudonym = await erased(world)
    paid = Payment(
        order=late.id, provider="shop", external_id="late", product="credits_500", amount_minor=500, currency="USD"
    )
    for give in (
        books.complete_order(paid),
        books.refund_call(CallRefund(call=CallId("gw-a-2"), reason="sorry", made_by=BOB)),
        books.open_wallet(pseudonym, is_admin=False),
        books.add_token(NewToken(token_sha256="d" * 64, user=pseudonym, kind="user", label="")),
        books.release_account(pseudonym),
    ):
        with pytest.raises((ConflictError, NotFoundError)):
            await give
    assert await books.repay(Repayment(provider="shop", external_id="x1", reason="chargeback")) == 0
    await books.purchase(replace((await books.papers(BOB)).purchases[0].purchase, external_id="x3"))
    assert (await books.balance(pseudonym)).balance_ucredits == 0


async def test_stars_that_somebody_paid_who_was_erased__are_on_record_under_the_pseudonym(world: World) -> None:
    """They bought nothing, and the operator is to see it; the name comes back nowhere. Nobody is told of an end."""
    books = world.store.books
    pseudonym = await erased(world)
    late = StarsPayment(
        telegram_charge_id="ch-late", provider_charge_id="", user=ANN, product="credits_100", stars=50, currency="XTR",
        at=world.now,
    )  # fmt: skip
    for _ in range(2):
        booked = await books.fulfil(late)
        assert (booked.status, booked.paid.user) == ("failed", pseudonym)
    assert await world.naming(ANN) == []
    assert "payment-failed:ch-late" in {each.condition for each in (await world.store.reports.watch()).raised}
    assert (await books.refund_stars("ch-late", "nobody's", BOB)).stars == 50
    world.now += timedelta(days=100)
    await books.note_subscriptions()
    assert await books.notices(pseudonym) == []
    assert {each.kind for each in await books.notices(BOB)} >= {"subscription_ended"}


async def test_spool_of_a_dead_process__is_booked_under_the_pseudonym(world: World, tmp_path: Path) -> None:
    """Of a call that ended, one whose usage nobody knows, and one of an escrow that the ledger never saw."""
    books = world.store.books
    await books.draw(replace(a_draw("e-late", ANN), process="dead"))
    spool = Spool(tmp_path, "dead")
    for name, escrow in (("gw-known", "e-late"), ("gw-unknown", "e-late"), ("gw-stray", "e-never-seen")):
        segment = spool.begin(EscrowId(escrow), a_hold(name, ANN), world.now)
        if name != "gw-unknown":
            spool.end(segment, a_meter(name))
    await books.delete_person(ANN, 10**15)
    world.now += timedelta(hours=13)
    await world.store.erase_due()
    assert await world.naming(ANN) == []
    ((pseudonym,),) = await world.sql("SELECT pseudonym FROM erasures")

    spool.close()
    assert await settle_orphans(tmp_path, books) == 3
    assert list((tmp_path / "spool").glob("*")) == []
    assert await world.naming(ANN) == []
    booked = {each.row.call: each.row for each in await books.calls_of(pseudonym, None, 99)}
    assert {"gw-known", "gw-unknown", "gw-stray"} <= set(booked)
    assert all(booked[name].credits_ucredits == 0 for name in ("gw-known", "gw-unknown", "gw-stray"))
    lost = "SELECT sum(loss_pusd)::BIGINT FROM escrow_calls WHERE call IN ('gw-known', 'gw-unknown', 'gw-stray')"
    assert await world.sql(lost) == [((30_000 + 40_000 + 30_000) * 10**6,)]
    assert (await books.balance(ANN)).balance_ucredits == 0


async def test_settlement_of_somebody_who_came_back__is_their_own(world: World) -> None:
    books = world.store.books
    await erased(world)
    world.now += timedelta(hours=1)
    await books.open_wallet(ANN, is_admin=False)
    booked = EscrowCall(
        escrow=EscrowId("e-unseen"), hold=a_hold("gw-new", ANN), meter=a_meter("gw-new"), held_at=world.now
    )
    await books.settle(Settlement(batch="b-new", process="p", calls=(booked,)))
    assert [each.row.call for each in await books.calls_of(ANN, None, 9)] == ["gw-new"]


async def test_writes_in_the_same_moment__find_no_old_name_in_memory(world: World) -> None:
    """The group that erases holds other writes, before it and behind it."""
    books = world.store.books
    await books.delete_person(ANN, 10**15)
    await world.cancelled(OPEN)
    world.now += timedelta(minutes=2)

    async def meanwhile(number: int) -> None:
        await books.hold(a_hold(f"gw-m{number}", BOB))
        await books.meter(a_meter(f"gw-m{number}"))
        await books.balance(ANN)

    await asyncio.gather(world.store.erase_due(), *(meanwhile(number) for number in range(40)))
    await world.store.erase_due()
    assert await world.naming(ANN) == []
    assert (await books.open_wallet(ANN, is_admin=False)).balance_ucredits == 0


STRIDE = 13
"""Of the moments one in so many is tried: 1 tries all."""
CHILD = """
import asyncio, os, shutil, sys
from datetime import timedelta
from pathlib import Path
from runtime.store import blobs, erasing
from runtime.store.database import Database
from tests.unit.store.erased_world import NOON, World

whole, folder = Path(sys.argv[1]), Path(sys.argv[2])

def dying(act, dies):
    def acting(*args, **kwargs):
        dies("before")
        result = act(*args, **kwargs)
        dies("after")
        return result
    return acting

def run(step):
    # Every step is one moment before or after a commit, or a file's removal.
    def dies(when):
        nonlocal step
        step -= 1
        if not step:
            os.kill(os.getpid(), 9)

    async def erase():
        world = World.over(folder / f"{step}")
        await world.open()
        world.now = NOON + timedelta(hours=13)
        Database._commit = dying(Database._commit, dies)
        blobs.Blobs._remove = dying(blobs.Blobs._remove, dies)
        erasing.remove_whole = dying(erasing.remove_whole, dies)
        while not await world.store.erase_due():
            pass

    asyncio.run(erase())

for step in range(1, 200, STRIDE):
    shutil.copytree(whole, folder / f"{step}")
    child = os.fork()
    if not child:
        run(step)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -9:
        sys.exit(status)
    print(step, flush=True)
"""


async def test_killed_at_any_moment__the_erasure_is_whole_after_a_restart(tmp_path: Path) -> None:
    world = World.over(tmp_path / "whole")
    await world.open()
    await world.lives()
    await world.store.books.delete_person(ANN, 10**15)
    await world.store.close()
    command = [sys.executable, "-c", CHILD.replace("STRIDE", str(STRIDE)), tmp_path / "whole", tmp_path / "killed"]
    child = await asyncio.to_thread(subprocess.run, command, check=False, timeout=120, capture_output=True)
    assert child.returncode == 0, child.stderr.decode()
    steps = [int(line) for line in child.stdout.split()]
    assert len(steps) * STRIDE > 20
    for step in steps:
        again = World.over(tmp_path / "killed" / f"{step}")
        await again.store.open()
        again.now = world.now + timedelta(hours=14)
        await again.store.erase_due()
        assert await again.naming("annabell", WORDS) == []
        assert await again.sql("SELECT count(*) FROM erasures WHERE erased_at IS NOT NULL") == [(1,)]
        assert {path.name for path in (tmp_path / "killed" / f"{step}" / "blobs").glob("*/*")} == {
            blob for name, blob in world.blobs.items() if name.startswith("bbbbbbbb")
        }
        assert await again.store.check() == []
        await again.store.close()


def test_patience__is_shorter_than_the_day_that_an_erasure_may_take() -> None:
    assert timedelta(hours=24) > erasing.PATIENCE + erasing.REST
