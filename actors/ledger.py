"""The one writer of money and memory: the actor that owns the DuckDB file, and the handle everybody else holds."""

import asyncio
import logging
import os
import pickle
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from ray.actor import ActorHandle

from actors.handles import KEY_POOL, call, ensure, find, names, once
from actors.ledger_accounts import AccountsHandle
from actors.process import prepare_process
from runtime.accounts.port import Login
from runtime.catalogue.catalogue import CATALOGUE
from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, DueReminder, EventRecord, Head, Journal, Loaded, Ownership
from runtime.entity.vitals import KeyPoolVitals, StoreVitals
from runtime.errors import MasterbuilderError, StoreUnavailableError
from runtime.ids import BlobId, CallId, EntityId, ProjectId, UserId
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import (
    Adjustment,
    Balance,
    CallRefund,
    Deletion,
    Draw,
    Escrow,
    EscrowId,
    Hold,
    Identity,
    KeyRotation,
    KeyUse,
    Ledger,
    Meter,
    Mismatch,
    ModelRow,
    Movement,
    NewOrder,
    NewToken,
    Notice,
    Order,
    OrderId,
    OrderRefund,
    Papers,
    Payment,
    PaymentLine,
    Person,
    Purchase,
    Receipt,
    Repayment,
    Role,
    SealedKey,
    Settlement,
    Spending,
    Spent,
    StarPayment,
    StarsCheckout,
    StarsPayment,
    StarsRefund,
    StoppedAccount,
    Subscription,
    TokenRow,
    UserCall,
)
from runtime.ledger.settling import settle_orphans
from runtime.project.facts import project_facts
from runtime.providers.calls import longest_call_s
from runtime.reports.alerts import key_readings
from runtime.reports.port import Alert, Asked, Feedback, FileForm, GivenFeedback, IndexFigures, Report, Reporting
from runtime.routing.batcher import Batcher, Item, Result
from runtime.store.keeping import BackupReport, CompactReport, Keeping
from runtime.store.store import Store

log = logging.getLogger(__name__)

NAME = "ledger"
SWEEP_EVERY_S = 30.0
ORPHANS_EVERY_S = 5.0
ALERTS_EVERY_S = 60.0
POOL_S_MAX = 3.0
"""How long a key pool is waited for when its state is asked."""
BALANCES_EVERY_S = 5.0
RECONCILE_EVERY_S = 60.0
ERASE_EVERY_S = 10.0
SUBSCRIPTIONS_EVERY_S = 3_600.0
LOOK_RESTS = 50
"""So many times what it took rests what only looks: a fiftieth of a core at most."""
NODE_WITH_THE_DISK = "node:__internal_head__"
"""Ray's own resource of its head node, where the data folder is: nowhere else may the ledger be restarted."""
APPENDS_MAX = 500
LOADS_MAX = 4_000
"""Looking up 10,000 among a million takes twice the time of looking up 500."""
BATCHES_MAX = 3
"""Under way at once from one process."""
WAITING_MAX = 50_000

P = ParamSpec("P")
T = TypeVar("T")


