"""The wallet's doors: what a user sees of their own, and what only an operator may do."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runtime.ids import CallId, UserId, user_entity
from runtime.ledger.caps import Caps
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Hold, Meter, NewToken, Notice
from runtime.session.session import ToppedUp
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from serve_apps import api_routes

CREDIT = 10**6
ANN, ROOT = UserId("ann"), UserId("root")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
GIFT = {"user": "ann", "amount_credits": "12.5", "reason": "a gift"}


@pytest.fixture
async def ledger(system: Any) -> MemoryLedger:
    made = MemoryLedger(Tariff(), 100 * CREDIT, lambda: NOON, caps=Caps(user_ucredits=20 * CREDIT))
    await made.open_wallet(ROOT, is_admin=True)
    for user in (ANN, ROOT):
        await made.add_token(NewToken(token_sha256=token_hash(f"{user}-token"), user=user, kind="user", label=""))
    await made.set_role(ANN, "FULL_ACCESS")
    system.ledger = made
    return made


@pytest.fixture
async def api(system: Any, ledger: MemoryLedger) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=api_routes.create_app(system))
    async with httpx.AsyncClient(transport=transport, base_url="http://api/api/v1/") as client:
        yield client


def ann(**more: str) -> dict[str, Any]:
    return {"headers": {"authorization": "Bearer ann-token", **more}}


def root(**more: str) -> dict[str, Any]:
    return {"headers": {"authorization": "Bearer root-token", **more}}


async def spend(ledger: MemoryLedger, call: str = "c1") -> None:
    price = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=0)
    hold = Hold(
        call=CallId(call), user=ANN, run=None, task_type="chat", provider="openai", model="m", input_tokens_max=20_000,
        output_tokens_max=0, price=price,
    )  # fmt: skip
    await ledger.hold(hold)
    meter = Meter(call=CallId(call), input_tokens=10_000, output_tokens=0, response_time_ms=1, key_id="k")
    await ledger.meter(meter)


async def test_credits__tell_balance_and_what_today_used_of_the_cap(api: Any, ledger: MemoryLedger) -> None:
    await spend(ledger)
    told = (await api.get("credits", **ann())).json()
    assert (told["balance_credits"], told["held_credits"]) == ("98.50", "0.00")
    assert (told["spent_today_credits"], told["cap_today_credits"], told["left_today_credits"]) == (
        "1.50", "20.00", "18.50",
    )  # fmt: skip
    assert "operator" in told["more"]
    assert (await api.get("credits", **root())).json()["cap_today_credits"] is None


async def test_adjustment__is_made_once_for_a_key_and_wakes_what_waits(
    api: Any, system: Any, ledger: MemoryLedger
) -> None:
    for _ in range(2):
        answer = await api.post("admin/credits", json=GIFT, **root(**{"idempotency-key": "k1"}))
        assert answer.json()["balance_credits"] == "112.50"
    assert (user_entity(ANN), ToppedUp()) in system.entities.told
    taken = await api.post("admin/credits", json={**GIFT, "amount_credits": -2}, **root())
    assert taken.json()["balance_credits"] == "110.50"
    other = await api.post("admin/credits", json={**GIFT, "reason": "another"}, **root(**{"idempotency-key": "k1"}))
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"amount_credits": 0}, 400),
        ({"amount_credits": "-0"}, 400),
        ({"amount_credits": "NaN"}, 400),
        ({"amount_credits": True}, 400),
        ({"amount_credits": "1e99"}, 400),
        ({"amount_credits": -1000}, 402),
        ({"reason": "  "}, 400),
        ({"reason": "x" * 501}, 400),
        ({"user": "a/b"}, 400),
        ({"user": "nobody"}, 404),
        ({"more": 1}, 400),
    ],
)
async def test_adjustment__that_cannot_be_is_refused_and_changes_nothing(
    api: Any, ledger: MemoryLedger, change: dict[str, Any], status: int
) -> None:
    answer = await api.post("admin/credits", json={**GIFT, **change}, **root())
    assert answer.status_code == status
    assert (await ledger.balance(ANN)).balance_ucredits == 100 * CREDIT


async def test_refund__gives_back_what_a_call_was_charged_once(api: Any, ledger: MemoryLedger) -> None:
    await spend(ledger)
    for _ in range(2):
        answer = await api.post("admin/refunds", json={"call": "c1", "reason": "it was empty"}, **root())
        assert answer.json() == {"call": "c1", "refunded_credits": "1.50"}
    assert (await ledger.balance(ANN)).balance_ucredits == 100 * CREDIT
    missing = await api.post("admin/refunds", json={"call": "c9", "reason": "why"}, **root())
    assert missing.status_code == 404


async def test_notices__that_are_shown_are_told(
    api: Any, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    async def notices(user: UserId) -> list[Notice]:
        return [Notice(kind="low_balance", text=f"{hour}", at=NOON.replace(hour=hour)) for hour in (9, 8)]

    async def mark_told(user: UserId, until: datetime) -> None:
        told.append((user, until))

    monkeypatch.setattr(ledger, "notices", notices)
    monkeypatch.setattr(ledger, "mark_told", mark_told)
    shown = (await api.get("credits", **ann())).json()["notices"]
    assert [notice["text"] for notice in shown] == ["9", "8"]
    assert told == [(ANN, NOON.replace(hour=9))]


async def test_statement__is_ones_own_as_json_or_csv(api: Any, ledger: MemoryLedger) -> None:
    await api.post("admin/credits", json={**GIFT, "reason": "=cmd()"}, **root())
    (line,) = (await api.get("credits/statement", **ann())).json()["movements"]
    assert (line["type"], line["amount_credits"], line["text"]) == ("manual_adjustment", "12.50", "=cmd()")
    told = await api.get("credits/statement?format=csv", **ann())
    assert told.text.splitlines()[1].split(",")[1:3] == ["manual_adjustment", "12.50"]
    assert "'=cmd()" in told.text
    assert (await api.get("admin/credits/ann/statement", **root())).json()["movements"] == [line]
    assert (await api.get(f"credits/statement?after={line['id']}", **ann())).json()["movements"] == []
    for query in ("format=xml", "limit=0", "limit=1001", "limit=x"):
        assert (await api.get(f"credits/statement?{query}", **ann())).status_code == 400


async def test_stopped_account__is_listed_and_released(api: Any, ledger: MemoryLedger) -> None:
    await ledger.stop_account(ANN, "does not add up")
    (line,) = (await api.get("admin/accounts/stopped", **root())).json()["stopped"]
    assert (line["user"], line["reason"]) == ("ann", "does not add up")
    assert (await api.post("admin/accounts/ann/release", **root())).json() == {"user": "ann", "released": True}
    assert (await api.post("admin/accounts/ann/release", **root())).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "admin/credits"),
        ("GET", "admin/credits/ann"),
        ("GET", "admin/credits/ann/statement"),
        ("POST", "admin/refunds"),
        ("GET", "admin/accounts/stopped"),
        ("POST", "admin/accounts/ann/release"),
    ],
)
async def test_operators_doors__are_closed_to_others(api: Any, method: str, path: str) -> None:
    assert (await api.request(method, path, json=GIFT, **ann())).status_code == 403
    assert (await api.request(method, path, json=GIFT)).status_code == 401
