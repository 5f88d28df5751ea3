"""Accounts on disk: a killed store forgets nobody and grants nothing twice, and an erased person is named nowhere."""

import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.accounts.port import AccountChange, By, NewInvite, TelegramIdentity
from runtime.config import Secrets, Settings
from runtime.errors import InviteCodeError, TooManyRequestsError, WrongCodeError
from runtime.ids import LOCAL_ADMIN, UserId
from runtime.ledger.accounts import code_hash
from runtime.store.store import Store
from tests.unit.store.erased_world import BOB, World

ANNABELL = TelegramIdentity(
    telegram_id=987654321012, username="annabell_needle", first_name="Waltraudt", last_name="Zwirn"
)
ROOT = By(user=LOCAL_ADMIN, address="203.0.113.9")
PEOPLE = 12
GRANT = 100 * 10**6
CHILD = """
import asyncio, os, sys
from pathlib import Path
from runtime.accounts.port import TelegramIdentity
from runtime.config import Secrets, Settings
from runtime.errors import MasterbuilderError
from runtime.store.store import Store

def say(line):
    os.write(1, (line + chr(10)).encode())

async def person(store, number):
    while True:
        account = await store.books.register(TelegramIdentity(telegram_id=number, username=f"name{number}"))
        say(f"registered {number} {account.user} {account.granted_ucredits}")
        try:
            await store.books.unlock(account.user, "wrong", "home")
        except MasterbuilderError as error:
            say(f"{error.code} {number}")

async def main(folder):
    store = Store(Settings(data_dir=folder), Secrets.load(folder, {}))
    await store.open()
    await asyncio.gather(*(person(store, number) for number in range(1, PEOPLE + 1)))

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_killed_store__knows_everybody_it_registered_and_granted_each_once(tmp_path: Path) -> None:
    said: list[str] = []
    for lines in (3, 90, 160, 7):
        said += run_and_kill(tmp_path, lines)
    secrets = Secrets.load(tmp_path, {})
    store = Store(Settings(data_dir=tmp_path), secrets)
    await store.open()
    assert await store.check() == []
    users: dict[int, set[str]] = {}
    granted: dict[int, int] = {}
    for _, number, user, amount in (line.split() for line in said if line.startswith("registered")):
        users.setdefault(int(number), set()).add(user)
        granted[int(number)] = granted.get(int(number), 0) + int(amount)
    assert users
    for number, known in users.items():
        assert len(known) == 1
        assert granted[number] in (0, GRANT)  # The first answer may have died with its process.
        account = await store.books.register(TelegramIdentity(telegram_id=number))
        assert ({account.user}, account.is_new, account.granted_ucredits) == (known, False, 0)
        assert (await store.books.balance(account.user)).balance_ucredits == GRANT
        wrong = said.count(f"wrong_code {number}")
        assert wrong <= 5
        if wrong == 5:
            with pytest.raises(TooManyRequestsError):
                await store.books.unlock(account.user, secrets.unlock_code, "home")
    assert any(line.startswith("too_many_requests") for line in said)
    await store.close()


def run_and_kill(folder: Path, after_lines: int) -> list[str]:
    """What the child acknowledged before it was killed; whole lines only."""
    script = CHILD.replace("PEOPLE", str(PEOPLE))
    child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(after_lines)]
    child.kill()
    lines += child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    return [line.strip() for line in lines if line.endswith("\n")]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World.over(tmp_path)
    await world.open()
    await world.store.books.open_wallet(LOCAL_ADMIN, is_admin=True)
    await world.store.books.open_wallet(BOB, is_admin=False)
    yield world
    assert await world.store.check() == []
    await world.store.close()


async def lives(world: World) -> UserId:
    """Leaves a row wherever an account can."""
    books = world.store.books
    user = (await books.register(ANNABELL)).user
    await books.change_account(AccountChange(user=user, role="ADMIN", banned=False, verified=True), ROOT)
    by = By(user=user, address="198.51.100.77")
    await books.add_invite(NewInvite(code_sha256=code_hash("hers"), role="DEMO", uses=2), by)
    for whose in (user, BOB):
        await books.redeem_invite(whose, "hers", by.address)
        with pytest.raises(WrongCodeError):
            await books.unlock(whose, "wrong", by.address)
    await books.change_account(AccountChange(user=BOB, role="FULL_ACCESS"), by)
    await books.add_login_link(user, "c" * 64, world.now + timedelta(minutes=5))
    return user


async def erase(world: World, user: UserId) -> UserId:
    await world.store.books.delete_person(user, 10**15)
    world.now += timedelta(minutes=2)
    await world.store.erase_due()
    return UserId((await world.sql("SELECT pseudonym FROM erasures ORDER BY asked_at DESC"))[0][0])


async def test_erased_account__is_named_nowhere_and_what_it_did_to_others_stays(world: World) -> None:
    user = await lives(world)
    named = {each.partition(".")[0] for each in await world.naming(user)}
    assert named >= {"user_accounts", "invite_codes", "invite_uses", "wrong_attempts", "login_links", "audit_log"}
    rows = len(await world.store.books.audit(1_000, 0))
    pseudonym = await erase(world, user)
    assert await world.naming(user, "annabell", "Waltraudt", "Zwirn", "987654321012") == []
    assert await world.sealed_of(pseudonym) == []
    assert await world.store.books.account(user) is None
    assert await world.store.books.account_of(ANNABELL.telegram_id) is None
    assert user not in {each.user for each in await world.store.books.accounts(100, 0)}
    audit = await world.store.books.audit(1_000, 0)
    assert len(audit) == rows
    assert {row.address for row in audit if row.actor == pseudonym} == {""}
    bob = await world.store.books.account(BOB)
    assert bob is not None
    assert (bob.role, bob.authorized) == ("FULL_ACCESS", True)
    (invite,) = await world.store.books.invites()
    assert (invite.made_by, set(invite.consumers)) == (pseudonym, {pseudonym, BOB})


async def test_erased_person__who_comes_again_is_somebody_else_without_a_grant(world: World) -> None:
    user = await lives(world)
    await erase(world, user)
    again = await world.store.books.register(ANNABELL)
    assert (again.is_new, again.granted_ucredits, again.role, again.authorized) == (True, 0, "DEMO", False)
    assert again.user != user
    assert (await world.store.books.open_wallet(again.user, is_admin=False)).balance_ucredits == 0
    with pytest.raises(InviteCodeError, match="used up"):
        await world.store.books.redeem_invite(again.user, "hers", "")
    second = await erase(world, again.user)
    assert (await world.store.books.register(ANNABELL)).granted_ucredits == 0
    assert second.startswith("erased-")
