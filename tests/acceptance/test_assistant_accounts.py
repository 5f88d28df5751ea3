"""Lines 1-3 and 5-15 of spec/assistant.md §30, and 1-3 and 66 of spec/builder.md §18, at the HTTP door.

Store, sessions and the door are the product's; a restart is one of the host, its ledger's file is opened again.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import httpx
import jwt
import pytest

from runtime.accounts.logins import ALGORITHM, Logins
from runtime.accounts.port import AccountChange, By, TelegramIdentity
from runtime.accounts.proofs import Proofs
from runtime.config import Secrets, Settings
from runtime.entity.host import Host
from runtime.errors import BadInputError, TooManyRequestsError
from runtime.ids import LOCAL_ADMIN, EntityId, UserId, user_entity
from runtime.ledger.port import NewToken
from runtime.session.messages import Admit
from runtime.session.session import UserSession
from runtime.store.store import Store
from runtime.tokens import token_hash
from serve_apps import api_routes

BOT_TOKEN = "123456:bot-token-of-a-test-3f9c27d1"
GRANT = 100 * 10**6
ADMIN = {"authorization": "Bearer operator-token"}


class House:
    """One installation in one process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(data_dir=folder, http_port=1, **settings)
        self.secrets = Secrets.keep(folder, {"TELEGRAM_BOT_TOKEN": BOT_TOKEN})
        self.ahead = timedelta()
        self.incarnations = 0

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def open(self) -> None:
        self.store = Store(self.settings, self.secrets, self.now)
        await self.store.open()
        self.books = self.store.books
        await self.books.open_wallet(LOCAL_ADMIN, True)
        token = NewToken(token_sha256=token_hash("operator-token"), user=LOCAL_ADMIN, kind="user", label="")
        await self.books.add_token(token)

        def session(entity: EntityId) -> UserSession:
            return UserSession(
                entity, self.settings, self.books, self.store.journal, self, cast("Any", None), now=self.now
            )

        self.incarnations += 1
        self.host = Host(
            name="host-0", incarnation=str(self.incarnations), journal=self.store.journal, factories={"user": session}
        )
        await self.host.acquire_all()
        self.logins = Logins(self.secrets.jwt_secret, self.secrets.jwt_secret_previous, now=self.now)
        system = SimpleNamespace(settings=self.settings, entities=self, ledger=self.books, journal=self.store.journal)
        app = api_routes.create_app(
            cast("Any", system),
            logins=self.logins,
            proofs=Proofs(self.secrets.bot_service_token, self.secrets.telegram_bot_token, now=self.now),
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api/api/v1/")

    async def close(self) -> None:
        await self.http.aclose()
        await self.host.stop()
        await self.store.close()

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        return await self.host.ask(entity, message, timeout_s=timeout_s)

    def by_bot(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets.bot_service_token}"}

    async def register(self, telegram_id: int) -> dict[str, Any]:
        answer = await self.http.post("auth/register", json={"telegram_id": telegram_id}, headers=self.by_bot())
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def erased(self, user: str) -> None:
        await self.books.delete_person(UserId(user), GRANT)
        self.ahead += timedelta(hours=13)
        await self.store.erase_due()
        assert await self.books.account(UserId(user)) is None

    async def count(self, query: str) -> int:
        return int((await self.store._database.read(lambda connection: connection.execute(query).fetchall()))[0][0])


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.open()
    yield made
    assert await made.store.check() == []
    await made.close()


def by(person: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {person['token']}"}


def widget(telegram_id: int, *, bot_token: str = BOT_TOKEN, age_s: float = 0.0, **more: str) -> dict[str, Any]:
    """What Telegram's login button gives."""
    told = {"id": str(telegram_id), "first_name": "Ann", **more}
    told["auth_date"] = str(int(datetime.now(UTC).timestamp() - age_s))
    lines = "\n".join(f"{name}={told[name]}" for name in sorted(told))
    key = hashlib.sha256(bot_token.encode()).digest()
    return {**told, "hash": hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()}


def mini_app(telegram_id: int, *, age_s: float = 0.0) -> str:
    told = {"user": json.dumps({"id": telegram_id, "first_name": "Ann", "language_code": "pl", "is_premium": True}),
            "auth_date": str(int(datetime.now(UTC).timestamp() - age_s)), "query_id": "q"}  # fmt: skip
    lines = "\n".join(f"{name}={told[name]}" for name in sorted(told))
    key = hmac.new(b"WebAppData", BOT_TOKEN.encode(), hashlib.sha256).digest()
    return urlencode({**told, "hash": hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()})


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("ledger*"))


async def invite(house: House, **body: Any) -> dict[str, Any]:
    answer = await house.http.post("admin/invite", json=body, headers=ADMIN)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_1__registering_needs_proof_and_makes_a_demo_user(house: House) -> None:
    for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {BOT_TOKEN}"}):
        answer = await house.http.post("auth/register", json={"telegram_id": 77}, headers=wrong)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await house.books.account_of(77) is None
    for proof in ({"login": widget(77)}, {"init_data": mini_app(78)}):
        number = 77 if "login" in proof else 78
        answer = await house.http.post("auth/register", json={"telegram_id": number, **proof})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["role"], told["authorized"], told["verified"], told["is_new"]) == ("DEMO", False, False, True)
        assert (await house.http.get("auth/me", headers=by(told))).json()["first_name"] == "Ann"


