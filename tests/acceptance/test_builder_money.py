"""Lines 21-32, 37, 46, 47, 68, 69 and 74-76 of spec/builder.md §18, over HTTP on one running service.

Each user and model is a test's own. Behind the gateway stands the simulator, which answers as many tokens as it is
asked for; it is also the payment provider, with its page and its signed webhooks. The two lines that need the service
killed or started otherwise come last.
"""

import base64
import csv
import io
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb
import psutil
import pytest

from cluster.simulator.scenario import SCENARIOS
from cluster.wire import Event
from tests.acceptance.shop import Customer, Shop, now, open_shop, until
from tests.e2e.live import Live

SCENARIO = SCENARIOS / "expense_tracker"
PICTURE = base64.b64encode(b"\x89PNG" * 50).decode()
EMBEDDER = "openai/text-embedding-3-small"
WATCHES_S_MAX = 90.0
"""Alerts are looked for every minute."""


def usd(input: str, output: str, **more: str) -> dict[str, Any]:
    """A million tokens."""
    return {"input_cost_per_million_tokens": input, "output_cost_per_million_tokens": output, **more}


PRICES = {
    "m22": usd("1.25", "10.00"),
    "m23": usd("0.14", "0.28"),
    "m24": usd("0.14", "0.28"),
    "m25": usd("1.00", "2.00", image_input_cost_per_image="0.0025"),
    "m26-retired": usd("1", "1"),
    "m27": usd("2.00", "8.00"),
    "m28": usd("0.14", "0.28"),
    "m29": usd("0", "10.00"),
    "m30": usd("1.00", "10.00"),
    "m31": usd("0", "1.00"),
    "m74": usd("3.00", "4.00"),
    "m75": usd("5.00", "20.00"),
    "m76": usd("0", "100.00"),
    "m76-fading": usd("0", "1.00"),
}


@pytest.fixture(scope="module")
def shop(live: Live) -> Iterator[Shop]:
    with open_shop(live) as shop:
        shop.prices(PRICES)
        yield shop


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    customer: Customer

    def comes(self) -> None:
        self.customer.uses("openai/m76", 100, 60_000)


@pytest.fixture(scope="module", autouse=True)
def spike(shop: Shop) -> Spike:
    """It came when the file began: what is looked for once a minute has been looked for when a test asks for it."""
    assert shop.alerts("spend") == []
    spike = Spike(customer=shop.customer(credits="5000"))
    spike.comes()
    return spike


def test_22__a_call_costs_and_deducts_exactly(shop: Shop) -> None:
    customer = shop.customer(credits="500")
    customer.uses("openai/m22", 120_000, 30_000)
    (deduction,) = customer.deductions(1)
    assert (deduction["cost_usd"], deduction["amount_credits"]) == ("0.450000", "-67.50")
    assert customer.wallet()["balance_ucredits"] == 432_500_000


def test_23__a_small_call_is_neither_free_nor_rounded(shop: Shop) -> None:
    customer = shop.customer()
    customer.uses("openai/m23", 2_000, 500)
    (deduction,) = customer.deductions(1)
    assert (deduction["cost_usd"], deduction["amount_credits"]) == ("0.000420", "-0.063")
    assert customer.wallet()["balance_ucredits"] == 99_937_000


def test_25__pictures_add_their_price(shop: Shop) -> None:
    customer = shop.customer()
    model = "openai/m25"
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    content = [{"type": "text", "text": "synthetic image"}, picture, picture, picture]
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 100}
    reply = customer.post("/v1/chat/completions", body)
    assert reply["choices"][0]["message"]["content"].startswith("3 images")
    used = reply["usage"]
    (deduction,) = customer.deductions(1)
    cost_usd = (used["prompt_tokens"] * Decimal(1) + used["completion_tokens"] * Decimal(2)) / 10**6
    cost_usd += 3 * Decimal("0.0025")
    assert Decimal(deduction["cost_usd"]) == cost_usd
    assert deduction["amount_ucredits"] == -int(cost_usd * 150 * 10**6)
    (row,) = usage_rows(shop, customer)
    assert row["images"] == 3


