"""Reports against figures that were added up by hand."""

import asyncio
import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from counted_world import NOON, World, a_hold, a_meter, a_price

from runtime.errors import BadInputError, NotFoundError
from runtime.ids import CallId, ProjectId, UserId
from runtime.ledger.port import CallRefund, Repayment
from runtime.reports.listing import REPORTS
from runtime.reports.port import Asked, Feedback, IndexFigures

CENT = 10**10
"""In picodollars."""


async def a_busy_day(world: World) -> None:
    """11 cents are owed: 3 + 2 to openai for chats, 1 + 1 to claude, 4 for a step; one cent of claude's is a loss."""
    await world.happens("p1", "project.opened")
    await world.calls("c1", 30_000, project="p1")
    await world.calls("c2", 20_000, user="bob", model="n")
    await world.calls_in_advance("c3", 10_000, user="bob")
    await world.calls_in_advance("c4", 10_000, known=False)
    await world.step("p1", "T-001", 1, {"m": 25_000, "n": 15_000})
    await world.step("p1", "T-002", 1, {"m": 7_000}, ends="")


async def test_spend__adds_up_to_the_same_total_in_each_view(world: World) -> None:
    await a_busy_day(world)
    rows = await world.report("spend")
    for view in ("total", "provider", "model", "project", "user"):
        of_view = [row for row in rows if row["view"] == view]
        assert sum(row["cost_pusd"] for row in of_view) == 11 * CENT, view
        assert sum(row["of_it_losses_pusd"] for row in of_view) == 1 * CENT, view
        assert sum(row["pending_cost_pusd"] for row in of_view) == 7 * CENT // 10, view
        assert (sum(row["calls"] for row in of_view), sum(row["pending_calls"] for row in of_view)) == (6, 1)
    cents = {(row["view"], row["name"]): row["cost_pusd"] / CENT for row in rows}
    assert cents == {
        ("total", "all"): 11, ("provider", "openai"): 9, ("provider", "claude"): 2, ("model", "openai/m"): 5.5,
        ("model", "openai/n"): 3.5, ("model", "claude/haiku"): 2, ("project", "p1"): 7, ("project", "(none)"): 4,
        ("user", "ann"): 8, ("user", "bob"): 3,
    }  # fmt: skip
    assert rows[0]["cost_usd"] == "0.110000"


async def test_spend__is_what_the_transfers_owe_providers(world: World) -> None:
    await a_busy_day(world)
    ((owed,),) = await world.sql("SELECT sum(balance)::HUGEINT FROM accounts WHERE account LIKE 'provider:%'")
    assert owed == (await world.report("spend"))[0]["cost_pusd"]


async def test_step_that_was_cut_off__is_a_loss_and_costs_no_credits(world: World) -> None:
    await world.happens("p1", "project.opened")
    await world.step("p1", "T-001", 1, {"m": 40_000}, ends="abandon")
    total = (await world.report("spend"))[0]
    assert (total["cost_pusd"], total["of_it_losses_pusd"]) == (4 * CENT, 4 * CENT)
    day = (await world.report("profit"))[0]
    assert (day["provider_cost_pusd"], day["losses_pusd"], day["profit_pusd"]) == (0, 4 * CENT, -4 * CENT)
    (use, _) = await world.report("consumption")
    assert (use["charged_ucredits"], use["cost_pusd"]) == (0, 4 * CENT)


async def test_period__begins_with_since_and_ends_before_until(world: World) -> None:
    await world.calls("c1", 10_000)
    world.passes(hours=1)
    await world.calls("c2", 20_000)
    later = NOON + timedelta(hours=1)
    assert (await world.report("spend", until=later))[0]["cost_pusd"] == 1 * CENT
    assert (await world.report("spend", since=later))[0]["cost_pusd"] == 2 * CENT
    assert await world.report("spend", since=later + timedelta(seconds=1)) == []
    with pytest.raises(BadInputError):
        await world.report("spend", since=later, until=later)


