"""The doors that sell credits: an order, the signed webhook that completes it, and nothing while payments are off."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from runtime.accounts.proofs import Proofs
from runtime.config import Settings
from runtime.errors import MasterbuilderError, QuarantinedError, RefusedError, UnavailableError
from runtime.ids import UserId
from runtime.ledger.money import Tariff
from runtime.ledger.port import NewToken, TokenTerms
from runtime.payments.secrets import PaymentSecrets
from runtime.payments.signed import checkout_signature, webhook_header
from runtime.payments.terms import parse_providers
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from serve_apps import payment_routes
from serve_apps.api_routes import create_app
from tests.uncounted import Uncounted

ANN, BOB, ROOT = UserId("ann"), UserId("bob"), UserId("root")
SECRET = "2f6c1a90b7d84e53a1c09f7e64d2b8355c0e9a71"
OTHER = "77aa0c1f54e3b9d2c8661f0e9b3d4a52c7e8f019"
PROVIDERS = json.dumps(
    [
        {"id": name, "page_url": f"https://{name}.example.com/pay", "secret_variable": f"{name.upper()}_SECRET"}
        for name in ("shop", "other")
    ]
)
HOOK = "/api/v1/payments/shop/webhook"


@dataclass
class PaySystem:
    """As much of a system as these doors use."""

    settings: Settings
    ledger: MemoryLedger = field(default_factory=lambda: MemoryLedger(Tariff(), 100 * 10**6))
    told: list[UserId] = field(default_factory=list)
    entities: Uncounted = field(default_factory=Uncounted)
    raises: MasterbuilderError | None = None

    async def topped_up(self, system: Any, user: UserId) -> None:
        assert system is self
        if self.raises is not None:
            raise self.raises
        self.told.append(user)


@pytest.fixture
async def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PaySystem:
    made = PaySystem(Settings(data_dir=tmp_path, payments_enabled=True, payment_providers_json=PROVIDERS))
    PaymentSecrets(tmp_path, {"SHOP_SECRET": SECRET, "OTHER_SECRET": OTHER}).keep(parse_providers(PROVIDERS))
    await made.ledger.open_wallet(ROOT, is_admin=True)
    for user in (ANN, BOB, ROOT):
        await made.ledger.add_token(
            NewToken(token_sha256=token_hash(f"{user}-token"), user=user, kind="user", label="")
        )
    limited = TokenTerms(models=("openai/gpt-4o",))
    await made.ledger.add_token(
        NewToken(token_sha256=token_hash("limited-token"), user=ANN, kind="user", label="", terms=limited)
    )
    monkeypatch.setattr(payment_routes, "topped_up", made.topped_up)
    return made


@pytest.fixture
async def door(system: PaySystem) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(system, proofs=Proofs("bot-token"))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


def bearer(user: str) -> dict[str, str]:
    return {"authorization": f"Bearer {user}-token"}


async def order(
    door: httpx.AsyncClient, user: str = "ann", product: str = "credits_500", key: str | None = None
) -> dict[str, Any]:
    headers = bearer(user) | ({"idempotency-key": key} if key else {})
    answer = await door.post("/api/v1/payments/shop/orders", json={"product": product}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def told(made: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the provider says of it."""
    event = {
        "event": "paid",
        "order": made["order"],
        "external_id": "pay-1",
        "product": made["product"],
        "amount_minor": made["amount_minor"],
        "currency": made["currency"],
    }
    return {**event, **changes}


async def deliver(
    door: httpx.AsyncClient, event: Any, *, secret: str = SECRET, at_s: float = 0.0, hook: str = HOOK
) -> httpx.Response:
    body = json.dumps(event).encode()
    header = webhook_header(secret.encode(), int(time.time() + at_s), body)
    return await door.post(hook, content=body, headers={"x-signature": header})


async def credits(system: PaySystem, user: UserId = ANN) -> float:
    return (await system.ledger.balance(user)).balance_ucredits / 10**6


def told_error(answer: httpx.Response) -> dict[str, str]:
    """Every error says what happened, what it cost and what to do next."""
    error: dict[str, str] = answer.json()["error"]
    assert all(error[part] for part in ("message", "charged", "next", "request_id"))
    return error