def test_26__a_model_without_an_active_price_is_refused_before_the_call(shop: Shop) -> None:
    """Both a model that never had a price, and one whose price is no longer active."""
    customer = shop.customer()
    retired = "openai/m26-retired"
    shop.prices({"m26-retired": {"is_active": False}})
    for model in ("openai/m26-never", retired):
        refused = customer.asks(model, "synthetic tokens=5", max_tokens=300)
        assert refused.status_code in (400, 422), refused.text
        assert refused.json()["error"]["code"] == "unpriced_model"
    assert {"m26-never", "m26-retired"} & shop.asked_models() == set()
    assert customer.movements() == []


def test_27__each_deduction_names_its_usage_and_its_real_cost(shop: Shop) -> None:
    """The statement on one side; on the other the report of usage, as JSON, CSV and Parquet."""
    since = now()
    customer = shop.customer()
    model = "openai/m27"
    for output_tokens in (11, 22, 33):
        customer.uses(model, 1_000, output_tokens)
    deductions = customer.deductions(3)
    usage = {row["call"]: row for row in usage_rows(shop, customer)}
    assert {move["call"] for move in deductions} == set(usage) <= set(shop.served())
    for move in deductions:
        row = usage[move["call"]]
        cost_pusd = row["input_tokens"] * 2 * 10**6 + row["output_tokens"] * 8 * 10**6
        assert row["cost_pusd"] == cost_pusd
        assert row["charged_ucredits"] == -move["amount_ucredits"]
        assert Decimal(move["cost_usd"]) == Decimal(cost_pusd) / 10**12
        assert (row["task_type"], row["provider"], row["model"], row["outcome"]) == ("chat", "openai", "m27", "ok")

    lines = list(csv.DictReader(io.StringIO(shop.report_file("usage", "csv", since).decode())))
    assert {line["call"]: int(line["cost_pusd"]) for line in lines if line["user"] == customer.user} == {
        call: row["cost_pusd"] for call, row in usage.items()
    }
    file = shop.live.folder / "usage.parquet"
    file.write_bytes(shop.report_file("usage", "parquet", since))
    query = f"SELECT call, cost_pusd FROM '{file}' WHERE \"user\" = '{customer.user}'"
    assert dict(duckdb.sql(query).fetchall()) == {call: row["cost_pusd"] for call, row in usage.items()}


def test_28__the_transactions_are_the_balance_after_a_hundred_concurrent_calls(shop: Shop) -> None:
    customer = shop.customer()
    model = "openai/m28"
    with ThreadPoolExecutor(100) as callers:
        list(callers.map(lambda number: customer.uses(model, 500 + number, 50), range(100)))
    deductions = customer.deductions(100)
    assert len({move["call"] for move in deductions}) == 100
    customer.adds_up()
    assert customer.wallet()["balance_ucredits"] < 100 * 10**6


def test_29__the_balance_is_never_negative_under_calls_that_together_exceed_it(shop: Shop) -> None:
    """Each may cost 1.56 credits and costs 1.50; five are there for twenty."""
    customer = shop.customer(credits="5")
    model = "openai/m29"
    seen: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            wallet = customer.wallet()
            seen.extend((wallet["balance_ucredits"], wallet["balance_ucredits"] - wallet["held_ucredits"]))

    def call(number: int) -> int:
        order = f"synthetic tokens=1000 delay_ms=300 piece_tokens=1000 seed={number}"
        return customer.asks(model, order, max_tokens=1_040).status_code

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(20) as callers:
        statuses = list(callers.map(call, range(20)))
    served = statuses.count(200)
    customer.deductions(served)
    is_over.set()
    watching.join()
    assert set(statuses) == {200, 402}
    assert 3 <= served <= 6
    assert min(seen) >= 0
    assert customer.wallet()["balance_ucredits"] >= 0
    customer.adds_up()


def test_29__an_answer_is_only_as_long_as_the_balance_pays_for(shop: Shop) -> None:
    """DESIGN §4: cut to what is there, which the header tells, and refused where 256 tokens are not there."""
    customer = shop.customer(credits="1")
    answer = customer.asks("openai/m22", "synthetic tokens=5000 piece_tokens=1000", max_tokens=5_000)
    assert answer.status_code == 200, answer.text
    answer_tokens_max = int(answer.headers["x-max-tokens"])
    choice, used = answer.json()["choices"][0], answer.json()["usage"]
    assert (choice["finish_reason"], used["completion_tokens"]) == ("length", answer_tokens_max)
    assert 256 <= answer_tokens_max < 667  # A credit buys 666 tokens of output, and no input.
    customer.deductions(1)
    assert 0 <= customer.wallet()["balance_ucredits"] < 384_000
    customer.is_left_with("0.38")
    refused = customer.asks("openai/m22", "synthetic tokens=5000", max_tokens=5_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "not_enough_credits")
    assert "Buy credits" in refused.json()["error"]["next"]
    customer.deductions(1)


