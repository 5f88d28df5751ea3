"""Invites and roles under any sequence of what may happen: the books answer as the memory ledger does, and the rules
hold whatever was done: no invite lowers a role or makes an administrator, and none is used oftener than it says."""

import asyncio
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.accounts.port import Account, AccountChange, By, NewInvite, TelegramIdentity
from runtime.accounts.roles import higher
from runtime.errors import MasterbuilderError
from runtime.ids import LOCAL_ADMIN, UserId
from runtime.ledger.accounts import code_hash
from tests.contract.ledgers import World, a_world

PEOPLE, CODES = 3, 3
ROOT = By(user=LOCAL_ADMIN)
ROLES = st.sampled_from(["DEMO", "FULL_ACCESS", "ADMIN"])
PERSON, CODE = st.integers(0, PEOPLE - 1), st.integers(0, CODES - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("invite"), CODE, ROLES, st.integers(1, 2), st.sampled_from([None, 30])),
        st.tuples(st.just("redeem"), PERSON, CODE),
        st.tuples(st.just("revoke"), CODE),
        st.tuples(st.just("role"), PERSON, ROLES),
        st.tuples(st.just("ban"), PERSON, st.booleans()),
        st.tuples(st.just("wait"), st.just(20)),
    ),
    max_size=25,
)


class One:
    """One of the two ledgers, and the people in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.users: list[UserId] = []

    async def fill(self) -> None:
        await self.world.ledger.open_wallet(LOCAL_ADMIN, is_admin=True)
        for number in range(PEOPLE):
            account = await self.world.ledger.register(TelegramIdentity(telegram_id=number + 1))
            self.users.append(account.user)

    async def does(self, step: tuple[Any, ...]) -> Any:
        """What was answered, without ids that chance made."""
        ledger = self.world.ledger
        try:
            match step:
                case "invite", code, role, uses, minutes:
                    until = self.world.now + timedelta(minutes=minutes) if minutes else None
                    sha256 = code_hash(f"code {code}")
                    invite = NewInvite(code_sha256=sha256, role=role, uses=uses, expires_at=until)
                    return replace(await ledger.add_invite(invite, ROOT), consumers=())
                case "redeem", person, code:
                    return _plain(await ledger.redeem_invite(self.users[person], f"code {code}", ""))
                case "revoke", code:
                    return await ledger.revoke_invite(code_hash(f"code {code}")[:12], ROOT)
                case "role", person, role:
                    change = AccountChange(user=self.users[person], role=role)
                    return _plain(await ledger.change_account(change, ROOT))
                case "ban", person, banned:
                    change = AccountChange(user=self.users[person], banned=banned)
                    return _plain(await ledger.change_account(change, ROOT))
                case "wait", minutes:
                    self.world.now += timedelta(minutes=minutes)
                    return None
        except MasterbuilderError as error:
            return error.code

    async def stands(self) -> Any:
        invites = await self.world.ledger.invites()
        told = [(each.invite_id, each.state, each.uses_left, sorted(map(self.users.index, each.consumers)))
                for each in invites]  # fmt: skip
        accounts = [_plain(await self.world.ledger.account(user)) for user in self.users]
        audit = [(row.action, row.details) for row in await self.world.ledger.audit(10_000, 0)]
        return sorted(told), accounts, audit


def _plain(account: Account | None) -> Account:
    assert account is not None
    return replace(account, user=UserId(""))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_any_sequence__is_answered_alike_and_breaks_no_rule(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(steps, Path(folder)))


async def _run(steps: list[tuple[Any, ...]], folder: Path) -> None:
    async with a_world("memory", folder) as memory, a_world("duckdb", folder) as disk:
        ours, theirs = One(disk), One(memory)
        for one in (ours, theirs):
            await one.fill()
        for step in steps:
            before = (await ours.stands())[1]
            answer = await ours.does(step)
            assert answer == await theirs.does(step)
            if step[0] == "redeem":
                after = (await ours.stands())[1][step[1]]
                was = before[step[1]].role
                assert higher(after.role, was) == after.role
                assert after.role != "ADMIN" or was == "ADMIN"
        assert await ours.stands() == await theirs.stands()
        for invite in await ours.world.ledger.invites():
            assert len(invite.consumers) <= invite.uses
            assert invite.state == "revoked" or len(invite.consumers) + invite.uses_left == invite.uses
