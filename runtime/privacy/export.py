"""Everything that is kept of one person, as a ZIP that any program opens: JSON files and a README.txt.

    profile.json       role, names, subscription, e-mail    projects/<id>/project.json       brief to package
    statement.json     what changed the wallet              projects/<id>/conversation.json  what was said, and when
    calls.json         every model call                     projects/<id>/receipt.json       what it cost
    purchases.json     orders and payments                  session.json                     what the service was asked
    tokens.json        labels and terms, never a secret     notices.json                     what was told
    ratings.json       scores, and why                      documents.json                   what was uploaded
    repositories.json  what was cloned

Times are UTC in ISO 8601. Amounts are whole numbers, as their names say: `_ucredits` microcredits, `_pusd` picodollars.
Source: spec/builder.md §14.
"""

import json
import zipfile
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import IO, Any, cast

from runtime.documents.state import LibraryState
from runtime.entity.journal import EventRecord, Journal
from runtime.errors import NotFoundError
from runtime.ids import (
    CallId,
    EntityId,
    ProjectId,
    UserId,
    library_entity,
    name_of,
    project_entity,
    repositories_entity,
    user_entity,
)
from runtime.ledger.port import Bought, Ledger, Person, StarPayment, TokenRow, UserCall
from runtime.ledger.receipt import receipt_json
from runtime.project.state import State
from runtime.repositories.state import RepositoriesState

PAGE = 1_000
EVENTS_PAGE = 1_000
ACCOUNT = ("telegram_id", "username", "first_name", "last_name", "language_code", "authorized", "verified", "banned")
README = """What Masterbuilder keeps of {user}, as it was on {at}.

profile.json     who you are here: role, Telegram id and names, subscription, e-mail, when you registered
statement.json   everything that changed your wallet, newest first
calls.json       every model call that was made on your wallet
purchases.json   your orders and payments, those with Stars too
tokens.json      your access tokens: labels and terms; the tokens themselves are kept nowhere
notices.json     what you were told
ratings.json     what you said of projects
session.json     what you asked the service for
documents.json   the documents you uploaded: their names, sizes and hashes
repositories.json  the repositories you cloned, and the commits of them that you search
projects/<id>/project.json        a project as it stands: brief, requirements, quote, status, plan
projects/<id>/conversation.json   what was said in it
projects/<id>/receipt.json        what it cost

Times are UTC. Amounts are whole numbers: a name ending in _ucredits counts millionths of a credit, one ending in _pusd
millionths of a millionth of a US dollar. A delivered package is named by its size and SHA-256; fetch it with
`masterbuilder package <id>`, or from /api/v1/projects/<id>/package.
"""


async def export(user: UserId, ledger: Ledger, journal: Journal, at: datetime) -> AsyncIterator[bytes]:
    """Pieces of the ZIP, made while they are read. Raises NotFoundError before the first, and the ledger's errors."""
    person = await ledger.person(user)
    if person is None:
        raise NotFoundError(f"There is no user {user}.", "See that the id is right.")
    archive = _Archive(at)
    yield archive.add("README.txt", README.format(user=user, at=at.isoformat(timespec="seconds")))
    balance = await ledger.balance(user)
    held = {"balance_ucredits": balance.balance_ucredits, "held_ucredits": balance.held_ucredits}
    yield archive.add_json("profile.json", {**_profile(person), **held, **await _account(user, ledger)})
    papers = await ledger.papers(user)
    bought = {
        "orders": [asdict(order) for order in papers.orders],
        "purchases": [_purchase(each) for each in papers.purchases],
        "stars": [_stars(each) for each in papers.stars],
    }
    yield archive.add_json("purchases.json", bought)
    yield archive.add_json("notices.json", [asdict(notice) for notice in papers.notices])
    yield archive.add_json("ratings.json", [asdict(rating) for rating in papers.ratings])
    yield archive.add_json("tokens.json", [_token(row) for row in await ledger.tokens(user)])
    async for piece in archive.add_list("statement.json", _movements(user, ledger)):
        yield piece
    async for piece in archive.add_list("calls.json", _calls(user, ledger)):
        yield piece
    asked = [_said(event) async for event in _events(user_entity(user), journal)]
    yield archive.add_json("session.json", asked)
    yield archive.add_json("documents.json", await _documents(user, journal))
    yield archive.add_json("repositories.json", await _repositories(user, journal))
    for head in await journal.heads("project", user):
        project = ProjectId(name_of(head.entity))
        async for piece in _project(project, ledger, journal, archive):
            yield piece
    yield archive.close()