async def test_profit__is_purchases_less_repayments_cost_and_losses_by_day(world: World) -> None:
    await world.buys("one", 20)
    await world.buys("two", 5, user="bob")
    await a_busy_day(world)
    world.passes(days=1)
    await world.store.books.repay(Repayment(provider="stripe", external_id="two", reason="asked"))
    await world.calls("c9", 50_000)
    first, second, total = await world.report("profit")
    assert (first["day"], second["day"], total["day"]) == ("2026-11-18", "2026-11-19", "all")
    assert first["profit_pusd"] == 25 * 10**12 - 11 * CENT
    assert (first["provider_cost_pusd"], first["losses_pusd"]) == (10 * CENT, 1 * CENT)
    assert second["profit_pusd"] == -5 * 10**12 - 5 * CENT
    assert second["profit_usd"] == "-5.050000"
    assert total["profit_pusd"] == 20 * 10**12 - 16 * CENT
    ((income, cost),) = await world.sql(
        "SELECT sum(balance) FILTER (account = 'platform:income')::HUGEINT, "
        "sum(balance) FILTER (account LIKE 'provider:%')::HUGEINT FROM accounts"
    )
    assert total["profit_pusd"] == income - cost


async def test_consumption__says_where_credits_go(world: World) -> None:
    await a_busy_day(world)
    await world.store.books.refund_call(CallRefund(call=CallId("c1"), reason="wrong", made_by=UserId("root")))
    rows = await world.report("consumption")
    use = {(row["task_type"], row["model"]): row for row in rows if row["part"] == "use"}
    assert {key: row["charged_ucredits"] for key, row in use.items()} == {
        ("chat", "openai/m"): 4_500_000, ("chat", "openai/n"): 3_000_000, ("chat", "claude/haiku"): 1_500_000,
        ("coding", "openai/m"): 3_750_000, ("coding", "openai/n"): 2_250_000,
    }  # fmt: skip
    assert use["chat", "openai/m"]["refunded_ucredits"] == 4_500_000
    assert use["chat", "openai/m"]["share_percent"] == 30.0
    (step,) = [row for row in rows if row["part"] == "most expensive step"]
    assert (step["project"], step["task"], step["attempt"], step["charged_credits"]) == ("p1", "T-001", 1, "6.00")
    assert step["model"] == "openai/m openai/n"


async def test_pricing__compares_with_the_markup_and_names_prices_that_are_missing_or_stale(world: World) -> None:
    await world.calls("c1", 30_000)
    await world.calls("c2", 10_000, model="gone")
    await world.calls("c3", 10_000, model="local", provider="ollama")
    await world.calls_in_advance("c4", 10_000, known=False)
    await world.store.books.set_prices(
        [a_price("openai", "m"), a_price("ollama", "*"), a_price("claude", "haiku"), a_price("openai", "old")]
    )
    await world.writes(
        "UPDATE model_pricing SET effective_from = TIMESTAMPTZ '2026-08-01 00:00:00+00' WHERE model = 'old'"
    )
    await world.writes(
        "UPDATE model_pricing SET effective_from = TIMESTAMPTZ '2026-11-01 00:00:00+00' WHERE model <> 'old'"
    )
    rows = {row["model"]: row for row in await world.report("pricing")}
    assert {model: row["price"] for model, row in rows.items()} == {
        "openai/gone": "missing", "openai/old": "stale", "openai/m": "active", "ollama/local": "active",
        "claude/haiku": "active",
    }  # fmt: skip
    assert rows["openai/m"]["charged_pusd"] == 45 * CENT // 10
    assert (rows["openai/m"]["realised_markup"], rows["openai/m"]["markup_factor"]) == (1.5, 1.5)
    assert rows["claude/haiku"]["realised_markup"] == 0.0
    assert (rows["openai/old"]["calls"], rows["openai/old"]["realised_markup"]) == (0, None)