class LedgerActor:
    """Owns `<data_dir>/ledger.duckdb`, its lock, and the blobs beside it.

    Called by everybody. One runs, on the node with the disk. A restart loses nothing: what was answered was on disk.
    Calls in flight are repeated by their callers; ids make that safe. The constructor never raises, because an actor
    whose restarted constructor raises is gone for good: while the store cannot be opened, every call says why.
    """

    def __init__(self, settings: Settings) -> None:
        prepare_process()
        self._settings = settings
        self._opening = asyncio.Lock()
        self._store: Store | None = None
        self._pools_seen: dict[str, KeyPoolVitals] = {}
        self._sweepers: list[asyncio.Task[None]] = []

    async def perform(self, port: str, name: str, args: tuple[Any, ...]) -> Any:
        """One method of a port, by name: the handle below is the typed side of it."""
        store = self._store or await self._open()
        parts: Mapping[str, object] = {
            "Journal": store.journal,
            "Ledger": store.books,
            "Accounts": store.books,
            "Keeping": store,
            "Reporting": store.reports,
        }
        return await getattr(parts[port], name)(*args)

    async def append_all(self, appends: bytes) -> Sequence[int | Exception]:
        """Pickled `Append`s; for each its answer. One that is refused disturbs no other."""
        store = self._store or await self._open()
        return await store.journal.append_all(pickle.loads(appends))

    async def load_all(self, entities: Sequence[EntityId]) -> bytes:
        """For each its pickled `Loaded`."""
        store = self._store or await self._open()
        loaded = await store.journal.load_all(entities)
        return await asyncio.to_thread(pickle.dumps, loaded, 5)

    async def ownerships(self, known: str) -> tuple[str, bytes]:
        """Their mark, and all of them pickled; nothing where the mark is the known one."""
        store = self._store or await self._open()
        mark = store.journal.ownerships_mark
        return mark, b"" if mark == known else pickle.dumps(await store.journal.ownerships(), 5)

    async def settle(self, settlement: bytes) -> Sequence[EscrowId]:
        """A pickled `Settlement`."""
        store = self._store or await self._open()
        return await store.books.settle(pickle.loads(settlement))

    async def vitals(self) -> StoreVitals:
        store = self._store or await self._open()
        return await store.vitals()

    async def _open(self) -> Store:
        async with self._opening:
            if self._store is None:
                try:
                    secrets = Secrets.load(self._settings.data_dir, os.environ)
                except OSError as error:
                    raise StoreUnavailableError(f"The data folder cannot be used: {error}.") from error
                store = Store(self._settings, secrets, facts_of=project_facts)
                await store.open()
                await store.books.set_prices(CATALOGUE.price_rows())
                self._store = store
                self._sweepers = [
                    asyncio.create_task(_again_and_again(sweep, every_s, rests))
                    for sweep, every_s, rests in (
                        (lambda: settle_orphans(self._settings.data_dir, store.books), ORPHANS_EVERY_S, 0),
                        (lambda: self._sweep_holds(store), SWEEP_EVERY_S, 0),
                        (lambda: self._watch_balances(store), BALANCES_EVERY_S, LOOK_RESTS),
                        (lambda: self._watch_alerts(store), ALERTS_EVERY_S, LOOK_RESTS),
                        (store.books.reconcile, RECONCILE_EVERY_S, LOOK_RESTS),
                        (store.erase_due, ERASE_EVERY_S, LOOK_RESTS),
                        (store.books.note_subscriptions, SUBSCRIPTIONS_EVERY_S, LOOK_RESTS),
                    )
                ]
            return self._store

    async def _sweep_holds(self, store: Store) -> None:
        """Books calls, and gives back escrows, of processes that died before they could do it."""
        oldest = datetime.now(UTC) - timedelta(seconds=longest_call_s(self._settings))
        await store.books.expire_holds(oldest)
        await store.books.expire_escrows()

    async def _watch_balances(self, store: Store) -> None:
        await store.books.note_low_balances(self._settings.low_credit_threshold * UCREDITS_PER_CREDIT)

    async def _watch_alerts(self, store: Store) -> None:
        for reading in (await store.reports.watch(key_readings(await _key_pools(self._pools_seen)))).raised:
            log.warning("alert: %s", reading.text)


async def _key_pools(seen: dict[str, KeyPoolVitals]) -> Sequence[KeyPoolVitals]:
    """One that does not answer now is what it was when it last did: silence clears no alert."""
    pools = [name for name in await asyncio.to_thread(names) if name.startswith(KEY_POOL)]
    answers = await asyncio.gather(*(_vitals_of(pool) for pool in pools), return_exceptions=True)
    for pool, answer in zip(pools, answers, strict=True):
        if not isinstance(answer, BaseException):
            seen[pool] = answer
    return [seen[pool] for pool in pools if pool in seen]


async def _vitals_of(pool: str) -> KeyPoolVitals:
    actor = await asyncio.to_thread(find, pool)
    async with asyncio.timeout(POOL_S_MAX):
        vitals: KeyPoolVitals = await once(actor.vitals.remote, what=pool)
    return vitals


