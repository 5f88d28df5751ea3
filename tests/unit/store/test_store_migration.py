"""A data folder of every release opens with everything it held."""

import asyncio
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

from runtime.config import Secrets, Settings
from runtime.entity.journal import Claim, Ownership
from runtime.ids import CallId, EntityId, ProjectId, UserId, partition_of
from runtime.ledger.port import Adjustment, CallRefund, Identity, Meter, Settlement
from runtime.store import schema
from runtime.store.queries import sql
from runtime.store.seal import Seal
from runtime.store.store import Store

ENTITIES = {"project:1": 5, "user:2": 0, "project:long": 300, "index:4": 1}


def make_first_release(folder: Path, seal: Seal) -> None:
    """As the first release wrote it: 001 only, keys as hashes, an entity's events between those of others."""
    with duckdb.connect(str(folder / schema.DATABASE)) as connection:
        connection.execute(sql("make_migrations"))
        connection.execute(files("runtime.store.migrations").joinpath("001_initial.sql").read_text())
        connection.execute(sql("add_migration"), {"name": "001_initial.sql"})
        connection.execute(sql("add_cluster"), {"cluster_id": "c1", "key_check": seal.close(b"c1", "cluster")})
        for seq in range(1, 301):
            for entity in [entity for entity, count in ENTITIES.items() if seq <= count]:
                digest = hashlib.sha256(f"{entity}\0k{seq}".encode()).digest()
                payload = seal.close_json({"key": f"k{seq}", "data": {"n": seq}}, f"event {entity} {seq}")
                connection.execute(
                    "INSERT INTO events VALUES (?, ?, ?, 3, 't', 1, ?, now())", [digest, entity, seq, payload]
                )
        for entity, count in ENTITIES.items():
            head = seal.close_json({"n": count}, f"head {entity}")
            kind = entity.split(":")[0]
            values = [entity, kind, count, entity == "project:1", head]
            connection.execute("INSERT INTO entities VALUES (?, ?, 'u', ?, ?, ?, now())", values)
            row = [str(partition_of(entity))]
            connection.execute("INSERT OR IGNORE INTO partitions VALUES (?, 3, 'h', 'i')", row)


async def test_first_release__is_carried_over_whole(tmp_path: Path, an_append) -> None:
    secrets = Secrets.load(tmp_path, {})
    make_first_release(tmp_path, Seal(secrets.data_encryption_key))
    store = Store(Settings(data_dir=tmp_path), secrets)
    for opening in range(2):
        await store.open()
        assert await store.check() == []
        loaded = await store.journal.load_all([EntityId(entity) for entity in ENTITIES])
        for (entity, count), one in zip(ENTITIES.items(), loaded, strict=True):
            count += opening
            assert (one.head.last_seq, one.head.owner, one.head.data) == (count, "u", {"n": count})
            assert [(event.seq, event.key) for event in one.events] == [(n, f"k{n}") for n in range(1, count + 1)]
            assert list(await store.journal.read(EntityId(entity), 0)) == list(one.events)
        assert list(await store.journal.open_entities(["project"])) == (["project:1"] if not opening else [])
        assert store.cluster_id == "c1"
        if not opening:
            held = Ownership(partition=partition_of("user:2"), epoch=3, host="h", incarnation="i")
            assert held in await store.journal.ownerships()
            wish = Claim(host="h", incarnation="j", partitions={partition_of(entity): 3 for entity in ENTITIES})
            assert set((await store.journal.claim(wish)).values()) == {4}
            appends = [an_append(entity, count, epoch=4) for entity, count in ENTITIES.items()]
            assert await store.journal.append_all(appends) == [count + 1 for count in ENTITIES.values()]
        await store.close()


async def test_migration_cut_off__leaves_the_first_release(tmp_path: Path) -> None:
    secrets = Secrets.load(tmp_path, {})
    make_first_release(tmp_path, Seal(secrets.data_encryption_key))
    with duckdb.connect(str(tmp_path / schema.DATABASE)) as connection:
        connection.execute("BEGIN")
        connection.execute(files("runtime.store.migrations").joinpath("002_entities.sql").read_text())
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(306,)]
    store = Store(Settings(data_dir=tmp_path), secrets)
    await asyncio.gather(store.open())
    assert await store.check() == []
    await store.close()


