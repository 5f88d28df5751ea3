"""A person's own doors: their address, their data as a ZIP, and its end; and that nobody gets another's."""

import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from runtime.entity.journal import Append, Claim, NewEvent
from runtime.errors import StoreUnavailableError
from runtime.ids import PARTITION_COUNT, CallId, EntityId, ProjectId, UserId, project_entity, user_entity
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Adjustment, Hold, Meter, NewOrder, NewToken, OrderId, Payment, StarsPayment
from runtime.privacy.export import export
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from serve_apps import api_routes

CREDIT = 10**6
ANN, BOB, ROOT = UserId("ann"), UserId("bob"), UserId("root")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PROJECT, BOBS = ProjectId("11111111-1111-4111-8111-111111111111"), ProjectId("22222222-2222-4222-8222-222222222222")


@pytest.fixture
async def ledger(system: Any) -> MemoryLedger:
    made = MemoryLedger(Tariff(), 100 * CREDIT, lambda: NOON)
    await made.open_wallet(ROOT, is_admin=True)
    for user in (ANN, BOB, ROOT):
        await made.add_token(NewToken(token_sha256=token_hash(f"{user}-token"), user=user, kind="user", label="mine"))
    system.ledger, system.journal = made, MemoryJournal(made, lambda: NOON)
    await system.journal.claim(Claim(host="h", incarnation="i", partitions=dict.fromkeys(range(PARTITION_COUNT), 0)))
    return made


@pytest.fixture
async def api(system: Any, ledger: MemoryLedger) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=api_routes.create_app(system))
    async with httpx.AsyncClient(transport=transport, base_url="http://api/api/v1/") as client:
        yield client


def by(user: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {user}-token"}}


async def delete(api: httpx.AsyncClient, user: str, body: dict[str, Any]) -> httpx.Response:
    return await api.request("DELETE", "me", json=body, **by(user))


async def happens(system: Any, entity: EntityId, owner: UserId, *events: tuple[str, dict[str, Any]]) -> None:
    await system.journal.append(
        Append(
            entity=entity,
            owner=owner,
            epoch=1,
            expected_seq=0,
            events=[NewEvent(type=type, version=1, key=f"k{n}", data=data) for n, (type, data) in enumerate(events)],
            open=False,
            head={"title": "x"},
        )
    )


async def ann_lives(system: Any, ledger: MemoryLedger) -> None:
    await ledger.set_email(ANN, "ann@example.org")
    await ledger.adjust(Adjustment(id="a", user=ANN, amount_ucredits=CREDIT, reason="a gift", made_by=ROOT))
    await ledger.open_order(
        NewOrder(
            id=OrderId("ord-1"), user=ANN, provider="shop", product="credits_500", ucredits=500 * CREDIT,
            amount_minor=500, currency="USD", paid_pusd=5 * 10**12,
        )
    )  # fmt: skip
    await ledger.complete_order(
        Payment(
            order=OrderId("ord-1"), provider="shop", external_id="x1", product="credits_500", amount_minor=500,
            currency="USD",
        )
    )  # fmt: skip
    for user, name in ((ANN, "c1"), (BOB, "c2")):
        price = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=0)
        hold = Hold(
            call=CallId(name), user=user, run=None, task_type="chat", provider="openai", model="m",
            input_tokens_max=20_000, output_tokens_max=0, price=price, project=PROJECT if user == ANN else None,
        )  # fmt: skip
        await ledger.hold(hold)
        meter = Meter(call=hold.call, input_tokens=10_000, output_tokens=0, response_time_ms=1, key_id="k")
        await ledger.meter(meter)
    opened = {"brief": "A list of my sins.", "answers": {}, "max_ucredits": None, "confirmed": False}
    package = {"blob": "b" * 64, "sha256": "c" * 64, "size_bytes": 7, "file_count": 1}
    quoted = {"summary": "Sins, listed.", "quote_ucredits": 3, "ceiling_ucredits": 4}
    requirements = {"title": "Sins", "requirements": [{"id": "R-01", "text": "lists sins"}]}
    await happens(
        system, project_entity(PROJECT), ANN,
        ("project.opened", {"owner": ANN, **opened}),
        ("project.question", {"topic": "users", "text": "Who sins?"}),
        ("project.answer", {"topic": "users", "text": "I do."}),
        ("project.quoted", quoted),
        ("project.change", {"text": "Fewer."}),
        ("project.confirmed", {"ceiling_ucredits": 4}),
        ("step.finished", {"step": "plan/requirements", "run": "r", "result": {"reply": requirements}}),
        ("package.ready", package),
        ("project.finished", {"status": "completed", "reason": "", "spent_ucredits": 2}),
    )  # fmt: skip
    await happens(
        system, project_entity(BOBS), BOB, ("project.opened", {"owner": BOB, **opened, "brief": "Bob's secret."})
    )
    ordered = {"project": PROJECT, "order": {"key": "k", **opened}}
    await happens(system, user_entity(ANN), ANN, ("session.project_ordered", ordered))