def test_31__crossing_the_threshold_warns_once_and_once_again_after_a_top_up(shop: Shop) -> None:
    """LOW_CREDIT_THRESHOLD is 20. That balances were looked at is seen by others, who have one that must be told."""
    customer = shop.customer(credits="20.2")
    model = "openai/m31"

    def call(_: int) -> None:
        customer.uses(model, 100, 1_000)  # 0.15 credits

    def warnings(of: Customer = customer) -> list[str]:
        return [notice["text"] for notice in of.wallet()["notices"] if notice["kind"] == "low_balance"]

    def balances_are_looked_at() -> None:
        other = shop.customer(credits="19")
        until(lambda: warnings(other))

    with ThreadPoolExecutor(10) as callers:
        list(callers.map(call, range(10)))
    until(warnings)
    call(0)
    customer.deductions(11)
    balances_are_looked_at()
    assert len(warnings()) == 1
    assert "credits are left. Buy credits" in warnings()[0]
    customer.is_left_with("21")
    balances_are_looked_at()
    assert len(warnings()) == 1
    customer.is_left_with("19")
    until(lambda: len(warnings()) == 2)


@pytest.fixture(scope="module")
def told(shop: Shop, spike: Spike) -> dict[str, Any]:
    """The alert of the spike. When it is there, a second one comes, and then a call of a model that loses its price at
    once, which is told as soon as alerts are looked for again."""
    (alert,) = until(lambda: shop.alerts("spend"), WATCHES_S_MAX)
    spike.comes()
    spike.customer.uses("openai/m76-fading", 100, 10)
    spike.customer.deductions(3)
    shop.prices({"m76-fading": {"is_active": False}})
    return alert