MONEY = """
INSERT INTO users VALUES ('local-admin', true, now()), ('u', false, now());
INSERT INTO grants VALUES ('x', now());
INSERT INTO accounts VALUES ('platform:promotions', 'credit', -1000), ('user:u', 'credit', 400),
    ('user:u/held', 'credit', 500), ('platform:revenue', 'credit', 100),
    ('platform:cost', 'usd', -7), ('provider:openai', 'usd', 7);
INSERT INTO transfers VALUES
    ('x/grant', 'credit', 'platform:promotions', 'user:u', 1000, 'grant', NULL, 'u', NULL, now()),
    ('c1/hold', 'credit', 'user:u', 'user:u/held', 100, 'hold', 'c1', 'u', 'p', now()),
    ('c1/charge', 'credit', 'user:u/held', 'platform:revenue', 100, 'charge', 'c1', 'u', 'p', now()),
    ('c1/cost', 'usd', 'platform:cost', 'provider:openai', 7, 'cost', 'c1', 'u', 'p', now()),
    ('c2/hold', 'credit', 'user:u', 'user:u/held', 500, 'hold', 'c2', 'u', 'p', now());
INSERT INTO budgets VALUES ('p', 2000, 600);
INSERT INTO runs VALUES ('r1', 'u', 'p', 'T', 1, now()), ('r2', 'u', 'p', 'T', 2, now());
INSERT INTO run_ends VALUES ('r1', 'settled', now());
INSERT INTO call_holds VALUES
    ('c1', 'u', 'r1', 'p', 'T', 1, 'coding', 'openai', 'm', 'm-1', 1, 1, 9, 9, 18, 100, now()),
    ('c2', 'u', 'r2', 'p', 'T', 2, 'coding', 'openai', 'm', 'm-1', 1, 1, 9, 9, 18, 500, now());
INSERT INTO call_usages VALUES ('c1', 3, 4, 7, 100, false, 5, 'k1', now());
INSERT INTO call_ends VALUES ('c1', 'settled', now());
INSERT INTO api_keys VALUES ('k1', 'openai', 'environment', 'sealed', true, now());
"""


async def test_second_release__keeps_its_money_people_and_keys(tmp_path: Path) -> None:
    secrets = Secrets.load(tmp_path, {})
    seal = Seal(secrets.data_encryption_key)
    with duckdb.connect(str(tmp_path / schema.DATABASE)) as connection:
        connection.execute(sql("make_migrations"))
        for step in ("001_initial.sql", "002_entities.sql"):
            connection.execute(files("runtime.store.migrations").joinpath(step).read_text())
            connection.execute(sql("add_migration"), {"name": step})
        connection.execute(sql("add_cluster"), {"cluster_id": "c1", "key_check": seal.close(b"c1", "cluster")})
        connection.execute(MONEY)
        label = seal.close(b"mine", f"token {'a' * 64}")
        connection.execute(
            "INSERT INTO tokens VALUES (?, 'local-admin', 'user', ?, NULL, NULL, NULL, now())", ["a" * 64, label]
        )
    store = Store(Settings(data_dir=tmp_path), secrets)
    for _ in range(2):
        await store.open()
        assert await store.check() == []
        balance = await store.books.balance(UserId("u"))
        assert (balance.balance_ucredits, balance.held_ucredits) == (900, 500)
        identity = await store.books.authenticate("a" * 64)
        assert identity == Identity(
            user=UserId("local-admin"), is_admin=True, kind="user", role="ADMIN", token_sha256="a" * 64
        )
        assert [row.label for row in await store.books.tokens(None)] == ["mine"]
        assert [key.key_id for key in await store.books.keys("openai")] == ["k1"]
        assert [(use.key_id, use.calls) for use in await store.books.key_uses()] == [("k1", 1)]
        receipt = await store.books.receipt(ProjectId("p"))
        assert [row.outcome for row in receipt.charged] == ["ok"]
        await store.close()
    await store.open()
    meter = Meter(call=CallId("c2"), input_tokens=0, output_tokens=0, response_time_ms=1, key_id="k1")
    await store.books.meter(meter)
    assert (await store.books.balance(UserId("u"))).held_ucredits == 0
    assert await store.check() == []
    await store.close()