async def _again_and_again(sweep: Callable[[], Awaitable[object]], every_s: float, rests: float) -> None:
    """At once, then after resting `every_s`, or `rests` times what it took. What goes wrong is said and tried again."""
    while True:
        began_s = time.monotonic()
        try:
            await sweep()
        except (MasterbuilderError, OSError) as error:
            log.warning("%s", error)
        except Exception:
            log.exception("a sweep met an error of ours")
        await asyncio.sleep(max(every_s, rests * (time.monotonic() - began_s)))


class LedgerHandle(AccountsHandle):
    """Implements `Journal`, `Ledger`, `Keeping` and `Reporting` from any process.

    Every message but a backup may be repeated, so restarts are waited out. An append that is repeated may find itself
    written already, and is then refused as stale: its writer reads again and sees. Appends and loads that come together
    go together, so those of one entity must wait for each other. Used from one event loop.
    """

    def __init__(self, actor: ActorHandle[Any]) -> None:
        self._actor = actor
        self._appends = _batcher(self._append_all, APPENDS_MAX)
        self._loads = _batcher(self._load_all, LOADS_MAX)
        self._owned: tuple[str, Sequence[Ownership]] = ("", ())

    @classmethod
    def ensure(cls, settings: Settings) -> "LedgerHandle":
        """Blocks for a moment."""
        return cls(ensure(NAME, LedgerActor, settings, resources={NODE_WITH_THE_DISK: 0.001}))

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        return await self._ask(Journal.claim, claim)

    async def ownerships(self) -> Sequence[Ownership]:
        """The router asks all the time, and they hardly ever change."""
        mark, known = self._owned
        answer: tuple[str, bytes] = await call(lambda: self._actor.ownerships.remote(mark), what="The ledger")
        if answer[1]:
            known = pickle.loads(answer[1])
            self._owned = (answer[0], known)
        return known

    async def append(self, append: Append) -> int:
        return await self._appends.do(append)

    async def load(self, entity: EntityId) -> Loaded:
        return await self._loads.do(entity)

    async def read(self, entity: EntityId, after_seq: int, limit: int = 10_000) -> Sequence[EventRecord]:
        return await self._ask(Journal.read, entity, after_seq, limit)

    async def head(self, entity: EntityId) -> Head | None:
        return await self._ask(Journal.head, entity)

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        return await self._ask(Journal.heads, kind, owner)

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        return await self._ask(Journal.open_entities, kinds)

    async def due(self, partitions: Sequence[int], now: datetime, limit: int) -> Sequence[DueReminder]:
        return await self._ask(Journal.due, partitions, now, limit)

    async def check(self) -> Sequence[Mismatch]:
        return await self._ask(Keeping.check)

    async def backup(self, folder: Path, with_secrets: bool) -> BackupReport:
        args = (folder, with_secrets)
        report: BackupReport = await once(
            lambda: self._actor.perform.remote("Keeping", "backup", args), what="The ledger"
        )
        return report

    async def compact(self) -> CompactReport:
        return await self._ask(Keeping.compact)

    async def report(self, asked: Asked) -> Report:
        return await self._ask(Reporting.report, asked)

    async def report_file(self, asked: Asked, form: FileForm) -> bytes:
        return await self._ask(Reporting.report_file, asked, form)

    async def rate(self, feedback: Feedback) -> None:
        await self._ask(Reporting.rate, feedback)

    async def feedback(self) -> Sequence[GivenFeedback]:
        return await self._ask(Reporting.feedback)

    async def indexed(self, figures: IndexFigures) -> None:
        await self._ask(Reporting.indexed, figures)

    async def alerts(self, open_only: bool) -> Sequence[Alert]:
        return await self._ask(Reporting.alerts, open_only)

    async def vitals(self) -> StoreVitals:
        vitals: StoreVitals = await once(self._actor.vitals.remote, what="The ledger")
        return vitals

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        return await self._ask(Ledger.open_wallet, user, is_admin)

    async def balance(self, user: UserId) -> Balance:
        return await self._ask(Ledger.balance, user)

    async def adjust(self, adjustment: Adjustment) -> Balance:
        return await self._ask(Ledger.adjust, adjustment)

    async def purchase(self, purchase: Purchase) -> bool:
        return await self._ask(Ledger.purchase, purchase)

    async def repay(self, repayment: Repayment) -> int:
        return await self._ask(Ledger.repay, repayment)

    async def open_order(self, order: NewOrder) -> Order:
        return await self._ask(Ledger.open_order, order)

    async def order(self, order: OrderId) -> Order | None:
        return await self._ask(Ledger.order, order)

    async def complete_order(self, payment: Payment) -> Order:
        return await self._ask(Ledger.complete_order, payment)

    async def refund_order(self, refund: OrderRefund) -> int:
        return await self._ask(Ledger.refund_order, refund)

    async def fail_order(self, order: OrderId, provider: str) -> Order:
        return await self._ask(Ledger.fail_order, order, provider)

    async def check_checkout(self, checkout: StarsCheckout) -> None:
        await self._ask(Ledger.check_checkout, checkout)

    async def fulfil(self, payment: StarsPayment) -> StarPayment:
        return await self._ask(Ledger.fulfil, payment)

    async def refund_stars(self, charge_id: str, reason: str, made_by: UserId) -> StarsRefund:
        return await self._ask(Ledger.refund_stars, charge_id, reason, made_by)

    async def untold_star_refunds(self) -> Sequence[StarsRefund]:
        return await self._ask(Ledger.untold_star_refunds)

    async def star_refund_told(self, charge_id: str) -> None:
        await self._ask(Ledger.star_refund_told, charge_id)

    async def payments_of(self, user: UserId) -> Sequence[PaymentLine]:
        return await self._ask(Ledger.payments_of, user)

    async def subscription(self, user: UserId) -> Subscription | None:
        return await self._ask(Ledger.subscription, user)

    async def refund_call(self, refund: CallRefund) -> int:
        return await self._ask(Ledger.refund_call, refund)

    async def set_inviter(self, user: UserId, inviter: UserId) -> None:
        await self._ask(Ledger.set_inviter, user, inviter)

    async def statement(self, user: UserId, after: str | None, limit: int) -> Sequence[Movement]:
        return await self._ask(Ledger.statement, user, after, limit)

    async def spending(self, user: UserId) -> Spending:
        return await self._ask(Ledger.spending, user)

    async def notices(self, user: UserId) -> Sequence[Notice]:
        return await self._ask(Ledger.notices, user)

    async def untold_notices(self, user: UserId) -> Sequence[Notice]:
        return await self._ask(Ledger.untold_notices, user)

    async def mark_told(self, user: UserId, until: datetime) -> None:
        await self._ask(Ledger.mark_told, user, until)

    async def person(self, user: UserId) -> Person | None:
        return await self._ask(Ledger.person, user)

    async def set_email(self, user: UserId, email: str) -> None:
        await self._ask(Ledger.set_email, user, email)

    async def papers(self, user: UserId) -> Papers:
        return await self._ask(Ledger.papers, user)

    async def calls_of(self, user: UserId, after: CallId | None, limit: int) -> Sequence[UserCall]:
        return await self._ask(Ledger.calls_of, user, after, limit)

    async def delete_person(self, user: UserId, forfeit_ucredits: int) -> Deletion:
        return await self._ask(Ledger.delete_person, user, forfeit_ucredits)

    async def stop_account(self, user: UserId, reason: str) -> None:
        await self._ask(Ledger.stop_account, user, reason)

    async def release_account(self, user: UserId) -> bool:
        return await self._ask(Ledger.release_account, user)

    async def stopped_accounts(self) -> Sequence[StoppedAccount]:
        return await self._ask(Ledger.stopped_accounts)

    async def hold(self, hold: Hold) -> None:
        await self._ask(Ledger.hold, hold)

    async def meter(self, meter: Meter) -> None:
        await self._ask(Ledger.meter, meter)

    async def draw(self, draw: Draw) -> Escrow:
        return await self._ask(Ledger.draw, draw)

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        data = pickle.dumps(settlement, 5)
        return await call(lambda: self._actor.settle.remote(data), what="The ledger")

    async def spent(self, project: ProjectId) -> Spent:
        return await self._ask(Ledger.spent, project)

    async def receipt(self, project: ProjectId) -> Receipt:
        return await self._ask(Ledger.receipt, project)

    async def add_token(self, token: NewToken) -> None:
        await self._ask(Ledger.add_token, token)

    async def set_role(self, user: UserId, role: Role) -> None:
        await self._ask(Ledger.set_role, user, role)

    async def revoke_token(self, token: str) -> None:
        await self._ask(Ledger.revoke_token, token)

    async def tokens(self, user: UserId | None) -> Sequence[TokenRow]:
        return await self._ask(Ledger.tokens, user)

    async def authenticate(self, token_sha256: str) -> Identity | None:
        return await self._ask(Ledger.authenticate, token_sha256)

    async def authenticate_login(self, login: Login) -> Identity | None:
        return await self._ask(Ledger.authenticate_login, login)

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        await self._ask(Ledger.replace_keys, keys)

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        return await self._ask(Ledger.keys, provider)

    async def all_keys(self) -> Sequence[SealedKey]:
        return await self._ask(Ledger.all_keys)

    async def add_key(self, key: SealedKey) -> None:
        await self._ask(Ledger.add_key, key)

    async def set_key_disabled(self, key_id: str, disabled: bool) -> bool:
        return await self._ask(Ledger.set_key_disabled, key_id, disabled)

    async def reseal_keys(self, keys: Sequence[SealedKey], old_master: str, new_master: str) -> None:
        await self._ask(Ledger.reseal_keys, keys, old_master, new_master)

    async def key_rotations(self) -> Sequence[KeyRotation]:
        return await self._ask(Ledger.key_rotations)

    async def key_uses(self) -> Sequence[KeyUse]:
        return await self._ask(Ledger.key_uses)

    async def models(self) -> Sequence[ModelRow]:
        return await self._ask(Ledger.models)

    async def set_models(self, rows: Sequence[ModelRow]) -> None:
        await self._ask(Ledger.set_models, rows)

    async def put_blob(self, data: bytes) -> BlobId:
        return await self._ask(Ledger.put_blob, data)

    async def get_blob(self, blob: BlobId) -> bytes:
        return await self._ask(Ledger.get_blob, blob)

    async def remove_blob(self, blob: BlobId) -> bool:
        return await self._ask(Ledger.remove_blob, blob)

    async def mismatches(self) -> Sequence[Mismatch]:
        return await self._ask(Ledger.mismatches)

    async def _append_all(self, appends: Sequence[Append]) -> Sequence[int | Exception]:
        try:
            data = pickle.dumps(appends, 5)
        except Exception as error:
            if len(appends) == 1:
                return [error]
            # One that cannot be sent at all must not take the others with it.
            return [answer for append in appends for answer in await self._append_all([append])]
        return await call(lambda: self._actor.append_all.remote(data), what="The ledger")

    async def _load_all(self, entities: Sequence[EntityId]) -> Sequence[Loaded | Exception]:
        loaded: Sequence[Loaded] = pickle.loads(
            await call(lambda: self._actor.load_all.remote(entities), what="The ledger")
        )
        return loaded

    async def _ask(self, method: Callable[Concatenate[Any, P], Awaitable[T]], *args: P.args, **_: P.kwargs) -> T:
        """Sends one method of a port, named by its own function, so that arguments and answer stay typed."""
        port, name = method.__qualname__.split(".")
        return cast("T", await call(lambda: self._actor.perform.remote(port, name, args), what="The ledger"))


def _batcher(
    send: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], size_max: int
) -> Batcher[Item, Result]:
    return Batcher(send, what="The ledger", size_max=size_max, in_flight_max=BATCHES_MAX, waiting_max=WAITING_MAX)
