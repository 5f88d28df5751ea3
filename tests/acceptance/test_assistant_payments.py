"""spec/assistant.md §30, lines 49-56: payments with Telegram's Stars, through the ledger and the HTTP doors.

The ledger is the real one, on disk, with a clock to turn. The chat's own half - `/buy`, the pre-checkout answer, the
message of success - stands on what is tried here.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.accounts.proofs import Proofs
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, NotFoundError
from runtime.ids import LOCAL_ADMIN, UserId
from runtime.ledger.port import Adjustment, NewToken, StarsCheckout
from runtime.payments.products import PRODUCTS
from runtime.payments.stars import CURRENCY, payload_of, product_named
from runtime.store.store import Store
from runtime.tokens import token_hash
from serve_apps.api_routes import create_app

ANN = UserId("u-0123456789abcdef")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
SECOND = timedelta(seconds=1)
MONTHLY = "full_access_monthly"


class NoSessions:
    """Nobody waits for credits here."""

    async def ask(self, entity: str, message: Any, *, timeout_s: float = 30.0) -> None:
        return None


@dataclass
class Desk:
    """As much of a system as these doors use, and who comes to them."""

    settings: Settings
    store: Store
    entities: NoSessions
    bot_token: str
    now: datetime = NOON
    client: httpx.AsyncClient | None = None

    @property
    def ledger(self) -> Any:
        return self.store.books

    @property
    def journal(self) -> Any:
        return self.store.journal

    async def asks(self, method: str, path: str, body: Any = None, *, by: str = "ann-token") -> httpx.Response:
        assert self.client is not None
        headers = {"authorization": f"Bearer {by}"}
        return await self.client.request(method, f"/api/v1/{path}", json=body, headers=headers)

    async def gets(self, path: str) -> Any:
        answer = await self.asks("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pays(self, charge: str, product: str = MONTHLY, **changes: Any) -> httpx.Response:
        """What the bot posts when Telegram says that it took the Stars."""
        said = {
            "user": ANN,
            "telegram_payment_charge_id": charge,
            "provider_payment_charge_id": f"p-{charge}",
            "invoice_payload": payload_of(PRODUCTS[product]),
            "total_amount": PRODUCTS[product].stars,
            "currency": CURRENCY,
            **changes,
        }
        return await self.asks("POST", "payments/complete", said, by=self.bot_token)

    async def refunds(self, charge: str) -> Any:
        said = {"charge_id": charge, "reason": "changed their mind"}
        answer = await self.asks("POST", "admin/payments/refunds", said, by="root-token")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def stands(self) -> tuple[str, str, str | None]:
        """Role, balance and the tier of the subscription, as their owner sees them."""
        me = await self.gets("me")
        return me["role"], me["balance_credits"], me["subscription_tier"]

    async def ends(self) -> timedelta:
        """When the subscription ends, from noon on."""
        return datetime.fromisoformat((await self.gets("me"))["expires_at"]) - NOON

    async def may_upload(self) -> bool:
        """Policy, where it is asked: documents are for more than DEMO. An empty upload is refused for what it is."""
        answer = await self.asks("POST", "rag/upload")
        assert answer.status_code in (400, 403), answer.text
        return answer.status_code == 400


@asynccontextmanager
async def open_desk(folder: Path, *, payments_enabled: bool = True) -> AsyncIterator[Desk]:
    made: Desk
    settings = Settings(data_dir=folder, payments_enabled=payments_enabled)
    secrets = Secrets.load(folder, {})
    store = Store(settings, secrets, lambda: made.now)
    made = Desk(settings=settings, store=store, entities=NoSessions(), bot_token=secrets.bot_service_token)
    await store.open()
    await store.books.open_wallet(LOCAL_ADMIN, is_admin=True)
    for user, token in ((ANN, "ann-token"), (LOCAL_ADMIN, "root-token")):
        await store.books.add_token(NewToken(token_sha256=token_hash(token), user=user, kind="user", label=""))
    app = create_app(made, proofs=Proofs(secrets.bot_service_token))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as made.client:
        yield made
    assert await store.check() == []
    await store.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


async def test_49__an_invoice_of_credits_100_is_50_xtr_with_its_payload(desk: Desk) -> None:
    """The four products of §15, each with what its invoice says; one price line is the chat's to make of it."""
    products = {each["id"]: each for each in (await desk.gets("payments/products"))["products"]}
    pack = products["credits_100"]
    assert (pack["price_stars"], pack["currency"], pack["payload"]) == (50, "XTR", "product:credits_100")
    assert {name: (each["price_stars"], each["credits"], each["days"]) for name, each in products.items()} == {
        MONTHLY: (500, 1_000, 30),
        "credits_100": (50, 100, 0),
        "credits_500": (200, 500, 0),
        "credits_1000": (350, 1_000, 0),
    }
    assert {product_named(each["payload"]) for each in products.values()} == set(products)