async def test_churn__says_who_ran_out_and_what_they_did_then(world: World) -> None:
    for user in ("ann", "bob"):
        await world.calls(f"{user}-1", 6_550_000, user=user)
    world.passes(days=2)
    await world.buys("again", 10, user="bob")
    await world.calls("bob-2", 10_000, user="bob")
    world.passes(days=2)
    rows = {row["user"]: row for row in await world.report("churn")}
    assert (rows["ann"]["offer"], rows["bob"]["offer"]) == ("now", "no: bought again")
    assert (rows["ann"]["balance_credits"], rows["ann"]["ran_out_at"]) == ("17.50", "2026-11-18T12:00:00Z")
    bob = rows["bob"]
    assert (bob["purchases_later"], bob["bought_later_credits"], bob["days_to_purchase"]) == (1, "1000.00", 2.0)
    assert (bob["calls_later"], bob["last_active_at"]) == (1, "2026-11-20T12:00:00Z")
    world.passes(days=-1.5)
    assert {row["user"]: row["offer"] for row in await world.report("churn")}["ann"] == "wait: still active"


async def test_completion__is_rates_and_times(world: World) -> None:
    for project, end, minutes in (("p1", "completed", 10), ("p2", "completed", 30), ("p3", "failed", 5), ("p4", "", 1)):
        await world.happens(project, "project.opened")
        world.passes(minutes=1)
        await world.happens(project, "project.status", status="implementing", text="")
        world.passes(minutes=minutes)
        if end:
            await world.happens(project, "project.finished", status=end, reason="")
    rows = {(row["part"], row["name"]): row for row in await world.report("completion")}
    rate = rows["rate", "completed of all that ended"]
    assert (rate["projects"], rate["share_percent"]) == (2, 66.7)
    assert (rows["status", "completed"]["share_percent"], rows["status", "implementing"]["projects"]) == (50.0, 1)
    total = rows["total time", "completed"]
    assert (total["mean_s"], total["median_s"], total["max_s"]) == (1260.0, 1260.0, 1860.0)
    stage = rows["time in stage", "implementing"]
    assert (stage["projects"], stage["mean_s"], stage["max_s"]) == (3, 900.0, 1800.0)
    stages = {name for part, name in rows if part == "time in stage"}
    assert stages == {"gathering_requirements", "implementing"}


async def test_agents__are_judged_by_verdicts_and_rework(world: World) -> None:
    await world.happens("p1", "project.opened")
    for task, attempt, end, model in (
        ("T-001", 1, "rejected", "m"), ("T-001", 2, "merged", "n"), ("T-002", 1, "merged", "m"), ("T-003", 1, "", "m"),
    ):  # fmt: skip
        await world.happens("p1", "task.started", task=task, attempt=attempt)
        await world.step("p1", task, attempt, {model: 10})
        world.passes(seconds=30)
        if end:
            await world.happens("p1", f"task.{end}", task=task, attempt=attempt, commit="c", bundle="b")
    for phase, cycle, verdict in ((1, 1, "fail"), (1, 2, "pass"), (0, 1, "pass")):
        step, task_type = ("verify.phase P1", "verification") if phase else ("qa.review", "review")
        await world.step("p1", step, cycle, {"judge": 10}, task_type=task_type)
        await world.happens(
            "p1", "verify.finished", phase_number=phase, round=cycle, items=2, verdict=verdict, commit="c", bundle="b"
        )
    rows = {(row["part"], row["name"]): row for row in await world.report("agents")}
    assert _figures(rows["verification", "phase"]) == (2, 1, 1, 50.0, 4, None, None)
    assert _figures(rows["verification", "final review"]) == (1, 1, 0, 100.0, 2, None, None)
    assert _figures(rows["verification by model", "openai/judge"]) == (3, 2, 1, 66.7, 6, None, None)
    assert _figures(rows["items", "all"]) == (3, 2, 1, 66.7, 2, 0.5, 45.0)
    assert _figures(rows["items by model", "openai/m"]) == (2, 1, 1, 50.0, 2, 0.0, 30.0)
    assert _figures(rows["items by model", "openai/n"]) == (1, 1, 0, 100.0, 1, 0.0, 30.0)


