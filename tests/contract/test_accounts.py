"""Registration, codes, invites, bans and what is written down of them: the same in memory and on disk."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.accounts.port import AccountChange, By, Login, NewInvite, TelegramIdentity
from runtime.accounts.roles import Role
from runtime.accounts.rules import AccountRules
from runtime.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    InviteCodeError,
    MasterbuilderError,
    NotFoundError,
    TooManyRequestsError,
    WrongCodeError,
)
from runtime.ids import LOCAL_ADMIN, UserId
from runtime.ledger.port import NewToken
from tests.contract.ledgers import GRANT, KINDS, NOON, World, a_world

RULES = AccountRules(
    unlock_code="open-sesame",
    bootstrap_code="first-of-all",
    admin_ids=frozenset({1}),
    full_ids=frozenset({2}),
    demo_ids=frozenset({3}),
)
ANN = TelegramIdentity(telegram_id=77, username="ann", first_name="Ann", last_name="Bee", language_code="pl")
BOB = TelegramIdentity(telegram_id=88, first_name="Bob")
ROOT = By(user=LOCAL_ADMIN, address="10.0.0.1")
HOME = "198.51.100.7"


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(request.param, tmp_path, rules=RULES) as made:
        await made.ledger.open_wallet(LOCAL_ADMIN, is_admin=True)
        yield made


def an_invite(code: str = "come-in", role: Role = "FULL_ACCESS", uses: int = 1) -> NewInvite:
    return NewInvite(code_sha256=hashlib.sha256(code.encode()).hexdigest(), role=role, uses=uses)


async def registered(world: World, identity: TelegramIdentity = ANN) -> UserId:
    return (await world.ledger.register(identity)).user


async def actions(world: World) -> list[str]:
    return [row.action for row in reversed(await world.ledger.audit(100, 0))]


async def test_register__makes_one_user_with_one_grant(world: World) -> None:
    first = await world.ledger.register(ANN)
    assert (first.is_new, first.granted_ucredits, first.role) == (True, GRANT, "DEMO")
    assert (first.authorized, first.verified, first.banned) == (False, False, False)
    assert first.user.startswith("u-")
    assert len(first.user) == 18
    assert (await world.ledger.balance(first.user)).balance_ucredits == GRANT
    again = await world.ledger.register(replace(ANN, username="annie", last_name="", language_code=""))
    assert (again.user, again.is_new, again.granted_ucredits) == (first.user, False, 0)
    assert (again.username, again.last_name, again.language_code) == ("annie", "", "pl")
    assert (await world.ledger.balance(first.user)).balance_ucredits == GRANT
    assert await world.ledger.account(first.user) == again == await world.ledger.account_of(77)


async def test_register__twenty_at_once_are_one_user(world: World) -> None:
    answers = await asyncio.gather(*(world.ledger.register(ANN) for _ in range(20)))
    assert len({each.user for each in answers}) == 1
    assert sum(each.is_new for each in answers) == 1
    assert (await world.ledger.balance(answers[0].user)).balance_ucredits == GRANT


async def test_user_ids__tell_nothing_of_the_telegram_id(world: World) -> None:
    users = [await registered(world, TelegramIdentity(telegram_id=number)) for number in (100, 101, 102)]
    assert len(set(users)) == 3
    assert not any(str(number) in user for number in (100, 101, 102) for user in users if len(user) == 3)


async def test_nobody__has_no_account(world: World) -> None:
    assert await world.ledger.account(UserId("u-nobody")) is None
    assert await world.ledger.account_of(999) is None


@pytest.mark.parametrize(
    ("number", "role", "authorized", "verified"),
    [(1, "ADMIN", True, True), (2, "FULL_ACCESS", True, True), (3, "DEMO", True, False), (4, "DEMO", False, False)],
)
async def test_operators_lists__count_at_registration(
    world: World, number: int, role: Role, authorized: bool, verified: bool
) -> None:
    account = await world.ledger.register(TelegramIdentity(telegram_id=number))
    assert (account.role, account.authorized, account.verified) == (role, authorized, verified)


async def test_operators_lists__never_lower(world: World) -> None:
    listed = TelegramIdentity(telegram_id=3)
    user = await registered(world, listed)
    await world.ledger.change_account(AccountChange(user=user, role="FULL_ACCESS", verified=True), ROOT)
    again = await world.ledger.register(listed)
    assert (again.role, again.authorized, again.verified) == ("FULL_ACCESS", True, True)


async def test_who_is_not_on_a_list_of_allowed__is_refused_everywhere(tmp_path: Path) -> None:
    for kind in KINDS:
        async with a_world(kind, tmp_path / kind, rules=replace(RULES, allowed_ids=frozenset({88}))) as world:
            user = await registered(world, BOB)
            await world.ledger.add_token(NewToken(token_sha256="a" * 64, user=user, kind="user", label=""))
            identity = await world.ledger.authenticate("a" * 64)
            assert identity is not None
            assert identity.refusal == ""
            with pytest.raises(ForbiddenError, match="ALLOWED_USER_IDS"):
                await world.ledger.register(ANN)
            assert await world.ledger.account_of(77) is None


async def test_right_code__authorizes_and_leaves_the_role(world: World) -> None:
    user = await registered(world)
    account = await world.ledger.unlock(user, " open-sesame ", HOME)
    assert (account.authorized, account.verified, account.role) == (True, False, "DEMO")
    await world.ledger.unlock(user, "open-sesame", HOME)
    assert (await actions(world)).count("unlock") == 1


async def test_sixth_wrong_code__is_refused_unseen_for_a_quarter_of_an_hour(world: World) -> None:
    user = await registered(world)
    for _ in range(5):
        with pytest.raises(WrongCodeError):
            await world.ledger.unlock(user, "wrong", HOME)
        world.now += timedelta(minutes=1)
    with pytest.raises(TooManyRequestsError) as refusal:
        await world.ledger.unlock(user, "open-sesame", HOME)
    assert refusal.value.retry_after_s == 10 * 60
    assert (await actions(world)).count("unlock_failed") == 5
    world.now += timedelta(minutes=10)
    assert (await world.ledger.unlock(user, "open-sesame", HOME)).authorized


async def test_twenty_wrong_codes_at_once__are_five_that_were_looked_at(world: World) -> None:
    user = await registered(world)
    tries = (world.ledger.unlock(user, "wrong", HOME) for _ in range(20))
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in answers].count(WrongCodeError) == 5
    assert [type(each) for each in answers].count(TooManyRequestsError) == 15


async def test_wrong_codes__of_one_user_stop_no_other(world: World) -> None:
    user, other = await registered(world), await registered(world, BOB)
    for _ in range(5):
        with pytest.raises(WrongCodeError):
            await world.ledger.unlock(user, "wrong", HOME)
    assert (await world.ledger.unlock(other, "open-sesame", HOME)).authorized


async def test_ten_wrong_codes_at_anything_from_anywhere__stop_everything(world: World) -> None:
    user = await registered(world)
    for number in range(10):
        guarded = world.ledger.unlock if number % 2 else world.ledger.redeem_invite
        with pytest.raises((WrongCodeError, InviteCodeError)):
            await guarded(user, "wrong", f"10.0.0.{number}")
        world.now += timedelta(seconds=80)
    for guarded in (world.ledger.unlock, world.ledger.bootstrap, world.ledger.redeem_invite):
        with pytest.raises(TooManyRequestsError):
            await guarded(user, "open-sesame", "10.9.9.9")
    world.now += timedelta(minutes=15)
    assert (await world.ledger.unlock(user, "open-sesame", HOME)).authorized


async def test_bootstrap__makes_one_administrator_once(world: World) -> None:
    user, other = await registered(world), await registered(world, BOB)
    with pytest.raises(WrongCodeError):
        await world.ledger.bootstrap(user, "wrong", HOME)
    account = await world.ledger.bootstrap(user, "first-of-all", HOME)
    assert (account.role, account.authorized, account.verified) == ("ADMIN", True, True)
    with pytest.raises(ForbiddenError):
        await world.ledger.bootstrap(other, "first-of-all", HOME)
    assert await world.ledger.bootstrap(user, "first-of-all", HOME) == account
    assert [each.user for each in await world.ledger.admins()] == [user]
    assert await actions(world) == ["bootstrap_failed", "bootstrap"]


async def test_bootstrap__by_twenty_at_once_makes_one_administrator(world: World) -> None:
    users = [await registered(world, TelegramIdentity(telegram_id=100 + number)) for number in range(20)]
    tries = (world.ledger.bootstrap(user, "first-of-all", HOME) for user in users)
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in answers].count(ForbiddenError) == 19
    assert len(await world.ledger.admins()) == 1


async def test_no_code__opens_what_the_operator_set_none_for(tmp_path: Path) -> None:
    for kind in KINDS:
        async with a_world(kind, tmp_path / kind) as world:
            user = await registered(world)
            for code in ("", " "):
                with pytest.raises(WrongCodeError):
                    await world.ledger.unlock(user, code, HOME)


async def test_invite__gives_its_role_once_for_each_use(world: World) -> None:
    user, other = await registered(world), await registered(world, BOB)
    await world.ledger.add_invite(an_invite(), ROOT)
    account = await world.ledger.redeem_invite(user, "come-in", HOME)
    assert (account.role, account.authorized, account.verified) == ("FULL_ACCESS", True, True)
    assert await world.ledger.redeem_invite(user, "come-in", HOME) == account
    with pytest.raises(InviteCodeError, match="used up"):
        await world.ledger.redeem_invite(other, "come-in", HOME)
    (invite,) = await world.ledger.invites()
    assert (invite.state, invite.uses_left, list(invite.consumers), invite.made_by) == ("used", 0, [user], LOCAL_ADMIN)


async def test_invite__used_by_twenty_at_once_lets_one_in(world: World) -> None:
    users = [await registered(world, TelegramIdentity(telegram_id=100 + number)) for number in range(20)]
    await world.ledger.add_invite(an_invite(), ROOT)
    tries = (world.ledger.redeem_invite(user, "come-in", HOME) for user in users)
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in answers].count(InviteCodeError) == 19
    roles = [each.role for each in await world.ledger.accounts(100, 0)]
    assert roles.count("FULL_ACCESS") == 1


async def test_expired_revoked_and_unknown_invites__are_refused_each_in_its_words(world: World) -> None:
    user = await registered(world)
    await world.ledger.add_invite(replace(an_invite("old"), expires_at=NOON + timedelta(hours=1)), ROOT)
    invite = await world.ledger.add_invite(an_invite("gone"), ROOT)
    assert await world.ledger.revoke_invite(invite.invite_id, ROOT)
    assert await world.ledger.revoke_invite(invite.invite_id, ROOT)
    assert not await world.ledger.revoke_invite("0" * 12, ROOT)
    assert not await world.ledger.revoke_invite("", ROOT)
    world.now += timedelta(hours=1)
    for code, words in (("old", "expired"), ("gone", "revoked"), ("what", "no such invite")):
        with pytest.raises(InviteCodeError, match=words):
            await world.ledger.redeem_invite(user, code, HOME)
    assert (await world.ledger.account(user)).role == "DEMO"  # type: ignore[union-attr]
    assert {each.state for each in await world.ledger.invites()} == {"expired", "revoked"}
    assert (await actions(world)).count("invite_revoked") == 1


async def test_invite__never_lowers_a_role(world: World) -> None:
    user = await registered(world)
    await world.ledger.change_account(AccountChange(user=user, role="ADMIN"), ROOT)
    await world.ledger.add_invite(an_invite(role="DEMO"), ROOT)
    assert (await world.ledger.redeem_invite(user, "come-in", HOME)).role == "ADMIN"


@pytest.mark.parametrize(
    "invite",
    [
        replace(an_invite(), role="ADMIN"), replace(an_invite(), uses=0), replace(an_invite(), uses=10_001),
        replace(an_invite(), expires_at=NOON), replace(an_invite(), code_sha256="come-in"),
    ],
)  # fmt: skip
async def test_invite_that_cannot_be_one__is_refused(world: World, invite: NewInvite) -> None:
    with pytest.raises(BadInputError):
        await world.ledger.add_invite(invite, ROOT)
    assert await world.ledger.invites() == []


async def test_invite__added_again_is_the_same(world: World) -> None:
    first = await world.ledger.add_invite(an_invite(), ROOT)
    assert await world.ledger.add_invite(an_invite(), ROOT) == first
    assert len(await world.ledger.invites()) == 1


async def test_banned_user__is_refused_by_tokens_logins_and_codes_until_it_is_lifted(world: World) -> None:
    user = await registered(world)
    await world.ledger.add_token(NewToken(token_sha256="a" * 64, user=user, kind="user", label=""))
    login = a_login(user)
    assert (await world.ledger.change_account(AccountChange(user=user, banned=True), ROOT)).banned
    for identity in (await world.ledger.authenticate("a" * 64), await world.ledger.authenticate_login(login)):
        assert identity is not None
        assert "banned" in identity.refusal
    for guarded in (world.ledger.unlock, world.ledger.bootstrap, world.ledger.redeem_invite):
        with pytest.raises(ForbiddenError, match="banned"):
            await guarded(user, "open-sesame", HOME)
    assert (await world.ledger.register(ANN)).banned
    await world.ledger.change_account(AccountChange(user=user, banned=False), ROOT)
    identity = await world.ledger.authenticate("a" * 64)
    assert identity is not None
    assert identity.refusal == ""
    assert await actions(world) == ["ban", "unban"]


async def test_local_admin__is_neither_banned_nor_lowered(world: World) -> None:
    for change in (AccountChange(user=LOCAL_ADMIN, banned=True), AccountChange(user=LOCAL_ADMIN, role="DEMO")):
        with pytest.raises(ConflictError):
            await world.ledger.change_account(change, ROOT)
    with pytest.raises(NotFoundError):
        await world.ledger.change_account(AccountChange(user=UserId("u-nobody"), banned=True), ROOT)


async def test_changes__are_written_down_once_with_who_and_from_where(world: World) -> None:
    user = await registered(world)
    for _ in range(2):
        await world.ledger.change_account(AccountChange(user=user, role="FULL_ACCESS", authorized=True), ROOT)
    rows = await world.ledger.audit(10, 0)
    assert {(row.action, row.actor, row.target, row.address) for row in rows} == {
        ("role", LOCAL_ADMIN, user, "10.0.0.1"), ("flags", LOCAL_ADMIN, user, "10.0.0.1"),
    }  # fmt: skip
    assert len(rows) == 2
    assert [row.details for row in rows if row.action == "role"] == [
        {"from": "DEMO", "to": "FULL_ACCESS", "through": "administrator"}
    ]
    assert len(await world.ledger.audit(1, 1)) == 1


def a_login(user: UserId, name: str = "j1", generation: int = 0, telegram_id: int = 77) -> Login:
    return Login(
        id=name, user=user, telegram_id=telegram_id, generation=generation, expires_at=NOON + timedelta(days=1)
    )


async def test_login__speaks_with_the_role_of_now(world: World) -> None:
    user = await registered(world)
    for role in ("FULL_ACCESS", "ADMIN", "DEMO"):
        await world.ledger.change_account(AccountChange(user=user, role=role), ROOT)
        identity = await world.ledger.authenticate_login(a_login(user))
        assert identity is not None
        assert (identity.role, identity.is_admin) == (role, role == "ADMIN")


async def test_login__is_worthless_once_it_or_all_of_its_users_are_revoked(world: World) -> None:
    user = await registered(world)
    await world.ledger.revoke_login(a_login(user))
    await world.ledger.revoke_login(a_login(user))
    assert await world.ledger.authenticate_login(a_login(user)) is None
    assert await world.ledger.authenticate_login(a_login(user, "j2")) is not None
    await world.ledger.revoke_logins(user)
    assert await world.ledger.authenticate_login(a_login(user, "j2")) is None
    account = await world.ledger.account(user)
    assert account is not None
    assert await world.ledger.authenticate_login(a_login(user, "j3", account.logins)) is not None


async def test_login__of_nobody_or_of_another_telegram_id_is_none(world: World) -> None:
    user = await registered(world)
    assert await world.ledger.authenticate_login(a_login(UserId("u-nobody"))) is None
    assert await world.ledger.authenticate_login(a_login(user, telegram_id=88)) is None


async def test_login_link__logs_in_once_and_in_time(world: World) -> None:
    user = await registered(world)
    soon = world.now + timedelta(minutes=5)
    await world.ledger.add_login_link(user, "b" * 64, soon)
    answers = await asyncio.gather(*(world.ledger.use_login_link("b" * 64) for _ in range(5)))
    assert [each.user for each in answers if each is not None] == [user]
    await world.ledger.add_login_link(user, "c" * 64, soon)
    world.now = soon
    assert await world.ledger.use_login_link("c" * 64) is None
    assert await world.ledger.use_login_link("d" * 64) is None
    with pytest.raises(NotFoundError):
        await world.ledger.add_login_link(UserId("u-nobody"), "e" * 64, soon)


async def test_accounts__are_listed_page_by_page_also_those_without_telegram(world: World) -> None:
    users = [LOCAL_ADMIN, await registered(world), await registered(world, BOB)]
    listed = [*await world.ledger.accounts(2, 0), *await world.ledger.accounts(2, 2)]
    assert {each.user for each in listed} == set(users)
    assert {each.user: each.telegram_id for each in listed}[LOCAL_ADMIN] is None


async def test_who_is_being_erased__is_not_registered_meanwhile(world: World) -> None:
    user = await registered(world)
    await world.ledger.delete_person(user, GRANT)
    with pytest.raises(ConflictError):
        await world.ledger.register(ANN)
    for refused in (world.ledger.unlock(user, "open-sesame", HOME), world.ledger.revoke_logins(user)):
        with pytest.raises(MasterbuilderError):
            await refused