async def test_50__a_checkout_with_a_wrong_amount_or_product_is_refused_and_a_right_one_accepted(desk: Desk) -> None:
    began_s = time.monotonic()
    for product in PRODUCTS.values():
        right = StarsCheckout(user=ANN, product=product.id, stars=product.stars, currency=CURRENCY)
        await desk.ledger.check_checkout(right)
        for amount in (product.stars - 1, product.stars + 1, 0):
            wrong = StarsCheckout(user=ANN, product=product.id, stars=amount, currency=CURRENCY)
            with pytest.raises(BadInputError, match=f"costs {product.stars} Stars"):
                await desk.ledger.check_checkout(wrong)
    unknown = StarsCheckout(user=ANN, product=product_named("product:gold"), stars=1, currency=CURRENCY)
    with pytest.raises(NotFoundError, match="no product"):
        await desk.ledger.check_checkout(unknown)
    assert time.monotonic() - began_s < 10, "all seventeen of them"


async def test_50__what_was_taken_wrongly_all_the_same_is_on_record_and_alerted(desk: Desk) -> None:
    """§15: the amount must equal the price. Telegram took it, so a refusal alone would lose it."""
    answer = await desk.pays("ch-odd", total_amount=499)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "payment")
    assert await desk.stands() == ("DEMO", "100.00", None)
    (line,) = (await desk.gets("payments/history"))["payments"]
    assert (line["status"], line["external_id"], line["amount_minor"]) == ("failed", "ch-odd", 499)
    assert [reading.condition for reading in (await desk.store.reports.watch()).raised] == ["payment-failed:ch-odd"]
    assert (await desk.refunds("ch-odd"))["stars"] == 499
    await desk.store.reports.watch()
    assert await desk.store.reports.alerts(open_only=True) == []
    (line,) = (await desk.gets("payments/history"))["payments"]
    assert line["status"] == "refunded"


async def test_51__a_month_gives_full_access_1000_credits_and_30_days(desk: Desk) -> None:
    assert await desk.stands() == ("DEMO", "100.00", None)
    assert not await desk.may_upload()
    answer = await desk.pays("ch-1")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert await desk.stands() == ("FULL_ACCESS", "1100.00", "FULL_ACCESS")
    assert await desk.ends() == MONTH
    assert await desk.may_upload()


async def test_52__a_charge_that_is_delivered_twice_counts_once(desk: Desk) -> None:
    """At once, later, and after a restart."""
    answers = await asyncio.gather(*(desk.pays("ch-1") for _ in range(10)))
    desk.now += timedelta(hours=1)
    answers.append(await desk.pays("ch-1"))
    await desk.store.close()
    await desk.store.open()
    answers.append(await desk.pays("ch-1"))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert await desk.stands() == ("FULL_ACCESS", "1100.00", "FULL_ACCESS")
    assert await desk.ends() == MONTH
    assert len((await desk.gets("payments/history"))["payments"]) == 1


