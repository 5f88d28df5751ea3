"""A store with a clock that stands, where Ann has done everything that leaves a row or a file, and Bob some of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, BeginRun, Claim, Moves, NewEvent, Reminder, Snapshot
from runtime.files import journal_of
from runtime.ids import PARTITION_COUNT, BlobId, CallId, EntityId, ProjectId, RunId, UserId, project_entity, user_entity
from runtime.index.vector_file import vectors_file
from runtime.ledger.money import Price
from runtime.ledger.port import (
    Adjustment,
    CallRefund,
    Draw,
    EscrowCall,
    EscrowId,
    Hold,
    Meter,
    NewOrder,
    NewToken,
    OrderId,
    Payer,
    Payment,
    Purchase,
    Repayment,
    Return,
    Role,
    Settlement,
    StarsPayment,
)
from runtime.project.facts import project_facts
from runtime.reports.port import Asked, Feedback
from runtime.store.store import Store

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CREDIT = 10**6
ANN, BOB, INVITER = UserId("telegram:annabell-77"), UserId("telegram:bob-88"), UserId("telegram:ivy-99")
EMAIL = "annabell@needle.example"
WORDS = "Meine Schwester heisst Waltraud"
PRICE = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
DONE, OPEN, BOBS = ProjectId("aaaaaaaa-0"), ProjectId("aaaaaaaa-1"), ProjectId("bbbbbbbb-0")


@dataclass
class World:
    store: Store
    now: datetime = NOON
    seqs: dict[EntityId, int] = field(default_factory=dict)
    blobs: dict[str, BlobId] = field(default_factory=dict)

    @classmethod
    def over(cls, folder: Path) -> "World":
        made: World
        secrets = Secrets.load(folder, {})
        settings = Settings(data_dir=folder, full_daily_usd_cap=None)
        made = cls(Store(settings, secrets, lambda: made.now, project_facts))
        return made

    async def open(self) -> None:
        await self.store.open()
        known = {each.partition: each.epoch for each in await self.store.journal.ownerships()}
        everywhere = {number: known.get(number, 0) for number in range(PARTITION_COUNT)}
        self.epoch = max(known.values(), default=0) + 1
        await self.store.journal.claim(Claim(host="h", incarnation=str(self.epoch), partitions=everywhere))

    async def happens(self, entity: EntityId, owner: str, type: str, data: Mapping[str, Any], **more: Any) -> None:
        seq = self.seqs.get(entity, 0)
        self.seqs[entity] = await self.store.journal.append(
            Append(
                entity=entity,
                owner=UserId(owner),
                epoch=self.epoch,
                expected_seq=seq,
                events=[NewEvent(type=type, version=1, key=f"k{seq} {WORDS}", data=data)],
                open=more.pop("open", True),
                head={"title": WORDS},
                **more,
            )
        )

    async def lives(self) -> None:
        books = self.store.books
        for user in (INVITER, ANN, BOB):
            await books.open_wallet(user, is_admin=False)
        await books.set_role(ANN, "FULL_ACCESS")
        await books.set_email(ANN, EMAIL)
        await books.set_email(BOB, "bob@example.org")
        await books.set_inviter(ANN, INVITER)
        await books.set_inviter(BOB, ANN)
        for name, user in (("a", ANN), ("b", BOB)):
            await books.add_token(NewToken(token_sha256=name * 64, user=user, kind="user", label=WORDS))
        await self._pays(ANN, "x1", WORDS)
        await self._pays(BOB, "x2", "for Bob")
        await self._pays_with_stars(ANN, "a", WORDS, "FULL_ACCESS")
        await self._pays_with_stars(BOB, "b", "for Bob", "DEMO")
        await books.adjust(Adjustment(id="g1", user=ANN, amount_ucredits=CREDIT, reason=WORDS, made_by=BOB))
        await books.adjust(Adjustment(id="g2", user=BOB, amount_ucredits=CREDIT, reason="for Bob", made_by=ANN))
        await self._calls(ANN, "gw-a")
        await self._calls(BOB, "gw-b")
        await books.refund_call(CallRefund(call=CallId("gw-a-1"), reason=WORDS, made_by=ANN))
        await books.stop_account(ANN, f"user:{ANN}: does not add up")
        await self.store.reports.watch()
        await books.release_account(ANN)
        await books.note_low_balances(10**15)
        await self._builds(DONE, ANN, over=True)
        await self._builds(OPEN, ANN, over=False)
        await self._builds(BOBS, BOB, over=True)
        await self.store.reports.rate(Feedback(project=DONE, user=ANN, score=4, text=WORDS))

    async def _pays(self, user: UserId, external_id: str, reason: str) -> None:
        order = NewOrder(
            id=OrderId(f"ord-{external_id}"), user=user, provider="shop", product="credits_500", ucredits=500 * CREDIT,
            amount_minor=500, currency="USD", paid_pusd=5 * 10**12,
        )  # fmt: skip
        await self.store.books.open_order(order)
        await self.store.books.complete_order(
            Payment(
                order=order.id, provider="shop", external_id=external_id, product="credits_500", amount_minor=500,
                currency="USD",
            )
        )  # fmt: skip
        back = Purchase(
            provider="shop", external_id=f"{external_id}-back", user=user, product="credits_500", ucredits=CREDIT,
            paid_pusd=1, currency="USD", amount_minor=1,
        )  # fmt: skip
        await self.store.books.purchase(back)
        await self.store.books.repay(Repayment(provider="shop", external_id=back.external_id, reason=reason))

    async def _pays_with_stars(self, user: UserId, name: str, reason: str, role: Role) -> None:
        """A month, one that is paid back, and something that nobody sells. It ends soon, which is told."""
        books, now = self.store.books, self.now
        for charge, product, stars in (("month", "full_access_monthly", 500), ("back", "full_access_monthly", 500),
                                       ("odd", f"?{reason}", 7)):  # fmt: skip
            payment = StarsPayment(
                telegram_charge_id=f"ch-{name}-{charge}", provider_charge_id="", user=user, product=product,
                stars=stars, currency="XTR", at=now,
            )  # fmt: skip
            await books.fulfil(payment)
        await books.refund_stars(f"ch-{name}-back", reason, user)
        await books.set_role(user, "DEMO")
        self.now += timedelta(days=28)
        await books.note_subscriptions()
        self.now = now
        await books.set_role(user, role)

    async def _calls(self, user: UserId, name: str) -> None:
        await self.store.books.hold(a_hold(f"{name}-1", user))
        await self.store.books.meter(a_meter(f"{name}-1"))
        await self.store.books.draw(a_draw(f"e-{name}", user))
        booked = EscrowCall(
            escrow=EscrowId(f"e-{name}"), hold=a_hold(f"{name}-2", user), meter=a_meter(f"{name}-2"), held_at=self.now
        )
        ended = Return(escrow=EscrowId(f"e-{name}"), granted_ucredits=0, ends=True)
        await self.store.books.settle(Settlement(batch=f"b-{name}", process="p", calls=(booked,), returns=(ended,)))

    async def _builds(self, project: ProjectId, user: UserId, *, over: bool) -> None:
        entity = project_entity(project)
        order = {"key": project, "brief": WORDS, "answers": {}, "max_ucredits": None, "confirmed": True}
        await self.happens(
            user_entity(user), "", "session.project_ordered", {"project": project, "order": order}, open=False,
            snapshot=Snapshot(seq=self.seqs.get(user_entity(user), 0) + 1, version=1, data={"text": WORDS}),
        )  # fmt: skip
        opened = {"owner": user, "brief": WORDS, "answers": {}, "max_ucredits": None, "confirmed": True}
        later = Reminder(name="later", due_at=NOON + timedelta(days=30), data={"text": WORDS})
        run = RunId(f"{entity}/plan#1")
        begin = BeginRun(run=run, user=user, project=project, task="plan", attempt=1)
        await self.happens(
            entity, user, "project.opened", opened, remind=[later], moves=Moves(begin=(begin,), ceiling_ucredits=10**9)
        )
        hold = a_hold(f"{run}/1", user, run=run)
        await self.store.books.hold(hold)
        await self.store.books.meter(a_meter(hold.call))
        for name in (f"bundle of {project}", f"patch of {project}", "the same package"):
            self.blobs[f"{project} {name}"] = await self.store.books.put_blob(f"{name}: {WORDS}".encode())
        patch = {"step": "x", "run": run, "result": {"patch": self.blobs[f"{project} patch of {project}"]}}
        moves = Moves(settle=(run,)) if over else Moves()
        await self.happens(entity, user, "step.finished", patch, moves=moves)
        bundle = {"commit": "c1", "bundle": self.blobs[f"{project} bundle of {project}"]}
        await self.happens(entity, user, "repository.committed", bundle)
        package = {
            "blob": self.blobs[f"{project} the same package"],
            "sha256": "0" * 64,
            "size_bytes": 1,
            "file_count": 1,
        }
        await self.happens(entity, user, "package.ready", package, open=not over)
        index = self.store._database.data_dir / "index" / f"{project}.index"
        index.parent.mkdir(exist_ok=True)
        index.write_bytes(b"sealed")
        for kept in (index.parent / vectors_file(user), journal_of(index.parent / vectors_file(user))):
            kept.write_bytes(b"sealed")

    async def cancelled(self, project: ProjectId, user: UserId = ANN) -> None:
        """What a host does with the reminder of a project."""
        run = RunId(f"project:{project}/plan#1")
        await self.happens(
            project_entity(project), user, "project.finished", {"status": "cancelled", "reason": ""}, open=False,
            forget=["owner_left"], moves=Moves(abandon=(run,), ceiling_ucredits=0),
        )  # fmt: skip

    async def report(self, name: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in (await self.store.reports.report(Asked(name=name))).rows]

    async def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        return await self.store._database.read_long(lambda connection: connection.execute(statement, values).fetchall())

    async def naming(self, *words: str) -> list[str]:
        """Every column of every table with a text that holds one of the words."""
        columns = await self.sql(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND data_type LIKE 'VARCHAR%' "
            "AND table_name IN (SELECT table_name FROM duckdb_tables())"
        )
        return [
            f"{table}.{column}"
            for table, column in columns
            for word in words
            if await self.sql(f"SELECT 1 FROM {table} WHERE contains({column}::VARCHAR, $word) LIMIT 1", word=word)
        ]

    async def sealed_of(self, user: UserId) -> list[str]:
        """Every column of something sealed that stands in a row of the user's."""
        columns = await self.sql(
            "SELECT b.table_name, b.column_name FROM duckdb_columns() b JOIN duckdb_columns() u USING (table_name) "
            "WHERE b.data_type = 'BLOB' AND u.column_name = 'user_id' AND NOT b.internal "
            "AND table_name IN (SELECT table_name FROM duckdb_tables())"
        )
        assert ("users", "email") in columns
        return [
            f"{table}.{column}"
            for table, column in columns
            if await self.sql(
                f"SELECT 1 FROM {table} WHERE user_id = $user AND {column} IS NOT NULL LIMIT 1", user=user
            )
        ]


def a_hold(call: str, user: UserId, *, run: RunId | None = None) -> Hold:
    return Hold(
        call=CallId(call), user=user, run=run, task_type="chat", provider="openai", model="m",
        input_tokens_max=40_000, output_tokens_max=0, price=PRICE,
    )  # fmt: skip


def a_meter(call: str) -> Meter:
    return Meter(call=CallId(call), input_tokens=30_000, output_tokens=0, response_time_ms=5, key_id="k")


def a_draw(escrow: str, user: UserId) -> Draw:
    return Draw(
        escrow=EscrowId(escrow), process="p", payer=Payer(user), wanted_ucredits=10 * CREDIT, min_ucredits=6 * CREDIT
    )