THIRD = """
INSERT INTO users (user_id, is_admin, role, created_at) VALUES ('u', false, 'FULL_ACCESS', now());
INSERT INTO grants VALUES ('someone', now());
INSERT INTO accounts VALUES
    ('user:u', 'credit', 94000000), ('user:u/held', 'credit', 0), ('platform:promotions', 'credit', -100000000),
    ('platform:revenue', 'credit', 6000000), ('platform:cost', 'usd', -7), ('provider:x', 'usd', 7);
INSERT INTO call_holds (call, user_id, run, project, task, attempt, task_type, provider, model, pricing_id,
                        input_udollars_per_mtok, output_udollars_per_mtok, input_tokens_max, output_tokens_max,
                        bound_pusd, hold_ucredits, held_at, token_sha256)
VALUES ('c1', 'u', NULL, NULL, '', 0, 'chat', 'x', 'm', 'p', 1, 1, 10, 0, 10, 10000000, now(), '');
INSERT INTO call_usages (call, input_tokens, output_tokens, cost_pusd, charge_ucredits, provider_failed,
                         response_time_ms, key_id, metered_at, estimated)
VALUES ('c1', 4, 0, 4, 4000000, false, 1, 'k', now(), false);
INSERT INTO call_ends VALUES ('c1', 'settled', now());
INSERT INTO escrows VALUES ('e1', 'process', 'u', NULL, '', 2000000, 2000000, now(), now());
INSERT INTO escrow_calls VALUES ('g1', 'e1', 'b1', 'chat', 'x', 'm', 'p', 1, 1, 10, 0,
     'ok', 3, 0, 3, 2000000, 0, 1, 'k',
                                 now(), now());
INSERT INTO transfers VALUES
    ('someone/grant', 'credit', 'platform:promotions', 'user:u', 100000000, 'grant',
     NULL, 'u', NULL, now(), NULL, NULL),
    ('c1/hold', 'credit', 'user:u', 'user:u/held', 10000000, 'hold', 'c1', 'u', NULL, now(), NULL, NULL),
    ('c1/release', 'credit', 'user:u/held', 'user:u', 6000000, 'release', 'c1', 'u', NULL, now(), NULL, NULL),
    ('c1/charge', 'credit', 'user:u/held', 'platform:revenue', 4000000, 'charge', 'c1', 'u', NULL, now(), NULL, NULL),
    ('c1/cost', 'usd', 'platform:cost', 'provider:x', 4, 'cost', 'c1', 'u', NULL, now(), NULL, NULL),
    ('e1/hold', 'credit', 'user:u', 'user:u/held', 5000000, 'hold', NULL, 'u', NULL, now(), 'e1', NULL),
    ('e1/b1/charge', 'credit', 'user:u/held', 'platform:revenue', 2000000, 'charge',
     NULL, 'u', NULL, now(), 'e1', 'b1'),
    ('e1/2000000/release', 'credit', 'user:u/held', 'user:u', 3000000, 'release', NULL, 'u', NULL, now(), 'e1', NULL),
    ('b1/x/cost', 'usd', 'platform:cost', 'provider:x', 3, 'cost', NULL, NULL, NULL, now(), NULL, 'b1');
"""


async def test_third_release__keeps_its_books_and_counts_days_from_the_next_on(tmp_path: Path) -> None:
    secrets = Secrets.load(tmp_path, {})
    seal = Seal(secrets.data_encryption_key)
    with duckdb.connect(str(tmp_path / schema.DATABASE)) as connection:
        connection.execute(sql("make_migrations"))
        for name in ("001_initial.sql", "002_entities.sql", "003_escrows.sql"):
            connection.execute(files("runtime.store.migrations").joinpath(name).read_text())
            connection.execute(sql("add_migration"), {"name": name})
        connection.execute(sql("add_cluster"), {"cluster_id": "c1", "key_check": seal.close(b"c1", "cluster")})
        connection.execute(THIRD)
    store = Store(Settings(data_dir=tmp_path), secrets)
    await store.open()
    user = UserId("u")
    assert await store.check() == []
    assert (await store.books.balance(user)).balance_ucredits == 94_000_000
    moves = await store.books.statement(user, None, 10)
    assert sorted(move.amount_ucredits for move in moves) == [-4_000_000, -2_000_000, 100_000_000]
    gift = Adjustment(id="a", user=user, amount_ucredits=1, reason="welcome back", made_by=user)
    assert (await store.books.adjust(gift)).balance_ucredits == 94_000_001
    assert await store.books.refund_call(CallRefund(call=CallId("g1"), reason="why", made_by=user)) == 2_000_000
    assert (await store.books.spending(user)).cap_ucredits == 750_000_000
    assert await store.check() == []
    await store.close()


