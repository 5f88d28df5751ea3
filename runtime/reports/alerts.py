"""What an operator is to know at once. Source: spec/builder.md §12.

A condition is measured every minute as a value against a threshold. At the threshold an alert is raised, one at a time
and one an hour at most; it is cleared when the value has fallen below four fifths of the threshold, so that a value
which trembles around it does not ring again and again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from runtime.entity.vitals import KeyPoolVitals
from runtime.ledger.money import PUSD_PER_USD, usd_text
from runtime.ledger.records import at_us
from runtime.reports.port import Alert
from runtime.store.database import Database
from runtime.store.queries import fetch_all
from runtime.store.transaction import Transaction

HOUR = timedelta(hours=1)
SPEND_MIN_PUSD = 5 * PUSD_PER_USD
SPEND_TIMES = 3
SPEND_DAYS = 7
FAILED_PROJECTS = 3
INDEX_LAG_S = 600
REFUND_UNTOLD = timedelta(minutes=10)
"""How long the bot may take to have Telegram give Stars back."""
KEYS_MIN = 2
"""Usable keys of a provider."""
KEYS_USED_PERCENT = 90
LISTED_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a condition is now: at `threshold` it is one to be told of. `text` says it to people."""

    condition: str
    value: int
    threshold: int
    text: str

    @property
    def calls(self) -> bool:
        return self.value >= self.threshold

    @property
    def is_over(self) -> bool:
        return self.value * 5 < self.threshold * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The newest alert of a condition."""

    alert: str
    raised_at: datetime
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    raised: Sequence[Reading]
    cleared: Sequence[str]
    """Alerts, by their ids."""


def judged(readings: Sequence[Reading], last: Mapping[str, Last], now: datetime) -> Changes:
    """A condition that is not read any more is over."""
    read = {reading.condition: reading for reading in readings}
    return Changes(
        raised=[reading for reading in readings if reading.calls and _may_be_raised(last.get(reading.condition), now)],
        cleared=[
            known.alert
            for condition, known in last.items()
            if known.open and (condition not in read or read[condition].is_over)
        ],
    )


def key_readings(pools: Sequence[KeyPoolVitals]) -> list[Reading]:
    """Whoever gave a provider one key knows that there is no other: then only its loss is told."""
    readings = []
    for pool in pools:
        usable = pool.keys - pool.cooling
        wanted = min(KEYS_MIN, pool.keys)
        readings.append(
            Reading(
                condition=f"keys-few:{pool.provider}",
                value=max(0, wanted - usable),
                threshold=1,
                text=f"{usable} of {pool.keys} keys of {pool.provider} are usable: `masterbuilder keys list` says why.",
            )
        )
        readings += [
            Reading(
                condition=f"key-refused:{key_id}",
                value=1,
                threshold=1,
                text=f"{pool.provider} refuses the key {key_id}: it is out of use until it is replaced or enabled.",
            )
            for key_id in pool.refused
        ]
        if pool.used_percent is not None:
            readings.append(
                Reading(
                    condition=f"keys-used:{pool.provider}",
                    value=pool.used_percent,
                    threshold=KEYS_USED_PERCENT,
                    text=f"{pool.used_percent} % of what the keys of {pool.provider} may do in a minute are used: "
                    "`masterbuilder keys add` adds one.",
                )
            )
    return readings


class Alerts:
    """Keeps the table `alerts`. Who stands on it must not run `watch` twice at once."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def alerts(self, open_only: bool) -> Sequence[Alert]:
        values = {"open_only": open_only, "limit": LISTED_MAX}
        rows = await self._database.rows("alerts", values)
        return [
            Alert(
                alert=alert,
                condition=condition,
                text=text,
                raised_at=at_us(raised_us),
                cleared_at=at_us(cleared_us) if cleared_us is not None else None,
            )
            for alert, condition, text, raised_us, cleared_us in rows
        ]

    async def watch(self, more: Sequence[Reading] = ()) -> Changes:
        """Looks once, and raises and clears what is due, also of `more`, which the database does not know."""
        now = self._clock()
        readings, last = await self._database.read_long(lambda connection: (_read(connection, now), _last(connection)))
        changes = judged([*readings, *more], last, now)

        def act(tx: Transaction) -> None:
            for alert in changes.cleared:
                tx.execute("clear_alert", alert=alert, cleared_at=now)
            for reading in changes.raised:
                tx.execute(
                    "add_alert",
                    alert=f"{reading.condition}@{now.isoformat()}",
                    condition=reading.condition,
                    text=reading.text,
                    raised_at=now,
                )

        if changes.raised or changes.cleared:
            await self._database.write(act)
        return changes