async def test_products__are_told_with_their_prices_and_providers(door: httpx.AsyncClient) -> None:
    answer = (await door.get("/api/v1/products", headers=bearer("ann"))).json()
    assert answer["providers"] == ["shop", "other"]
    pack = {"id": "credits_500", "credits": 500, "days": 0, "price_usd_cents": 400, "price_stars": 200}
    month = {"id": "full_access_monthly", "credits": 1000, "days": 30, "price_usd_cents": 1000, "price_stars": 500}
    assert pack in answer["products"]
    assert month in answer["products"]
    assert len(answer["products"]) == 4


async def test_order__answers_a_signed_address_of_the_page(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door)
    assert (made["state"], made["credits"], made["amount_minor"], made["currency"]) == ("pending", "500.00", 400, "USD")
    url = urlsplit(made["checkout_url"])
    assert (url.netloc, url.path) == ("shop.example.com", "/pay")
    query = dict(parse_qsl(url.query))
    assert query.pop("signature") == checkout_signature(SECRET.encode(), query)
    assert query["order"] == made["order"]
    assert await credits(system) == 100


async def test_payment__is_credited_and_the_session_is_told(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door)
    answer = await deliver(door, told(made))
    assert (answer.status_code, answer.json()) == (200, {"credited": True})
    assert await credits(system) == 600
    assert system.told == [ANN]
    shown = (await door.get(f"/api/v1/payments/orders/{made['order']}", headers=bearer("ann"))).json()
    assert (shown["state"], shown["external_id"]) == ("completed", "pay-1")


async def test_confirmation_that_comes_twice__credits_once(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door)
    answers = await asyncio.gather(*(deliver(door, told(made)) for _ in range(5)))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"credited": True})] * 5
    assert await credits(system) == 600


async def test_key__makes_a_repeat_the_same_order(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door, key="k1")
    assert await order(door, key="k1") == made
    assert (await order(door, key="k2"))["order"] != made["order"]
    assert (await order(door))["order"] != (await order(door))["order"]
    assert (await order(door, "bob", key="k1"))["order"] != made["order"]
    await deliver(door, told(made))
    again = await order(door, key="k1")
    assert (again["order"], again["state"], again["checkout_url"]) == (made["order"], "completed", None)
    headers = {**bearer("ann"), "idempotency-key": "k1"}
    other = await door.post("/api/v1/payments/shop/orders", json={"product": "credits_100"}, headers=headers)
    assert other.status_code == 409
    told_error(other)


async def test_unsigned_webhook__is_refused(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door)
    answer = await door.post(HOOK, json=told(made))
    assert answer.status_code == 401
    assert told_error(answer)["charged"] == "No credits were booked."
    with_token = await door.post(HOOK, json=told(made), headers=bearer("ann"))
    assert with_token.status_code == 401
    assert await credits(system) == 100
    assert system.told == []


async def test_forged_webhook__is_refused(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door)
    assert (await deliver(door, told(made), secret=OTHER)).status_code == 401
    body = json.dumps(told(made)).encode()
    header = webhook_header(SECRET.encode(), int(time.time()), body)
    other = body.replace(b'"credits_500"', b'"credits_100"')
    assert (await door.post(HOOK, content=other, headers={"x-signature": header})).status_code == 401
    checkout = dict(parse_qsl(urlsplit(made["checkout_url"]).query))["signature"]
    header = f"t={int(time.time())},v1={checkout}"
    assert (await door.post(HOOK, content=body, headers={"x-signature": header})).status_code == 401
    assert await credits(system) == 100


@pytest.mark.parametrize("at_s", [-310, 310])
async def test_stale_webhook__is_refused(door: httpx.AsyncClient, system: PaySystem, at_s: float) -> None:
    made = await order(door)
    answer = await deliver(door, told(made), at_s=at_s)
    assert answer.status_code == 401
    assert await credits(system) == 100


async def test_webhook_of_one_provider__completes_no_order_of_another(
    door: httpx.AsyncClient, system: PaySystem
) -> None:
    made = await order(door)
    answer = await deliver(door, told(made), secret=OTHER, hook="/api/v1/payments/other/webhook")
    assert answer.status_code == 404
    told_error(answer)
    assert await credits(system) == 100


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"amount_minor": 1}, 409),
        ({"currency": "JPY"}, 409),
        ({"product": "credits_1000"}, 409),
        ({"user": "bob"}, 409),
        ({"order": "ord-unknown"}, 404),
        ({"amount_minor": "400"}, 400),
        ({"external_id": None}, 400),
    ],
)
async def test_payment_that_is_not_what_was_ordered__is_refused(
    door: httpx.AsyncClient, system: PaySystem, changes: dict[str, Any], status: int
) -> None:
    made = await order(door)
    answer = await deliver(door, told(made, **changes))
    assert answer.status_code == status
    assert told_error(answer)["charged"] == "No credits were booked."
    assert (await credits(system), await credits(system, BOB)) == (100, 100)
    assert system.told == []


