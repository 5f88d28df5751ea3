"""Which reports there are. Source: spec/builder.md §12."""

from dataclasses import dataclass

from runtime.errors import NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """`statement` names its SQL in `reports.sql`."""

    name: str
    tells: str
    note: str = ""

    @property
    def statement(self) -> str:
        return f"report_{self.name}"


_PROJECTS = "Projects from before reports were kept are not in it."

REPORTS = (
    Definition(
        name="completion",
        tells="How many projects finished, and how long each stage and the whole took; by when they were opened.",
        note=f"A pause counts as a stage of its own. {_PROJECTS}",
    ),
    Definition(
        name="satisfaction",
        tells="Owners' scores from 1 to 5, week by week.",
        note="A project has one score, the last one given. What owners wrote is in no report.",
    ),
    Definition(
        name="agents",
        tells="Verdicts passed and failed, rework rounds and time per item, by model.",
        note=f"Of what ended in the period. An attempt that several models served counts for each. {_PROJECTS}",
    ),
    Definition(
        name="index",
        tells="Each project's commits, how long the index took to come to them, its chunks, and how fast it answers.",
        note="Lag is from commit to index. A commit that was passed over counts as indexed with the next one.",
    ),
    Definition(
        name="spend",
        tells="What providers are owed, by provider, model, project and user; each view adds up to the total.",
        note="By when a call was booked; pending is what calls of unfinished steps have used so far.",
    ),
    Definition(
        name="consumption",
        tells="Where credits go, by task type and model, and the twenty most expensive steps.",
        note="By when a call was booked. Calls of users' own tools belong to no step.",
    ),
    Definition(
        name="usage",
        tells="Every call: who made which, what it used and cost, and what it was charged.",
        note="By when a call was held; the newest 10,000. A statement names a call by the same id.",
    ),
    Definition(
        name="profit",
        tells="Purchases less what was paid back, provider cost and losses, by day (UTC), from the ledger's transfers.",
        note="An estimate of a loss that turned out otherwise is corrected on the day when that was known.",
    ),
    Definition(
        name="pricing",
        tells="Realised markup against MARKUP_FACTOR by model; models without a price, and prices not touched lately.",
        note="Cost holds losses, charges are less refunds. A price is stale 90 days after it was set.",
    ),
    Definition(
        name="churn",
        tells="Users whose balance fell below LOW_CREDIT_THRESHOLD, what they did then, and if an offer is due.",
        note="By each user's last fall. Who neither bought nor called for three days is due for an offer.",
    ),
)
_BY_NAME = {report.name: report for report in REPORTS}


def definition(name: str) -> Definition:
    """Raises NotFoundError."""
    if name not in _BY_NAME:
        raise NotFoundError(
            f"There is no report {name[:100]!r}; there are {', '.join(_BY_NAME)}.", "Ask for one of them."
        )
    return _BY_NAME[name]
