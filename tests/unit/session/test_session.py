"""A session's own part: what its user chose, where the conversation stands, and how often somebody may ask."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.accounts.roles import Role
from runtime.config import Settings
from runtime.entity.host import Host
from runtime.entity.journal import Append, NewEvent
from runtime.errors import InvalidValueError, TooManyRequestsError, UnavailableError
from runtime.ids import LOCAL_ADMIN, EntityId, ProjectId, UserId, project_entity, user_entity
from runtime.ledger.money import Tariff
from runtime.ledger.port import SealedKey
from runtime.project.messages import OpenProject, Status
from runtime.session.messages import (
    Admit,
    AdmitKind,
    ChangeSettings,
    Conversation,
    DescribeSession,
    SessionView,
    conversation_of,
)
from runtime.session.session import UserSession
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

ANN = UserId("u-ann")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Ready:
    async def probe(self) -> None: ...


@dataclass
class Home:
    """One host after the other on one journal. Projects take what they are told and do nothing."""

    now: datetime = NOON
    clock_s: float = 1_000.0
    settings: Settings = field(default_factory=lambda: Settings(data_dir=Path("/nonexistent")))
    refuses: bool = False

    async def open(self) -> None:
        self.ledger = MemoryLedger(Tariff(), 100 * 10**6, lambda: self.now)
        self.journal = MemoryJournal(self.ledger, lambda: self.now)
        for user in (ANN, LOCAL_ADMIN):
            await self.ledger.open_wallet(user, user == LOCAL_ADMIN)
        await self.ledger.add_key(SealedKey(key_id="k", provider="openai", label="x", sealed=b"x"))
        self.incarnation = 0
        await self.restart()

    async def restart(self) -> None:
        self.incarnation += 1

        def session(entity: EntityId) -> UserSession:
            return UserSession(
                entity, self.settings, self.ledger, self.journal, self, Ready(),  # type: ignore[arg-type]
                now=lambda: self.now, clock=lambda: self.clock_s,
            )  # fmt: skip

        self.host = Host(
            name="h", incarnation=str(self.incarnation), journal=self.journal, factories={"user": session},
            now=lambda: self.now,
        )  # fmt: skip
        await self.host.acquire_all()

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        """As the session's own way to projects."""
        if self.refuses:
            raise UnavailableError("not now")

    async def tell(self, message: Any, user: UserId = ANN) -> Any:
        return await self.host.ask(user_entity(user), message)

    async def change(self, **chosen: str) -> SessionView:
        view: SessionView = await self.tell(ChangeSettings(key=f"k{len(chosen)}{chosen}", **chosen))
        return view

    async def orders(self, key: str, user: UserId = ANN) -> None:
        order = OpenProject(key=key, brief="b", answers={}, max_ucredits=None, confirmed=False)
        await self.tell(order, user)

    async def admits(self, kind: AdmitKind = "request", role: Role = "DEMO", user: UserId = ANN) -> None:
        await self.tell(Admit(kind=kind, role=role), user)


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    made = Home()
    await made.open()
    yield made
    await made.host.stop()


async def test_settings__are_the_defaults_until_somebody_chooses(home: Home) -> None:
    view = await home.tell(DescribeSession())
    assert (view.language, view.default_mode, view.provider, view.purge_days) == ("", "auto", "", None)
    assert (view.conversation, view.project) == (Conversation.GATHERING_REQUIREMENTS, None)


async def test_settings__stay_over_a_restart_and_change_one_by_one(home: Home) -> None:
    await home.change(language="PL", default_mode="eco")
    view = await home.change(provider="anthropic")
    assert (view.language, view.default_mode, view.provider) == ("pl", "eco", "claude")
    await home.restart()
    assert await home.tell(DescribeSession()) == view
    assert (await home.change(provider="auto", language="")).provider == ""
    head = await home.journal.head(user_entity(ANN))
    assert head is not None
    assert head.data["default_mode"] == "eco"


async def test_settings__are_in_snapshots(home: Home) -> None:
    await home.change(default_mode="deep")
    for number in range(60):
        await home.tell(ChangeSettings(key=f"n{number}", language="ru"))
    await home.restart()
    view = await home.tell(DescribeSession())
    assert (view.default_mode, view.language) == ("deep", "ru")