def test_76__a_cost_spike_raises_an_alert(told: dict[str, Any]) -> None:
    assert "usual at this time" in told["text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was seen of one build that ran out of credits in the middle of an item, and was paid for then."""

    customer: Customer
    project: str
    events: list[Event]
    paused: Mapping[str, Any]
    """The project when it waited for credits, and its wallet with it."""
    views: list[Mapping[str, Any]]
    """The project as it was shown, again and again until its end."""


@pytest.fixture(scope="module")
def built(shop: Shop) -> Built:
    customer = shop.customer(credits="95")
    run = {"MASTERBUILDER_TOKEN": customer.token}
    ordered = shop.live.run(
        "build", str(SCENARIO / "brief.md"), "--answers", str(SCENARIO / "answers.yaml"), "--yes", "--no-follow",
        "--json", **run,
    )  # fmt: skip
    assert ordered.returncode == 0, ordered.stderr
    project = json.loads(ordered.stdout)["id"]
    shown = f"/api/v1/projects/{project}"
    events: list[Event] = []
    views: list[Mapping[str, Any]] = []
    paused: Mapping[str, Any] = {}
    client = customer.client()

    def look() -> Mapping[str, Any]:
        views.append(customer.get(shown))
        return views[-1]

    for event in client.events(project, 0):
        events.append(event)
        if event.type == "task.started" and not paused:
            paused = until(lambda: exhausted(shop, customer, shown), 120.0)
            assert customer.pays(customer.orders("credits_100")) == [(200, {"credited": True})]
        if event.type in ("package.ready", "project.status"):
            look()
    until(lambda: look()["status"] == "completed")
    return Built(customer=customer, project=project, events=events, paused=paused, views=views)


def exhausted(shop: Shop, customer: Customer, shown: str) -> Mapping[str, Any]:
    """Takes what is free, until the project waits and nothing of it is held; empty before."""
    free = customer.wallet()
    free_ucredits = free["balance_ucredits"] - free["held_ucredits"]
    if free_ucredits > 0:
        amount = f"-{free_ucredits // 10**6}.{free_ucredits % 10**6:06d}"
        body = {"user": customer.user, "amount_credits": amount, "reason": "to see it wait"}
        shop.operator.http("POST", "/api/v1/admin/credits", json=body)
    view: dict[str, Any] = customer.get(shown)
    wallet = customer.wallet()
    is_over = view["status"] == "paused_no_credits" and wallet["held_ucredits"] == 0
    return {**view, "wallet": wallet} if is_over else {}


def test_32__an_exhausted_balance_pauses_and_a_top_up_resumes_the_same_item(built: Built) -> None:
    """The credits come by a payment: nobody says `resume`."""
    paused = built.paused
    assert paused["status"] == "paused_no_credits"
    assert "Buy credits" in paused["question"]
    assert paused["wallet"]["balance_ucredits"] >= 0
    under_way = {task["id"]: task["attempts"] for task in paused["tasks"] if task["state"] == "running"}
    assert under_way
    after = [event for event in built.events if event.seq > paused["last_seq"]]
    for item, attempts in under_way.items():
        again = [
            event.data["attempt"] for event in after if (event.type, event.data.get("task")) == ("task.started", item)
        ]
        ends = [event for event in after if event.data.get("task") == item and event.type.startswith("task.")]
        assert attempts not in again, "the attempt that waited was counted as lost"
        assert ends[-1].type == "task.merged"
    merged = [event.data["task"] for event in built.events if event.type == "task.merged"]
    assert len(merged) == len(set(merged)) == built.views[-1]["tasks_total"]


def test_46__completed_comes_with_its_time_and_only_when_the_package_is_there(built: Built) -> None:
    """By HTTP a project is delivered when its package can be fetched (DESIGN §11, Done)."""
    ready = next(event for event in built.events if event.type == "package.ready")
    finished = next(event for event in built.events if event.type == "project.finished")
    assert ready.seq < finished.seq
    for view in built.views:
        assert (view["completed_at"] is None) == (view["status"] != "completed")
        assert view["status"] != "completed" or view["package"] is not None
    last = built.views[-1]
    assert last["status"] == "completed"
    assert datetime.fromisoformat(last["completed_at"]) == datetime.fromisoformat(finished.at)
    assert datetime.fromisoformat(ready.at) <= datetime.fromisoformat(last["completed_at"])
    archive = built.customer.http("GET", f"/api/v1/projects/{built.project}/package")
    assert (archive.status_code, archive.headers["x-sha256"]) == (200, last["package"]["sha256"])


def test_47__the_projects_cost_is_the_net_of_its_transactions(shop: Shop, built: Built) -> None:
    """Also after the operator gave back what one call was charged."""
    shown = f"/api/v1/projects/{built.project}"

    def net_ucredits() -> int:
        moves = built.customer.get("/api/v1/credits/statement", limit="1000")["movements"]
        return -sum(move["amount_ucredits"] for move in moves if move["project"] == built.project)

    cost = built.customer.get(shown)["spent_ucredits"]
    assert cost == net_ucredits() > 0
    call = next(move["call"] for move in built.customer.movements() if move["project"] == built.project)
    refunded = shop.operator.post("/api/v1/admin/refunds", {"call": call, "reason": "a gap"})
    less = built.customer.get(shown)["spent_ucredits"]
    assert less == net_ucredits() == cost - round(float(refunded["refunded_credits"]) * 10**6)
    built.customer.adds_up()


def test_68__a_payment_that_is_confirmed_twice_credits_once(shop: Shop) -> None:
    """Twice by the provider itself, and later a third time under another signature."""
    customer = shop.customer(credits="7")
    order = customer.orders("credits_500")
    assert customer.pays(order, "twice") == [(200, {"credited": True})] * 2
    assert customer.pays(order) == [(200, {"credited": True})]
    (purchase,) = customer.movements("purchase")
    assert purchase["amount_credits"] == "500.00"
    assert purchase["external_id"]
    assert customer.wallet()["balance_credits"] == "507.00"
    other = customer.confirms(order)
    assert other.status_code == 409, "a second payment of the same order"
    assert customer.wallet()["balance_credits"] == "507.00"


def test_68__stars_that_the_bot_tells_of_twice_credit_once(shop: Shop) -> None:
    """And are taken back once, with the days that they bought."""
    customer = shop.customer(credits="7")
    bot = replace(shop.operator, token=shop.live.bot_token)
    said = {
        "user": customer.user,
        "telegram_payment_charge_id": f"ch-{customer.user}",
        "invoice_payload": "product:full_access_monthly",
        "total_amount": 500,
        "currency": "XTR",
    }
    with ThreadPoolExecutor(8) as telling:
        told = list(telling.map(lambda _: bot.post("/api/v1/payments/complete", said), range(8)))
    assert {each["status"] for each in told} == {"completed"}
    (purchase,) = customer.movements("purchase")
    assert purchase["external_id"] == said["telegram_payment_charge_id"]
    assert customer.wallet()["balance_credits"] == "1007.00"
    assert customer.get("/api/v1/me")["subscription_tier"] == "FULL_ACCESS"
    assert customer.http("POST", "/api/v1/payments/complete", json=said).status_code == 401
    refunded = shop.live.run("credits", "refund-stars", said["telegram_payment_charge_id"], "--reason", "why")
    assert refunded.returncode == 0, refunded.stderr
    assert "1000.00 credits" in refunded.stdout
    assert customer.wallet()["balance_credits"] == "7.00"
    assert customer.get("/api/v1/me")["subscription_tier"] is None
    assert [each["status"] for each in customer.get("/api/v1/payments/history")["payments"]] == ["refunded"]


def test_69__a_webhook_that_is_not_signed_is_rejected(shop: Shop) -> None:
    """Nor one that is signed wrongly, was altered afterwards, or is stale."""
    customer = shop.customer(credits="7")
    order = customer.orders("credits_100")
    rejected = [
        customer.confirms(order, header=""),
        customer.confirms(order, header="t=1,v1=abc"),
        customer.confirms(order, said={"amount_minor": order["amount_minor"] * 10}),
    ]
    assert [answer.status_code for answer in rejected] == [401] * 3
    assert [answer.json()["error"]["charged"] for answer in rejected] == ["No credits were booked."] * 3
    for fault in ("wrong_signature", "late"):
        ((status, body),) = customer.pays(order, fault)
        assert (status, body["error"]["code"]) == (401, "not_authenticated")
    assert customer.movements("purchase") == []
    assert customer.wallet()["balance_credits"] == "7.00"
    assert customer.get(f"/api/v1/payments/orders/{order['order']}")["state"] == "pending"
    assert customer.confirms(order).status_code == 200, "signed well it is believed"


def test_21__every_model_call_is_one_row_of_usage(shop: Shop, built: Built) -> None:
    """All that this service did so far: the architect's calls, the edit engine's and customers', embeddings too."""
    customer = shop.customer()
    embedded = customer.http("POST", "/v1/embeddings", json={"model": EMBEDDER, "input": ["one text", "and another"]})
    assert embedded.status_code == 200, embedded.text
    customer.deductions(1)
    served = shop.served()
    rows = shop.report("usage", datetime.fromtimestamp(0).astimezone())
    by_call = {row["call"]: row for row in rows}
    assert len(by_call) == len(rows)
    assert set(served) <= set(by_call)
    assert {call for call, row in by_call.items() if row["outcome"] == "ok"} <= set(served)
    for call, line in served.items():
        if by_call[call]["outcome"] == "ok":
            used = by_call[call]["input_tokens"], by_call[call]["output_tokens"]
            assert used == (line["prompt_tokens"], line["completion_tokens"]), call
    (embedding,) = [row for row in rows if row["user"] == customer.user]
    assert (embedding["task_type"], served[embedding["call"]]["task"]) == ("code_embedding", "embeddings")
    kinds = {row["task_type"] for row in rows if row["project"] == built.project}
    assert {"clarification", "planning", "coding", "verification", "readme_generation"} <= kinds


def test_37__a_verification_is_one_in_the_usage(shop: Shop, built: Built) -> None:
    """Those calls, as their provider knows them by what they were asked, and no other."""
    verified = {call for call, line in shop.served().items() if line["task"].startswith("verify.")}
    rows = shop.report("usage", datetime.fromisoformat(built.events[0].at))
    told = {row["call"] for row in rows if row["task_type"] == "verification"}
    assert told == verified
    cycles = [each for each in built.events if each.type == "verify.finished" and each.data["phase_number"]]
    assert len(told) >= len(cycles) >= 2


def test_74__spend_by_provider_model_project_and_user_add_up_to_the_same_total(shop: Shop, built: Built) -> None:
    """Over all that this service did so far: several users and models, calls of a project and others."""
    customer = shop.customer()
    customer.uses("openai/m74", 123, 45)
    customer.deductions(1)
    since = datetime.fromisoformat(built.events[0].at)
    lines = list(csv.DictReader(io.StringIO(shop.report_file("spend", "csv", since).decode())))
    told = shop.report("spend", since)
    usage = shop.report("usage", since)
    total_pusd = sum(row["cost_pusd"] for row in usage if row["state"] != "metered")
    for view in ("total", "provider", "model", "project", "user"):
        rows = [row for row in told if row["view"] == view]
        assert sum(row["cost_pusd"] for row in rows) == total_pusd > 0, view
        assert sum(int(line["cost_pusd"]) for line in lines if line["view"] == view) == total_pusd, view
        assert sum(row["calls"] for row in rows) == len(usage), view
    named = {(row["view"], row["name"]): row["cost_pusd"] for row in told}
    assert len([1 for view, _ in named if view == "user"]) >= 2
    assert named["project", built.project] > 0
    assert named["user", customer.user] == named["model", "openai/m74"] == (123 * 3 + 45 * 4) * 10**6


def test_75__profit_is_purchases_less_what_the_providers_cost(shop: Shop) -> None:
    since = now()
    customer = shop.customer()
    price_usd = {
        each["id"]: Decimal(each["price_usd_cents"]) / 100 for each in customer.get("/api/v1/products")["products"]
    }
    for product in ("credits_500", "credits_100"):
        assert customer.pays(customer.orders(product))[0][0] == 200
    model = "openai/m75"
    for number in range(4):
        customer.uses(model, 2_000 + number, 1_000)
    deductions = customer.deductions(4)
    rows = shop.report("profit", since)
    total = next(row for row in rows if row["day"] == "all")
    bought_usd = price_usd["credits_500"] + price_usd["credits_100"]
    cost_usd = sum((Decimal(move["cost_usd"]) for move in deductions), Decimal())
    assert Decimal(total["purchases_usd"]) == bought_usd
    assert Decimal(total["provider_cost_usd"]) == cost_usd
    assert total["losses_pusd"] == 0
    assert Decimal(total["profit_usd"]) == bought_usd - cost_usd
    assert sum(row["profit_pusd"] for row in rows if row["day"] != "all") == total["profit_pusd"]


def test_76__and_exactly_one_within_an_hour(shop: Shop, told: dict[str, Any]) -> None:
    """That alerts were looked for after the second spike too is seen by the one of the price."""
    until(lambda: shop.alerts("no-price:openai/m76-fading"), WATCHES_S_MAX)
    assert shop.alerts("spend") == [told]


def test_30__a_kill_between_call_and_deduction_leads_to_exactly_one_charge(shop: Shop) -> None:
    """The ledger is stopped, so that it cannot book the call whose answer the user has; then everything is killed."""
    customer = shop.customer()
    ledger = psutil.Process(json.loads(shop.live.run("status", "--json").stdout)["store"]["pid"])
    for _ in range(3):
        customer.uses("openai/m30", 1_000, 200)
    before = until(lambda: customer.movements() if len(customer.movements()) == 3 else [])
    ledger.send_signal(signal.SIGSTOP)
    try:
        customer.uses("openai/m30", 1_000, 200)
    finally:
        assert shop.live.kill_everything() > 5
    shop.restart()
    after = customer.deductions(4)
    (late,) = [move for move in after if move not in before]
    assert (late["cost_usd"], late["amount_credits"]) == ("0.003000", "-0.45")
    assert late["call"] in shop.served()
    time.sleep(6)  # Spools of the dead are looked for every five seconds.
    assert customer.deductions(4) == after
    customer.adds_up()


def test_24__another_markup_changes_later_deductions_only(shop: Shop) -> None:
    customer = shop.customer()
    model = "openai/m24"
    customer.uses(model, 2_000, 500)
    (early,) = customer.deductions(1)
    assert early["amount_credits"] == "-0.063"
    shop.live.run("down")
    shop.restart(MARKUP_FACTOR="2.0")
    customer.uses(model, 2_000, 500)
    late, unchanged = customer.deductions(2)
    assert unchanged == early
    assert (late["cost_usd"], late["amount_credits"]) == ("0.000420", "-0.084")
    assert customer.wallet()["balance_ucredits"] == 100 * 10**6 - 63_000 - 84_000


def usage_rows(shop: Shop, customer: Customer) -> list[dict[str, Any]]:
    return [row for row in shop.report("usage", datetime.fromtimestamp(0).astimezone()) if row["user"] == customer.user]