def read(answer: httpx.Response) -> dict[str, Any]:
    """Every file of the ZIP by its name; JSON opened."""
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in texts.items()}


async def test_subscription__is_shown_while_it_runs_and_exported_with_its_payments(
    api: httpx.AsyncClient, ledger: MemoryLedger
) -> None:
    told = (await api.get("me", **by("ann"))).json()
    assert (told["role"], told["subscription_tier"], told["expires_at"]) == ("DEMO", None, None)
    for charge, stars in (("ch-1", 500), ("ch-2", 1)):
        await ledger.fulfil(
            StarsPayment(
                telegram_charge_id=charge, provider_charge_id="", user=ANN, product="full_access_monthly", stars=stars,
                currency="XTR", at=NOON,
            )
        )  # fmt: skip
    expires_at = (NOON + timedelta(days=30)).isoformat()
    told = (await api.get("me", **by("ann"))).json()
    assert (told["role"], told["subscription_tier"], told["expires_at"]) == ("FULL_ACCESS", "FULL_ACCESS", expires_at)
    await ledger.refund_stars("ch-1", "changed their mind", ROOT)
    told = (await api.get("me", **by("ann"))).json()
    assert (told["role"], told["subscription_tier"], told["expires_at"]) == ("DEMO", None, NOON.isoformat())
    files = read(await api.get("me/export", **by("ann")))
    assert (files["profile.json"]["subscription_tier"], files["profile.json"]["expires_at"]) == (None, NOON.isoformat())
    paid = [(each["telegram_charge_id"], each["status"]) for each in files["purchases.json"]["stars"]]
    assert paid == [("ch-1", "refunded"), ("ch-2", "failed")]
    refund = files["purchases.json"]["stars"][0]["refund"]
    assert (refund["taken_ucredits"], refund["taken_s"]) == (1_000 * CREDIT, 30 * 86_400)


async def test_address__is_set_shown_and_removed(api: httpx.AsyncClient) -> None:
    assert (await api.patch("me", json={"email": " ann@example.org "}, **by("ann"))).json()[
        "email"
    ] == "ann@example.org"
    told = (await api.get("me", **by("ann"))).json()
    assert (told["email"], told["role"], told["registered_at"]) == ("ann@example.org", "DEMO", NOON.isoformat())
    assert (await api.get("me", **by("bob"))).json()["email"] == ""
    assert (await api.patch("me", json={"email": ""}, **by("ann"))).json()["email"] == ""


@pytest.mark.parametrize(
    "body", [{}, {"email": "ann"}, {"email": 7}, {"email": "a@b.c", "role": "ADMIN"}, {"email": "a" * 2000}]
)
async def test_address_that_is_none__is_refused(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await api.patch("me", json=body, **by("ann"))).status_code == 400
    assert (await api.get("me", **by("ann"))).json()["email"] == ""