async def test_53__a_second_purchase_before_the_end_extends_to_60_days(desk: Desk) -> None:
    await desk.pays("ch-1")
    desk.now += timedelta(days=29)
    await desk.pays("ch-2")
    assert await desk.ends() == 2 * MONTH
    assert await desk.stands() == ("FULL_ACCESS", "2100.00", "FULL_ACCESS")


async def test_54__one_second_after_the_end_the_role_is_demo_again_for_policy(desk: Desk) -> None:
    """No job has run: it only tells of it."""
    await desk.pays("ch-1")
    desk.now = NOON + MONTH - SECOND
    assert (await desk.stands(), await desk.may_upload()) == (("FULL_ACCESS", "1100.00", "FULL_ACCESS"), True)
    desk.now = NOON + MONTH + SECOND
    assert (await desk.stands(), await desk.may_upload()) == (("DEMO", "1100.00", None), False)
    for _ in range(2):
        await desk.store.books.note_subscriptions()
    told = [each["kind"] for each in (await desk.gets("credits"))["notices"]]
    assert told == ["subscription_ended"]


async def test_54__an_admin_and_whom_an_operator_gave_full_access_keep_their_role(desk: Desk) -> None:
    await desk.ledger.set_role(ANN, "FULL_ACCESS")
    await desk.pays("ch-1")
    await desk.pays("ch-2", user=LOCAL_ADMIN)
    desk.now = NOON + MONTH + SECOND
    assert await desk.stands() == ("FULL_ACCESS", "1100.00", None)
    assert (await desk.asks("GET", "me", by="root-token")).json()["role"] == "ADMIN"


async def test_55__a_refund_takes_credits_and_days_back(desk: Desk) -> None:
    await desk.pays("ch-1")
    await desk.pays("ch-2")
    desk.now += timedelta(days=10)
    told = await desk.refunds("ch-2")
    assert (told["taken_credits"], told["taken_days"], told["told"]) == ("1000.00", 30, False)
    assert (await desk.stands(), await desk.ends()) == (("FULL_ACCESS", "1100.00", "FULL_ACCESS"), MONTH)
    assert (await desk.refunds("ch-1"))["taken_days"] == 20
    assert await desk.refunds("ch-1") == await desk.refunds("ch-1")
    assert await desk.stands() == ("DEMO", "100.00", None)
    assert [each["status"] for each in (await desk.gets("payments/history"))["payments"]] == ["refunded", "refunded"]


async def test_55__what_was_spent_is_not_taken_and_telegram_is_asked_until_it_was(desk: Desk) -> None:
    await desk.pays("ch-1")
    spent = Adjustment(id="s", user=ANN, amount_ucredits=-850 * 10**6, reason="spent", made_by=LOCAL_ADMIN)
    await desk.ledger.adjust(spent)
    assert (await desk.refunds("ch-1"))["taken_credits"] == "250.00"
    (owed,) = await desk.ledger.untold_star_refunds()
    assert (owed.user, owed.telegram_charge_id, owed.stars) == (ANN, "ch-1", 500)
    await desk.ledger.star_refund_told("ch-1")
    assert await desk.ledger.untold_star_refunds() == []
    assert (await desk.refunds("ch-1"))["told"] is True


async def test_56__with_payments_off_the_endpoints_are_absent(tmp_path: Path) -> None:
    async with open_desk(tmp_path, payments_enabled=False) as desk:
        doors = [
            await desk.asks(method, path, {}, by=token)
            for token in ("ann-token", "root-token", desk.bot_token, "")
            for method, path in (
                ("GET", "payments/products"),
                ("POST", "payments/complete"),
                ("GET", "payments/history"),
                ("GET", "products"),
                ("POST", "admin/payments/refunds"),
            )
        ]
        assert {answer.status_code for answer in doors} == {404}
        with pytest.raises(NotFoundError, match="Nothing is sold here"):
            await desk.ledger.check_checkout(
                StarsCheckout(user=ANN, product="credits_100", stars=50, currency=CURRENCY)
            )