def _may_be_raised(last: Last | None, now: datetime) -> bool:
    return last is None or (not last.open and now - last.raised_at >= HOUR)


def _read(connection: duckdb.DuckDBPyConnection, now: datetime) -> list[Reading]:
    hour = {"now": now, "hour_ago": now - HOUR}
    ((spent_pusd, before_pusd),) = fetch_all(connection, "hourly_spend", {"now": now})
    unpriced = fetch_all(connection, "unpriced_models", hour)
    ((failed,),) = fetch_all(connection, "failed_projects", hour)
    stops = fetch_all(connection, "stops")
    lags = fetch_all(connection, "index_lags", {"now": now})
    failed_payments = fetch_all(connection, "failed_star_payments")
    late_refunds = fetch_all(connection, "late_star_refunds", {"before": now - REFUND_UNTOLD})
    return [
        _spend(spent_pusd, before_pusd),
        Reading(
            condition="projects-failing",
            value=failed,
            threshold=FAILED_PROJECTS,
            text=f"{failed} projects failed within an hour.",
        ),
        *(
            Reading(
                condition=f"no-price:{provider}/{model}",
                value=calls,
                threshold=1,
                text=f"{provider}/{model} has no price in force and was called {calls} times within an hour.",
            )
            for provider, model, calls in unpriced
        ),
        *(
            Reading(
                condition=f"index-lag:{project}",
                value=lag_s,
                threshold=INDEX_LAG_S + 1,
                text=f"The index of the project {project} is {lag_s // 60} minutes behind: builds get less context.",
            )
            for project, lag_s in lags
        ),
        *(
            Reading(
                condition=f"payment-failed:{charge}",
                value=1,
                threshold=1,
                text=f"{stars} Stars were taken for {charge} and nothing could be credited: "
                f"`masterbuilder credits refund-stars {charge}` gives them back.",
            )
            for charge, stars in failed_payments
        ),
        *(
            Reading(
                condition=f"refund-untold:{charge}",
                value=1,
                threshold=1,
                text=f"{stars} Stars of {charge} are to go back and Telegram has not confirmed it: is the bot running?",
            )
            for charge, stars in late_refunds
        ),
        *(
            Reading(condition=f"account-stopped:{user}", value=1, threshold=1, text=f"{user} is stopped: {reason}")
            for user, reason, _ in stops
        ),
    ]


def _spend(spent_pusd: int, before_pusd: int) -> Reading:
    """Of the last hour, against the mean of the same hour on the seven days before."""
    mean_pusd = before_pusd // SPEND_DAYS
    return Reading(
        condition="spend",
        value=spent_pusd,
        threshold=max(SPEND_TIMES * before_pusd // SPEND_DAYS, SPEND_MIN_PUSD) + 1,
        text=f"{usd_text(spent_pusd)} USD were spent within an hour; usual at this time are {usd_text(mean_pusd)} USD.",
    )


def _last(connection: duckdb.DuckDBPyConnection) -> dict[str, Last]:
    rows = fetch_all(connection, "last_alerts")
    return {
        condition: Last(alert=alert, raised_at=at_us(raised_us), open=is_open)
        for condition, alert, raised_us, is_open in rows
    }