@pytest.mark.parametrize(
    "proof",
    [
        {"login": widget(77, bot_token="999:another")}, {"login": {**widget(77), "id": "1"}},
        {"login": widget(77, age_s=400)}, {"login": widget(77, age_s=-400)}, {"login": {"id": 77}}, {"login": {}},
        {"init_data": mini_app(77, age_s=400)}, {"init_data": mini_app(77) + "&x=1"}, {"init_data": "user=77"},
        {"init_data": ""}, {"link": "mbl-what"},
    ],
)  # fmt: skip
async def test_1__a_proof_that_is_forged_old_or_garbage_is_refused(house: House, proof: dict[str, Any]) -> None:
    answer = await house.http.post("auth/register", json={"telegram_id": 77, **proof})
    assert answer.status_code == 401
    assert await house.books.account_of(77) is None


async def test_1__a_link_from_the_bot_logs_in_once(house: House) -> None:
    person = await house.register(77)
    for headers, status in (({}, 401), (by(person), 401), (house.by_bot(), 201)):
        answer = await house.http.post("auth/link", json={"telegram_id": 77}, headers=headers)
        assert answer.status_code == status
    body = {"telegram_id": 77, "link": answer.json()["link"]}
    answers = await asyncio.gather(*(house.http.post("auth/register", json=body) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [200, 401, 401, 401, 401]


async def test_2__registering_anothers_id_with_ones_own_proof_is_refused(house: House) -> None:
    await house.register(77)
    link = (await house.http.post("auth/link", json={"telegram_id": 77}, headers=house.by_bot())).json()["link"]
    for proof in ({"login": widget(77)}, {"init_data": mini_app(77)}, {"link": link}):
        answer = await house.http.post("auth/register", json={"telegram_id": 88, **proof})
        assert answer.status_code == 403
    assert await house.books.account_of(88) is None


async def test_2__codes_act_on_the_caller_whoever_the_body_names(house: House) -> None:
    ann, bob = await house.register(77), await house.register(88)
    body = {"telegram_id": 88, "unlock_code": house.secrets.unlock_code}
    assert (await house.http.post("auth/unlock", json=body, headers=by(ann))).status_code == 403
    bobs = (await house.http.get("auth/me", headers=by(bob))).json()
    assert bobs["authorized"] is False


async def test_3__registering_again_is_the_same_user_with_another_token(house: House) -> None:
    first, second = await house.register(77), await house.register(77)
    assert first["user_id"] == second["user_id"]
    assert first["token"] != second["token"]


async def test_5__wrong_codes_are_401_and_the_sixth_is_429_also_after_a_restart(house: House) -> None:
    person = await house.register(77)
    for _ in range(5):
        answer = await house.http.post("auth/unlock", json={"unlock_code": "wrong"}, headers=by(person))
        assert answer.status_code == 401
    await house.restart()
    body = {"unlock_code": house.secrets.unlock_code}
    answer = await house.http.post("auth/unlock", json=body, headers=by(person))
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 900
    house.ahead += timedelta(minutes=16)
    assert (await house.http.post("auth/unlock", json=body, headers=by(person))).status_code == 200


async def test_6__the_right_code_authorizes_and_leaves_the_role(house: House) -> None:
    person = await house.register(77)
    body = {"telegram_id": 77, "unlock_code": house.secrets.unlock_code}
    told = (await house.http.post("auth/unlock", json=body, headers=by(person))).json()
    assert (told["authorized"], told["role"], told["telegram_id"]) == (True, "DEMO", 77)
    assert told["message"]


async def test_7__bootstrap_makes_one_administrator(house: House) -> None:
    ann, bob = await house.register(77), await house.register(88)
    body = {"bootstrap_code": house.secrets.bootstrap_code}
    told = (await house.http.post("auth/bootstrap", json=body, headers=by(ann))).json()
    assert told["role"] == "ADMIN"
    assert (await house.http.post("auth/bootstrap", json=body, headers=by(bob))).status_code == 403
    assert (await house.http.get("admin/users", headers=by(ann))).status_code == 200
    assert (await house.http.get("admin/users", headers=by(bob))).status_code == 403


@pytest.mark.parametrize("secret", ["CHANGE_ME", "short", "a" * 40, "your-secret-key-your-secret-key-1"])
def test_8__a_placeholder_or_short_secret_is_no_start(tmp_path: Path, secret: str) -> None:
    with pytest.raises(BadInputError, match="JWT_SECRET_KEY"):
        Secrets.keep(tmp_path, {"JWT_SECRET_KEY": secret})


async def test_9__an_invite_with_one_use_lets_one_in(house: House) -> None:
    ann, bob = await house.register(77), await house.register(88)
    body = {"invite_code": (await invite(house, role="FULL_ACCESS"))["code"]}
    told = (await house.http.post("auth/invite", json=body, headers=by(ann))).json()
    assert (told["role"], told["authorized"]) == ("FULL_ACCESS", True)
    answer = await house.http.post("auth/invite", json=body, headers=by(bob))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invite_code_invalid")


async def test_10__twenty_uses_at_once_of_an_invite_for_one_are_one(house: House) -> None:
    people = [await house.register(100 + number) for number in range(20)]
    body = {"invite_code": (await invite(house))["code"]}
    answers = await asyncio.gather(
        *(house.http.post("auth/invite", json=body, headers=by(person)) for person in people)
    )
    assert sorted(each.status_code for each in answers) == [200] + [400] * 19


async def test_11__expired_and_revoked_invites_are_400_and_none_lowers_a_role(house: House) -> None:
    person = await house.register(77)
    expired = await invite(house, expires_in_s=60)
    revoked = await invite(house)
    answer = await house.http.delete(f"admin/invite/{revoked['invite_id']}", headers=ADMIN)
    assert answer.status_code == 200
    demo = await invite(house, role="DEMO")
    house.ahead += timedelta(minutes=2)
    await house.books.change_account(
        AccountChange(user=UserId(person["user_id"]), role="FULL_ACCESS"), By(user=LOCAL_ADMIN)
    )
    for each in (expired, revoked):
        answer = await house.http.post("auth/invite", json={"invite_code": each["code"]}, headers=by(person))
        assert answer.status_code == 400
    told = (await house.http.post("auth/invite", json={"invite_code": demo["code"]}, headers=by(person))).json()
    assert told["role"] == "FULL_ACCESS"
    listed = (await house.http.get("admin/invite?all=true", headers=ADMIN)).json()["invites"]
    assert {each["state"] for each in listed} == {"expired", "revoked", "used"}
    assert (await house.http.get("admin/invite", headers=ADMIN)).json()["invites"] == []


async def test_12__no_invite_no_login_and_no_name_is_in_the_files_in_clear(house: House, tmp_path: Path) -> None:
    made = await invite(house, role="FULL_ACCESS")
    identity = TelegramIdentity(telegram_id=987654321012, username="needle_ann", first_name="Waltraudt")
    person = await house.books.register(identity)
    token = house.logins.issue(person).token
    await house.http.post("auth/invite", json={"invite_code": made["code"]}, headers=by({"token": token}))
    await house.store.close()
    data = on_disk(tmp_path)
    for needle in (made["code"], token, "needle_ann", "Waltraudt", "987654321012"):
        assert needle.encode() not in data
    await house.store.open()


async def test_13__each_token_that_is_none_is_401(house: House) -> None:
    person = await house.register(77)
    good = person["token"]
    claims = jwt.decode(good, options={"verify_signature": False})

    def signed(secret: str = house.secrets.jwt_secret, **changes: Any) -> str:
        kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return f"Bearer {jwt.encode(kept, secret, ALGORITHM)}"

    long_ago = int(datetime.now(UTC).timestamp()) - 10
    wrong = [
        "", "Bearer", "Bearer ", f"Basic {good}", good, "Bearer a.b.c", f"Bearer {good}x", f"Bearer {good} {good}",
        signed("x" * 40), signed(exp=long_ago), signed(telegram_id=None), signed(iss="another"), signed(aud="another"),
        signed(sub="u-nobody"), signed(telegram_id=88), signed(jti=None), signed(gen=5), signed(telegram_id="x"),
        f"Bearer {jwt.encode(claims, '', 'none')}", "Bearer " + "e" * 3_000,
    ]  # fmt: skip
    for value in wrong:
        answer = await house.http.get("auth/me", headers={"authorization": value} if value else {})
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (401, "Bearer"), value
    assert (await house.http.get("auth/me", headers={"authorization": signed()})).status_code == 200
    await house.erased(person["user_id"])
    assert (await house.http.get("auth/me", headers=by(person))).status_code == 401


async def test_13__a_login_ends_by_time_by_logout_and_everywhere(house: House) -> None:
    one, two, three = [await house.register(77) for _ in range(3)]
    assert (await house.http.post("auth/logout", json={}, headers=by(one))).status_code == 200
    assert (await house.http.get("auth/me", headers=by(one))).status_code == 401
    assert (await house.http.get("auth/me", headers=by(two))).status_code == 200
    await house.http.post("auth/logout", json={"everywhere": True}, headers=by(two))
    assert (await house.http.get("auth/me", headers=by(three))).status_code == 401
    await house.restart()
    assert (await house.http.get("auth/me", headers=by(three))).status_code == 401
    again = await house.register(77)
    assert (await house.http.get("auth/me", headers=by(again))).status_code == 200
    house.ahead += timedelta(hours=24, minutes=1)
    assert (await house.http.get("auth/me", headers=by(again))).status_code == 401


async def test_13__a_new_secret_goes_on_with_what_the_old_one_signed(house: House, tmp_path: Path) -> None:
    person = await house.register(77)
    new = "6b1f0c93a7d84e52b8c1f09e7d64a2b8355c0e9a"
    given = {"JWT_SECRET_KEY": new, "JWT_SECRET_KEY_PREVIOUS": house.secrets.jwt_secret}
    house.secrets = Secrets.keep(tmp_path, given)
    await house.restart()
    assert (await house.http.get("auth/me", headers=by(person))).status_code == 200
    house.secrets = Secrets.keep(tmp_path, {"JWT_SECRET_KEY_PREVIOUS": new})
    await house.restart()
    assert (await house.http.get("auth/me", headers=by(person))).status_code == 401


async def test_14__a_changed_role_and_a_ban_count_at_once_with_an_old_token(house: House) -> None:
    person = await house.register(77)
    for role, status in (("ADMIN", 200), ("DEMO", 403)):
        answer = await house.http.patch("admin/users/77", json={"role": role}, headers=ADMIN)
        assert answer.json()["role"] == role
        assert (await house.http.get("admin/users", headers=by(person))).status_code == status
        assert (await house.http.get("auth/me", headers=by(person))).json()["role"] == role
    assert (await house.http.patch("admin/users/77", json={"banned": True}, headers=ADMIN)).json()["banned"] is True
    for path in ("auth/me", "me", "credits", "projects", "admin/users"):
        answer = await house.http.get(path, headers=by(person))
        assert (answer.status_code, "banned" in answer.json()["error"]["message"]) == (403, True), path
    answer = await house.http.post("auth/register", json={"telegram_id": 77}, headers=house.by_bot())
    assert answer.status_code == 403
    user = person["user_id"]
    assert (await house.http.patch(f"admin/users/{user}", json={"banned": False}, headers=ADMIN)).status_code == 200
    assert (await house.http.get("auth/me", headers=by(person))).status_code == 200
    answer = await house.http.patch(f"admin/users/{LOCAL_ADMIN}", json={"banned": True}, headers=ADMIN)
    assert answer.status_code == 409


async def test_14__what_administrators_do_and_read_is_written_down(house: House) -> None:
    await house.register(77)
    await house.http.patch("admin/users/77", json={"role": "FULL_ACCESS", "logout": True}, headers=ADMIN)
    await house.http.get("admin/users?limit=1&offset=1", headers=ADMIN)
    told = (await house.http.get("admin/audit", headers=ADMIN)).json()["audit"]
    assert [(row["action"], row["actor"]) for row in told] == [
        ("read", LOCAL_ADMIN), ("logout", LOCAL_ADMIN), ("role", LOCAL_ADMIN),
    ]  # fmt: skip
    assert told[2]["details"] == {"from": "DEMO", "to": "FULL_ACCESS", "through": "administrator"}
    for wrong in ("limit=0", "limit=x", "offset=-1", "limit=1001"):
        assert (await house.http.get(f"admin/audit?{wrong}", headers=ADMIN)).status_code == 400
    assert (await house.http.patch("admin/users/99", json={"role": "DEMO"}, headers=ADMIN)).status_code == 404
    assert (await house.http.patch("admin/users/77", json={}, headers=ADMIN)).status_code == 400


async def test_15__a_mode_that_is_none_is_422_and_a_good_one_stays_over_a_restart(house: House) -> None:
    person = await house.register(77)
    for wrong in ({"default_mode": "turbo"}, {"settings": {"language": "de"}}, {"settings": {"provider": "nobody"}}):
        answer = await house.http.put("auth/settings", json=wrong, headers=by(person))
        assert answer.status_code == 422
    for mode in ("eco", "smart", "deep", "auto", "eco"):
        answer = await house.http.put("auth/settings", json={"default_mode": mode}, headers=by(person))
        assert answer.json()["default_mode"] == mode
    chosen = {"settings": {"language": "pl", "provider": "xai"}}
    await house.http.put("auth/settings", json=chosen, headers=by(person))
    await house.restart()
    told = (await house.http.get("auth/me", headers=by(person))).json()
    assert (told["default_mode"], told["settings"]) == ("eco", {"language": "pl", "provider": "grok"})
    assert told["conversation_state"] == "GATHERING_REQUIREMENTS"


async def test_builder_1_2_3__one_user_and_one_grant_for_a_telegram_id_for_ever(house: House) -> None:
    first = await house.register(77)
    assert (await house.register(77))["is_new"] is False
    grants = "SELECT count(*) FROM credit_transactions WHERE transaction_type = 'initial_grant' AND user_id LIKE 'u-%'"
    assert await house.count(grants) == 1
    assert await house.count("SELECT count(*) FROM users WHERE user_id LIKE 'u-%'") == 1
    await house.erased(first["user_id"])
    await house.restart()
    again = await house.register(77)
    assert again["is_new"] is True
    assert again["user_id"] != first["user_id"]
    assert (await house.books.balance(UserId(again["user_id"]))).balance_ucredits == 0
    assert await house.count("SELECT count(*) FROM transfers WHERE reason = 'grant' AND debit LIKE '%promotions'") == 2
    identity = TelegramIdentity(telegram_id=77)
    assert (await house.books.register(identity)).granted_ucredits == 0


async def test_builder_66__more_than_so_many_a_minute_are_refused_with_a_clear_text(house: House) -> None:
    person = await house.register(77)
    answers = [await house.http.get("credits", headers=by(person)) for _ in range(31)]
    assert [each.status_code for each in answers] == [200] * 30 + [429]
    assert "30 requests a minute" in answers[-1].json()["error"]["message"]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    for _ in range(40):
        assert (await house.http.get("credits", headers=ADMIN)).status_code == 200
    entity = user_entity(UserId(person["user_id"]))
    for _ in range(20):
        await house.ask(entity, Admit(kind="message", role="DEMO"))
    with pytest.raises(TooManyRequestsError, match="20 messages a minute"):
        await house.ask(entity, Admit(kind="message", role="DEMO"))