async def test_export__holds_everything_that_is_kept_of_the_caller_and_nothing_of_others(
    api: httpx.AsyncClient, system: Any, ledger: MemoryLedger
) -> None:
    await ann_lives(system, ledger)
    answer = await api.get("me/export", **by("ann"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert "masterbuilder-ann.zip" in answer.headers["content-disposition"]
    files = read(answer)
    assert set(files) == {
        "README.txt", "profile.json", "purchases.json", "notices.json", "ratings.json", "tokens.json",
        "statement.json", "calls.json", "session.json", "documents.json", "repositories.json",
        *(f"projects/{PROJECT}/{name}.json" for name in ("project", "conversation", "receipt")),
    }  # fmt: skip
    assert all(name.rpartition("/")[2] in files["README.txt"] for name in files if name != "README.txt")
    profile = files["profile.json"]
    assert (profile["email"], profile["role"], profile["registered_at"]) == (
        "ann@example.org",
        "DEMO",
        NOON.isoformat(),
    )
    assert [order["id"] for order in files["purchases.json"]["orders"]] == ["ord-1"]
    assert [bought["external_id"] for bought in files["purchases.json"]["purchases"]] == ["x1"]
    assert {move["text"] for move in files["statement.json"]} == {"a gift", "credits_500"}
    assert [(call["call"], call["project"]) for call in files["calls.json"]] == [("c1", PROJECT)]
    assert [token["label"] for token in files["tokens.json"]] == ["mine"]
    assert files["session.json"][0]["order"]["brief"] == "A list of my sins."
    assert [row["call"] for row in files[f"projects/{PROJECT}/receipt.json"]["charged"]] == ["c1"]

    project = files[f"projects/{PROJECT}/project.json"]
    assert (project["brief"], project["status"], project["scope"]) == (
        "A list of my sins.",
        "completed",
        "Sins, listed.",
    )
    assert project["requirements"]["requirements"] == [{"id": "R-01", "text": "lists sins"}]
    assert project["package"] == {"sha256": "c" * 64, "size_bytes": 7, "file_count": 1}
    talk = [(each["message_type"], each["content"]) for each in files[f"projects/{PROJECT}/conversation.json"]]
    assert talk == [
        ("user_message", "A list of my sins."), ("bot_question", "Who sins?"), ("user_message", "I do."),
        ("bot_update", "Sins, listed."), ("user_message", "Fewer."), ("user_message", "yes"),
        ("bot_update", "completed"),
    ]  # fmt: skip

    whole = b"".join(json.dumps(text).encode() for text in files.values())
    for secret in (b"Bob's secret", BOBS.encode(), token_hash("ann-token").encode(), b"ann-token"):
        assert secret not in whole


async def test_long_lists__come_page_by_page_and_whole(
    api: httpx.AsyncClient, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.privacy.export.PAGE", 2)
    for number in range(5):
        gift = Adjustment(id=f"a{number}", user=ANN, amount_ucredits=1, reason=f"gift {number}", made_by=ROOT)
        await ledger.adjust(gift)
    moves = read(await api.get("me/export", **by("ann")))["statement.json"]
    assert sorted(move["text"] for move in moves) == [f"gift {number}" for number in range(5)]
    assert read(await api.get("me/export", **by("bob")))["statement.json"] == []


async def test_export_of_another__is_an_administrators(
    api: httpx.AsyncClient, system: Any, ledger: MemoryLedger
) -> None:
    await ann_lives(system, ledger)
    assert (await api.get("me/export", params={"user": "ann"}, **by("bob"))).status_code == 403
    assert read(await api.get("me/export", params={"user": "ann"}, **by("ann")))["profile.json"]["user"] == "ann"
    assert read(await api.get("me/export", params={"user": "ann"}, **by("root")))["profile.json"]["user"] == "ann"
    missing = await api.get("me/export", params={"user": "nobody"}, **by("root"))
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (await api.get("me/export")).status_code == 401


async def test_export_that_breaks_off__is_no_whole_zip(
    system: Any, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann_lives(system, ledger)

    async def fails(project: ProjectId) -> None:
        raise StoreUnavailableError("The disk is gone.")

    monkeypatch.setattr(ledger, "receipt", fails)
    pieces: list[bytes] = []

    async def take() -> None:
        async for piece in export(ANN, ledger, system.journal, NOON):
            pieces.append(piece)

    with pytest.raises(StoreUnavailableError):
        await take()
    assert len(pieces) > 5
    assert not zipfile.is_zipfile(io.BytesIO(b"".join(pieces)))


async def test_deletion__needs_a_yes_and_agreement_to_what_is_lost(api: httpx.AsyncClient) -> None:
    for body, status in (
        ({}, 400),
        ({"confirm": False, "forfeit_credits": "100"}, 400),
        ({"confirm": "yes", "forfeit_credits": "100"}, 400),
        ({"confirm": True, "forfeit_credits": "-1"}, 400),
        ({"confirm": True}, 409),
        ({"confirm": True, "forfeit_credits": "99.999999"}, 409),
    ):
        refused = await delete(api, "ann", body)
        assert refused.status_code == status, body
    assert "100.00 credits" in refused.json()["error"]["message"]
    assert (await api.get("me", **by("ann"))).status_code == 200


async def test_deletion__answers_what_is_forfeited_and_by_when_and_ends_the_token(api: httpx.AsyncClient) -> None:
    answer = await delete(api, "ann", {"confirm": True, "forfeit_credits": 100})
    assert answer.status_code == 202
    told = answer.json()
    assert (told["user"], told["forfeited_credits"], told["forfeited_ucredits"]) == ("ann", "100.00", 100 * CREDIT)
    assert (told["asked_at"], told["due_at"]) == ("2026-11-21T12:00:00+00:00", "2026-11-22T12:00:00+00:00")
    assert (await api.get("me", **by("ann"))).status_code == 401
    assert (await api.get("me", **by("bob"))).status_code == 200


async def test_deletion_of_another__is_an_administrators(api: httpx.AsyncClient) -> None:
    body = {"confirm": True, "forfeit_credits": "100", "user": "ann"}
    assert (await delete(api, "bob", body)).status_code == 403
    assert (await api.get("me", **by("ann"))).status_code == 200
    assert (await delete(api, "root", body)).status_code == 202
    assert (await delete(api, "root", {**body, "forfeit_credits": "0"})).status_code == 202
    assert (await api.get("me", **by("ann"))).status_code == 401
    assert (await delete(api, "root", {**body, "user": "nobody"})).status_code == 404