async def test_second_payment_of_an_order__is_refused(door: httpx.AsyncClient, system: PaySystem) -> None:
    made = await order(door)
    await deliver(door, told(made))
    answer = await deliver(door, told(made, external_id="pay-2"))
    assert answer.status_code == 409
    assert "pay-2" in told_error(answer)["next"]
    assert await credits(system) == 600


async def test_refund__takes_the_credits_back_once_and_the_old_confirmation_brings_none(
    door: httpx.AsyncClient, system: PaySystem
) -> None:
    made = await order(door)
    await deliver(door, told(made))
    for _ in range(2):
        answer = await deliver(door, told(made, event="refunded"))
        assert (answer.status_code, answer.json()) == (200, {"credited": False})
        assert await credits(system) == 100
    assert (await deliver(door, told(made))).json() == {"credited": False}
    assert await credits(system) == 100


async def test_payment_that_failed__leaves_an_order_that_may_be_paid(
    door: httpx.AsyncClient, system: PaySystem
) -> None:
    made = await order(door, key="k1")
    assert (await deliver(door, told(made, event="failed"))).json() == {"credited": False}
    again = await order(door, key="k1")
    assert (again["state"], again["checkout_url"]) == ("failed", made["checkout_url"])
    assert (await deliver(door, told(made))).json() == {"credited": True}


async def test_event_that_concerns_no_order__is_taken_and_changes_nothing(door: httpx.AsyncClient) -> None:
    answer = await deliver(door, {"event": "payout.sent"})
    assert (answer.status_code, answer.json()) == (200, {"credited": False})


async def test_anothers_order__is_as_one_that_is_not_there(door: httpx.AsyncClient) -> None:
    made = await order(door)
    anothers = await door.get(f"/api/v1/payments/orders/{made['order']}", headers=bearer("bob"))
    missing = await door.get(f"/api/v1/payments/orders/ord-{'0' * 32}", headers=bearer("bob"))
    assert anothers.status_code == missing.status_code == 404
    for nonsense in ("ord-1", "%00", "x" * 5_000):
        assert (await door.get(f"/api/v1/payments/orders/{nonsense}", headers=bearer("ann"))).status_code == 404
    assert told_error(anothers)["message"] == told_error(missing)["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/products"),
        ("POST", "/api/v1/payments/shop/orders"),
        ("GET", "/api/v1/payments/orders/ord-1"),
        ("GET", "/api/v1/payments/products"),
        ("GET", "/api/v1/payments/history"),
    ],
)
async def test_door_of_a_user__wants_a_users_token(door: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await door.request(method, path)).status_code == 401
    assert (await door.request(method, path, headers=bearer("limited"))).status_code == 403


@pytest.mark.parametrize("product", ["credits_7", "full_access_yearly", "x" * 90])
async def test_product_that_is_not_sold__is_not_found(door: httpx.AsyncClient, product: str) -> None:
    answer = await door.post("/api/v1/payments/shop/orders", json={"product": product}, headers=bearer("ann"))
    assert answer.status_code == 404
    assert "credits_100" in told_error(answer)["next"]


@pytest.mark.parametrize("body", [{}, {"product": ""}, {"product": 7}, {"product": "credits_100", "credits": 9}, []])
async def test_order_that_makes_no_sense__is_bad_input(door: httpx.AsyncClient, body: Any) -> None:
    answer = await door.post("/api/v1/payments/shop/orders", json=body, headers=bearer("ann"))
    assert answer.status_code == 400
    told_error(answer)


async def test_provider_that_is_not_there__is_not_found(door: httpx.AsyncClient) -> None:
    body = {"product": "credits_100"}
    answer = await door.post("/api/v1/payments/none/orders", json=body, headers=bearer("ann"))
    assert answer.status_code == 404
    assert (await deliver(door, {}, hook="/api/v1/payments/none/webhook")).status_code == 404