@pytest.mark.parametrize("wrong", [{"default_mode": "turbo"}, {"language": "de"}, {"provider": "nobody"},
                                   {"default_mode": ""}])  # fmt: skip
async def test_setting_that_cannot_be__is_refused_and_changes_nothing(home: Home, wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        await home.change(**wrong, **({"language": "pl"} if "language" not in wrong else {}))
    assert (await home.tell(DescribeSession())).language == ""


async def test_conversation__is_about_the_newest_open_project(home: Home) -> None:
    await stands(home, "1", Status.COMPLETED)
    assert (await home.tell(DescribeSession())).project is None
    await stands(home, "2", Status.CONFIRMING_SCOPE)
    view = await home.tell(DescribeSession())
    assert (view.conversation, view.project) == (Conversation.CONFIRMING_SCOPE, "2")


@pytest.mark.parametrize(
    ("status", "conversation"),
    [
        (Status.CLARIFYING, "CLARIFYING_DETAILS"), (Status.PLANNING, "PLANNING"),
        (Status.VERIFYING, "IMPLEMENTING_VERIFYING"), (Status.PAUSED_NO_CREDITS, "IMPLEMENTING_VERIFYING"),
        (Status.PACKAGING, "FINALIZING"), (Status.DELIVERING, "DELIVERY"), (None, "GATHERING_REQUIREMENTS"),
    ],
)  # fmt: skip
def test_conversation__is_told_by_the_projects_status(status: Status | None, conversation: str) -> None:
    assert conversation_of(status) == conversation


@pytest.mark.parametrize(
    ("kind", "role", "limit"),
    [("request", "DEMO", 30), ("request", "FULL_ACCESS", 100), ("request", "ADMIN", 100), ("message", "ADMIN", 20)],
)
async def test_minute__takes_so_many_and_no_more(home: Home, kind: AdmitKind, role: Role, limit: int) -> None:
    for _ in range(limit):
        await home.admits(kind, role)
        home.clock_s += 0.1
    with pytest.raises(TooManyRequestsError, match=f"{limit} {kind}s a minute") as refusal:
        await home.admits(kind, role)
    assert refusal.value.retry_after_s == pytest.approx(60 - limit * 0.1)
    home.clock_s += refusal.value.retry_after_s
    await home.admits(kind, role)


async def test_minute__counts_each_user_and_kind_alone_and_never_the_local_admin(home: Home) -> None:
    for _ in range(30):
        await home.admits()
    await home.admits("message")
    await home.admits(user=UserId("u-bob"))
    for _ in range(200):
        await home.admits(user=LOCAL_ADMIN)


async def test_minute__of_who_became_demo_again_is_full_as_long_as_it_has_so_many(home: Home) -> None:
    for _ in range(60):
        await home.admits(role="FULL_ACCESS")
        home.clock_s += 0.5
    with pytest.raises(TooManyRequestsError) as refusal:
        await home.admits(role="DEMO")
    home.clock_s += refusal.value.retry_after_s
    await home.admits(role="DEMO")


async def test_fourth_project_of_a_day__is_refused_until_midnight_also_after_a_restart(home: Home) -> None:
    for number in range(3):
        await home.orders(f"o{number}")
    await home.orders("o1")
    await home.restart()
    with pytest.raises(TooManyRequestsError, match="3 a day") as refusal:
        await home.orders("o3")
    assert refusal.value.retry_after_s == 12 * 3600
    home.now += timedelta(hours=12)
    await home.orders("o3")


async def test_projects_of_the_local_admin__have_no_limit_of_a_day(home: Home) -> None:
    for number in range(6):
        await home.orders(f"o{number}", LOCAL_ADMIN)


async def stands(home: Home, project: str, status: Status) -> None:
    home.now += timedelta(seconds=1)
    entity = project_entity(ProjectId(project))
    epochs = {each.partition: each.epoch for each in await home.journal.ownerships()}
    await home.journal.append(
        Append(
            entity=entity, owner=ANN, epoch=next(iter(epochs.values())), expected_seq=0,
            events=[NewEvent(type="t", version=1, key="k", data={})], open=True,
            head={"title": "t", "status": status},
        )
    )  # fmt: skip