RELEASES = (
    "001_initial", "002_entities", "003_escrows", "004_wallets", "005_facts", "006_orders", "007_persons",
    "008_reports", "009_traits", "010_verification", "011_purges", "012_key_expiry",
)  # fmt: skip

SIXTH = """
INSERT INTO users (user_id, is_admin, role, invited_by, is_low, created_at) VALUES
    ('u', false, 'FULL_ACCESS', 'v', true, TIMESTAMPTZ '2026-11-01 10:00:00+00'), ('v', false, 'DEMO', NULL, false, now());
INSERT INTO grants VALUES ('someone', now());
INSERT INTO accounts VALUES
    ('user:u', 'credit', 600), ('platform:promotions', 'credit', -100), ('platform:sales', 'credit', -500),
    ('payments:shop', 'usd', -5), ('platform:income', 'usd', 5);
INSERT INTO purchases VALUES ('shop/x1', 'shop', 'x1', 'u', 'credits_500', 500, 5, 'USD', 500, now());
INSERT INTO payment_orders VALUES
    ('ord-1', 'u', 'shop', 'credits_500', 500, 500, 'USD', 5, 'completed', 'x1', now(), now()),
    ('ord-2', 'u', 'shop', 'credits_500', 500, 500, 'USD', 5, 'pending', NULL, now(), NULL);
INSERT INTO transfers VALUES
    ('someone/grant', 'credit', 'platform:promotions', 'user:u', 100, 'grant', NULL, 'u', NULL, now(), NULL, NULL),
    ('purchase/shop/x1/purchase', 'credit', 'platform:sales', 'user:u', 500, 'purchase', NULL, 'u', NULL, now(), NULL, NULL),
    ('purchase/shop/x1/income', 'usd', 'payments:shop', 'platform:income', 5, 'income', NULL, 'u', NULL, now(), NULL, NULL);
INSERT INTO stops VALUES ('u', 'it does not add up', now(), NULL);
INSERT INTO notices VALUES ('low/u', 'u', 'low_balance', 'little is left', now(), NULL);
INSERT INTO project_statuses VALUES ('p', 'u', 1, 'planning', now());
"""  # noqa: E501


def make_release(folder: Path, seal: Seal, steps: Sequence[str], rows: str = "") -> None:
    with duckdb.connect(str(folder / schema.DATABASE)) as connection:
        connection.execute(sql("make_migrations"))
        for step in steps:
            connection.execute(files("runtime.store.migrations").joinpath(f"{step}.sql").read_text())
            connection.execute(sql("add_migration"), {"name": f"{step}.sql"})
        connection.execute(sql("add_cluster"), {"cluster_id": "c1", "key_check": seal.close(b"c1", "cluster")})
        if rows:
            connection.execute(rows)


@pytest.mark.parametrize("count", range(1, len(RELEASES) + 1))
async def test_every_release__opens_and_knows_persons(tmp_path: Path, count: int) -> None:
    secrets = Secrets.load(tmp_path, {})
    make_release(tmp_path, Seal(secrets.data_encryption_key), RELEASES[:count])
    store = Store(Settings(data_dir=tmp_path), secrets)
    await store.open()
    await store.books.open_wallet(UserId("u"), is_admin=False)
    await store.books.set_email(UserId("u"), "u@example.org")
    person = await store.books.person(UserId("u"))
    assert person is not None
    assert person.email == "u@example.org"
    assert await store.check() == []
    await store.close()