@pytest.mark.parametrize("size", [(64 << 10) + 1, 10 << 20])
async def test_body_that_is_too_large__is_refused_before_it_is_read(
    door: httpx.AsyncClient, system: PaySystem, size: int
) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < size:
            sent += 1 << 10
            yield b" " * (1 << 10)

    answer = await door.post(HOOK, content=pieces(), headers={"x-signature": "t=1,v1=" + "0" * 64})
    assert answer.status_code == 413
    assert sent <= 66 << 10
    told_error(answer)


async def test_body_of_64_kib__is_read(door: httpx.AsyncClient) -> None:
    body = json.dumps({"event": "payout.sent"}).encode().ljust(64 << 10)
    header = webhook_header(SECRET.encode(), int(time.time()), body)
    answer = await door.post(HOOK, content=body, headers={"x-signature": header})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/products"),
        ("POST", "/api/v1/payments/shop/orders"),
        ("GET", "/api/v1/payments/orders/ord-1"),
        ("POST", HOOK),
        ("GET", "/api/v1/payments/products"),
        ("POST", "/api/v1/payments/complete"),
        ("GET", "/api/v1/payments/history"),
        ("POST", "/api/v1/admin/payments/refunds"),
    ],
)
@pytest.mark.parametrize("headers", [{}, bearer("ann"), bearer("bot"), bearer("root")])
async def test_payments_that_are_off__are_not_there(
    door: httpx.AsyncClient, system: PaySystem, method: str, path: str, headers: dict[str, str]
) -> None:
    system.settings = system.settings.model_copy(update={"payments_enabled": False})
    answer = await door.request(method, path, headers=headers)
    assert answer.status_code == 404
    error = told_error(answer)
    assert error["next"] == "Ask the operator for credits."
    assert "buy" not in error["message"].lower()


async def test_session_that_does_not_answer__makes_the_provider_repeat_and_the_repeat_tells_it(
    door: httpx.AsyncClient, system: PaySystem
) -> None:
    made = await order(door)
    system.raises = UnavailableError("The entity does not answer.")
    answer = await deliver(door, told(made))
    assert answer.status_code == 503
    assert told_error(answer)["charged"] == "The payment is credited."
    assert await credits(system) == 600
    system.raises = None
    assert (await deliver(door, told(made))).json() == {"credited": True}
    assert await credits(system) == 600
    assert system.told == [ANN]


@pytest.mark.parametrize("error", [QuarantinedError("set aside"), RefusedError("no")])
async def test_session_that_will_never_answer__does_not_hold_up_the_confirmation(
    door: httpx.AsyncClient, system: PaySystem, error: MasterbuilderError
) -> None:
    made = await order(door)
    system.raises = error
    assert (await deliver(door, told(made))).json() == {"credited": True}


async def test_secret_that_is_not_known__makes_the_door_unavailable(
    door: httpx.AsyncClient, system: PaySystem, tmp_path: Path
) -> None:
    (tmp_path / "payment_secrets").unlink()
    answer = await deliver(door, {"event": "paid"})
    assert answer.status_code == 503
    assert "SHOP_SECRET" in told_error(answer)["message"]


def stars(charge: str = "ch-1", **changes: Any) -> dict[str, Any]:
    """What the bot says of a payment with Stars."""
    said = {
        "user": "ann",
        "telegram_payment_charge_id": charge,
        "invoice_payload": "product:full_access_monthly",
        "total_amount": 500,
        "currency": "XTR",
    }
    return {**said, **changes}


async def completes(door: httpx.AsyncClient, said: Any, by: str = "bot") -> httpx.Response:
    return await door.post("/api/v1/payments/complete", json=said, headers=bearer(by))


async def history(door: httpx.AsyncClient) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = (await door.get("/api/v1/payments/history", headers=bearer("ann"))).json()["payments"]
    return lines


async def test_products_for_stars__come_with_what_an_invoice_says(door: httpx.AsyncClient) -> None:
    answer = (await door.get("/api/v1/payments/products", headers=bearer("ann"))).json()
    month = next(each for each in answer["products"] if each["days"])
    assert month == {
        "id": "full_access_monthly", "credits": 1000, "days": 30, "price_usd_cents": 1000, "price_stars": 500,
        "currency": "XTR", "payload": "product:full_access_monthly",
    }  # fmt: skip


