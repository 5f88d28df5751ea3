"""A person's side: which projects are theirs, and whether they may start another."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from runtime.catalogue.catalogue import canonical_provider
from runtime.catalogue.endpoints import MORE_SERVICES, no_provider, services
from runtime.config import Settings
from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord, Journal
from runtime.entity.port import Entities
from runtime.errors import BadInputError, ConflictError, InvalidValueError, QuarantinedError, UnavailableError
from runtime.ids import LOCAL_ADMIN, EntityId, ProjectId, UserId, name_of, new_project_id, project_entity
from runtime.language.languages import LANGUAGES
from runtime.ledger.port import Ledger
from runtime.payments.products import more_credits
from runtime.policy.admission import check_active, check_new_today, check_wallet
from runtime.policy.rates import Rates
from runtime.project.messages import (
    ForgetProject,
    OpenProject,
    ProjectView,
    PurgeAfter,
    Resume,
    SetPurgePeriod,
    Status,
)
from runtime.project.project import Begin
from runtime.project.workshop import Implementers
from runtime.session.messages import (
    MODES,
    Admit,
    ChangeSettings,
    DescribeSession,
    SessionView,
    conversation_of,
)

HAND_OVER_RETRY_S = 2.0
PURGE_DAYS = (1, 365)
SETTINGS = ("language", "default_mode", "provider")
NO_PROVIDER = ("", "auto", "reset", "default")
"""Ways to say that the provider is chosen for the user. Source: spec/assistant.md §19.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToppedUp:
    """That credits came: the user's projects that wait for them go on. Repeating it changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A project that was asked for; `begun` once the project itself has it."""

    project: ProjectId
    message: OpenProject
    begun: bool = False
    day: str = ""
    """UTC, in ISO 8601; empty for one from before days were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    orders: Mapping[str, Order] = field(default_factory=dict)
    """By the key of the message that asked."""
    purge_days: int | None = None
    """Chosen by the user; None: as the installation says."""
    has_forgotten: bool = False
    """Events before the last snapshot hold words that were to be erased."""
    language: str = ""
    default_mode: str = "auto"
    provider: str = ""


class UserSession(Entity[SessionState]):
    """Decides, one message at a time, so two requests at once cannot both be the one project that is allowed."""

    kind = "user"
    read_only = (Admit, DescribeSession)

    def __init__(
        self,
        entity: EntityId,
        settings: Settings,
        ledger: Ledger,
        journal: Journal,
        entities: Entities,
        implementers: Implementers,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._rates = Rates(settings, clock)
        self._user = UserId(name_of(entity))
        self._settings = settings
        self._ledger = ledger
        self._journal = journal
        self._entities = entities
        self._implementers = implementers

    def initial(self) -> SessionState:
        return SessionState()

    def fold(self, state: SessionState, event: EventRecord) -> SessionState:
        match event.type:
            case "session.project_ordered":
                message = OpenProject(**event.data["order"])
                order = Order(project=ProjectId(event.data["project"]), message=message, day=_day(event.at))
                return replace(state, orders={**state.orders, order.message.key: order})
            case "session.project_begun":
                key = event.data["order_key"]
                return replace(state, orders={**state.orders, key: replace(state.orders[key], begun=True)})
            case "session.purge_period":
                return replace(state, purge_days=event.data["days"])
            case "session.settings":
                return replace(state, **event.data)
            case "session.project_forgotten":
                orders = {key: _without_words(order, event.data["project"]) for key, order in state.orders.items()}
                return replace(state, orders=orders, has_forgotten=True)
            case _:
                return state

    def head(self, state: SessionState) -> Mapping[str, Any]:
        return {"projects": len(state.orders), "purge_days": state.purge_days, **_chosen(state)}

    def lets_go(self, state: SessionState) -> bool:
        return state.has_forgotten

    def freeze(self, state: SessionState) -> Mapping[str, Any]:
        return {
            "orders": [asdict(order) for order in state.orders.values()],
            "purge_days": state.purge_days,
            "has_forgotten": state.has_forgotten,
            **_chosen(state),
        }

    def thaw(self, data: Mapping[str, Any]) -> SessionState:
        orders = [Order(**{**order, "message": OpenProject(**order["message"])}) for order in data["orders"]]
        return SessionState(
            orders={order.message.key: order for order in orders},
            purge_days=data.get("purge_days"),
            has_forgotten=data.get("has_forgotten", False),
            **{name: data[name] for name in SETTINGS if name in data},
        )

    def is_open(self, state: SessionState) -> bool:
        return any(not order.begun for order in state.orders.values())

    async def wake(self) -> None:
        for order in self.state.orders.values():
            if not order.begun:
                self.activation.spawn(self._hand_over(order), "hand over")

    async def receive(self, message: Any) -> ProjectView | SessionView | int | None:
        if isinstance(message, Admit):
            if self._user != LOCAL_ADMIN:
                self._rates.admit(message.kind, message.role)
            return None
        if isinstance(message, DescribeSession):
            return await self._view()
        if isinstance(message, ChangeSettings):
            return await self._change_settings(message)
        if isinstance(message, ToppedUp):
            return await self._resume_paused()
        if isinstance(message, SetPurgePeriod):
            return await self._set_purge_period(message)
        if isinstance(message, ForgetProject):
            return await self._forget(message)
        if not isinstance(message, OpenProject):
            raise ConflictError(f"A session does not understand {type(message).__name__}.")
        if message.key not in self.state.orders:
            await self._admit()
            await self.activation.emit(
                "session.project_ordered",
                f"order/{message.key}",
                {
                    "project": new_project_id(),
                    "order": {
                        "key": message.key,
                        "brief": message.brief,
                        "answers": dict(message.answers),
                        "max_ucredits": message.max_ucredits,
                        "confirmed": message.confirmed,
                        "gates": list(message.gates),
                    },
                },
            )
        order = self.state.orders[message.key]
        try:
            return await self._begin(order)
        except UnavailableError:
            self.activation.spawn(self._hand_over(order), "hand over")
            raise

    async def _view(self) -> SessionView:
        heads = await self._journal.heads("project", self._user)
        open_heads = [head for head in heads if not Status(head.data["status"]).terminal]
        newest = open_heads[0] if open_heads else None
        return SessionView(
            user=self._user,
            **_chosen(self.state),
            conversation=conversation_of(Status(newest.data["status"]) if newest else None),
            project=ProjectId(name_of(newest.entity)) if newest else None,
            purge_days=self.state.purge_days,
        )

    async def _change_settings(self, message: ChangeSettings) -> SessionView:
        asked = {name: getattr(message, name) for name in SETTINGS if getattr(message, name) is not None}
        chosen = {name: self._checked(name, value.strip().lower()) for name, value in asked.items()}
        if chosen:
            await self.activation.emit("session.settings", message.key, chosen)
        return await self._view()

    def _checked(self, name: str, value: str) -> str:
        """Raises InvalidValueError."""
        match name:
            case "language":
                return _one_of(name, value, ("", *LANGUAGES))
            case "default_mode":
                return _one_of(name, value, MODES)
            case _:
                provider = "" if value in NO_PROVIDER else canonical_provider(value)
                known = services({MORE_SERVICES: self._settings.openai_compatible_json})
                return _one_of(name, provider, ("", *known))

    async def _resume_paused(self) -> int:
        """How many go on."""
        heads = await self._journal.heads("project", self._user)
        resumed = 0
        for head in heads:
            if head.data["status"] == Status.PAUSED_NO_CREDITS:
                with suppress(ConflictError, QuarantinedError):  # It went on meanwhile; or is set aside.
                    await self._entities.ask(head.entity, Resume(key=f"topped-up/{head.last_seq}"))
                    resumed += 1
        return resumed

    async def _set_purge_period(self, message: SetPurgePeriod) -> int:
        """How many projects it holds for already. Repeating it tells those that did not answer."""
        if not PURGE_DAYS[0] <= message.days <= PURGE_DAYS[1]:
            least, most = PURGE_DAYS
            raise BadInputError(f"{message.days} is not a number of days from {least} to {most}.", "Give another.")
        await self.activation.emit("session.purge_period", message.key, {"days": message.days})
        told = 0
        for head in await self._journal.heads("project", self._user):
            if head.data["status"] != Status.PURGED:
                with suppress(QuarantinedError):
                    await self._entities.ask(head.entity, PurgeAfter(key=message.key, days=message.days))
                    told += 1
        return told

    async def _forget(self, message: ForgetProject) -> int:
        await self.activation.emit("session.project_forgotten", message.key, {"project": message.project})
        await self.activation.save()
        return 1

    async def _hand_over(self, order: Order) -> None:
        """Until the project has it: the order is on disk, so its maker may rely on it."""
        while not self.state.orders[order.message.key].begun:
            try:
                await self._begin(order)
            except UnavailableError:
                await asyncio.sleep(HAND_OVER_RETRY_S)

    async def _begin(self, order: Order) -> ProjectView:
        begin = Begin(owner=self._user, order=order.message, purge_days=self.state.purge_days)
        view: ProjectView = await self._entities.ask(project_entity(order.project), begin)
        await self.activation.emit(
            "session.project_begun", f"begun/{order.message.key}", {"order_key": order.message.key}
        )
        return view

    async def _admit(self) -> None:
        """Refuses before anything is written or paid: too many projects, too few credits, no model, no sandbox."""
        heads = await self._journal.heads("project", self._user)
        active = sum(not Status(head.data["status"]).terminal for head in heads)
        active += sum(not order.begun for order in self.state.orders.values())
        is_admin = self._user == LOCAL_ADMIN
        check_active(active, self._settings.max_active_projects_per_user, is_admin=is_admin)
        today = _day(self._now())
        ordered = sum(order.day == today for order in self.state.orders.values())
        check_new_today(ordered, self._settings.max_new_projects_per_day, self._now(), is_admin=is_admin)
        balance = await self._ledger.balance(self._user)
        more = more_credits(self._settings.payments_enabled)
        check_wallet(balance, self._settings.min_credits_to_start, more)
        for model in (self._settings.architect_model, self._settings.implementer_model):
            provider = canonical_provider(model.partition("/")[0])
            if not await self._ledger.keys(provider):
                raise no_provider(provider)
        await self._implementers.probe()


def _chosen(state: SessionState) -> dict[str, str]:
    return {"language": state.language, "default_mode": state.default_mode, "provider": state.provider}


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        told = ", ".join(each or "nothing" for each in allowed)
        raise InvalidValueError(f"{name} cannot be {value[:40]!r}.", f"It is one of: {told}.")
    return value


def _day(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()


def _without_words(order: Order, project: str) -> Order:
    if order.project != project:
        return order
    return replace(order, message=replace(order.message, brief="", answers={}))
