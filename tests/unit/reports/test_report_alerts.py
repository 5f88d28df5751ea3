"""Alerts: at a threshold, once an hour at most, and until the value has clearly fallen."""

from datetime import datetime, timedelta

import pytest
from counted_world import NOON, World, a_price

from runtime.catalogue.listing import ListedModel
from runtime.entity.vitals import KeyPoolVitals
from runtime.ids import ProjectId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import ModelRow, StarsPayment
from runtime.reports.alerts import Last, Reading, judged, key_readings
from runtime.reports.port import IndexFigures

USD = 1_000_000
"""In tokens."""


async def raised(world: World) -> list[str]:
    return [reading.condition for reading in (await world.store.reports.watch()).raised]


async def open_conditions(world: World) -> list[str]:
    return [alert.condition for alert in await world.store.reports.alerts(open_only=True)]


async def test_spike__raises_one_alert_in_an_hour_and_clears_when_it_is_over(world: World) -> None:
    await world.calls("c1", 6 * USD)
    told = []
    for _ in range(59):
        world.passes(minutes=1)
        told += await raised(world)
    assert told == ["spend"]
    (alert,) = await world.store.reports.alerts(open_only=True)
    assert "6.000000 USD were spent within an hour" in alert.text
    world.passes(minutes=2)
    assert await raised(world) == []
    assert await open_conditions(world) == []
    (alert,) = await world.store.reports.alerts(open_only=False)
    assert (alert.raised_at, alert.cleared_at) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=61))


async def test_spend__up_to_5_dollars_is_nobodys_concern(world: World) -> None:
    await world.calls("c1", 5 * USD)
    assert await raised(world) == []
    await world.calls("c2", 1)
    assert await raised(world) == ["spend"]


async def test_spend__is_compared_with_the_same_hour_of_the_week_before(world: World) -> None:
    """21 dollars in seven days at this hour are 3 a day: 9 are usual enough, more are not. Other hours do not count."""
    await world.buys("one", 100)
    for day in range(7):
        world.now = NOON + timedelta(days=day)
        await world.calls(f"usual {day}", 3 * USD)
        world.passes(hours=3)
        await world.calls(f"other hour {day}", 1 * USD)
    world.now = NOON + timedelta(days=7)
    await world.calls("today", 9 * USD)
    assert await raised(world) == []
    await world.calls("and one more", 1)
    assert await raised(world) == ["spend"]


async def test_call_without_a_price_in_force__is_told_for_each_model(world: World) -> None:
    for model, provider in (("m", "openai"), ("gone", "openai"), ("any", "ollama")):
        await world.calls(model, 1, model=model, provider=provider)
    await world.calls_in_advance("c2", 1)
    await world.store.books.set_prices([a_price("openai", "m"), a_price("ollama", "*")])
    assert await raised(world) == ["no-price:claude/haiku", "no-price:openai/gone"]
    world.passes(minutes=61)
    await world.store.reports.watch()
    assert await open_conditions(world) == []


async def test_price_that_an_administrator_set__counts_from_its_date_until_it_is_withdrawn(world: World) -> None:
    """And it still does after a restart, when the built-in prices are made active anew."""
    await world.calls("c1", 1, model="mine")
    await world.store.books.set_models([a_model("mine", NOON + timedelta(minutes=10))])
    await world.store.books.set_prices([a_price("openai", "built-in")])
    assert await raised(world) == ["no-price:openai/mine"]
    world.passes(minutes=11)
    await world.store.reports.watch()
    assert await open_conditions(world) == []
    await world.store.books.set_models([a_model("mine", world.now, is_active=False)])
    world.passes(minutes=50)
    await world.calls("c2", 1, model="mine")
    assert await raised(world) == ["no-price:openai/mine"]


def a_model(name: str, effective_from: datetime, *, is_active: bool = True) -> ModelRow:
    listing = ListedModel(provider="openai", model=name, is_active=is_active, effective_from=effective_from)
    price = Price(pricing_id=f"{name}@{effective_from}", input_udollars_per_mtok=1, output_udollars_per_mtok=1)
    return ModelRow(
        provider="openai", model=name, effective_from=effective_from, price=price, body=listing.model_dump_json()
    )


@pytest.mark.parametrize(
    ("keys", "cooling", "used_percent", "conditions"),
    [
        (3, 1, None, []),
        (3, 2, None, ["keys-few:openai"]),
        (2, 1, 50, ["keys-few:openai"]),
        (1, 0, 89, []),  # who gave one knows that there is no other
        (1, 1, None, ["keys-few:openai"]),
        (0, 0, None, []),
        (5, 0, 90, ["keys-used:openai"]),
    ],
)
async def test_keys_of_a_provider__are_told_when_few_can_be_used_or_little_of_them_is_left(
    world: World, keys: int, cooling: int, used_percent: int | None, conditions: list[str]
) -> None:
    pool = KeyPoolVitals(provider="openai", keys=keys, cooling=cooling, waiting=0, used_percent=used_percent)
    changes = await world.store.reports.watch(key_readings([pool]))
    assert [reading.condition for reading in changes.raised] == conditions
    mended = KeyPoolVitals(provider="openai", keys=5, cooling=0, waiting=0, used_percent=10)
    await world.store.reports.watch(key_readings([mended]))
    assert await open_conditions(world) == []