async def test_stars__are_credited_once_and_the_session_is_told(door: httpx.AsyncClient, system: PaySystem) -> None:
    answers = await asyncio.gather(*(completes(door, stars()) for _ in range(5)))
    told = [(answer.status_code, answer.json()["status"], answer.json()["days"]) for answer in answers]
    assert told == [(200, "completed", 30)] * 5
    assert await credits(system) == 1_100
    assert system.told == [ANN] * 5
    (line,) = await history(door)
    assert (line["status"], line["credits"], line["amount_minor"]) == ("completed", "1000.00", 500)
    assert line["expires_at"] == answers[0].json()["expires_at"]


@pytest.mark.parametrize("by", ["ann", "root", "bot-but-wrong", ""])
async def test_stars__are_believed_of_the_bot_alone(door: httpx.AsyncClient, system: PaySystem, by: str) -> None:
    answer = await completes(door, stars(), by)
    assert answer.status_code == 401
    assert "BOT_SERVICE_TOKEN" in told_error(answer)["next"]
    assert await history(door) == []


async def test_door_without_a_bots_token__has_no_bot(system: PaySystem) -> None:
    transport = httpx.ASGITransport(app=create_app(system))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for headers in ({}, bearer("bot")):
            assert (await client.post("/api/v1/payments/complete", json=stars(), headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"total_amount": 499},
        {"currency": "USD"},
        {"invoice_payload": "product:gone"},
        {"invoice_payload": "full_access_monthly"},
    ],
)
async def test_stars_that_bought_nothing__are_told_as_an_error_and_stay_in_the_history(
    door: httpx.AsyncClient, system: PaySystem, changes: dict[str, Any]
) -> None:
    said = stars(**changes)
    answer = await completes(door, said)
    assert answer.status_code == 400
    error = told_error(answer)
    assert error["code"] == "payment"
    assert error["charged"] == f"{said['total_amount']} {said['currency']} were taken."
    (line,) = await history(door)
    assert line["status"] == "failed"
    assert line["failure"] in error["message"]
    assert (await credits(system), system.told) == (100, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"total_amount": "500"},
        {"total_amount": -5},
        {"telegram_payment_charge_id": ""},
        {"telegram_payment_charge_id": "a b"},
        {"paid_at": "yesterday"},
        {"paid_at": "2026-11-29T12:00:00"},
        {"more": 1},
    ],
)
async def test_stars_that_make_no_sense__are_bad_input(door: httpx.AsyncClient, changes: dict[str, Any]) -> None:
    answer = await completes(door, stars(**changes))
    assert answer.status_code == 400
    assert told_error(answer)["code"] == "bad_input"
    assert await history(door) == []


async def test_refund_of_stars__is_an_admins_and_says_what_telegram_is_to_be_asked(
    door: httpx.AsyncClient, system: PaySystem
) -> None:
    await completes(door, stars())
    said = {"charge_id": "ch-1", "reason": "changed their mind"}
    path = "/api/v1/admin/payments/refunds"
    assert [(await door.post(path, json=said, headers=bearer(by))).status_code for by in ("ann", "bot")] == [403, 401]
    for _ in range(2):
        answer = (await door.post(path, json=said, headers=bearer("root"))).json()
        assert 29.9 < answer.pop("taken_days") <= 30
        assert answer == {
            "charge_id": "ch-1", "user": "ann", "stars": 500, "taken_credits": "1000.00", "told": False,
            "telegram": {"method": "refundStarPayment", "telegram_payment_charge_id": "ch-1"},
        }  # fmt: skip
    assert await credits(system) == 100
    assert [line["status"] for line in await history(door)] == ["refunded"]
    assert (await completes(door, stars())).json()["status"] == "refunded"
    missing = await door.post(path, json={"charge_id": "ch-2", "reason": "why"}, headers=bearer("root"))
    assert missing.status_code == 404


async def test_history__is_ones_own_and_tells_orders_too(door: httpx.AsyncClient) -> None:
    made = await order(door)
    await completes(door, stars("of-bob", user="bob"))
    assert [(line["provider"], line["status"], line["external_id"]) for line in await history(door)] == [
        ("shop", "pending", None)
    ]
    await deliver(door, told(made))
    assert [line["status"] for line in await history(door)] == ["completed"]


async def test_month_that_is_bought_at_a_payment_page__gives_days_too(
    door: httpx.AsyncClient, system: PaySystem
) -> None:
    made = await order(door, product="full_access_monthly")
    assert made["amount_minor"] == 1_000
    await deliver(door, told(made))
    person = await system.ledger.person(ANN)
    assert person is not None
    assert (person.role, person.subscription_tier) == ("FULL_ACCESS", "FULL_ACCESS")
