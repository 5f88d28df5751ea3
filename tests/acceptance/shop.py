"""A running service that sells credits, as its operator and its users reach it: over HTTP, with tokens."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from cluster.client import Client
from runtime.payments.signed import webhook_header
from tests.e2e.live import PAYMENT_SECRET, Live

SETTLED_S_MAX = 90.0
"""What only looks rests fifty times what it took: a look of a second is far apart from the next."""
HOOK = "/api/v1/payments/sim/webhook"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    live: Live
    settings: Mapping[str, str]
    """The variables it was started with, its provider's among them."""

    @property
    def operator(self) -> "Customer":
        return Customer(shop=self, user="local-admin", token=self.live.client_token)

    def restart(self, **changes: str) -> None:
        started = self.live.run("up", **{**self.settings, **changes})
        assert started.returncode == 0, started.stderr

    def customer(self, credits: str = "100") -> "Customer":
        """A new user with so many credits."""
        user = f"u-{uuid.uuid4().hex[:8]}"
        made = self.operator.post("/api/v1/admin/tokens", {"user": user, "role": "FULL_ACCESS"})
        customer = Customer(shop=self, user=user, token=made["token"])
        customer.is_left_with(credits)
        return customer

    def prices(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets them, in USD a million tokens, and waits until all may be called or, where they are inactive, none."""
        facts = {"provider": "openai", "context_tokens": 2_000_000, "abilities": ["chat", "images"]}
        rows = [{**facts, "model": model, **said} for model, said in models.items()]
        self.operator.post("/api/v1/admin/models", {"models": rows})
        active = {f"openai/{row['model']}" for row in rows if row.get("is_active", True)}
        inactive = {f"openai/{row['model']}" for row in rows} - active

        def is_in_force() -> bool:
            listed = self.operator.models()
            return active <= listed and not inactive & listed

        until(is_in_force)

    def report(self, name: str, since: datetime) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.operator.get(f"/api/v1/admin/reports/{name}", since=since.isoformat())["rows"]
        return rows

    def report_file(self, name: str, form: str, since: datetime) -> bytes:
        query = {"since": since.isoformat(), "format": form}
        answer = self.operator.http("GET", f"/api/v1/admin/reports/{name}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.content

    def alerts(self, condition: str) -> list[dict[str, Any]]:
        found = self.operator.get("/api/v1/admin/alerts")["alerts"]
        return [alert for alert in found if alert["condition"] == condition]

    def served(self) -> dict[str, dict[str, Any]]:
        """The simulator's own count: call id -> what it served."""
        lines = map(json.loads, self.live.usage_file.read_text().splitlines())
        return {line["call_id"]: line for line in lines}

    def asked_models(self) -> set[str]:
        """Every model that the simulator was asked for, whatever became of it."""
        root_url = self.settings["OPENAI_BASE_URL"].removesuffix("/v1")
        return {lane["model"] for lane in httpx.get(f"{root_url}/simulator/report").json()["lanes"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    shop: Shop
    user: str
    token: str

    def client(self) -> Client:
        return Client(self.shop.live.url, self.token)

    def http(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}", **request.pop("headers", {})}
        return httpx.request(method, f"{self.shop.live.url}{path}", headers=headers, timeout=60.0, **request)

    def get(self, path: str, **query: str) -> Any:
        answer = self.http("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any], status: int | Sequence[int] = (200, 201, 202)) -> Any:
        answer = self.http("POST", path, json=body)
        assert answer.status_code in ((status,) if isinstance(status, int) else status), answer.text
        return answer.json()

    def models(self) -> set[str]:
        return {model["id"] for model in self.get("/v1/models")["data"]}

    def wallet(self) -> dict[str, Any]:
        wallet: dict[str, Any] = self.get("/api/v1/credits")
        return wallet

    def is_left_with(self, credits: str) -> None:
        """The operator gives or takes the difference."""
        micro = round(float(credits) * 10**6) - self.wallet()["balance_ucredits"]
        if micro:
            amount = f"{'-' if micro < 0 else ''}{abs(micro) // 10**6}.{abs(micro) % 10**6:06d}"
            body = {"user": self.user, "amount_credits": amount, "reason": "for a test"}
            self.shop.operator.post("/api/v1/admin/credits", body)

    def asks(self, model: str, order: str, **said: Any) -> httpx.Response:
        """One call at the gateway; `order` is what the simulator shall answer."""
        body = {"model": model, "messages": [{"role": "user", "content": order}], **said}
        return self.http("POST", "/v1/chat/completions", json=body)

    def uses(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """One call of exactly so many tokens."""
        order = f"synthetic tokens={output_tokens} piece_tokens=1000\n"
        order += "x" * (4 * input_tokens - len("user") - len(order))
        answer = self.asks(model, order, max_tokens=max(1, output_tokens))
        assert answer.status_code == 200, answer.text
        used = answer.json()["usage"]
        assert (used["prompt_tokens"], used["completion_tokens"]) == (input_tokens, output_tokens)

    def movements(self, type: str = "usage_deduction") -> list[dict[str, Any]]:
        """Newest first."""
        moves = self.get("/api/v1/credits/statement", limit="1000")["movements"]
        return [move for move in moves if move["type"] == type]

    def deductions(self, number: int) -> list[dict[str, Any]]:
        """So many, once they are booked and nothing is held any more."""

        def found() -> list[dict[str, Any]]:
            booked = self.movements()
            return booked if len(booked) >= number and not self.wallet()["held_ucredits"] else []

        booked = until(found)
        assert len(booked) == number
        return booked

    def adds_up(self) -> None:
        """All that changed the wallet is what is in it."""
        moves = self.get("/api/v1/credits/statement", limit="1000")["movements"]
        assert sum(move["amount_ucredits"] for move in moves) == self.wallet()["balance_ucredits"]

    def orders(self, product: str) -> dict[str, Any]:
        order: dict[str, Any] = self.post("/api/v1/payments/sim/orders", {"product": product})
        return order

    def pays(self, order: Mapping[str, Any], fault: str = "") -> list[tuple[int, Any]]:
        """At the provider's page; what the service said to each of its confirmations."""
        url = order["checkout_url"].replace("/pay?", "/pay/confirm?")
        answer = httpx.post(f"{url}&fault={fault}", timeout=60.0)
        assert answer.status_code == 200, answer.text
        return [(each["status"], json.loads(each["body"])) for each in answer.json()["deliveries"]]

    def confirms(
        self, order: Mapping[str, Any], *, said: Mapping[str, Any] | None = None, header: str | None = None
    ) -> httpx.Response:
        """A confirmation of `order`; signed as the provider does it, unless a `header` is given. `said` is put into its
        body after it was signed."""
        names = ("order", "product", "amount_minor", "currency")
        told = {"event": "paid", "external_id": f"x-{order['order']}", **{name: order[name] for name in names}}
        signed = webhook_header(PAYMENT_SECRET.encode(), int(time.time()), json.dumps(told).encode())
        body = json.dumps({**told, **(said or {})}).encode()
        headers = {"x-signature": signed if header is None else header}
        return httpx.post(f"{self.shop.live.url}{HOOK}", content=body, headers=headers, timeout=60.0)


def until(found: Callable[[], T], within_s: float = SETTLED_S_MAX) -> T:
    """What it finds, as soon as it finds something."""
    deadline_s = time.monotonic() + within_s
    while not (what := found()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s"
        time.sleep(0.1)
    return what


def now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def open_shop(live: Live) -> Iterator[Shop]:
    unbound = {"FULL_DAILY_USD_CAP": "none", "RATE_LIMIT_FULL_PER_MINUTE": "1000000"}
    settings = {**live.start_shop(), **unbound}
    shop = Shop(live=live, settings=settings)
    shop.restart()
    yield shop