async def _account(user: UserId, ledger: Ledger) -> dict[str, Any]:
    account = await ledger.account(user)
    told = asdict(account) if account else {}
    return {name: told[name] for name in ACCOUNT if name in told}


async def _documents(user: UserId, journal: Journal) -> list[dict[str, Any]]:
    loaded = await journal.load(library_entity(user))
    state = LibraryState.thawed(loaded.snapshot.data["state"]) if loaded.snapshot else LibraryState()
    for event in loaded.events:
        state = state.after(event)
    return [{name: value for name, value in asdict(item).items() if name != "blob"} for item in state.items.values()]


async def _repositories(user: UserId, journal: Journal) -> list[dict[str, Any]]:
    loaded = await journal.load(repositories_entity(user))
    state = RepositoriesState.thawed(loaded.snapshot.data["state"]) if loaded.snapshot else RepositoriesState()
    for event in loaded.events:
        state = state.after(event)
    return [{**asdict(item), "status": item.status} for item in state.items.values()]


async def _project(project: ProjectId, ledger: Ledger, journal: Journal, archive: "_Archive") -> AsyncIterator[bytes]:
    state = State()
    talk = []
    async for event in _events(project_entity(project), journal):
        state = state.after(event)
        talk += conversation(event)
    receipt = await ledger.receipt(project)
    shown = _shown(state, receipt.net_ucredits, receipt.total_cost_pusd)
    yield archive.add_json(f"projects/{project}/project.json", shown)
    yield archive.add_json(f"projects/{project}/conversation.json", talk)
    yield archive.add(f"projects/{project}/receipt.json", receipt_json(receipt))


def _shown(state: State, spent_ucredits: int, spent_pusd: int) -> dict[str, Any]:
    """As its owner sees it, and what it was made from."""
    view = asdict(state.view(spent_ucredits, spent_pusd))
    package = view.pop("package")
    return {
        **view,
        "brief": state.brief,
        "answers": dict(state.answers),
        "requirements": _reply(state, "plan/requirements"),
        "stack": state.stack.model_dump(mode="json") if state.stack else None,
        "architecture": _reply(state, "plan/architecture"),
        "package": package and {name: package[name] for name in ("sha256", "size_bytes", "file_count")},
    }


def _reply(state: State, step: str) -> Any:
    return state.steps.results.get(step, {}).get("reply")


def conversation(event: EventRecord) -> list[dict[str, Any]]:
    """What was said with an event. Source of the types: spec/builder.md §5."""
    data = event.data
    match event.type:
        case "project.opened":
            told = [("user_message", data["brief"], {"answers": data["answers"]})]
        case "project.question":
            told = [("bot_question", data["text"], {"topic": data["topic"]})]
        case "project.answer":
            told = [("user_message", data["text"], {"topic": data["topic"]})]
        case "project.quoted":
            figures = {name: data[name] for name in ("quote_ucredits", "ceiling_ucredits")}
            told = [("bot_update", data["summary"], figures)]
        case "project.change":
            told = [("user_message", data["text"], {})]
        case "project.confirmed":
            told = [("user_message", "yes", {"ceiling_ucredits": data["ceiling_ucredits"]})]
        case "project.notice" | "project.status":
            told = [("bot_update", data["text"], {})]
        case "plan.gap":
            told = [
                ("bot_update", f"{item} is a known gap: {why}", {"task": item}) for item, why in data["items"].items()
            ]
        case "project.finished":
            told = [("bot_update", data["reason"] or data["status"], {"status": data["status"]})]
        case _:
            told = []
    return [
        {"message_type": kind, "content": content, "metadata": about, "created_at": event.at.isoformat()}
        for kind, content, about in told
    ]