def _figures(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        row[name]
        for name in (
            "tries",
            "passed",
            "failed",
            "passed_percent",
            "items",
            "rework_rounds_per_item",
            "seconds_per_item",
        )
    )


async def test_satisfaction__is_a_trend_by_week(world: World) -> None:
    for number, (score, days) in enumerate(((2, 0), (4, 0), (5, 7))):
        world.now = NOON + timedelta(days=days)
        await world.happens(f"p{number}", "project.opened")
        await world.store.reports.rate(Feedback(project=ProjectId(f"p{number}"), user=UserId("ann"), score=score))
    rows = await world.report("satisfaction")
    assert [(row["week_from"], row["scores"], row["score_mean"], row["score_change"]) for row in rows] == [
        ("2026-11-16", 2, 3.0, None), ("2026-11-23", 1, 5.0, 2.0), ("all", 3, 3.67, None),
    ]  # fmt: skip


async def test_feedback__is_the_last_one_given_and_its_text_is_sealed(world: World) -> None:
    await world.happens("p1", "project.opened")
    said = Feedback(project=ProjectId("p1"), user=UserId("ann"), score=2, text="slow, at first")
    await world.store.reports.rate(said)
    world.passes(hours=1)
    await world.store.reports.rate(replace(said, score=5, text="it grew on me"))
    (given,) = await world.store.reports.feedback()
    assert (given.feedback, given.at) == (replace(said, score=5, text="it grew on me"), world.now)
    assert [row["score_mean"] for row in await world.report("satisfaction")] == [5.0, 5.0]
    ((sealed,),) = await world.sql("SELECT text_sealed FROM project_feedback")
    assert b"grew" not in sealed


@pytest.mark.parametrize(
    ("user", "score", "error"), [("bob", 3, NotFoundError), ("ann", 0, BadInputError), ("ann", 6, BadInputError)]
)
async def test_feedback__of_a_stranger_or_off_the_scale_is_refused(
    world: World, user: str, score: int, error: type[Exception]
) -> None:
    await world.happens("p1", "project.opened")
    with pytest.raises(error):
        await world.store.reports.rate(Feedback(project=ProjectId("p1"), user=UserId(user), score=score))
    assert await world.store.reports.feedback() == []


async def test_index__is_how_long_commits_waited_and_how_fast_it_worked(world: World) -> None:
    """Of three commits the second was passed over; the third is not indexed yet."""
    for commit in ("c1", "c2", "c3", "c4"):
        await world.happens("p1", "repository.committed", commit=commit, bundle="b")
        world.passes(seconds=4)
        if commit in ("c1", "c3"):
            await world.store.reports.indexed(figures("p1", commit, update_ms=100 if commit == "c1" else 300))
            await world.store.reports.indexed(figures("p1", commit, update_ms=9_999))
    assert await world.report("index") == [
        {
            "project": "p1", "commits": 4, "indexed": 3, "newest_commit_at": "2026-11-18T12:00:12Z", "chunks": 7,
            "update_ms_mean": 200.0, "update_ms_max": 300, "lag_s_mean": 5.333, "lag_s_max": 8.0, "queries": 6,
            "query_ms_mean": 10.0, "query_ms_max": 20,
        }
    ]  # fmt: skip
    await world.happens("p2", "repository.committed", commit="c1", bundle="b")
    (fresh, _) = await world.report("index")
    assert (fresh["indexed"], fresh["chunks"], fresh["lag_s_mean"], fresh["queries"]) == (0, None, None, 0)


def figures(project: str, commit: str, update_ms: int) -> IndexFigures:
    return IndexFigures(
        project=ProjectId(project), commit=commit, chunks=7, update_ms=update_ms, queries=3, query_ms=30,
        query_ms_max=20,
    )  # fmt: skip