async def test_key_that_is_refused__is_told_by_itself_however_many_others_there_are(world: World) -> None:
    pool = KeyPoolVitals(provider="openai", keys=5, cooling=1, waiting=0, refused=("openai-1",))
    changes = await world.store.reports.watch(key_readings([pool]))
    assert [reading.condition for reading in changes.raised] == ["key-refused:openai-1"]
    assert "out of use until it is replaced or enabled" in changes.raised[0].text


async def test_index_that_is_behind__is_told_until_it_came_to_the_newest_commit_or_the_project_is_over(
    world: World,
) -> None:
    for project in ("p1", "p2"):
        await world.happens(project, "project.opened")
        await world.happens(project, "repository.committed", commit="c1", bundle="b")
    world.passes(minutes=10)
    assert await raised(world) == []
    world.passes(seconds=1)
    assert await raised(world) == ["index-lag:p1", "index-lag:p2"]
    await world.store.reports.indexed(
        IndexFigures(project=ProjectId("p1"), commit="c1", chunks=1, update_ms=1, queries=0, query_ms=0, query_ms_max=0)
    )
    await world.happens("p2", "project.finished", status="failed")
    await world.store.reports.watch()
    assert await open_conditions(world) == []


async def test_three_failed_projects_in_an_hour__are_told(world: World) -> None:
    for number in range(3):
        assert await raised(world) == []
        world.passes(minutes=25)
        await world.happens(f"p{number}", "project.opened")
        await world.happens(f"p{number}", "project.finished", status="failed", reason="")
    assert await raised(world) == ["projects-failing"]


async def test_failures_that_are_spread_out__are_not_told(world: World) -> None:
    for number in range(3):
        await world.happens(f"p{number}", "project.finished", status="failed", reason="")
        world.passes(minutes=31)
    assert await raised(world) == []


async def test_stopped_account__is_told_until_it_is_released(world: World) -> None:
    await world.store.books.stop_account(UserId("ann"), "sums differ")
    assert await raised(world) == ["account-stopped:ann"]
    (alert,) = await world.store.reports.alerts(open_only=True)
    assert alert.text == "ann is stopped: sums differ"
    await world.store.books.release_account(UserId("ann"))
    world.passes(minutes=1)
    await world.store.reports.watch()
    assert await open_conditions(world) == []
    await world.store.books.stop_account(UserId("ann"), "again")
    assert await raised(world) == []
    world.passes(minutes=59)
    assert await raised(world) == ["account-stopped:ann"]


async def test_stars_that_bought_nothing__are_told_until_they_are_given_back(world: World) -> None:
    books = world.store.books
    await books.fulfil(stars("good", 50))
    await books.fulfil(stars("odd", 49))
    assert await raised(world) == ["payment-failed:odd"]
    (alert,) = await world.store.reports.alerts(open_only=True)
    assert "49 Stars were taken for odd" in alert.text
    assert "refund-stars odd" in alert.text
    await books.refund_stars("odd", "the wrong amount", UserId("ann"))
    await raised(world)
    assert await open_conditions(world) == []


async def test_refund_of_stars__is_told_where_telegram_does_not_confirm_it(world: World) -> None:
    books = world.store.books
    await books.fulfil(stars("good", 50))
    await books.refund_stars("good", "why", UserId("ann"))
    world.passes(minutes=9)
    assert await raised(world) == []
    world.passes(minutes=1)
    assert await raised(world) == ["refund-untold:good"]
    await books.star_refund_told("good")
    await raised(world)
    assert await open_conditions(world) == []


def stars(charge: str, amount: int) -> StarsPayment:
    return StarsPayment(
        telegram_charge_id=charge, provider_charge_id="", user=UserId("ann"), product="credits_100", stars=amount,
        currency="XTR", at=NOON,
    )  # fmt: skip


def reading(value: int, threshold: int = 100) -> Reading:
    return Reading(condition="c", value=value, threshold=threshold, text="")


@pytest.mark.parametrize(
    ("value", "is_open", "minutes", "outcome"),
    [
        (99, None, 0, ""),
        (100, None, 0, "raised"),
        (100, True, 600, ""),
        (80, True, 600, ""),
        (79, True, 1, "cleared"),
        (100, False, 59, ""),
        (100, False, 60, "raised"),
        (80, False, 600, ""),
    ],
)
def test_condition__has_hysteresis_and_rings_once_an_hour(
    value: int, is_open: bool | None, minutes: int, outcome: str
) -> None:
    last = {} if is_open is None else {"c": Last(alert="a", raised_at=NOON - timedelta(minutes=minutes), open=is_open)}
    changes = judged([reading(value)], last, NOON)
    assert (len(changes.raised), list(changes.cleared)) == (outcome == "raised", ["a"] if outcome == "cleared" else [])


def test_condition_that_is_not_read_any_more__is_over() -> None:
    last = {"c": Last(alert="a", raised_at=NOON, open=True), "d": Last(alert="b", raised_at=NOON, open=False)}
    assert list(judged([], last, NOON).cleared) == ["a"]
