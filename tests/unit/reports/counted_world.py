"""A store with a clock that stands, projects that happen and calls that are paid."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.entity.journal import Append, BeginRun, Moves, NewEvent
from runtime.ids import CallId, ProjectId, RunId, UserId, project_entity
from runtime.ledger.money import Price
from runtime.ledger.port import Draw, EscrowCall, EscrowId, Hold, Meter, Payer, Purchase, Settlement
from runtime.ledger.records import PriceRow
from runtime.reports.port import Asked
from runtime.store.store import Store

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
"""A Wednesday."""


@dataclass
class World:
    """A call costs a picodollar times a million per token, so 10,000 tokens cost a cent."""

    store: Store
    now: datetime = NOON
    seqs: dict[str, int] = field(default_factory=dict)

    def passes(self, **time: float) -> None:
        self.now += timedelta(**time)

    async def happens(self, project: str, type: str, *, moves: Moves | None = None, **data: Any) -> None:
        """An event of a project of Ann's."""
        seq = self.seqs.get(project, 0)
        self.seqs[project] = await self.store.journal.append(
            Append(
                entity=project_entity(ProjectId(project)),
                owner=UserId("ann"),
                epoch=1,
                expected_seq=seq,
                events=[NewEvent(type=type, version=1, key=f"k{seq}", data=data)],
                open=True,
                head={},
                moves=moves or Moves(),
            )
        )

    async def calls(
        self, call: str, tokens: int, *, user: str = "ann", provider: str = "openai", model: str = "m",
        project: str | None = None,
    ) -> None:  # fmt: skip
        """One that is charged at once."""
        await self.store.books.hold(a_hold(call, tokens, user, provider, model, project=project))
        await self.store.books.meter(a_meter(call, tokens))

    async def calls_in_advance(self, call: str, tokens: int, *, user: str = "ann", known: bool = True) -> None:
        """One under an escrow."""
        escrow = EscrowId(f"escrow of {call}")
        draw = Draw(
            escrow=escrow, process="p", payer=Payer(UserId(user)), wanted_ucredits=10**7, min_ucredits=1,
        )  # fmt: skip
        await self.store.books.draw(draw)
        made = EscrowCall(
            escrow=escrow,
            hold=a_hold(call, tokens, user, "claude", "haiku"),
            meter=a_meter(call, tokens) if known else None,
            held_at=self.now,
        )
        await self.store.books.settle(Settlement(batch=f"batch of {call}", process="p", calls=(made,)))

    async def step(
        self, project: str, task: str, attempt: int, tokens: dict[str, int], *, task_type: str = "coding",
        ends: str = "settle",
    ) -> None:  # fmt: skip
        """A run with one call to each model; `ends` is `settle`, `abandon` or nothing."""
        run = RunId(f"project:{project}/{task}#{attempt}")
        begin = BeginRun(run=run, user=UserId("ann"), project=ProjectId(project), task=task, attempt=attempt)
        await self.happens(project, "step.started", moves=Moves(begin=(begin,)))
        for model, count in tokens.items():
            call = f"{run}/{model}"
            await self.store.books.hold(a_hold(call, count, "ann", "openai", model, run=run, task_type=task_type))
            await self.store.books.meter(a_meter(call, count))
        if ends:
            await self.happens(
                project, "step.finished", moves=Moves(settle=(run,)) if ends == "settle" else Moves(abandon=(run,))
            )

    async def buys(self, id: str, usd: int, *, user: str = "ann") -> None:
        await self.store.books.purchase(
            Purchase(
                provider="stripe",
                external_id=id,
                user=UserId(user),
                product="pack",
                ucredits=usd * 100 * 10**6,
                paid_pusd=usd * 10**12,
                currency="USD",
                amount_minor=usd * 100,
            )
        )

    async def report(self, name: str, **period: datetime) -> list[dict[str, Any]]:
        found = await self.store.reports.report(Asked(name=name, **period))
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    async def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        return await self.store._database.read_long(lambda connection: connection.execute(statement, values).fetchall())

    async def writes(self, statement: str) -> None:
        await self.store._database.read_long(lambda connection: connection.execute(statement))


def a_hold(
    call: str, tokens: int, user: str, provider: str, model: str, *, run: RunId | None = None,
    task_type: Any = "chat", project: str | None = None,
) -> Hold:  # fmt: skip
    return Hold(
        call=CallId(call),
        user=UserId(user),
        run=run,
        task_type=task_type,
        provider=provider,
        model=model,
        input_tokens_max=tokens,
        output_tokens_max=0,
        price=Price(
            pricing_id=f"{provider}/{model}", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6
        ),
        project=ProjectId(project) if project else None,
    )  # fmt: skip


def a_price(provider: str, model: str) -> PriceRow:
    return PriceRow(
        pricing_id=f"{provider}/{model}", provider=provider, model=model, input_udollars_per_mtok=10**6,
        output_udollars_per_mtok=10**6,
    )  # fmt: skip


def a_meter(call: str, tokens: int) -> Meter:
    return Meter(call=CallId(call), input_tokens=tokens, output_tokens=0, response_time_ms=5, key_id="k")