@pytest.mark.parametrize("name", [report.name for report in REPORTS])
async def test_amounts__are_exact_in_every_report_and_file(world: World, name: str) -> None:
    await a_busy_day(world)
    await world.buys("one", 20)
    table = await world.store.reports.report(Asked(name=name))
    text = (await world.store.reports.report_file(Asked(name=name), "csv")).decode()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == list(table.columns)
    assert len(rows) == len(table.rows)
    kinds = await _parquet(world, await world.store.reports.report_file(Asked(name=name), "parquet"), "DESCRIBE FROM")
    assert [column for column, *_ in kinds] == list(table.columns)
    for column, kind, *_ in kinds:
        if column.endswith(("_pusd", "_ucredits")):
            assert kind == "DECIMAL(38,0)", column
        if column.endswith(("_usd", "_credits")):
            assert kind == "VARCHAR", column


async def test_parquet__keeps_what_no_float_can(world: World) -> None:
    """More than 2**53 picodollars, to the last one."""
    await world.buys("one", 9_100)
    await world.calls("c1", 1)
    data = await world.store.reports.report_file(Asked(name="profit"), "parquet")
    expected = 9_100 * 10**12 - 10**6
    assert (await _parquet(world, data, "SELECT profit_pusd::HUGEINT FROM"))[0] == (expected,)
    assert (await world.report("profit"))[0]["profit_pusd"] == expected
    assert str(expected) in (await world.store.reports.report_file(Asked(name="profit"), "csv")).decode()


async def _parquet(world: World, data: bytes, statement: str) -> list[tuple[Any, ...]]:
    path = world.store._database.data_dir / "read.parquet"
    path.write_bytes(data)
    with duckdb.connect() as connection:
        return connection.execute(f"{statement} '{path}'").fetchall()


async def test_file__is_not_left_behind(world: World, tmp_path: Path) -> None:
    await asyncio.gather(*(world.store.reports.report_file(Asked(name="spend"), "csv") for _ in range(5)))
    assert list((tmp_path / "reports.tmp").iterdir()) == []


async def test_database__writes_no_other_folder(world: World, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "blobs", tmp_path.parent):
        with pytest.raises(duckdb.PermissionException):
            await world.writes(f"COPY (SELECT 1) TO '{folder}/stolen.csv'")


async def test_csv__runs_nothing_in_a_spreadsheet_and_keeps_negative_amounts(world: World) -> None:
    await world.store.books.open_wallet(UserId("=cmd()"), is_admin=False)
    await world.calls("c1", 10_000, user="=cmd()")
    assert "\nuser,'=cmd()," in (await world.store.reports.report_file(Asked(name="spend"), "csv")).decode()
    assert ",-0.010000," in (await world.store.reports.report_file(Asked(name="profit"), "csv")).decode()


async def test_unknown_name__is_refused_with_those_that_exist(world: World) -> None:
    for ask in (world.store.reports.report(Asked(name="x")), world.store.reports.report_file(Asked(name="x"), "csv")):
        with pytest.raises(NotFoundError, match="completion, satisfaction, agents, index, spend"):
            await ask


async def test_held_call__costs_nothing_yet(world: World) -> None:
    await world.store.books.hold(a_hold("c1", 10_000, "ann", "openai", "m"))
    assert await world.report("spend") == []
    assert await world.report("profit", since=datetime(2026, 11, 1, tzinfo=UTC)) == [
        {**dict.fromkeys((await world.report("profit"))[0]), "day": "all", **_NOTHING}
    ]
    await world.store.books.meter(a_meter("c1", 1))


_NOTHING = {
    f"{name}_{unit}": zero
    for name in ("purchases", "repaid", "provider_cost", "losses", "profit")
    for unit, zero in (("pusd", 0), ("usd", "0.000000"))
}