async def test_sixth_release__keeps_wallets_orders_stops_and_facts(tmp_path: Path) -> None:
    secrets = Secrets.load(tmp_path, {})
    make_release(tmp_path, Seal(secrets.data_encryption_key), RELEASES[:6], SIXTH)
    store = Store(Settings(data_dir=tmp_path), secrets)
    user = UserId("u")
    for _ in range(2):
        await store.open()
        assert await store.check() == []
        person = await store.books.person(user)
        assert person is not None
        assert (person.role, person.email, person.registered_at.isoformat()) == (
            "FULL_ACCESS", "", "2026-11-01T10:00:00+00:00",
        )  # fmt: skip
        papers = await store.books.papers(user)
        assert [(order.id, order.state) for order in papers.orders] == [("ord-1", "completed"), ("ord-2", "pending")]
        assert [bought.purchase.external_id for bought in papers.purchases] == ["x1"]
        assert [notice.text for notice in papers.notices] == ["little is left"]
        assert [each.reason for each in await store.books.stopped_accounts()] == ["it does not add up"]
        assert (await store.books.balance(user)).balance_ucredits == 600
        await store.close()
    await store.open()
    assert (await store.books.delete_person(user, 600)).forfeited_ucredits == 600
    assert await store.check() == []
    await store.close()


EIGHTH = """
INSERT INTO users (user_id, is_admin, role, created_at) VALUES ('u', false, 'FULL_ACCESS', now());
INSERT INTO grants VALUES ('someone', now());
INSERT INTO accounts VALUES
    ('user:u', 'credit', 60), ('user:u/held', 'credit', 15), ('platform:promotions', 'credit', -100),
    ('platform:revenue', 'credit', 25), ('platform:cost', 'usd', -13), ('provider:x', 'usd', 13);
INSERT INTO escrows (escrow, process, user_id, token_sha256, granted_ucredits, charged_ucredits, opened_at)
VALUES ('open', 'process', 'u', '', 40, 25, now());
INSERT INTO escrow_calls (call, escrow, batch, task_type, provider, model, pricing_id, input_udollars_per_mtok,
                          output_udollars_per_mtok, input_tokens_max, output_tokens_max, outcome, input_tokens,
                          output_tokens, cost_pusd, charge_ucredits, loss_pusd, response_time_ms, key_id, images,
                          image_udollars, held_at, settled_at)
VALUES ('g1', 'open', 'b1', 'chat', 'x', 'm', 'p', 1, 2, 10, 11, 'ok', 3, 4, 11, 20, 0, 5, 'k', 1, 6, now(), now()),
       ('g2', 'open', 'b1', 'chat', 'x', 'm', 'p', 1, 2, 10, 11, 'ok', 2, 0, 2, 5, 0, 7, 'k', 0, 6, now(), now());
INSERT INTO transfers VALUES
    ('someone/grant', 'credit', 'platform:promotions', 'user:u', 100, 'grant', NULL, 'u', NULL, now(), NULL, NULL),
    ('open/hold', 'credit', 'user:u', 'user:u/held', 40, 'hold', NULL, 'u', NULL, now(), 'open', NULL),
    ('open/b1/charge', 'credit', 'user:u/held', 'platform:revenue', 25, 'charge', NULL, 'u', NULL, now(), 'open', 'b1'),
    ('b1/x/cost', 'usd', 'platform:cost', 'provider:x', 13, 'cost', NULL, NULL, NULL, now(), NULL, 'b1');
"""


async def test_eighth_release__keeps_its_calls_under_escrows_and_goes_on_with_the_open_ones(tmp_path: Path) -> None:
    secrets = Secrets.load(tmp_path, {})
    make_release(tmp_path, Seal(secrets.data_encryption_key), RELEASES[:8], EIGHTH)
    with duckdb.connect(str(tmp_path / schema.DATABASE)) as connection:
        calls = "SELECT * EXCLUDE (held_at, settled_at), epoch_us(settled_at) FROM escrow_calls ORDER BY call"
        before = connection.execute(calls).fetchall()
        schema.migrate(connection)
        assert connection.execute(calls).fetchall() == before
    store = Store(Settings(data_dir=tmp_path), secrets)
    await store.open()
    assert await store.check() == []
    assert (await store.books.balance(UserId("u"))).held_ucredits == 15
    ended = Settlement(batch="", process="process", process_ended=True)
    await store.books.settle(ended)
    assert (await store.books.balance(UserId("u"))).balance_ucredits == 75
    assert await store.check() == []
    await store.close()