def _said(event: EventRecord) -> dict[str, Any]:
    return {"type": event.type, "at": event.at.isoformat(), **event.data}


def _profile(person: Person) -> dict[str, Any]:
    told = {name: value for name, value in asdict(person).items() if name != "subscription"}
    ends_at = person.subscription.expires_at if person.subscription is not None else None
    return {**told, "subscription_tier": person.subscription_tier, "expires_at": ends_at}


def _stars(payment: StarPayment) -> dict[str, Any]:
    refund = payment.refund and {
        "reason": payment.refund.reason,
        "at": payment.refund.made_at,
        "taken_ucredits": payment.refund.taken_ucredits,
        "taken_s": payment.refund.taken.total_seconds(),
    }
    return {
        **asdict(payment.paid),
        "status": payment.status,
        "ucredits": payment.ucredits,
        "days": payment.days,
        "failure": payment.failure,
        "refund": refund,
    }


def _purchase(bought: Bought) -> dict[str, Any]:
    return {**asdict(bought.purchase), "at": bought.at, "repaid_ucredits": bought.repaid_ucredits}


def _token(row: TokenRow) -> dict[str, Any]:
    return asdict(row)


def _call(call: UserCall) -> dict[str, Any]:
    return {"project": call.project, **asdict(call.row)}


async def _movements(user: UserId, ledger: Ledger) -> AsyncIterator[Sequence[dict[str, Any]]]:
    after: str | None = None
    while page := await ledger.statement(user, after, PAGE):
        yield [asdict(move) for move in page]
        after = page[-1].id


async def _calls(user: UserId, ledger: Ledger) -> AsyncIterator[Sequence[dict[str, Any]]]:
    after: CallId | None = None
    while page := await ledger.calls_of(user, after, PAGE):
        yield [_call(call) for call in page]
        after = page[-1].row.call


async def _events(entity: EntityId, journal: Journal) -> AsyncIterator[EventRecord]:
    after = 0
    while page := await journal.read(entity, after, EVENTS_PAGE):
        for event in page:
            yield event
        after = page[-1].seq


class _Archive:
    """A ZIP that is given away while it is made."""

    def __init__(self, at: datetime) -> None:
        self._out = _Outgoing()
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._out), "w", zipfile.ZIP_DEFLATED)
        self._moment = at.astimezone(UTC).timetuple()[:6]

    def add(self, name: str, text: str) -> bytes:
        self._zip.writestr(self._entry(name), text)
        return self._out.take()

    def add_json(self, name: str, data: Any) -> bytes:
        return self.add(name, _json(data))

    async def add_list(self, name: str, pages: AsyncIterator[Sequence[dict[str, Any]]]) -> AsyncIterator[bytes]:
        """One list of all that the pages hold; no more than one of them is in memory."""
        with self._zip.open(self._entry(name), "w") as file:
            between = "[\n"
            async for page in pages:
                file.write((between + ",\n".join(map(_json, page))).encode())
                between = ",\n"
                yield self._out.take()
            file.write(b"\n]" if between == ",\n" else b"[]")
        yield self._out.take()

    def close(self) -> bytes:
        self._zip.close()
        return self._out.take()

    def _entry(self, name: str) -> zipfile.ZipInfo:
        year, *rest = self._moment
        entry = zipfile.ZipInfo(name, date_time=(max(1980, year), rest[0], rest[1], rest[2], rest[3], rest[4]))
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o100600 << 16
        return entry


class _Outgoing:
    """A file as far as a ZIP needs one: takes bytes, cannot seek, and hands over what it has."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        return None

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not exported")
