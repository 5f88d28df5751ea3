"""From an order over the simulated payment page and its webhook to the wallet, over real sockets."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from cluster.environment import PAYMENT_SECRET_VARIABLE
from cluster.simulator.payments import payment_setup
from cluster.simulator.server import Simulator
from runtime.config import Settings
from runtime.errors import BadInputError
from runtime.ids import EntityId, UserId, user_entity
from runtime.ledger.money import Tariff
from runtime.ledger.port import NewToken
from runtime.payments.secrets import PaymentSecrets
from runtime.payments.terms import parse_providers
from runtime.session.messages import Admit
from runtime.session.session import ToppedUp
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from serve_apps.api_routes import create_app

ANN = UserId("ann")
SECRET = "2f6c1a90b7d84e53a1c09f7e64d2b8355c0e9a71"


class Sessions:
    """Hear that credits came."""

    def __init__(self) -> None:
        self.told: list[tuple[EntityId, Any]] = []

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> None:
        if not isinstance(message, Admit):
            self.told.append((entity, message))


@dataclass
class Shop:
    """A service and a simulator that know each other."""

    settings: Settings
    entities: Sessions = field(default_factory=Sessions)
    ledger: MemoryLedger = field(default_factory=lambda: MemoryLedger(Tariff(), 0))
    api: httpx.AsyncClient = field(init=False)
    page: httpx.AsyncClient = field(init=False)

    async def order(self) -> str:
        answer = await self.api.post("/api/v1/payments/simulator/orders", json={"product": "credits_500"})
        url: str = answer.json()["checkout_url"]
        return url

    async def pay(self, url: str, fault: str = "") -> list[tuple[int, Any]]:
        confirm = url.replace("/pay?", "/pay/confirm?") + (f"&fault={fault}" if fault else "")
        answer = await self.page.post(confirm)
        assert answer.status_code == 200, answer.text
        return [(each["status"], json.loads(each["body"])) for each in answer.json()["deliveries"]]

    async def credits(self) -> float:
        return (await self.ledger.balance(ANN)).balance_ucredits / 10**6


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(Settings(data_dir=tmp_path / "data"))
    made.settings.data_dir.mkdir()
    await made.ledger.add_token(NewToken(token_sha256=token_hash("ann-token"), user=ANN, kind="user", label=""))
    transport = httpx.ASGITransport(app=create_app(made))  # type: ignore[arg-type]
    headers = {"authorization": "Bearer ann-token"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as made.api:

        async def forward(request: web.Request) -> web.Response:
            signature = {"x-signature": request.headers.get("X-Signature", "")}
            answer = await made.api.post(request.path, content=await request.read(), headers=signature)
            return web.Response(status=answer.status_code, body=answer.content)

        application = web.Application()
        application.router.add_post("/{path:.*}", forward)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        payments = payment_setup(
            f"http://127.0.0.1:{port}/api/v1/payments/simulator/webhook", {PAYMENT_SECRET_VARIABLE: SECRET}
        )
        try:
            async with (
                Simulator(usage_file=tmp_path / "usage.jsonl", payments=payments) as simulator,
                httpx.AsyncClient() as made.page,
            ):
                provider = {
                    "id": "simulator",
                    "page_url": f"{simulator.root_url}/pay",
                    "secret_variable": "PAY_SECRET",
                }
                text = json.dumps([provider])
                made.settings = Settings(
                    data_dir=made.settings.data_dir, payments_enabled=True, payment_providers_json=text
                )
                PaymentSecrets(made.settings.data_dir, {"PAY_SECRET": SECRET}).keep(parse_providers(text))
                yield made
        finally:
            await runner.cleanup()


async def test_page__shows_the_order_and_its_button_pays_it(shop: Shop) -> None:
    url = await shop.order()
    page = await shop.page.get(url)
    assert page.status_code == 200
    assert "credits_500: 400 USD" in page.text
    assert await shop.pay(url) == [(200, {"credited": True})]
    assert await shop.credits() == 500


async def test_confirmation_sent_twice__credits_once(shop: Shop) -> None:
    assert await shop.pay(await shop.order(), "twice") == [(200, {"credited": True})] * 2
    assert await shop.credits() == 500
    assert set(shop.entities.told[1:]) <= {(user_entity(ANN), ToppedUp())}
    assert shop.entities.told[0] == (user_entity(ANN), ToppedUp())


@pytest.mark.parametrize(("fault", "status"), [("late", 401), ("wrong_signature", 401), ("wrong_amount", 409)])
async def test_confirmation_with_a_fault__is_refused_and_the_order_can_still_be_paid(
    shop: Shop, fault: str, status: int
) -> None:
    url = await shop.order()
    ((told, _),) = await shop.pay(url, fault)
    assert told == status
    assert await shop.credits() == 0
    assert await shop.pay(url) == [(200, {"credited": True})]
    assert await shop.credits() == 500


async def test_payment_that_fails_and_one_that_goes_back__bring_no_credits(shop: Shop) -> None:
    url = await shop.order()
    assert await shop.pay(url, "failed") == [(200, {"credited": False})]
    await shop.pay(url)
    assert await shop.pay(url, "refunded") == [(200, {"credited": False})]
    assert await shop.credits() == 0


async def test_address_that_was_changed__opens_no_page(shop: Shop) -> None:
    url = (await shop.order()).replace("amount_minor=400", "amount_minor=1")
    assert (await shop.page.get(url)).status_code == 403
    assert (await shop.page.post(url.replace("/pay?", "/pay/confirm?"))).status_code == 403


async def test_fault_that_is_none__is_refused(shop: Shop) -> None:
    url = (await shop.order()).replace("/pay?", "/pay/confirm?")
    assert (await shop.page.post(f"{url}&fault=x")).status_code == 400


async def test_simulator_without_a_webhook__has_no_page(tmp_path: Path) -> None:
    assert payment_setup(None, {}) is None
    async with Simulator(usage_file=tmp_path / "usage.jsonl") as simulator, httpx.AsyncClient() as client:
        assert (await client.get(f"{simulator.root_url}/pay")).status_code == 404


def test_simulator_without_a_secret__does_not_start() -> None:
    with pytest.raises(BadInputError, match=PAYMENT_SECRET_VARIABLE):
        payment_setup("http://127.0.0.1:8000/api/v1/payments/simulator/webhook", {})
